"""Hidden states by the row: one state of all clips, read by stored object into memory that the caller has.

Goal: whoever goes through the rows of a state again and again reads each object once per pass, of it that state alone,
and takes no memory for it.
Conventions: a row is a clip's vector of one hidden state, float32 (width). Objects are numbered along the clips.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .direct import parts, read_shards
from .selected import Stored, selected_by

DIMS = ("state", "clip", "hidden_dim")
Positions = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class StateRows:
    """The rows of one hidden state of a task, those of failed clips among them."""

    stored: Stored
    state: int

    @property
    def n(self) -> int:
        """Clips of the task."""
        return int(self.stored.files.shape[1])

    @property
    def width(self) -> int:
        """Values of a row."""
        return int(self.stored.files.shape[2])

    @property
    def object_rows(self) -> int:
        """Rows of a stored object; the last one may have fewer."""
        return int((self.stored.files.shards or self.stored.files.chunks)[1])

    @property
    def object_bytes(self) -> int:
        """Bytes of an object's rows of one state."""
        return 4 * self.object_rows * self.width

    def objects(self, clips: Positions) -> Iterator[tuple[int, Positions, Positions]]:
        """Of each object with rows of some clips (row), ascending: its number, where in it they are, and in `clips`."""
        return parts(clips, self.object_rows)

    def read(self, number: int, out: NDArray[np.float32]) -> None:
        """Fill the first rows of `out` (row, width), contiguous, with all rows of an object.

        Raises ValueError where it is damaged, FileNotFoundError where it is missing, OSError where it cannot be read.
        """
        first = number * self.object_rows
        clips = slice(first, min(first + self.object_rows, self.n))
        target = out[: clips.stop - first]
        if self.stored.local and self.stored.encoded_plainly:
            with suppress(FileNotFoundError), self.stored.reading():
                read_shards(
                    self.stored.files, [slice(self.state, self.state + 1), clips, slice(None)], out=target[None]
                )
                return
        target[...] = self.stored.as_stored([self.state, clips, slice(None)])  # or says what is missing


def state_rows(hidden: xr.DataArray, state: int) -> StateRows:
    """The rows of a state, by `hidden` as a store that was opened shows it, of any clips.

    Raises LookupError for a state that is not there, ValueError for an array that is no stored one.
    """
    found = selected_by(hidden.transpose(*DIMS).data, DIMS)
    if found is None or len(found.at["state"]) != found.stored.files.shape[0]:
        raise ValueError("these hidden states are not a store's as it was opened; expected those, all states of them")
    if not 0 <= state < hidden.sizes["state"]:
        raise LookupError(
            f"no hidden state {state}; expected 0 to {hidden.sizes['state'] - 1}, 0 the first layer's input"
        )
    return StateRows(stored=found.stored, state=state)

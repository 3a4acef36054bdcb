"""Donors: what other clips have where neurons are patched.

Goal: the values that a patch puts in, taken from unedited passes over donor clips, one donor for each clip of a batch.
Conventions: activations (clip, frame, neuron), run by run of the site. Where clip and donor show their frames alike (as
many, special ones at the same positions) values go frame by frame; else each of the clip's frames gets the donor's mean
over its frames without the special ones (NaN times in the encoder's spans). An edit of the last token gets the
donor's last one, however many either has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...extract.models.encoder import Encoder
from ...extract.models.tap import tap
from ..intervention import LAST, Edit


@dataclass(frozen=True, kw_only=True)
class Donors:
    """Activations of one batch of donors."""

    columns: Mapping[int, Tensor]
    """By layer: the neurons that are kept, sorted."""
    runs: Mapping[int, list[Tensor]]
    """By layer: (clip, frame, kept neuron) of each run; a single one of a single frame where means are taken."""
    last: Mapping[int, Tensor]
    """By layer: (clip, 1, kept neuron), of the last frame."""
    is_mean: bool

    def donated(self, layer: int, run: int, edit: Edit) -> Tensor:
        """The donors' values of the edited neurons: (clip, frame, edited), or (clip, 1, edited) for means and for the
        last token."""
        values = self.last[layer] if edit.tokens == LAST else self.runs[layer][0 if self.is_mean else run]
        return values.index_select(-1, torch.searchsorted(self.columns[layer], edit.neurons))

    @staticmethod
    def record(
        encoder: Encoder, inputs: Any, spans: np.ndarray, *, spans_of_clips: np.ndarray, sites: Mapping[int, str],
        columns: Mapping[int, Tensor],
    ) -> "Donors":  # fmt: skip
        """Run the donors, unedited.

        inputs: what the module takes, made from donors. spans, spans_of_clips: (frame, 4) of theirs and of the clips'.
        sites, columns: by layer, the module's name and the neurons to keep, sorted.
        """
        special = np.isnan(spans[:, 0])
        is_mean = not np.array_equal(special, np.isnan(spans_of_clips[:, 0]))
        layers = {name: layer for layer, name in sites.items()}
        runs: dict[int, list[Tensor]] = {layer: [] for layer in columns}

        def read(site: str, output: Any) -> None:
            layer = layers[site]
            runs[layer].append(encoder.neurons(output).index_select(-1, columns[layer]))

        with tap(encoder.module, list(layers), read=read):
            encoder.run(inputs)
        for layer, parts in runs.items():
            if (shown := sum(part.shape[1] for part in parts)) != len(special):
                raise ValueError(
                    f"site {sites[layer]} shows {shown} frames per clip where frame_spans has {len(special)}; "
                    "expected one span per frame: give the encoder `frame_spans=`"
                )
        last = {layer: parts[-1][:, -1:] for layer, parts in runs.items()}
        if is_mean:
            at = torch.from_numpy(np.flatnonzero(~special))
            runs = {
                layer: [torch.cat(parts, dim=1).index_select(1, at.to(parts[0].device)).mean(dim=1, keepdim=True)]
                for layer, parts in runs.items()
            }
        return Donors(columns=columns, runs=runs, last=last, is_mean=is_mean)


def union(edits: list[Edit]) -> Tensor:
    """The neurons of any of the edits, sorted."""
    neurons: Tensor = torch.unique(torch.cat([edit.neurons for edit in edits]))
    return neurons

"""Workers for tests of the Ray pool: they leave a mark for each piece they begin and end, and some of them die."""

import ctypes
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Marking:
    """Makes workers whose pieces are numbers; the result is (the piece squared, the process)."""

    folder: Path
    seconds: float = 0.0
    """That a piece takes."""
    crashes: frozenset[int] = frozenset()
    """Pieces under which the process dies at an address it may not read."""
    raises: frozenset[int] = frozenset()

    def __call__(self) -> "Marker":
        (self.folder / f"made.{os.getpid()}").touch()
        return Marker(self)


class Marker:
    def __init__(self, recipe: Marking) -> None:
        self.recipe = recipe

    def __call__(self, piece: int) -> tuple[int, int]:
        self.mark("begun", piece)
        if piece in self.recipe.crashes:
            ctypes.string_at(0)
        if piece in self.recipe.raises:
            raise OSError(f"piece {piece} cannot be read")
        time.sleep(self.recipe.seconds)
        self.mark("ended", piece)
        return piece * piece, os.getpid()

    def mark(self, what: str, piece: int) -> None:
        (self.recipe.folder / f"{what}.{piece}.{os.getpid()}.{time.monotonic_ns()}").touch()

    def close(self) -> None:
        (self.recipe.folder / f"closed.{os.getpid()}").touch()


def marks(folder: Path, what: str) -> Counter[int]:
    """How often each piece was begun or ended; for "made" and "closed", each process."""
    return Counter(int(path.name.split(".")[1]) for path in folder.glob(f"{what}.*"))


def pieces_until(condition: Callable[[], object], at_least: int) -> Iterator[int]:
    """0, 1, ...: so many, and more until it holds, however late the second of two workers comes on a busy machine."""
    for piece in range(10**6):
        if piece >= at_least and condition():
            return
        yield piece


def wait_for(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Until it holds, also on a machine that has other things to do."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come to that"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

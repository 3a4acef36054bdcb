"""Sweep: sparse autoencoders of several states, sparsities, seeds and other settings, one folder each.

Goal: all that is trained on one state's rows is trained side by side on the same batches from one reading; what is
finished is never done again, and a command that was killed ends, run again, in the same bytes.
Conventions: a piece of work is one state, with all SAEs of it that have one batch size and number of epochs. A folder
is finished once its `sae.json` is there. What is unfinished lies in `.partial` beside the folders, and is gone at the
end.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..cluster.executor import Done, Executor, Failed, SerialExecutor
from ..cluster.resources import this_machine
from ..extract.models.dictionary import ABOUT, read_dictionary, write_dictionary
from ..extract.pipeline import Stopped
from ..files import check_target, whole_file
from ..store.location import is_url, path_of
from ..store.provenance import differences, digest_of
from .config import Sweep
from .lock import locked
from .recipe import Recipe
from .source import Source, find_source
from .stored_rows import Layout, layout_of, rows_of
from .training import NoNumbers, to_dictionary, train

PARTIAL, NAMES, CHECKPOINT = ".partial", "names", "checkpoint"
MEMORY_SHARE, MEMORY_BYTES = 4, 2**32  # a quarter of the machine's by default, or this where it does not say
COMPARED = ("config", "source", "layout")
"""Of what `sae.json` says beside the weights: what they depend on."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The SAEs of one state that are trained side by side."""

    state: int
    recipes: tuple[tuple[str, Recipe], ...]
    """By the names of their folders: all that were asked for, the finished ones among them."""
    layout: Layout

    @property
    def epochs(self) -> int:
        """Passes over the rows that are needed, of all of them together."""
        return sum(recipe.passes for _, recipe in self.recipes)


def run_sweep(
    url: str,
    sweep: Sweep,
    out: str | Path,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Train what of a sweep is not finished in a folder; the names of all its SAEs, in order.

    url: a store. out: a folder, made where there is none, on a file system that all workers share.
    progress: called with the epochs done, of all SAEs together, and all that there are.
    Raises LookupError or ValueError where the store has not what the sweep needs, where its rows cannot be trained on,
    where a folder holds an SAE of other settings, for more threads than cores, and while another call is at work in the
    folder; OSError where reading or writing fails. What is finished stays, and the same call goes on from there.
    """
    executor, folder = executor or SerialExecutor(), check_target(Path(out).absolute())
    url = url if is_url(url) else str(Path(url).absolute())
    if f"{path_of(str(folder))}/".startswith(f"{path_of(url)}/"):
        raise ValueError(f"{out} lies within the store {url}; expected a folder of its own: give another with -o")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{out} is a file; expected a folder, or nothing: give another with -o")
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with locked(folder, "otoscope sae train"):
            try:
                _train_pieces(url, sweep, folder, executor, progress or (lambda _done, _total: None))
            finally:
                clear(folder)
    finally:
        if made:
            _remove_empty(folder)
    return [name for _, name, _ in sweep.each()]


def _train_pieces(url: str, sweep: Sweep, folder: Path, executor: Executor, report: Callable[[int, int], None]) -> None:
    """What `run_sweep` does in a folder of its own."""
    pieces = list(planned(url, sweep, folder))
    if pieces:
        check_threads(sweep.threads, executor)
    total, done, n_ended = sum(piece.epochs for piece in pieces), 0, 0

    def passed(n: int) -> None:
        nonlocal done
        done += n
        report(done, total)

    make_worker = partial(SweepWorker, url, sweep, folder, None if executor.remote else passed)
    with closing(executor.run(make_worker, pieces)) as events:
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, Done):
                raise OSError(
                    f"the SAEs of state {event.piece.state} could not be trained: {event.how}; expected a worker "
                    "that lives: run the same command again"
                )
            n_ended += event.piece.epochs
            done = max(done, n_ended)
            report(done, total)
            for name, _ in event.piece.recipes:
                if not (folder / name / ABOUT).exists():
                    raise OSError(
                        f"{folder / name} was not written where this runs; expected a folder that all workers share"
                    )


def check_threads(threads: int, executor: Executor) -> None:
    """Raise ValueError for more threads of the arithmetic than a worker has cores, as far as that is known here."""
    given = executor.cpus_per_worker
    cores = this_machine(None).cores if given is None else max(1, int(given))
    if threads > cores:
        where = "this machine has" if given is None else "an actor has (--cpus-per-actor)"
        raise ValueError(
            f"--threads is {threads}, and {where} {cores} core{'s' * (cores > 1)} for them; expected no more threads "
            "than cores: they would wait for each other"
        )


def planned(url: str, sweep: Sweep, folder: Path) -> Iterator[Piece]:
    """The pieces of a sweep that are not finished in a folder. Raises as `run_sweep`, before anything is trained."""
    source = source_of(url, sweep)
    layouts = {state: layout_of(source, source.state(state), _memory(sweep)) for state in sweep.state}
    left: dict[tuple[int, int, int], bool] = {}
    asked: dict[tuple[int, int, int], list[tuple[str, Recipe]]] = {}
    for state, name, recipe in sweep.each():
        if len(source.train) < recipe.batch:
            raise ValueError(
                f"{source.where} has {len(source.train)} rows to train on, fewer than a batch of {recipe.batch}; "
                "expected a batch at least: choose a smaller --batch, or extract more clips"
            )
        key = (state, recipe.batch, recipe.epochs)
        asked.setdefault(key, []).append((name, recipe))
        finished = is_finished(folder / name, source, sweep, state, recipe, layouts[state])
        left[key] = left.get(key, False) or not finished
    for key, recipes in asked.items():
        if left[key]:
            yield Piece(state=key[0], recipes=tuple(recipes), layout=layouts[key[0]])


def source_of(url: str, sweep: Sweep) -> Source:
    """The clips of a sweep's task. Raises as `find_source`."""
    return find_source(
        url, sweep.task, order_seed=sweep.order_seed, held_out=sweep.held_out, group=sweep.group, where=sweep.where
    )


def about_of(source: Source, sweep: Sweep, state: int, recipe: Recipe, layout: Layout, device: str) -> dict[str, Any]:
    """What `sae.json` says an SAE was made of; "config" is what `--config` takes."""
    own = replace(sweep, state=(state,), memory=layout.memory, device=device)
    return {
        "config": own.config(recipe),
        "source": {"task": sweep.task, **source.about},
        "layout": {"objects_at_a_time": layout.objects, "held_out_held": layout.hold_out},
    }


def is_finished(folder: Path, source: Source, sweep: Sweep, state: int, recipe: Recipe, layout: Layout) -> bool:
    """Whether a folder holds an SAE of these settings; False where none is there.

    Raises ValueError for one of other settings, of another store, or damaged.
    """
    if not (folder / ABOUT).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is there and is no SAE; expected nothing: give another folder with -o")
        return False
    found = read_dictionary(folder)
    of_device = found.about.get("config", {}).get("device", "")
    device = of_device if sweep.device is None else torch.device(sweep.device).type
    expected = {"base": source.base, **about_of(source, sweep, state, recipe, layout, device)}
    stored = {"base": found.base, **{name: found.about.get(name) for name in COMPARED}}
    if unlike := differences(stored, expected):
        raise ValueError(
            f"{folder} holds an SAE of other settings ({'; '.join(unlike)}); expected the same ones: give another "
            "folder with -o"
        )
    return True


def _memory(sweep: Sweep) -> int:
    """Bytes for the rows of a piece."""
    if sweep.memory is not None:
        return sweep.memory
    machine = this_machine(None).memory
    return machine // MEMORY_SHARE if machine else MEMORY_BYTES


class SweepWorker:
    """Trains pieces of a sweep, one at a time: two would take twice the memory for their rows."""

    def __init__(self, url: str, sweep: Sweep, folder: Path, passed: Callable[[int], None] | None = None) -> None:
        """passed: called with so many epochs, as they end."""
        self.sweep, self.folder, self.passed = sweep, folder, passed
        self.source = source_of(url, sweep)
        self.device = device_of(sweep.device)
        self._training, self._closed = threading.Lock(), False

    def __call__(self, piece: Piece) -> list[str]:
        """Train what of a piece is not finished, and write it; the names of the SAEs that were written.

        Raises ValueError for rows that cannot be trained on, OSError where reading or writing fails, `Stopped` where
        the worker is closed meanwhile.
        """
        with self._training:
            self._check_open()
            partial_folder = self.folder / PARTIAL / self._digest(piece)
            names = self._begun(piece, partial_folder)
            try:
                self._train(piece, names, partial_folder)
            except ValueError as error:  # what was trained stays, unless nothing can come of it
                if isinstance(error, NoNumbers) or not (partial_folder / CHECKPOINT).exists():
                    _remove(partial_folder)
                raise
            _remove(partial_folder)
            return names

    def _digest(self, piece: Piece) -> str:
        """Names what is unfinished of a piece: the same for the same command alone."""
        return f"state{piece.state}-{digest_of([self.source.base, *self._abouts(piece).values()])[:16]}"

    def _abouts(self, piece: Piece) -> dict[str, dict[str, Any]]:
        return {
            name: about_of(self.source, self.sweep, piece.state, recipe, piece.layout, self.device.type)
            for name, recipe in piece.recipes
        }

    def _begun(self, piece: Piece, partial_folder: Path) -> list[str]:
        """Names of the SAEs that are trained: once begun, the same ones until all of them are written."""
        known = [name for name, _ in piece.recipes]
        if (names := _names_in(partial_folder)) and set(names) <= set(known):
            return names
        names = [name for name in known if not (self.folder / name / ABOUT).exists()]
        partial_folder.mkdir(parents=True, exist_ok=True)
        with whole_file(partial_folder / NAMES) as path:
            path.write_text("\n".join(names), encoding="utf-8")
        return names

    def _train(self, piece: Piece, names: Sequence[str], partial_folder: Path) -> None:
        """Train and write the SAEs of these names: each folder is there whole, or not at all."""
        recipes, abouts = dict(piece.recipes), self._abouts(piece)
        rows = rows_of(self.source, piece.state, piece.layout, self.sweep.order_seed, str(self.device))
        trained = train(
            *rows, [recipes[name] for name in names], checkpoint=partial_folder / CHECKPOINT,
            threads=self.sweep.threads, device=str(self.device), each=self._epoch_ended,
        )  # fmt: skip
        code = f"otoscope {version('otoscope')} torch {torch.__version__}"
        for name, own in zip(names, trained, strict=True):
            about = {**abouts[name], "code": code}
            made = to_dictionary(own, state=piece.state, base=self.source.base, about=about)
            if not (self.folder / name / ABOUT).exists():
                written = partial_folder / "written" / name
                shutil.rmtree(written, ignore_errors=True)
                write_dictionary(made, written)
                written.rename(self.folder / name)

    def _epoch_ended(self, _number: int, errors: list[float]) -> None:
        """After an epoch of SAEs that are trained side by side, so many as there are errors."""
        self._check_open()
        if self.passed is not None:
            self.passed(len(errors))

    def _check_open(self) -> None:
        if self._closed:
            raise Stopped("stopped before the SAEs were trained; the last epoch's checkpoint stays")

    def close(self) -> None:
        """End what is under way at the end of its epoch."""
        self._closed = True


def clear(folder: Path) -> None:
    """Remove what is left of SAEs that are finished, as by a worker that was killed."""
    for begun in (folder / PARTIAL).glob("*"):
        if all((folder / name / ABOUT).exists() for name in _names_in(begun)):
            _remove(begun)
    _remove_empty(folder / PARTIAL)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty, or not there
        folder.rmdir()


def _names_in(begun: Path) -> list[str]:
    """Names of the SAEs that were begun there; none where it does not say."""
    with suppress(OSError, UnicodeDecodeError):
        return (begun / NAMES).read_text(encoding="utf-8").split()
    return []


def _remove(begun: Path) -> None:
    """Remove all that is left of SAEs that were begun, the names last: without them nobody knows whose it is."""
    for path in (begun / CHECKPOINT, begun / "written", begun):
        shutil.rmtree(path, ignore_errors=True)


def device_of(device: str | None) -> torch.device:
    """The device of a name, by default CUDA where there is one. Raises ValueError where it cannot be used."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=found).item()  # which those that hold no values refuse
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"no device {device!r} ({' '.join(str(error).split())}); expected cpu, or one that this torch and machine "
            "have"
        ) from error
    return found

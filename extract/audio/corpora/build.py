"""From the download of a public data set to a manifest that `read_manifest` reads.

Goal: one verb for all data sets, with the same promises: every file is there, every category is known and none is
lacking, what was published is told apart from what we infer, and a file that is not ours is never overwritten.
Conventions: a manifest that lies in the data set's own folder has paths relative to it, and moves with it; elsewhere
paths are absolute. `extract` finds the audio either way without `--audio-root`, and with the data set's folder as
`--audio-root` too; `id`, the path from that folder, keeps a clip's name the same however the audio is found.
Contents: `DATA_SETS`, `data_set`, `build`, `Built`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from ..corpus import read_manifest
from . import DATA_SETS, SUBSETS
from .layout import DataSet

PLACES = ("splits", "urls")  # options that are paths


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a manifest holds."""

    manifest: Path
    n_clips: int
    categories: dict[str, int]
    """Label column -> how many categories it has."""
    notes: tuple[str, ...]
    """What the user should know: clips left out, numbers other than the published ones, and what is our inference."""


def data_set(name: str) -> DataSet:
    """The data set of a name; LookupError, naming all, if there is none."""
    if name not in DATA_SETS:
        raise LookupError(f"no data set {name!r}; expected one of {', '.join(DATA_SETS)}")
    found: DataSet = import_module(f".{name}", __package__).DATA_SET
    return found


def build(
    name: str,
    root: str | Path,
    output: str | Path,
    *,
    subset: str = "all",
    seed: int = 0,
    listed: bool = False,
    partial: bool = False,
    **options: Any,
) -> Built:
    """Write the manifest of a data set, and say what it holds.

    root: the folder of the unpacked download. output: a .csv file.
    subset: "all", or "paper" for the number of clips that the paper used; which ones it does not say, so they are
        drawn by a rule of ours with `seed`.
    listed: keep only the clips that have a split.
    partial: leave out absent files and clips of unknown categories, and do without lacking categories.
    options: what the data set takes beside (see `DataSet.options`); those that are None count as not given.
    Raises LookupError for an unknown data set; FileNotFoundError for a folder, metadata or audio that is not there;
    ValueError for other layouts, unknown or lacking categories, an option that the data set does not take, and an
    output that exists with other content.
    """
    known = data_set(name)
    root, output = Path(os.path.abspath(root)), Path(os.path.abspath(output))
    given = _options(known, options)
    if subset not in SUBSETS:
        raise ValueError(f"--subset is {subset!r}; expected {' or '.join(SUBSETS)}")
    if output.suffix.lower() != ".csv":
        raise ValueError(f"{output}: expected a name ending in .csv; rename it")
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; expected {known.title}: {known.layout}")
    notes: list[str] = []
    clips = known.table(root, **given)
    if listed:
        clips = _listed(clips, known)
    clips = _known_categories(clips, known, partial, notes)
    clips = _present(clips, root, partial, notes)
    _no_lacking_categories(clips, known, partial, notes)
    if known.clips is not None and len(clips) != known.clips and not listed:
        notes.append(f"{len(clips)} clips; {known.clips} are published")
    if subset == "paper":
        clips = _paper(clips, known, seed, partial, notes)
    if known.unit_sec is not None:
        clips = clips.assign(unit_sec=f"{known.unit_sec:g}")
    _write(clips, root, output)
    counts = {label: len(set(clips[label]) - {""}) for label in known.labels}
    return Built(manifest=output, n_clips=len(clips), categories=counts, notes=tuple(notes))


def _options(known: DataSet, options: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in known.options:
            raise ValueError(
                f"{known.name} takes no option {key!r}; it takes {', '.join(known.options) or 'none'}; drop it"
            )
    return {key: Path(os.path.abspath(value)) if key in PLACES else value for key, value in given.items()}


def _listed(clips: pd.DataFrame, known: DataSet) -> pd.DataFrame:
    if "split" not in clips:
        raise ValueError(
            f"{known.name}: asked for the clips that have a split, but no split is known; "
            + ("give it with --splits" if "splits" in known.options else "drop --listed")
        )
    return clips[clips["split"] != ""]


def _known_categories(clips: pd.DataFrame, known: DataSet, partial: bool, notes: list[str]) -> pd.DataFrame:
    """The clips whose categories are in the data set's lists."""
    for label, categories in known.categories.items():
        unknown = clips[~clips[label].isin((*categories, ""))]
        if unknown.empty:
            continue
        which = f"{', '.join(map(repr, sorted(set(unknown[label]))[:3]))}, first at {unknown['path'].iloc[0]!r}"
        if not partial:
            raise ValueError(
                f"{known.name}: {len(unknown)} clips have an unknown {label}: {which}; expected one of "
                f"{', '.join(categories[:6])}{', ...' if len(categories) > 6 else ''}; see that this is the data set's "
                "own folder, or leave these clips out with --partial"
            )
        notes.append(f"left out {len(unknown)} clips of an unknown {label}: {which}")
        clips = clips.drop(unknown.index)
    if clips.empty:
        raise ValueError(
            f"{known.name}: no clip is left; expected {known.layout}; see that the folder is the right one"
        )
    return clips


def _no_lacking_categories(clips: pd.DataFrame, known: DataSet, partial: bool, notes: list[str]) -> None:
    for label, categories in known.categories.items():
        lacking = [category for category in categories if category not in set(clips[label])]
        if not lacking:
            continue
        what = f"{len(lacking)} of {len(categories)} categories of {label} have no clip, the first {lacking[0]!r}"
        if not partial:
            raise ValueError(
                f"{known.name}: {what}; expected all; complete the download, or do without them with --partial"
            )
        notes.append(what)


def _present(clips: pd.DataFrame, root: Path, partial: bool, notes: list[str]) -> pd.DataFrame:
    """The clips whose file exists; each folder is listed once, which is quick for hundreds of thousands."""
    folders = clips["path"].str.rpartition("/")[0]
    there: set[str] = set()
    for folder in folders.unique():
        place = root / folder
        if place.is_dir():
            there.update(f"{folder}/{entry.name}" if folder else entry.name for entry in os.scandir(place))
    absent = ~clips["path"].isin(there)
    if absent.any():
        what = (
            f"{int(absent.sum())} of {len(clips)} audio files are absent, the first {clips['path'][absent].iloc[0]!r}"
        )
        if not partial or absent.all():
            raise FileNotFoundError(
                f"{root}: {what}; expected all; complete the download, or leave them out with --partial"
            )
        notes.append(f"left out: {what}")
    return clips[~absent]


def _paper(clips: pd.DataFrame, known: DataSet, seed: int, partial: bool, notes: list[str]) -> pd.DataFrame:
    if known.paper is None:
        notes.append("the paper uses all clips")
        return clips
    drawn = known.paper(clips, seed)
    if known.paper_clips is None:
        return drawn
    if len(drawn) != known.paper_clips:
        what = f"the paper's subset has {known.paper_clips} clips, this download gives {len(drawn)}"
        if not partial or drawn.empty:
            raise ValueError(f"{known.name}: {what}; complete the download, or take what there is with --partial")
        notes.append(what)
    notes.append(f"the paper says how many clips, not which: drawn by a rule of ours, seed {seed}")
    return drawn


def _write(clips: pd.DataFrame, root: Path, output: Path) -> None:
    """The manifest, at once or not at all, and only if it reads back."""
    if output.parent != root:
        clips = clips.assign(id=clips["path"], path=f"{root.as_posix().rstrip('/')}/" + clips["path"])
        clips = clips[["path", "id", *clips.columns.difference(["path", "id"], sort=False)]]
    content = clips.to_csv(index=False, lineterminator="\n").encode()
    if output.exists():
        if output.read_bytes() == content:
            return
        raise ValueError(f"{output}: exists with other content; expected a new file; remove it or give another name")
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.stem}.partial.csv")
    try:
        unfinished.write_bytes(content)
        read_manifest(unfinished)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)

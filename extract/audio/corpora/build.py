"""From the download of a public data set to a manifest.

Goal: one verb for all data sets, with the same promises: every file is there, every category is known and none is
lacking, what was published is told apart from what we infer, and a file that is not ours is never overwritten.
Conventions: a manifest that lies in the data set's own folder has paths relative to it, and moves with it; elsewhere
paths are absolute. `extract` finds the audio either way without `--audio-root`, and with the data set's folder as
`--audio-root` too; `id`, the path from that folder, keeps a clip's name the same however the audio is found.
"""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from ....files import whole_file
from ..manifest import corpus_of
from . import DATA_SETS, SUBSETS
from .layout import DataSet

PATH_OPTIONS = ("splits", "urls")


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
    given = {key: value for key, value in options.items() if value is not None}
    if excess := given.keys() - set(known.options):
        raise ValueError(
            f"{name} takes no option {min(excess)!r}; it takes {', '.join(known.options) or 'none'}; drop it"
        )
    given |= {key: Path(os.path.abspath(given[key])) for key in PATH_OPTIONS if key in given}
    if subset not in SUBSETS:
        raise ValueError(f"--subset is {subset!r}; expected {' or '.join(SUBSETS)}")
    if output.suffix.lower() != ".csv":
        raise ValueError(f"{output}: expected a name ending in .csv; rename it")
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; expected {known.title}: {known.layout}")
    notes: list[str] = []

    def allow(
        what: str, remedy: str, *, note: str = "", never: bool = False, error: type[Exception] = ValueError
    ) -> None:
        """Note what is not as it should be; raise where that is not allowed."""
        if never or not partial:
            raise error(f"{name}: {what}; {remedy} with --partial")
        notes.append(note + what)

    clips = known.table(root, **given)
    if listed and "split" not in clips:
        raise ValueError(
            f"{name}: asked for the clips that have a split, but no split is known; "
            + ("give it with --splits" if "splits" in known.options else "drop --listed")
        )
    if listed:
        clips = clips[clips["split"] != ""]
    for label, categories in known.categories.items():
        unknown = clips[~clips[label].isin((*categories, ""))]
        if len(unknown):
            first = f"{', '.join(map(repr, sorted(set(unknown[label]))[:3]))}, first at {unknown['path'].iloc[0]!r}"
            allow(
                f"{len(unknown)} clips have an unknown {label}: {first}",
                f"expected one of {', '.join(categories[:6])}{', ...' * (len(categories) > 6)}; see that this is the "
                "data set's own folder, or leave these clips out",
                note="left out: ",
            )
        clips = clips.drop(unknown.index)
    if clips.empty:
        raise ValueError(f"{name}: no clip is left; expected {known.layout}; see that the folder is the right one")
    absent = ~_present(clips["path"], root)
    if absent.any():
        first = clips["path"][absent].iloc[0]
        what = f"{int(absent.sum())} of {len(clips)} audio files are absent, the first {first!r}"
        remedy = "expected all; complete the download, or leave them out"
        allow(what, remedy, note="left out: ", never=bool(absent.all()), error=FileNotFoundError)
    clips = clips[~absent]
    for label, categories in known.categories.items():
        if lacking := [category for category in categories if category not in set(clips[label])]:
            what = f"{len(lacking)} of {len(categories)} categories of {label} have no clip, the first {lacking[0]!r}"
            allow(what, "expected all; complete the download, or do without them")
    if known.clips is not None and len(clips) != known.clips and not listed:
        notes.append(f"{len(clips)} clips; {known.clips} are published")
    if subset == "paper" and known.paper is None:
        notes.append("the paper uses all clips")
    elif subset == "paper" and known.paper is not None:
        clips = known.paper(clips, seed)
        if known.paper_clips not in (None, len(clips)):
            what = f"the paper's subset has {known.paper_clips} clips, this download gives {len(clips)}"
            allow(what, "complete the download, or take what there is", never=clips.empty)
        if known.paper_clips is not None:
            notes.append(f"the paper says how many clips, not which: drawn by a rule of ours, seed {seed}")
    if known.unit_sec is not None:
        clips = clips.assign(unit_sec=f"{known.unit_sec:g}")
    write_manifest(clips, str(root), output)
    counts = {label: len(set(clips[label]) - {""}) for label in known.labels}
    return Built(manifest=output, n_clips=len(clips), categories=counts, notes=tuple(notes))


def _present(paths: "pd.Series[str]", root: Path) -> "pd.Series[bool]":
    """Which files exist; each folder is listed once, which is quick for hundreds of thousands."""
    there: set[str] = set()
    for folder in paths.str.rpartition("/")[0].unique():
        if (root / folder).is_dir():
            there.update(f"{folder}/{entry.name}" if folder else entry.name for entry in os.scandir(root / folder))
    return paths.isin(there)


def write_manifest(clips: pd.DataFrame, root: str, output: Path) -> None:
    """The manifest, at once or not at all, and only if it reads back.

    clips: their `path` from the audio root, or absolute; their `id`, if they have one, else that is the path.
    Raises ValueError where the file exists with other content.
    """
    if str(output.parent) != root:
        given = clips if "id" in clips else clips.assign(id=clips["path"])
        absolute = given["path"].str.startswith("/")
        given = given.assign(path=given["path"].where(absolute, f"{root.rstrip('/')}/" + given["path"]))
        clips = given[["path", "id", *given.columns.difference(["path", "id"], sort=False)]]
    content = clips.to_csv(index=False, lineterminator="\n").encode()
    if output.exists():
        if output.read_bytes() == content:
            return
        raise ValueError(f"{output}: exists with other content; expected a new file; remove it or give another name")
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(output) as unfinished:
        unfinished.write_bytes(content)
        # A folder of files that lie elsewhere is found from their absolute paths.
        known = str(output.parent) == root or "://" in root
        corpus_of(pd.read_csv(unfinished, dtype=str, keep_default_na=False), root if known else None)

"""What the data sets' files share: finding what a download holds, and checking that it is what it should be.

Goal: a manifest only from what the user's own download says; nothing is guessed and no list of others' files is kept
here.
Conventions: a builder's table has one row per clip and text columns only: `path` relative to the folder the user
named, with "/" between folders, then label columns, then columns that tell which clips belong together (speaker,
source, ...), then `split` or `fold`; "" is no label. Splits are called train, valid and test.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..text_table import read_text_table

SPLITS = ("train", "valid", "test")
Draw = Callable[[pd.DataFrame, int], pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A public data set: what is known of it, and how its download becomes a table of clips."""

    name: str
    title: str
    layout: str
    """What the folder that the user names must hold, in words."""
    table: Callable[..., pd.DataFrame]
    """(root, **options) -> table of clips."""
    labels: tuple[str, ...]
    """Label columns that are categories to analyse."""
    clips: int | None = None
    """Number of clips in the whole data set, as published; None where no source says."""
    unit_sec: float | None = None
    """Length in seconds of the published protocol; None where no source says."""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Complete list of categories of those label columns whose list is known."""
    options: tuple[str, ...] = ()
    """Names of what `table` takes beside the folder."""
    paper: Draw | None = None
    """(table, seed) -> the clips of the paper; None where the paper uses all."""
    paper_clips: int | None = None
    """How many these are."""


def folder(root: Path, *names: str) -> Path:
    """The first of the folders `names` in `root` ("." is `root` itself) that exists; FileNotFoundError if none does."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(
        f"{root}: expected the folder {' or '.join(names)}, found {contents(root)}; "
        "unpack the download there, or name the folder that holds it"
    )


def contents(root: Path) -> str:
    """The first few names in a folder, for messages."""
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"


def files(
    root: Path, endings: Sequence[str], expected: str, *, within: Path | None = None, like: str = ""
) -> list[str]:
    """Paths of the files in `within` (default `root`), at any depth, that end so, relative to `root` and sorted.

    endings: lower case, such as ".wav". Hidden files and folders, and what macOS adds to archives, are no clips.
    like: a pattern of the paths that count. Raises FileNotFoundError, which says what is `expected`, if none does.
    """
    where, found = within or root, []
    for parent, folders, names in os.walk(where, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        inside = Path(parent).relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        names = [name for name in names if not name.startswith(".") and name.lower().endswith(tuple(endings))]
        found += [prefix + name for name in names if re.search(like, prefix + name)]
    if not found:
        raise FileNotFoundError(f"{where}: expected {expected}, found {contents(where)}; unpack the audio there")
    return sorted(found)


def parse_paths(root: Path, paths: Sequence[str], pattern: str, expected: str) -> pd.DataFrame:
    """`path`, and a text column for each named group of the pattern; "" for a group that a path does without.

    Raises ValueError for a path that the pattern does not match, with what is `expected` in words.
    """
    found = [re.fullmatch(pattern, path) for path in paths]
    odd = [path for path, match in zip(paths, found, strict=True) if match is None]
    if odd:
        raise ValueError(
            f"{root}: {odd[0]!r} is not named as the data set's files are; expected {expected}; remove or rename it, "
            "or name the folder above"
        )
    columns = {name: [match[name] or "" for match in found if match] for name in re.compile(pattern).groupindex}
    return pd.DataFrame({"path": paths, **columns}, dtype=str)


def read_columns(path: Path, columns: Sequence[str], what: str, *, tabs: bool = False) -> pd.DataFrame:
    """Those columns of a data set's own table, as text without spaces around it.

    what: what the file is, for the message if it is absent. tabs: tabs are between its cells, although it ends in .csv.
    Raises FileNotFoundError, or ValueError for a table without these columns.
    """
    require_file(path, what)
    table = read_text_table(path, separator="\t" if tabs else None).rename(columns=str.strip)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(columns)}, found {', '.join(map(str, table.columns))}; "
            "download the file again"
        )
    return pd.DataFrame({column: table[column].str.strip() for column in columns})


def of_speakers(
    speakers: "pd.Series[str]", path: Path, columns: Sequence[str], what: str, *, tabs: bool = False
) -> list["pd.Series[str]"]:
    """Columns of a data set's own table of speakers, the first of which names them, for each of `speakers`.

    Raises as `read_columns`, and ValueError for speakers that the table does not have.
    """
    table = read_columns(path, columns, what, tabs=tabs).drop_duplicates(columns[0]).set_index(columns[0])
    unknown = sorted(set(speakers) - set(table.index))
    if unknown:
        raise ValueError(
            f"{path}: does not know {len(unknown)} speakers, the first {unknown[0]!r}; expected all; download the "
            "file again"
        )
    return [speakers.map(table[column]) for column in columns[1:]]


def require_file(path: Path, what: str) -> None:
    """FileNotFoundError for a metadata file that is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected {what}; put it there")


def with_splits(clips: pd.DataFrame, path: Path | None, parts: int, key: str = "") -> pd.DataFrame:
    """The clips with the `split` that the user's table at `path` gives, "" where it gives none; unchanged without one.

    Clips are found by the last so many parts of their paths, or by the column `key` if no name in the table has a "/".
    Raises as `read_splits`, and ValueError if not one clip is named: the table is about other files.
    """
    if path is None:
        return clips
    splits = read_splits(path, key)
    by_key = bool(key) and not any("/" in name for name in splits)
    keys = clips[key] if by_key else tails(clips["path"], parts)
    found = keys.map({name if by_key else tail(name, parts): split for name, split in splits.items()}).fillna("")
    if (found == "").all():
        raise ValueError(
            f"{path}: names none of the {len(clips)} clips, its first is {next(iter(splits), 'none')!r}; expected "
            f"names such as {keys.iloc[0]!r}; give the table that belongs to this data set"
        )
    return clips.assign(split=found.astype(str))


def read_splits(path: Path, key: str = "") -> dict[str, str]:
    """Splits from a table of the user's: a column `file_name` or `path` (or `key`) and a column `split`.

    Rows without a split are left out. Raises FileNotFoundError, or ValueError for other columns or splits, and for two
    splits of one file.
    """
    table = read_text_table(path)
    found = [column for column in (key or "file_name", "file_name", "path") if column in table]
    if not found or "split" not in table:
        raise ValueError(
            f"{path}: expected the columns file_name{f' or {key}' if key else ''} and split, found "
            f"{', '.join(map(repr, table.columns))}; rename them"
        )
    splits: dict[str, str] = {}
    for name, split in zip(table[found[0]], table["split"], strict=True):
        if split not in (*SPLITS, ""):
            raise ValueError(f"{path}: {name!r} has the split {split!r}; expected train, valid or test; correct it")
        if split and splits.setdefault(name, split) != split:
            raise ValueError(f"{path}: {name!r} is in {splits[name]} and in {split}; expected one split; correct it")
    return splits


def tail(path: str, parts: int) -> str:
    """The last so many parts of a path."""
    return "/".join(path.split("/")[-parts:])


def tails(paths: "pd.Series[str]", parts: int) -> "pd.Series[str]":
    """`tail` of each."""
    return paths.map(lambda path: tail(path, parts))


def draw(keys: "pd.Series[str]", by: "pd.Series[str]", each: int, seed: int) -> "pd.Series[bool]":
    """Which rows are drawn: in each group of `by`, the `each` distinct keys that come first in a fixed shuffle.

    The shuffle sorts by BLAKE2b (8 bytes) of "seed\\nkey": it depends on nothing else, neither on the order of the
    rows nor on which others there are, and is the same everywhere. Rows of one key go together.
    """
    ranked = pd.DataFrame({"key": keys, "by": by, "rank": _ranks(keys, seed)})
    first = ranked.drop_duplicates(["by", "key"]).sort_values(["rank", "key"])
    chosen = first.groupby("by", sort=False).head(each)
    return pd.Series(
        pd.MultiIndex.from_frame(ranked[["by", "key"]]).isin(pd.MultiIndex.from_frame(chosen[["by", "key"]])),
        index=keys.index,
    )


def draw_evenly(keys: "pd.Series[str]", by: "pd.Series[str]", total: int, seed: int) -> "pd.Series[bool]":
    """Which `total` rows are drawn, as evenly over the groups of `by` as these allow; keys are distinct.

    Round after round each group gives the row that comes next in its shuffle (see `draw`); the last round, where it
    cannot go round, takes the rows that come first in the shuffle of all.
    """
    ranked = pd.DataFrame({"by": by, "key": keys, "rank": _ranks(keys, seed)}).sort_values(["rank", "key"])
    ranked["round"] = ranked.groupby("by", sort=False).cumcount()
    chosen = ranked.sort_values(["round", "rank", "key"]).index[:total]
    return pd.Series(keys.index.isin(chosen), index=keys.index)


def octave(midi: int) -> int:
    """Octave of a MIDI pitch, floor(midi / 12) - 1: the piano's 21 to 108 are 0 to 8, middle C (60) begins octave 4."""
    return midi // 12 - 1


def _ranks(keys: "pd.Series[str]", seed: int) -> list[bytes]:
    return [hashlib.blake2b(f"{seed}\n{key}".encode(), digest_size=8).digest() for key in keys]

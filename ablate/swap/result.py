"""What swaps did as a table, and its file.

Goal: one Parquet file that pandas reads, and from which the figure is drawn.
Conventions: a row per part (`effects.PARTS`): overall, necessity and sufficiency of each category, and each pair of
categories, of which `category` is the clip's and `other` the partner's. A is the sound, T the text. All else (request,
sets, digests, notes) is JSON under the key "otoscope" of the file's schema, and `attrs` of the table.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...documents import parse_json
from ...files import whole_file
from ...messages import one_line
from ...store.frames import read_parquet
from ..result import ENDINGS, KEY
from .effects import LEVEL, PARTS, Floats, causal_share, estimates, parts_of, pooled, ranks, share_interval
from .pairs import MODALITIES, Swaps

FORMAT = "swap 1"
UNSEEN = 1e-5  # of the largest margin, in float32: smaller changes are rounding
STATES = ("audio", "text", "both", "none", "construction", "untested")
OF_MODALITY = ("E", "se", "low", "high", "TE", "TE_se", "share", "p_rank", "p_corrected")
COLUMNS = (
    "part", "category", "other", "gc_causal", "gc_low", "gc_high", "state", "opposite",
    *(f"{name}_{modality}" for modality in MODALITIES for name in OF_MODALITY),
)  # fmt: skip


def table_of_margins(
    margins: Floats,
    swaps: Swaps,
    categories: Sequence[str],
    *,
    keep: bool = False,
    rounding: float = UNSEEN,
    seed: int = 0,
) -> pd.DataFrame:
    """What the margins of swaps say, as of `swap_table`.

    margins: (1 + intervention, swap) of a clip's category over its partner's: without intervention, with the set's
        swap, with those of its controls, and, with `keep`, with all neurons swapped.
    keep: the interventions swap all neurons but the set's. An effect then is the margin above that with all of them
        swapped; else what the swap takes from the margin.
    rounding: share of the largest margin up to which a change is none. A modality is not seen where no whole input
        changes more, or no intervention anything, though there are controls.
    """
    base = margins[0]
    effects = margins[1:-1] - margins[-1] if keep else base - margins[1:]
    whole = base + base[swaps.reverse]  # the partner's own margin of c over c' is the reverse's, negative
    limit = rounding * np.abs(base).max()
    seen, tables = [], []
    for modality in range(2):
        mine = swaps.modality == modality
        moved = len(effects) == 1 or bool((effects[:, mine] != 0).any())
        seen.append(moved and bool((np.abs(whole[mine]) > limit).any()))
        tables.append((swaps.table(effects, modality), swaps.table(whole, modality)))
    return swap_table(tables, categories, seen=seen, seed=seed)


def swap_table(
    tables: Sequence[tuple[Floats, Floats]], categories: Sequence[str], *, seen: Sequence[bool], seed: int = 0
) -> pd.DataFrame:
    """Effects of the sound and of the text, part by part: see `effects` for parts, errors and intervals.

    tables: of the sound, then of the text: effects (1 + control, c, c', number, category held, number held), the set's
        first, and those of whole inputs, without the first axis.
    seen: of both, whether the answer can depend on it at all.

        E       mean effect, with its error `se` and 95 % interval `low` to `high`
        TE      that of the whole input, which the set's may be held against: share = E / TE, where TE is beyond its
                own interval
        p_rank  against the controls, `p_corrected` over the rows of its part; see `effects.ranks`
        gc_causal = |E_A| / (|E_A| + |E_T|), magnitudes sqrt(max(E^2 - se^2, 0)), and its 95 % interval: where a p of
                either is at most 0.025 (p_rank overall, else p_corrected), and both are seen; else NaN
        state   "construction" where one is not seen, "untested" without controls, "none" where no p is low enough;
                "audio" or "text" where the interval is above or below 1/2, "both" around it
        opposite    whether both effects are there, with opposite signs: one of them speaks against what it carries
    """
    rows = parts_of(len(categories))
    names = [name for name, *_ in rows]
    data: dict[str, Any] = {
        "part": names,
        "category": ["" if c < 0 else categories[c] for _, c, *_ in rows],
        "other": ["" if d < 0 else categories[d] for _, _, d, _ in rows],
    }
    overall = np.array([name == "overall" for name in names])
    found, low_enough = [], np.zeros(len(rows), bool)
    for modality, (effects, whole), is_seen in zip(MODALITIES, tables, seen, strict=True):
        own, total = estimates(effects[0]), estimates(whole)
        controls = pooled(effects[1:]).mean(axis=(-3, -2, -1))
        p, corrected = ranks(own.mean, controls, names)
        if not is_seen:
            p, corrected = np.full_like(p, np.nan), np.full_like(p, np.nan)
        there = np.abs(total.mean) > total.half_width
        share = np.divide(own.mean, total.mean, out=np.full(len(rows), np.nan), where=there)
        each = (own.mean, own.error, own.mean - own.half_width, own.mean + own.half_width, total.mean, total.error,
                share, p, corrected)  # fmt: skip
        data |= {f"{name}_{modality}": values for name, values in zip(OF_MODALITY, each, strict=True)}
        low_enough |= np.where(overall, p, corrected) <= LEVEL
        found.append(own)
    sound, text = found
    share = causal_share(sound.magnitude, text.magnitude)
    low, high = share_interval(sound, text, seed)
    passes = low_enough & all(seen) & np.isfinite(share)
    tested = len(tables[0][0]) > 1
    state = np.select(
        [np.full(len(rows), not all(seen)), np.full(len(rows), not tested), ~passes, low > 0.5, high < 0.5],
        ["construction", "untested", "none", "audio", "text"], "both",
    )  # fmt: skip
    beyond = [np.abs(one.mean) > one.half_width for one in found]
    data |= {
        name: np.where(passes, values, np.nan)
        for name, values in (("gc_causal", share), ("gc_low", low), ("gc_high", high))
    }
    data |= {"state": state, "opposite": beyond[0] & beyond[1] & (sound.mean * text.mean < 0)}
    table = pd.DataFrame(data)[list(COLUMNS)]
    table.attrs["categories"] = list(categories)
    return table


def write_swaps(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as Parquet; the file appears whole or not at all. Raises as `check_target`."""
    about = {"format": FORMAT, "attrs": table.attrs}
    plain = pa.Table.from_pandas(pd.DataFrame({name: table[name].to_numpy() for name in table}), preserve_index=False)
    metadata = {KEY: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}
    with whole_file(path, ENDINGS) as partial:
        pq.write_table(plain.replace_schema_metadata(metadata), partial)


def read_swaps(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The table that `write_swaps` wrote. Raises FileNotFoundError where there is none, ValueError for another file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; expected the result of `otoscope ablate swap`")
    try:
        stored = read_parquet(Path(path))
        about = parse_json((stored.schema.metadata or {})[KEY])
        if about["format"] != FORMAT:
            raise ValueError(f"format {str(about['format'])[:20]!r}, not {FORMAT!r}")
        table = stored.replace_schema_metadata(None).to_pandas()
        categories = list(map(str, about["attrs"]["categories"]))
        if list(table.columns) != list(COLUMNS) or len(set(categories)) < 2:
            raise ValueError("its columns are not those of swaps")
        expected = [
            (name, "" if c < 0 else categories[c], "" if d < 0 else categories[d])
            for name, c, d, _ in parts_of(len(categories))
        ]
        if list(zip(table["part"], table["category"], table["other"], strict=True)) != expected:
            raise ValueError("its rows are not those of all parts in order")
        if not set(table["state"]) <= {*STATES}:
            raise ValueError("it has a state that is none")
        numbers = table.columns.drop(["part", "category", "other", "state", "opposite"])
        typed: pd.DataFrame = table.astype({name: float for name in numbers} | {"opposite": bool})
        typed.attrs = dict(about["attrs"])
        return typed
    except (LookupError, TypeError, ValueError, OSError, AttributeError, ArithmeticError, pa.ArrowException) as error:
        raise ValueError(
            f"{path} is not a valid result of swaps ({one_line(error)}); expected a file as `otoscope ablate swap -o` "
            "writes it"
        ) from error


def holds_swaps(path: str | os.PathLike[str], digest: str) -> bool:
    """Whether a file holds the result of the study with this digest. Raises ValueError for a file of another kind."""
    return Path(path).is_file() and bool(read_swaps(path).attrs.get("digest") == digest)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """What a person looks at first: all but pairs, without what stays in the file."""
    columns = ["part", "category", "gc_causal", "gc_low", "gc_high", "state"]
    for modality in MODALITIES:
        columns += [f"{name}_{modality}" for name in ("E", "se", "TE", "share", "p_rank")]
    return table.loc[table["part"] != PARTS[-1], columns].rename(columns={"gc_causal": "GC"})


def pair_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A column of the pairs as a table of c by c', NaN on its diagonal."""
    categories = table.attrs["categories"]
    pairs = table[table["part"] == PARTS[-1]]
    table_of: pd.DataFrame = pairs.pivot(index="category", columns="other", values=name)
    return table_of.reindex(index=categories, columns=categories)

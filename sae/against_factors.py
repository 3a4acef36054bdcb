"""States and latents of a store against factors of its clips: what `otoscope sae disentangle` tabulates.

Goal: every number beside the same one of the states that the latents are made of, and of whatever controls are given.
Conventions: factors are a table of one row per clip, as `otoscope sae factors` writes it: `clip`, its name;
`audio_digest`, of its file; `reason`, why it has none, or ""; every other numeric column is a factor. Only clips that
were extracted and have factors count.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..messages import quoted
from ..store.frames import read_frame
from ..store.schema import OK
from ..store.stored_task import StoredTask
from .disentanglement import FOLDS, disentangle
from .entropy import histogram_entropy, nearest_neighbour_entropy
from .families import family_of
from .probes import KNOWN, STATE
from .stored_latents import LatentLayer, find_latents, read_saes
from .stored_values import Floats, Positions, finished_task, n_states, state_of
from .units import COMPONENTS, LATENTS, NEURONS, neurons_before, signed_components

log = logging.getLogger(__name__)

KEYS = ("clip", "audio_digest", "reason")
OF_UNITS = ("published_average", "weighted_disentanglement")
ENTROPIES = ("entropy", "tied", "histogram_entropy")
OF_FACTORS = (
    "r2", "r2_se", "predicted", "codes_until", "effective_codes", "published_r2", "published_completeness",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Regressors:
    """Values that are held against factors."""

    of: str
    """"state", "neurons", "principal components" or "latents"."""
    store: str
    task: str
    state: int
    """The hidden state that they are, or are of."""
    codes: Floats
    """(clip, code)."""
    digest: str = ""
    """Of the SAE; "" of what is none."""
    known: Mapping[str, Any] = field(default_factory=dict)
    """Of latents, as `LatentLayer.known`."""


def read_factors(path: str | Path) -> pd.DataFrame:
    """The factors in a Parquet or CSV file, by clip.

    Raises FileNotFoundError where there is none, ValueError for a file that holds no such table.
    """
    made = "expected a table as `otoscope sae factors MANIFEST -o F.parquet` writes it"
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; {made}")
    try:
        table = read_frame(Path(path), dtype={"clip": str, "reason": str})
    except ValueError as error:
        raise ValueError(f"{path} is not a valid table of factors ({error}); {made}") from error
    return _by_clip(table, str(path))


def _by_clip(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """A table of factors by clip. Raises ValueError for one that is none."""
    made = "expected a table as `otoscope sae factors` makes it"
    if missing := [name for name in KEYS if name not in table]:
        raise ValueError(f"{where} has no column {' nor '.join(missing)}; {made}")
    if (repeated := table["clip"][table["clip"].duplicated()]).size:
        raise ValueError(f"{where} has clip {quoted(str(repeated.iloc[0]))} more than once; {made}")
    if not pd.api.types.is_integer_dtype(table["audio_digest"]) or not _names(table):
        raise ValueError(f"{where} has no numeric factors, or audio digests that are not integers; {made}")
    return table.set_index("clip")


def sae_disentangle(
    url: str,
    latents: Sequence[str],
    factors: str | Path | pd.DataFrame,
    *,
    task: str,
    group: str = "",
    states: Sequence[int] = (),
    folds: int = FOLDS,
    saes: Sequence[str] = (),
) -> pd.DataFrame:
    """One row per factor and units: hidden states of a task, what costs nothing, and every layer of latents.

    latents: as of `find_latents`. factors: such a table, or its path. group: a label column, the clips of one of its
    values are never on both sides of a fold; those without one are a group [each clip for itself]. states: numbers
    [those that the latents are of]. folds: at least 3. saes: folders of the SAEs, which say more of latents.
    Columns: of ("state"; "neurons", where means are kept, and "principal components", as of `units`; "latents"), store,
    task, state, digest (of the SAE: a column of `sae table` too), codes (how many there are); of latents what
    `LatentLayer.known` says; family, factor; r2, r2_se, predicted, codes_until, effective_codes, published_r2,
    published_completeness as of `disentangle`, and of the units published_average and weighted_disentanglement;
    entropy, in bits, of the factor in units of its deviation, tied, and histogram_entropy as of `entropy`; and how:
    clips, groups and folds in words.
    Raises LookupError or FileNotFoundError for a task, column, state or store that is not there; ValueError for factors
    of other clips or other audio, latents of other states or other clips, fewer groups than folds, and whatever is not
    finished.
    """
    source = finished_task(StoredTask.at(url, task))
    n_states(source)
    layers = find_latents(latents, source, read_saes(saes))
    if isinstance(factors, pd.DataFrame):
        table, where = _by_clip(factors, "the table of factors"), "the table of factors"
    else:
        table, where = read_factors(factors), str(factors)
    clips = _clips_with_factors(source, table, where)
    if group and group not in source.labels:
        known = ", ".join(source.labels) or "none"
        raise LookupError(f"{source} has no label column {quoted(group)} to group clips by; its columns: {known}")
    groups = np.array(source.labels[group] if group else source.clips.name)[clips]
    names = _names(table)
    values = table.loc[np.array(source.clips.name)[clips], names].to_numpy(np.float64)
    of_factors = _of_factors(names, values)
    how = f"{len(clips):,} clips in {len(set(groups.tolist())):,} groups by {group or 'clip'}; {folds} folds"
    frames = []
    for units in _units(source, layers, states, clips):
        log.info("%s of state %d, %s task %s: %d", units.of, units.state, units.store, units.task, units.codes.shape[1])
        found = disentangle(units.codes, values, groups, names=names, folds=folds)
        frames.append(_frame(units, found, of_factors).assign(how=how))
    return pd.concat(frames, ignore_index=True)


def _frame(units: Regressors, found: xr.Dataset, of_factors: pd.DataFrame) -> pd.DataFrame:
    about = {name: getattr(units, name) for name in ("of", "store", "task", "state", "digest")}
    about |= {"codes": units.codes.shape[1]} | {name: units.known.get(name, np.nan) for name in KNOWN}
    numbers = {name: found[name].values for name in OF_FACTORS} | {name: float(found[name]) for name in OF_UNITS}
    frame = of_factors.assign(**about, **numbers)
    return frame[[*about, "family", "factor", *numbers, *ENTROPIES]]


def _of_factors(names: Sequence[str], values: NDArray[np.float64]) -> pd.DataFrame:
    rows = []
    for name, own in zip(names, values.T, strict=True):
        deviation = own.std()
        estimate = nearest_neighbour_entropy(own / deviation if deviation else own)
        rows.append(
            (family_of(name), name, estimate.bits, estimate.tied, histogram_entropy(own)),
        )
    return pd.DataFrame(rows, columns=["family", "factor", *ENTROPIES])


def _names(table: pd.DataFrame) -> list[str]:
    numeric = table.select_dtypes("number").columns
    return [str(name) for name in numeric if name not in KEYS]


def _clips_with_factors(source: StoredTask, table: pd.DataFrame, where: str) -> NDArray[np.intp]:
    """Positions of the extracted clips that have factors. Raises ValueError for factors of other clips or audio."""
    ok = np.flatnonzero(source.status == OK)
    names = np.array(source.clips.name)[ok]
    known = table.index.get_indexer(pd.Index(names))
    digests = np.where(known < 0, 0, table["audio_digest"].to_numpy(np.uint64)[known])
    for wrong, what in (
        (known < 0, "no factors"), (digests != source.values("audio_digest")[ok], "factors of other audio"),
    ):  # fmt: skip
        if wrong.any():
            raise ValueError(
                f"{where} has {what} for {int(wrong.sum())} of the {len(ok)} clips of {source}, the first "
                f"{quoted(str(names[wrong][0]))}; expected those of the files that it was extracted from: make them by "
                "`otoscope sae factors` of its manifest"
            )
    reasons = table["reason"].fillna("").to_numpy(object)[known]
    have = reasons == ""
    if not have.any():
        raise ValueError(f"{where} has no factors of any clip of {source}, of the first: {reasons[0]}; expected some")
    if not have.all():
        log.info("%d of %d clips have no factors and are left out", int((~have).sum()), len(ok))
    clips: NDArray[np.intp] = ok[have]
    return clips


def _units(
    source: StoredTask, latents: Sequence[LatentLayer], states: Sequence[int], clips: Positions
) -> Iterator[Regressors]:
    """Of each state itself and what costs nothing, then latents."""
    wanted = sorted({*states}) if states else sorted({layer.state for layer in latents})
    if not wanted:
        raise ValueError("no hidden state was asked for, nor latents of one; expected LATENTS, or --state N,...")
    for state in wanted:
        own: dict[str, Any] = {"store": source.url, "task": source.task, "state": state}
        values = state_of(source, state, clips)
        yield Regressors(of=STATE, **own, codes=values)
        if "mean" in source.plan.variables:
            yield Regressors(of=NEURONS, **own, codes=neurons_before(source, state, clips))
        yield Regressors(of=COMPONENTS, **own, codes=signed_components(values))
    for layer in latents:
        codes = layer.codes(clips)
        yield Regressors(
            of=LATENTS, store=layer.task.url, task=layer.task.task, state=layer.state, digest=layer.digest, codes=codes,
            known=layer.known(codes),
        )  # fmt: skip

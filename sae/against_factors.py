"""States and latents of a store against factors of its clips: what `otoscope sae disentangle` tabulates.

Goal: every number beside the same one of the states that the latents are made of, and of whatever controls are given.
Conventions: factors are a table of one row per clip, as `otoscope sae factors` writes it: `clip`, its name;
`audio_digest`, of its file; `reason`, why it has none, or ""; every other numeric column is a factor. Only clips that
were extracted and have factors count.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..extract.models.latents import state_of_site
from ..messages import quoted
from ..store.frames import read_frame
from ..store.group import open_root, task_names
from ..store.provenance import digest_of
from ..store.schema import OK, PENDING
from ..store.stored_task import StoredTask
from .disentanglement import FOLDS, disentangle
from .entropy import histogram_entropy, nearest_neighbour_entropy
from .families import family_of

log = logging.getLogger(__name__)

KEYS = ("clip", "audio_digest", "reason")
OF_UNITS = ("published_average", "weighted_disentanglement")
ENTROPIES = ("entropy", "tied", "histogram_entropy")
OF_FACTORS = (
    "r2", "r2_se", "predicted", "codes_until", "effective_codes", "published_r2", "published_completeness",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """States or latents whose codes are held against factors."""

    of: str
    """"state" or "latents"."""
    store: str
    task: str
    state: int
    """The hidden state that they are, or are latents of."""
    digest: str
    """Of the SAE; "" of a state."""
    codes: NDArray[np.float32]
    """(clip, code)."""


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
) -> pd.DataFrame:
    """One row per factor and units: hidden states of a task, and every layer of tasks of its latents.

    latents: stores; all their tasks of this task's latents are taken. factors: such a table, or its path. group: a
    label column, the clips of one of its values are never on both sides of a fold; those without one are a group [each
    clip for itself]. states: numbers [those that the latents are of]. folds: at least 3.
    Columns: of ("state" or "latents"), store, task, state, digest (of the SAE: a column of `sae table` too), codes and
    firing, how many there are and how many are above 0 for a clip in the mean; family, factor; r2, r2_se, predicted,
    codes_until, effective_codes, published_r2, published_completeness as of `disentangle`, and of the units
    published_average and weighted_disentanglement; entropy, in bits, of the factor in units of its deviation, tied, and
    histogram_entropy as of `entropy`.
    Raises LookupError or FileNotFoundError for a task, column, state or store that is not there; ValueError for factors
    of other clips or other audio, latents of other states or other clips, fewer groups than folds, and whatever is not
    finished.
    """
    source = _finished(StoredTask.at(url, task))
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
    frames = []
    for units in _units(source, latents, states, clips):
        log.info(
            "%s of state %d, %s task %s: %d codes", units.of, units.state, units.store, units.task, units.codes.shape[1]
        )
        found = disentangle(units.codes, values, groups, names=names, folds=folds)
        frames.append(_frame(units, found, of_factors))
    return pd.concat(frames, ignore_index=True)


def _frame(units: Units, found: xr.Dataset, of_factors: pd.DataFrame) -> pd.DataFrame:
    about = {name: getattr(units, name) for name in ("of", "store", "task", "state", "digest")}
    about |= {"codes": units.codes.shape[1], "firing": float((units.codes > 0).sum(axis=1).mean())}
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


def _finished(task: StoredTask) -> StoredTask:
    """The task. Raises ValueError where clips of it are pending."""
    if n_pending := int((task.status == PENDING).sum()):
        raise ValueError(
            f"{task} is not finished, {n_pending} of {len(task.status)} clips are pending; expected none: run what "
            "makes it again"
        )
    return task


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
    source: StoredTask, latents: Sequence[str], states: Sequence[int], clips: NDArray[np.intp]
) -> Iterator[Units]:
    """States first, in order; all is looked for before the first is read."""
    n_states = source.record.identity.hidden[0] if "hidden" in source.plan.variables else 0
    found = [(task, layer) for url in latents for task in _latents(source, url) for layer in range(_n_layers(task))]
    sites = [state_of_site(task.record.identity.sites[layer][0]) for task, layer in found]
    wanted = sorted({*states}) if states else sorted({*sites})
    if not n_states:
        raise ValueError(
            f"{source} keeps no hidden states; expected a task that was extracted with --keep hidden: extract it so"
        )
    if not wanted:
        raise ValueError("no hidden state was asked for, nor latents of one; expected LATENTS, or --state N,...")
    if missing := [state for state in wanted if not 0 <= state < n_states]:
        raise LookupError(f"{source} has no hidden state {missing[0]}; expected 0 to {n_states - 1}")
    for state in wanted:
        (codes,) = source.hidden([state], clips)
        yield Units(of="state", store=source.url, task=source.task, state=state, digest="", codes=codes)
    for (task, layer), state in zip(found, sites, strict=True):
        digest = (task.record.identity.derived_from or {})["dictionaries"][layer]
        codes = task.means(layer, clips)
        yield Units(of="latents", store=task.url, task=task.task, state=state, digest=digest, codes=codes)


def _n_layers(task: StoredTask) -> int:
    return len(task.record.identity.sites)


def _latents(source: StoredTask, url: str) -> list[StoredTask]:
    """The tasks of a store that are latents of the source's states and clips.

    Raises ValueError where there is none, or one is not finished, or is of other clips or audio.
    """
    base, found = digest_of(source.record.identity.to_json()), []
    for name in task_names(open_root(url, mode="r")):
        task = StoredTask.at(url, name)
        if (task.record.identity.derived_from or {}).get("identity") == base:
            found.append(task)
    ours = [task for task in found if task.clips.name == source.clips.name]
    again = f"make them by `otoscope sae encode {source.url} --task {source.task}`"
    if not ours:
        what = f"latents of other clips ({found[0]})" if found else "no latents of those states"
        raise ValueError(f"{url} holds {what}; expected latents of all clips of {source}: {again}")
    for task in map(_finished, ours):
        if (task.values("audio_digest") != source.values("audio_digest")).any():
            raise ValueError(
                f"{task} holds latents of other audio than {source} has by now; expected the same: {again}"
            )
    return ours

"""The statistics of a labelling, with what is to be said of them: checked, and with a remedy where nothing is found."""

from functools import partial

import xarray as xr

from .. import accessor  # noqa: F401  registers ds.otoscope
from ..selection.check import (
    RELATIVE,
    NothingSelected,
    answers_of,
    cautions_on,
    check_categories,
    check_selection,
    relative_remedy,
    remedy_for,
    select,
)
from ..selection.labellings import check_finished, command_of
from ..selection.selection import Selection, selection_of
from .card import Cards
from .labelling import LabellingStatistics as LabellingStatistics
from .labelling import Progress, fields_of, used_threshold

QUICK_BYTES = 1 << 28  # of means up to which a remedy is tried before it is named: a second for a line of advice


def labelling_statistics(
    ds: xr.Dataset,
    label: str,
    how: Selection | None = None,
    *,
    task: str = "",
    store: str = "this store's",
    incomplete: bool = False,
    progress: Progress = lambda _: None,
) -> Cards:
    """Compute what the cards of a labelling have in common.

    ds: a task as `otoscope.open` shows it. how: the selection; by default `Selection()`, which takes rank tests of all
    neurons. `Selection(rule="lape")` goes by the stored bits: at 100,000 clips x 36,864 neurons under 2 s.
    task, store: names for messages. incomplete: go by the committed clips of a task that is not finished.
    A selection that selects nothing is no error: `nothing` then says why and what to try.
    Raises LookupError for an unknown label, for what the store does not keep, and for published probabilities;
    ValueError for fewer than two categories with clips, a task without clips, one that is not finished, and groups that
    cannot be formed.
    """
    how = selection_of(how)
    if "clip" not in ds.dims:
        raise LookupError(
            f"{task or 'this task'} is of probabilities made elsewhere, which have no clips; expected a store that was "
            "extracted here: cards read means and bits"
        )
    if not incomplete and "n_pending" in ds.attrs:
        check_finished(ds, store, task, incomplete)
    name = f"{task}:{label}" if task else label
    codes = ds.otoscope.codes(label, how)
    if not ds.sizes["clip"]:
        failed = f", {n} failed: `otoscope status --failures` says why" if (n := ds.attrs.get("n_failed")) else ""
        raise NothingSelected(
            f"{name} has no clip that was extracted{failed}; expected some: run its {command_of(ds)} again"
        )
    categories = [str(each) for each in codes.attrs["categories"]]
    check_categories(categories, name, how)
    arrangement = ds.otoscope.arrangement(label, how, codes)
    threshold, computed = used_threshold(ds, how, codes.values >= 0, progress)
    progress("rank tests of all neurons" if how.rule == "contrast" else "probabilities of all neurons")
    found = select(ds, label, computed)
    nothing, notes = "", tuple[str, ...]()
    try:
        check_selection(found, name, how, partial(_remedy, ds, label, how))
        notes = (
            *answers_of(found, how),
            *cautions_on(found, how, partial(relative_remedy, ds, label, how, QUICK_BYTES)),
        )
    except NothingSelected as error:
        nothing = str(error)
    if not nothing and not bool(found["member"].any()):
        nothing = "; ".join(notes) or f"no neuron of {name} is specific for a category"
    fields = fields_of(ds, found, codes, arrangement, how, threshold, task, label)
    return Cards(**fields, nothing=nothing, notes=notes)


def _remedy(ds: xr.Dataset, label: str, how: Selection) -> str:
    """What to do so that something is selected: of a task that is large, what is worth a try."""
    kept = [name for name in ("positive_frames", "mean") if name in ds]
    if all(ds[name].nbytes <= QUICK_BYTES for name in kept):
        return remedy_for(ds, label, how)
    frames = ["--reading frame"] * ("positive_frames" in kept and how.reading != "frame")
    own = [f"--reading clip --threshold {RELATIVE}"] * ("mean" in kept and how.line != RELATIVE)
    return f"try {' or '.join([*frames, *own]) or 'another label column'}"

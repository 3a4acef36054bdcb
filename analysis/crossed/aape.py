"""The grounding coefficient by AAPE: how much more selective a neuron is than labels dealt out at random make it.

Goal: the note's measure, where it can be built. AAPE itself does not change when categories change places, so no swap
shows in it; what shuffled labels leave of selectivity is what noise makes, and the rest is the label's.
"""

from dataclasses import replace

import numpy as np
import xarray as xr

from ..null.permutation import over_neurons
from ..null.resampling import Sample, shuffle_labels
from ..selection.from_counts import aape_of_counts
from ..selection.selection import Selection
from .coefficient import LEVEL, ratio_of
from .layout import Layout

CLASS, UNIT = "__class", "__unit"  # no stored label column can have these names


def with_aape(found: xr.Dataset, ds: xr.Dataset, layout: Layout, how: Selection) -> xr.Dataset:
    """The result of `grounding` with `aape_excess_A`, `aape_excess_T` in nats and `gc_aape`, by the same gate.

        gc_aape = S_A / (S_A + S_T),   S = max(excess, 0)

    ds: the task, with its accessor; its clips of the layout count. how: reading, threshold, permutations and seed.
    Sounds exchange their categories, with all their pairs, and wordings theirs. Computed at once.
    """
    excess = {name: aape_excess(_sample(ds, layout, name, how), how.permutations, how.seed) for name in ("A", "T")}
    gc = ratio_of(excess["A"].clip(min=0), excess["T"].clip(min=0)).where(found["q"] <= LEVEL)
    words = {"A": "sound", "T": "text"}
    variables = {
        f"aape_excess_{name}": each.assign_attrs(
            long_name=f"AAPE of the {words[name]}'s category below shuffled labels'", units="nat"
        )
        for name, each in excess.items()
    }
    variables["gc_aape"] = gc.assign_attrs(long_name="grounding coefficient by AAPE", units="1")
    return found.assign(variables)


def aape_excess(sample: Sample, permutations: int, seed: int) -> xr.DataArray:
    """Mean AAPE over shuffled labels, less that of the labels found: (layer, neuron) in nats, to 1e-6.

    NaN for a neuron that never fires. Units of the sample move as one.
    """
    n = len(sample.categories)
    found, total = aape_of_counts(*sample.counts(sample.codes, n)), np.zeros(sample.existing.size)
    for draw in range(permutations):
        total += aape_of_counts(*sample.counts(shuffle_labels(sample, seed, draw), n))
    return over_neurons(sample, total / permutations - found, np.nan)


def _sample(ds: xr.Dataset, layout: Layout, effect: str, how: Selection) -> Sample:
    """The layout's clips by their audio class, in units of a sound, or by their text class, in units of a wording."""
    _, n_sounds, _, n_wordings = layout.pairs.shape
    a, j, t, m = np.indices(layout.pairs.shape).reshape(4, -1)
    classes, of_class, unit = (
        (layout.audio_classes, a, a * n_sounds + j) if effect == "A" else (layout.text_classes, t, t * n_wordings + m)
    )
    names = np.array(classes, object)[of_class], unit.astype(str).astype(object)
    order = np.argsort(layout.pairs.ravel())
    own = ds.isel(clip=layout.pairs.ravel()[order])
    own = own.assign_coords({name: ("clip", of[order]) for name, of in zip((CLASS, UNIT), names, strict=True)})
    sample: Sample = own.otoscope.sample(CLASS, replace(how, where=(), group=UNIT, within=()))
    return sample

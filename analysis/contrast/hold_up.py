"""Does a selection hold up on clips that did not make it? And how strong are the effects of what was selected?

Conventions: results are (layer, neuron, category), NaN where nothing was selected; a few selected neurons of all clips
are read at a time.
"""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..null.resampling import Arrangement
from ..selection.selection import Selection
from ..selection.selectivity import CELL_DIMS
from .delong import delong_variance
from .rank_tests import BATCH, CONFIDENCE_Z, Draws
from .ranks import COLUMN, Floats, Ranked, auc_of, rank, read_means, z_of

LEVEL = 0.05  # of one test by clips that did not select, not corrected
DIGITS = 9  # of z: what rounding leaves is no difference


def effects(mean: xr.DataArray, member: xr.DataArray, arrangement: Arrangement) -> xr.Dataset:
    """AUC of the selected neurons and its 95 % interval: auc, auc_low, auc_high (layer, neuron, category).

    mean: (layer, neuron, clip); member: bool (layer, neuron, category), of the arrangement's categories. As of
    `contrast_tests`, for every category of a neuron that is selected for some.
    """
    cells = member.transpose(*CELL_DIMS)
    values = {name: np.full(cells.shape, np.nan) for name in ("auc", "auc_low", "auc_high")}
    of = arrangement.clips_per_category
    draws = Draws.of(arrangement, 0, range(1))
    for ranked, neurons in _selected(mean, cells, arrangement):
        auc = auc_of(draws.sums(ranked, slice(1))[0], of)
        variance = delong_variance(ranked, arrangement, of)
        half = CONFIDENCE_Z * np.sqrt(np.where(variance > 0, variance, np.nan))
        parts = {"auc": auc, "auc_low": np.maximum(auc - half, 0), "auc_high": np.minimum(auc + half, 1)}
        for name, part in parts.items():
            values[name][ranked.layer, neurons] = np.where(ranked.spread > 0, part, np.nan).T
    return xr.Dataset({name: (CELL_DIMS, value) for name, value in values.items()})


def hold_up(mean: xr.DataArray, found: xr.Dataset, arrangement: Arrangement, selection: Selection) -> xr.Dataset:
    """Each selected neuron and category on clips that did not select it: confirm_auc, confirm_auc_low,
    confirm_auc_high, confirm_p, holds_up (layer, neuron, category).

    confirm_p: the share of labellings of these clips, `permutations` of them shuffled and the one found, whose z is as
    high or higher, one-sided, not corrected; of a neuron that was selected for falling silent (an AUC below 0.5 in
    `found`), as low or lower. holds_up: 1 where it is at most 0.05, 0 where it is not, NaN where nothing was selected
    or the category has no clip here. Attributes: `hold_up`, the mean of holds_up; `hold_up_shuffled`, the same of
    shuffled labels, each one held against the others; `hold_up_shuffled_high`, what 95 % of these stay below;
    `hold_up_clips`.

    mean: (layer, neuron, clip). found: the selection, with `member` and, where it can be negative, `auc`. arrangement:
    of the clips that confirm; categories by name.
    Raises ValueError where no p can be as low as 0.05.
    """
    n_draws = selection.permutations + 1
    draws = Draws.of(arrangement, selection.seed, range(n_draws))
    if (smallest := arrangement.smallest_p(selection.permutations)) > LEVEL:
        raise ValueError(
            f"no p can be below {smallest:.2g} with {selection.permutations} permutations of "
            f"{len(arrangement.first_and_unit[0])} units that are to confirm; expected at most {LEVEL:g}: take more "
            "permutations, clips or groups"
        )
    member = found["member"].transpose(*CELL_DIMS)
    names = [str(name) for name in member["category"].values]
    here = [names.index(name) for name in arrangement.categories]
    own = member.isel(category=here)
    auc = found["auc"].transpose(*CELL_DIMS).isel(category=here).values if "auc" in found else None
    values = {name: np.full(member.shape, np.nan) for name in ("confirm_p", "holds_up")}
    holding, n_tested = np.zeros(n_draws), 0
    for ranked, neurons in _selected(mean, own, arrangement):
        z = np.concatenate(
            [
                z_of(draws.sums(ranked, part), draws.of_category[part], ranked.spread)
                for part in (slice(start, start + BATCH) for start in range(0, n_draws, BATCH))
            ]
        )
        which, category = np.nonzero(own.values[ranked.layer, neurons] & (ranked.spread > 0)[:, None])
        if not len(which):
            continue
        cells: Floats = z[:, category, which].round(DIGITS)
        if auc is not None:
            cells[:, auc[ranked.layer, neurons[which], category] < 0.5] *= -1
        p = _share_at_least(cells)
        holding += (p <= LEVEL).sum(axis=1)
        n_tested += len(which)
        at = ranked.layer, neurons[which], np.array(here)[category]
        values["confirm_p"][at], values["holds_up"][at] = p[0], p[0] <= LEVEL
    shares = holding / n_tested if n_tested else np.full(n_draws, np.nan)
    about = {
        "hold_up": float(shares[0]),
        "hold_up_shuffled": float(shares[1:].mean()),
        "hold_up_shuffled_high": float(np.quantile(shares[1:], 0.95)),
        "hold_up_clips": len(arrangement.codes),
    }
    for name, part in effects(mean, own, arrangement).items():
        whole = np.full(member.shape, np.nan)
        whole[..., here] = np.where(own.values, part.values, np.nan)
        values[f"confirm_{name}"] = whole
    return xr.Dataset({name: (CELL_DIMS, value) for name, value in values.items()}, attrs=about)


def _share_at_least(z: Floats) -> Floats:
    """Of each z (draw, cell) the share of all draws of its cell that are as high or higher."""
    ordered = np.sort(z, axis=0)
    p = np.empty_like(z)
    for cell in range(z.shape[1]):
        p[:, cell] = (len(z) - np.searchsorted(ordered[:, cell], z[:, cell], side="left")) / len(z)
    return p


def _selected(
    mean: xr.DataArray, member: xr.DataArray, arrangement: Arrangement
) -> Iterator[tuple[Ranked, NDArray[np.intp]]]:
    """Ranks of the neurons that are selected for some category, and which neurons of the layer they are of."""
    selected: NDArray[np.bool_] = np.any(member.values, axis=2)
    for layer, chosen in enumerate(selected):
        neurons = np.flatnonzero(chosen)
        for first in range(0, len(neurons), COLUMN):
            some = neurons[first : first + COLUMN]
            for ranked in rank(read_means(mean, layer, some, arrangement.clips), layer, slice(0, len(some))):
                yield ranked, some[ranked.neurons]

"""The rule "contrast" in one draw: with labels shuffled, or clips drawn anew.

Goal: what of a selection by tests chance alone would give, and how far it depends on single clips.
Conventions: arrays are (category, neuron) over the neurons that exist, in order of (layer, neuron), flat. Ranks of all
neurons lie in memory: 2 or 4 bytes per clip and neuron.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..adders import compiled
from .ranks import TILE, Codes, Floats, auc_of, by_category, columns_of, rank, rank_sums, read_means, z_of

Members = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class RankSample:
    """Ranks of the labelled clips, and the selection that was made by them."""

    tiles: tuple[NDArray[np.unsignedinteger], ...]
    """Doubled midranks (clip, neuron), `TILE` neurons each."""
    spread: Floats
    """Of the neurons' ranks (neuron); see `ranks.Ranked`."""
    codes: Codes
    """Category of each clip (clip)."""
    member: Members
    """As found (category, neuron)."""
    critical: Floats
    """The least z, away from 0, that is significant among the found (category); infinite where none is."""
    sign: str
    min_effect: float

    def shuffled(self, codes: Codes) -> Members:
        """By other codes (clip): in each category as many neurons as were found, those of the highest z.

        By the sign "negative" those of the lowest, by "both" those furthest from 0. Labels that mean nothing pass no
        test; what they say is how much sets of the same size have in common by chance.
        """
        order, edges = by_category(codes, len(self.member))
        sums = np.empty(self.member.shape, np.uint64)
        for i, ranks in enumerate(self.tiles):
            part = np.empty((1, len(sums), ranks.shape[1]), np.uint32 if ranks.itemsize == 2 else np.uint64)
            rank_sums(ranks, order[None], edges[None], part)
            sums[:, i * TILE : i * TILE + ranks.shape[1]] = part[0]
        z = self._away(z_of(sums, np.diff(edges), self.spread))
        member = np.zeros(self.member.shape, bool)
        for row, category, many in zip(z, member, self.member.sum(axis=1).tolist(), strict=True):
            if many:
                category[np.argpartition(-np.nan_to_num(row, nan=-np.inf), many - 1)[:many]] = True
        return member

    def redrawn(self, clips: NDArray[np.intp]) -> Members:
        """By clips drawn with replacement (clip): those that pass the effect and the z that were critical as found."""
        weights = np.bincount(clips, minlength=len(self.codes))
        of = np.bincount(self.codes, weights, len(self.member)).astype(np.int64)
        sums, spread = np.zeros(self.member.shape), np.zeros(len(self.spread))
        for i, ranks in enumerate(self.tiles):
            own = slice(i * TILE, i * TILE + ranks.shape[1])
            _reweighted(ranks, self.codes, weights, sums[:, own], spread[own])
        auc = auc_of(sums, of)
        away = {"positive": auc, "negative": 1 - auc, "both": np.maximum(auc, 1 - auc)}[self.sign]
        z = self._away(z_of(sums, of, np.where(np.isnan(self.spread), np.nan, spread)))
        passed: Members = (np.nan_to_num(z, nan=-np.inf) >= self.critical[:, None]) & (away >= self.min_effect)
        return passed

    def _away(self, z: Floats) -> Floats:
        return {"positive": z, "negative": -z, "both": np.abs(z)}[self.sign]


def take_ranks(
    mean: xr.DataArray, clips: NDArray[np.intp], codes: Codes, exists: NDArray[np.bool_], found: xr.Dataset
) -> RankSample:
    """Read the ranks of these clips (clip) of means (layer, neuron, clip) into memory.

    codes: of the clips. exists: bool (layer, neuron). found: of `contrast_specific`, with `member`, `z`, `q` and its
    attributes.
    """
    n_neurons = int(exists.sum())
    ranks: NDArray[np.unsignedinteger] | None = None
    spread, done = np.empty(n_neurons), 0
    tiles: list[NDArray[np.unsignedinteger]] = []
    for layer, neurons in columns_of(mean, clips):
        inside = exists[layer, neurons]
        for ranked in rank(read_means(mean, layer, neurons, clips)[:, inside], layer, slice(0, int(inside.sum()))):
            width = ranked.ranks.shape[1]
            if ranks is None:
                ranks = np.empty((len(clips), 0), ranked.ranks.dtype)
            spread[done : done + width] = ranked.spread
            done += width
            ranks = np.concatenate([ranks, ranked.ranks], axis=1)  # at most two tiles
            if ranks.shape[1] >= TILE:
                tiles.append(np.ascontiguousarray(ranks[:, :TILE]))
                ranks = ranks[:, TILE:]
    if ranks is not None and ranks.shape[1]:
        tiles.append(np.ascontiguousarray(ranks))
    cells = found.transpose("category", "layer", "neuron", ...)
    z, q, member = (cells[name].values[:, exists] for name in ("z", "q", "member"))
    sign = found.attrs["sign"]
    away = {"positive": z, "negative": -z, "both": np.abs(z)}[sign]
    critical = np.where(q <= found.attrs["level"], away, np.inf).min(axis=1, initial=np.inf)
    return RankSample(
        tiles=tuple(tiles), spread=spread, codes=codes, member=member, critical=critical, sign=sign,
        min_effect=found.attrs["min_effect"],
    )  # fmt: skip


@compiled
def _reweighted(ranks: Any, codes: Any, weights: Any, sums: Any, spread: Any) -> None:
    """Doubled rank sums (category, neuron) and spread (neuron) where each clip counts as often as its weight says."""
    n = weights.sum()
    at = np.zeros(2 * len(codes) + 1)  # by doubled rank: first the weight there, then the new doubled rank
    whole = float(n) * n * n - n
    for neuron in range(ranks.shape[1]):
        at[:] = 0
        for clip in range(len(codes)):
            at[ranks[clip, neuron]] += weights[clip]
        below, tied = 0.0, 0.0
        for value in range(len(at)):
            same = at[value]
            if same > 0:
                at[value] = 2 * below + same + 1
                tied += same * same * same - same
                below += same
        for clip in range(len(codes)):
            sums[codes[clip], neuron] += weights[clip] * at[ranks[clip, neuron]]
        spread[neuron] = 1 - tied / whole if whole > 0 else 0.0

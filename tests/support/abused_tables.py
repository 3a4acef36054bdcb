"""Small tables as no statistic likes them, by seed: constant, tied, NaN, single, unbalanced, empty."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

BY_NEURON = ("layer", "neuron", "clip")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Clips of a labelling, and what a few neurons did on them."""

    codes: NDArray[np.int64]  # (clip), -1 for none
    n_categories: int  # of which some may have no clip
    active: NDArray[np.bool_]  # (neuron, clip)
    mean: NDArray[np.float64]  # (neuron, clip), finite
    frames: NDArray[np.int64]  # (clip), 0 for some
    positive: NDArray[np.int64]  # (neuron, clip)
    groups: NDArray[np.str_]  # (clip), "" for none
    percentile: float
    rule: str

    @property
    def labels(self) -> xr.DataArray:
        names = [f"c{i}" for i in range(self.n_categories)]
        return xr.DataArray(self.codes, dims="clip", attrs={"categories": names})

    def of_neurons(self, values: NDArray[np.generic]) -> xr.DataArray:
        """(neuron, clip) as one layer."""
        return xr.DataArray(values[None], dims=BY_NEURON)

    def clips(self, category: int) -> NDArray[np.intp]:
        return np.flatnonzero(self.codes == category)

    @property
    def probability(self) -> NDArray[np.float64]:
        """Share of active clips (neuron, category), NaN for a category without clips."""
        return np.array([[share(row[self.clips(c)]) for c in range(self.n_categories)] for row in self.active])


def share(values: NDArray[np.generic]) -> float:
    return sum(values.tolist()) / len(values) if len(values) else float("nan")


def draw(seed: int) -> Table:
    rng = np.random.default_rng(seed)
    n_categories, n_neurons, n = int(rng.integers(1, 6)), int(rng.integers(1, 13)), int(rng.integers(0, 25))
    weights = rng.dirichlet(np.full(n_categories + 1, rng.choice([0.2, 1, 20])))  # unbalanced to balanced
    codes = rng.choice(n_categories + 1, n, p=weights) - 1
    if rng.random() < 0.2:
        codes = rng.permutation(np.arange(n) % n_categories)
    mean = rng.normal(size=(n_neurons, n))
    for neuron in range(n_neurons):
        match rng.integers(0, 6):
            case 0:
                mean[neuron] = rng.choice([-1.0, 0.0, 0.1, 3.0])  # constant
            case 1:
                mean[neuron] = np.round(mean[neuron])  # tied
            case 2:
                mean[neuron] = np.where(codes == rng.integers(0, n_categories), 1.0, -1.0)  # of one category
            case 3:
                mean[neuron] = mean[0]  # like another
    frames = rng.integers(0, 4, n)
    return Table(
        codes=codes.astype(np.int64), n_categories=n_categories, active=mean > 0, mean=mean, frames=frames,
        positive=np.where(mean > 0, frames, 0), groups=np.array(["", "a", "b", "c", "d"])[groups_of(rng, codes)],
        percentile=float(rng.choice([1, 20, 60, 100])), rule=str(rng.choice(["lape", "paper"])),
    )  # fmt: skip


def groups_of(rng: np.random.Generator, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Alone, as the categories, inside the categories, or across them."""
    n = len(codes)
    ways = [np.zeros(n, int), (codes + 1) % 5, np.where(codes == 0, rng.integers(1, 3, n), (codes + 2) % 5)]
    return np.asarray([*ways, rng.integers(0, 5, n)][int(rng.integers(0, 4))])

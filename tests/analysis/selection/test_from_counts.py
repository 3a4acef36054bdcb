"""The quick selection of a draw is `class_specific`, to the last tie, by both rules and in both of its ways."""

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import class_specific
from otoscope.analysis.selection import from_counts
from otoscope.analysis.selection.from_counts import Selected, ratio_of, select_counts
from otoscope.analysis.selection.selection import Selection

from ..null.test_permutation import plain_jaccard

RANGE = (0.1, 1, 5, 20, 100)


@pytest.mark.parametrize("seed", range(20))
def test_selection_of_counts_is_the_selection_of_probabilities(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n_categories, n_neurons = int(rng.integers(2, 40)), int(rng.integers(20, 400))
    n_clips = rng.integers(1, [60, 5000][seed % 4 == 3], n_categories)
    if seed % 2:
        n_clips[:] = n_clips[0]
    counts = rng.binomial(n_clips[:, None], rng.beta(0.5, 0.5, n_neurons))
    if seed % 3 == 0:
        counts[:, ::4] = 0
    p = xr.DataArray((counts / n_clips[:, None]).T[None], dims=("layer", "neuron", "category"))
    if seed % 2:  # as with frames, of which there are more than a table of probabilities has room for
        monkeypatch.setattr(from_counts, "MAX_LEVELS", 0)
    for rule, percentile in [*(("paper", each) for each in (1, 20, 100)), *(("lape", each) for each in RANGE)]:
        expected = class_specific(p, percentile=percentile, rule=rule)
        found = select_counts(counts, n_clips, Selection(percentile=percentile, rule=rule))
        assert found.neurons.tolist() == np.flatnonzero(expected["selected"].values[0]).tolist()
        np.testing.assert_array_equal(found.dense(n_neurons), expected["member"].values[0].T)
    q = p.values[0] / np.maximum(p.values[0].sum(axis=1, keepdims=True), 1e-300)
    entropy = -np.sum(q * np.log(np.where(q > 0, q, 1)), axis=1)
    np.testing.assert_allclose(found.aape, np.where(p.values[0].any(axis=1), entropy, np.nan), atol=3e-6)
    a, b = found.dense(n_neurons), rng.random((5, n_neurons)) < 0.1
    np.testing.assert_allclose(ratio_of(found), plain_jaccard(a, a))
    other = Selected(aape=found.aape, neurons=np.flatnonzero(b.any(axis=0)), member=b[:, b.any(axis=0)])
    np.testing.assert_allclose(ratio_of(found, other), plain_jaccard(a, b))

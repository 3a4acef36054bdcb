"""Measures are those that numpy counts."""

import numpy as np
import pytest
import torch

from otoscope.extract.models.dictionary import Dictionary
from otoscope.sae.measures import measure, mmcs
from otoscope.sae.rows import BATCH, HeldRows, moments


def test_measures_are_those_of_numpy() -> None:
    """Over several batches, of two dictionaries in one pass, one of them with latents that never fire."""
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH * 2 + 7, 6, generator=dice) + 3
    mean = x.double().mean(dim=0)

    def dictionary(offset: float) -> Dictionary:
        bias = torch.randn(20, generator=dice)
        bias[:5] = offset
        encoder, decoder = torch.randn(20, 6, generator=dice), torch.randn(20, 6, generator=dice)
        return Dictionary(encoder=encoder, bias=bias, decoder=decoder, centre=mean.float(), k=4, state=0)

    both = [dictionary(0.0), dictionary(-100.0)]
    for one, found in zip(both, measure(both, HeldRows(x), mean), strict=True):
        raw = x.numpy().astype(np.float64)
        pre = (raw - one.centre.numpy()) @ one.encoder.numpy().T.astype(np.float64) + one.bias.numpy()
        z = np.maximum(pre, 0)
        z *= z >= np.sort(z, axis=1)[:, -4][:, None]
        error = raw - (z @ one.decoder.numpy() + one.centre.numpy())
        assert found.n == len(x)
        assert found.mse == pytest.approx((error**2).mean(), rel=1e-5)
        assert found.fve == pytest.approx(1 - (error**2).sum() / ((raw - raw.mean(axis=0)) ** 2).sum(), rel=1e-5)
        assert found.l0 == pytest.approx((z > 0).sum(axis=1).mean())
        assert found.dead == pytest.approx((~(z > 0).any(axis=0)).mean())
        np.testing.assert_allclose(found.rates, (z > 0).mean(axis=0))
        summary = found.to_json()["firing_rates"]
        assert summary["q50"] == pytest.approx(np.quantile((z > 0).mean(axis=0)[(z > 0).any(axis=0)], 0.5))
    assert measure(both, HeldRows(x), mean)[1].dead >= 0.25


def test_moments_are_exact_where_the_mean_is_large() -> None:
    values = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) + 10_000
    found = moments(HeldRows(values))
    raw = values.numpy().astype(np.float64)
    np.testing.assert_allclose(found.mean, raw.mean(axis=0), rtol=1e-12)
    assert found.variance == pytest.approx(raw.var(axis=0).sum(), rel=1e-9)
    assert moments(HeldRows(values[:1].repeat(100, 1))).variance == 0


def test_mmcs() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert mmcs(features, torch.tensor([[3.0, 0.0], [-1.0, 0.0]])) == (0.5, 0.5)
    assert mmcs(features, torch.tensor([[1.0, 1.0], [0.0, 0.0]])) == (pytest.approx(0.5**0.5), 0.0)


def test_an_epoch_is_a_permutation_of_its_seed_and_number() -> None:
    values = torch.arange(100, dtype=torch.float32)[:, None]
    rows = HeldRows(values, order_seed=3)
    orders = [torch.cat(list(rows.epoch(number, 32)))[:, 0] for number in (0, 1, 0)]
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0].sort().values, values[:, 0])
    assert [len(batch) for batch in rows.epoch(0, 32)] == [32, 32, 32, 4]
    assert not torch.equal(orders[0], torch.cat(list(HeldRows(values).epoch(0, 32)))[:, 0])
    assert torch.equal(torch.cat(list(rows.plain(7))), values)
    with pytest.raises(ValueError, match=r"rows are torch.float64 \(3,\); expected float32"):
        HeldRows(torch.zeros(3, dtype=torch.float64))

"""Sparse codes of clips, and factors that a few of them make up."""

import numpy as np


def planted_codes(n: int, n_codes: int, *, density: float = 0.05, seed: int = 0) -> np.ndarray:
    """Codes (clip, code), each above 0 in a share of the clips of its own, 0.3 to 1.7 times the density."""
    rng = np.random.default_rng([seed, n_codes])
    rates = density * rng.uniform(0.3, 1.7, n_codes)
    return np.where(rng.random((n, n_codes)) < rates, 0.5 + rng.exponential(size=(n, n_codes)), 0.0)


def planted_factors(codes: np.ndarray, numbers: list[int], noise: float, *, seed: int = 0) -> np.ndarray:
    """Factors (clip, factor), each the sum of so many of the codes, of deviation 1 each, and noise.

    The codes are of those that are above 0 most often. noise: its deviation over that of the sum.
    """
    rng = np.random.default_rng([seed, 1])
    often = np.argsort(-(codes > 0).mean(axis=0))[: max(20, codes.shape[1] // 4)]
    factors = np.empty((len(codes), len(numbers)))
    for j, m in enumerate(numbers):
        own = codes[:, rng.choice(often, m, replace=False)]
        total = (own / own.std(axis=0)).sum(axis=1)
        factors[:, j] = total + noise * total.std() * rng.normal(size=len(codes))
    return factors

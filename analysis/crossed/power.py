"""How small an effect a crossed design finds, from the noise of each neuron in it."""

import numpy as np

from .effects import OF_EFFECT, Floats, Sizes, degrees, satterthwaite

POWER = 0.8
STEPS = 64  # of the logarithm of degrees of freedom, by which those of neurons are told apart


def smallest_effect(squares: Floats, sizes: Sizes, effect: str, level: Floats | float) -> Floats:
    """The d (neuron) of A or T at which F' has a p of at most `level` 8 times in 10; NaN where there is no noise.

    squares: (term, neuron). F' then is near a non-central F: of its numerator, which without an effect is as large as
    the denominator, nu degrees of freedom and lambda = nu n d^2 / (MS_C + MS_AW), n = JLM; T likewise.
    """
    from scipy.special import fdtri, ncfdtrinc

    (own, noise), df = OF_EFFECT[effect], degrees(sizes)
    K, J, L, M = sizes
    below = squares[noise[0]] + squares[noise[1]]
    without = squares.copy()
    without[own] = np.maximum(below - squares[7], 0)  # what it is without an effect
    with np.errstate(divide="ignore", invalid="ignore"):
        nu = np.stack([satterthwaite(without, df, (own, 7)), satterthwaite(squares, df, noise)])
    known = np.isfinite(nu).all(axis=0) & (below > 0)
    found = np.full(squares.shape[1], np.nan)
    if known.any():
        cells, which = np.unique(np.round(np.log(nu[:, known]) * STEPS), axis=1, return_inverse=True)
        above, of_noise = np.exp(cells / STEPS)
        critical = fdtri(above, of_noise, 1 - float(level))
        lambdas = ncfdtrinc(above, of_noise, 1 - POWER, critical)[which.ravel()]
        n = J * L * M if effect == "A" else K * J * M
        found[known] = np.sqrt(lambdas * below[known] / (nu[0, known] * n))
    return found

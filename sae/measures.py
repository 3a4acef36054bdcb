"""Measures of a dictionary on rows: how well they are reconstructed, by how many latents, and which of these fire.

Conventions: rows are raw states (row, width); everything is summed in float64 over one pass. A latent fires in a row
where its code is above 0. Variance is about the mean of the training rows, also for rows held out, so that a wrong bias
shows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..extract.models.dictionary import Dictionary
from .rows import BATCH, Rows

QUANTILES = (0.1, 0.5, 0.9)
FOUND = 0.9
"""Cosine above which a planted feature counts as found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """Of a dictionary on rows."""

    n: int
    """Rows."""
    mse: float
    """Mean squared error per value."""
    fve: float
    """Fraction of variance explained, at most 1: 1 - sum |x - x^|^2 / sum |x - mean of training rows|^2."""
    l0: float
    """Mean number of latents that fire in a row."""
    rates: Tensor
    """Float64 (latent): share of rows in which each fires."""

    @property
    def dead(self) -> float:
        """Share of latents that fire in no row."""
        return float((self.rates == 0).double().mean())

    @property
    def fired(self) -> str:
        """In how many rows each latent fires, one after the other."""
        return " ".join(str(count) for count in (self.rates * self.n).round().long().tolist())

    def to_json(self) -> dict[str, Any]:
        """All but the single rates; of those that are not 0, quantiles and the largest by name."""
        firing = self.rates[self.rates > 0]
        summary = {}
        if len(firing):
            values = torch.quantile(firing, torch.tensor(QUANTILES, dtype=firing.dtype)).tolist()
            summary = {f"q{round(100 * q)}": value for q, value in zip(QUANTILES, values, strict=True)}
            summary["max"] = float(firing.max())
        return {
            "rows": self.n, "mse": self.mse, "fve": self.fve, "l0": self.l0, "dead": self.dead,
            "firing_rates": summary,
        }  # fmt: skip


def measure(dictionaries: list[Dictionary], rows: Rows, mean: Tensor) -> list[Measures]:
    """Measures of each dictionary, from one pass over the rows.

    mean: (width) of the training rows.
    """
    n, distance = 0, 0.0
    errors = [0.0] * len(dictionaries)
    fired = [torch.zeros(each.n_latents, dtype=torch.int64, device=each.encoder.device) for each in dictionaries]
    for x in rows.plain(BATCH):
        n += len(x)
        distance += float((x.double() - mean.to(x.device)).square().sum())
        for i, dictionary in enumerate(dictionaries):
            states = x.to(dictionary.encoder.device)
            codes = dictionary.encode(states)
            fired[i] += (codes > 0).sum(dim=0)
            errors[i] += float((states - dictionary.decode(codes)).double().square().sum())
    return [
        Measures(
            n=n, mse=error / (n * dictionary.width), fve=1 - error / distance if distance else float("nan"),
            l0=float(counts.sum()) / n, rates=(counts.double() / n).cpu(),
        )
        for dictionary, error, counts in zip(dictionaries, errors, fired, strict=True)
    ]  # fmt: skip


def rates_of(dictionary: Dictionary) -> NDArray[np.float64]:
    """Share of the training rows in which each latent fires (latent); NaN where `sae.json` does not say.

    Raises ValueError where what it says is not a count of each.
    """
    fired = dictionary.about.get("fired")
    if fired is None:
        return np.full(dictionary.n_latents, np.nan)
    try:
        counts = np.array([int(count) for count in fired.split(" ")], np.float64)
        rates: NDArray[np.float64] = counts / int(dictionary.about["measures"]["train"]["rows"])
        wrong = len(rates) != dictionary.n_latents or not ((rates >= 0) & (rates <= 1)).all()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        wrong = True
    if wrong:
        raise ValueError(
            f"how often latents of {dictionary.label} fire is not {dictionary.n_latents} counts of training rows; "
            "expected its sae.json as it was written: fetch or train it again"
        )
    return rates


def mmcs(features: Tensor, decoder: Tensor) -> tuple[float, float]:
    """Mean max cosine similarity of features (feature, width) to a decoder (latent, width), and the share above 0.9."""
    cosine = F.normalize(features.double(), dim=1) @ F.normalize(decoder.double(), dim=1).T
    largest = cosine.max(dim=1).values
    return float(largest.mean()), float((largest > FOUND).double().mean())

"""Stability: which latents come back when a dictionary is trained again.

Goal: two dictionaries of one state side by side, latent by latent, and what directions drawn at random would come to.
Conventions: a latent is its decoder row, and two are as similar as these by their cosine. Latents that fire in fewer
than one of a thousand training rows are left out on either side: they are about where they were drawn, and of planted
features, each in 4 % of 20,000 rows, none is among them. Of an imported dictionary nobody says how often they fire, so
that all count.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..extract.models.dictionary import Dictionary, read_dictionary
from .measures import rates_of
from .table import dictionary_folders

log = logging.getLogger(__name__)

SIMILAR = 0.7
"""Cosine above which a latent counts as one that came back."""
MIN_RATE = 1e-3
FROM_RECIPE = ("config", "recipe")
"""Sections of `sae.json` in which the settings of a training are, the first that is there."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """Directions a against directions b, of one state."""

    cosine: Floats
    """(a, b)."""
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Positions in a and in b of the one-to-one match with the largest sum of cosines, of as many as both have."""

    @classmethod
    def of(cls, a: Floats, b: Floats) -> "Match":
        """Of directions (a, width) and (b, width) of any norm; one of norm 0 is similar to none."""
        cosine = _unit(a) @ _unit(b).T
        return cls(cosine=cosine, pairs=linear_sum_assignment(cosine, maximize=True))

    def measures(self) -> dict[str, float]:
        """Of all directions, each from -1 to 1, or a share; NaN where a side has none.

        pw_mcc          mean cosine of the pairs (Song et al. 2025)
        above_0.7       share of the pairs whose cosine is above 0.7
        best_a, best_b  mean over one side's directions of the largest cosine with any of the other side's
        """
        if not self.cosine.size:
            return dict.fromkeys(("pw_mcc", "above_0.7", "best_a", "best_b"), float("nan"))
        matched = self.cosine[self.pairs]
        return {
            "pw_mcc": float(matched.mean()), "above_0.7": float((matched > SIMILAR).mean()),
            "best_a": float(self.cosine.max(axis=1).mean()), "best_b": float(self.cosine.max(axis=0).mean()),
        }  # fmt: skip


def sae_stability(folder: str | Path, *, min_rate: float = MIN_RATE, seed: int = 0) -> pd.DataFrame:
    """One row per two SAEs in a folder that are of the same rows of one state.

    Columns: state; a and b, their names; differ, the settings in which they do; firing_a and firing_b, how many latents
    fire often enough; `Match.measures` of these; and the same of as many random directions, as chance_pw_mcc and so on.
    min_rate: share of training rows in which a latent must fire; 0 for any that ever does. seed: draws those
    directions; equal numbers of latents are compared with equal ones.
    Raises FileNotFoundError for a folder without SAEs, ValueError where no two go together, or one is damaged.
    """

    @cache
    def chance(n_a: int, n_b: int, width: int) -> dict[str, float]:
        dice = np.random.default_rng(seed)
        found = Match.of(dice.normal(size=(n_a, width)), dice.normal(size=(n_b, width))).measures()
        return {f"chance_{name}": value for name, value in found.items()}

    rows: list[dict[str, Any]] = []
    for a, b in _pairs(folder):
        of_a, of_b = _firing(a, min_rate)[1], _firing(b, min_rate)[1]
        rows.append(
            {
                "state": a.state, "a": a.name, "b": b.name, "differ": _differ(a, b), "firing_a": len(of_a),
                "firing_b": len(of_b), **Match.of(of_a, of_b).measures(), **chance(len(of_a), len(of_b), a.width),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def latent_stability(folder: str | Path, *, min_rate: float = MIN_RATE) -> pd.DataFrame:
    """One row per latent that fires often enough, of each of every two SAEs as in `sae_stability`.

    Columns: state; sae and other, names; latent of `sae`, and rate, the share of training rows in which it fires;
    match, its pair in `other` (none where that has fewer), and cosine, theirs; best, the latent of `other` with the
    largest cosine, and best_cosine. min_rate: as of `sae_stability`.
    """
    frames = []
    for a, b in _pairs(folder):
        (at_a, of_a), (at_b, of_b) = _firing(a, min_rate), _firing(b, min_rate)
        match = Match.of(of_a, of_b)
        if not match.cosine.size:
            continue
        sides = (a, b, at_a, at_b, match.pairs, match.cosine), (b, a, at_b, at_a, match.pairs[::-1], match.cosine.T)
        for sae, other, latents, others, (own, theirs), cosine in sides:
            frame = pd.DataFrame({"state": sae.state, "sae": sae.name, "other": other.name, "latent": latents})
            frame["rate"] = rates_of(sae)[latents]
            frame["match"] = pd.array([pd.NA] * len(latents), "Int64")
            frame.loc[own, "match"] = others[theirs]
            frame.loc[own, "cosine"] = cosine[own, theirs]
            frames.append(frame.assign(best=others[cosine.argmax(axis=1)], best_cosine=cosine.max(axis=1)))
    columns = ["state", "sae", "other", "latent", "rate", "match", "cosine", "best", "best_cosine"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _pairs(folder: str | Path) -> Iterator[tuple[Dictionary, Dictionary]]:
    """Every two of the same rows of one state, in order of state and name.

    Raises FileNotFoundError for a folder without SAEs, ValueError where no two go together, or one is damaged.
    """
    found = [read_dictionary(path) for path in dictionary_folders(folder)]
    for sae in found:
        if np.isnan(rates_of(sae)).any():
            log.warning("%s does not say how often its latents fire: all of them count", sae.label)
    of = [(each.state, each.rows, each.width, each.base) for each in found]
    together = [(i, j) for i, j in combinations(range(len(found)), 2) if of[i] == of[j]]
    if not together:
        raise ValueError(
            f"{folder} has no two SAEs of one state ({len(found)} in all); expected such as `otoscope sae train --seed "
            "0,1` makes"
        )
    for i, j in sorted(together, key=lambda pair: found[pair[0]].state):
        yield found[i], found[j]


def _firing(dictionary: Dictionary, min_rate: float) -> tuple[NDArray[np.intp], Floats]:
    """Numbers and decoder rows of the latents that count."""
    rates = rates_of(dictionary)
    latents = np.flatnonzero(np.isnan(rates) | ((rates > 0) & (rates >= min_rate)))
    return latents, dictionary.decoder.numpy()[latents].astype(np.float64)


def _differ(a: Dictionary, b: Dictionary) -> str:
    settings: list[dict[str, Any]] = [
        next((each.about[name] for name in FROM_RECIPE if name in each.about), {}) for each in (a, b)
    ]
    names = sorted({*settings[0], *settings[1]})
    return " ".join(name for name in names if settings[0].get(name) != settings[1].get(name))


def _unit(directions: Floats) -> Floats:
    norm = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(norm > 0, norm, 1.0)

"""Cautions: why a probe's numbers may say little, in plain lines.

Goal: a probe that knows nothing, or whose fit ended where the search for it did, is named beside every result of it.
Conventions: clips are those that are tested, each by its head. Chance is what always answering the most frequent
category of these clips would give.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from .probe import Probe

LEVEL = 0.05


def chance_test(
    probe: Probe, embedding: NDArray[np.floating], heads: NDArray[np.integer], truth: NDArray[np.integer]
) -> dict[str, float]:
    """Whether a probe does better than chance on embeddings (clip, embedding) of clips with these categories (clip).

        p = P(X >= right),   X binomial(n, share of the most frequent category)

    Counts `n`, `right` and `by_chance`, and `p`, in [0, 1].
    """
    right = int((probe.logits(embedding, heads).argmax(axis=-1) == truth).sum())
    n, by_chance = len(truth), int(np.bincount(truth).max())
    return {"n": n, "right": right, "by_chance": by_chance, "p": float(binom.sf(right - 1, n, by_chance / n))}


def cautions(probe: Probe, tested: Mapping[str, float]) -> list[str]:
    """What to say of a probe with this `chance_test`; nothing where it does better and its fit ended by itself."""
    found = []
    if tested["p"] > LEVEL:
        found.append(
            f"the probe is not better than chance: {tested['right']} of {tested['n']} tested clips are right, where "
            f"always answering their most frequent category gives {tested['by_chance']} (one-sided binomial "
            f"p = {tested['p']:.2g})"
        )
    heads = probe.about.get("heads", [])
    ends = [head["edge"] for head in heads if head.get("edge")]
    for end in dict.fromkeys(ends):
        of = f" ({ends.count(end)} of {len(heads)} heads)" if len(heads) > 1 else ""
        found.append(f"{end}{of}")
    return found

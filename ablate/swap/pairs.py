"""Which clip lends its neurons to which: partners in a crossed corpus. Pure.

Goal: pairs of clips that differ in the sound's category alone, or in the text's, so that whoever is one's partner has
that one as partner.
Conventions: A is the sound, T the text. `pairs` are positions of clips (audio class, sound of the class, text class,
wording of the class), aligned: sounds of one number in all audio classes are each other's partners, and so are wordings
of one number in all text classes. A swap is a clip and its partner; of n categories, c and c', there are (c, c', number
of what is exchanged, category of what is held, number of what is held): of the sound (K, K, J, L, M), of the text
(L, L, M, K, J). No clip is its own partner: the diagonal is empty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...analysis.crossed.layout import FEWEST, Layout
from ...messages import quoted

Positions = NDArray[np.intp]
MODALITIES = ("A", "T")
NAMES = {"A": "sound", "T": "text"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Swaps:
    """The swaps of a corpus, those of one clip side by side, (swap) each."""

    pairs: Positions
    clip: Positions
    donor: Positions
    modality: NDArray[np.int64]
    """0 for the sound, 1 for the text."""
    own: NDArray[np.int64]
    """Number of the clip's category in the modality, c."""
    other: NDArray[np.int64]
    """Number of the donor's category, c'."""
    at: NDArray[np.int64]
    """Where the swap is in the table of its modality, flat."""

    def table(self, values: NDArray[np.float64], modality: int) -> NDArray[np.float64]:
        """Values (..., swap) as the table of a modality (..., c, c', number, category held, number held); NaN on its
        diagonal."""
        shape = table_shape(self.pairs.shape, modality)
        found = np.full((*values.shape[:-1], int(np.prod(shape))), np.nan)
        mine = self.modality == modality
        found[..., self.at[mine]] = values[..., mine]
        return found.reshape(*values.shape[:-1], *shape)

    @property
    def reverse(self) -> NDArray[np.int64]:
        """Number of the swap in which clip and donor have changed places (swap)."""
        number = {
            key: i
            for i, key in enumerate(zip(self.modality.tolist(), self.clip.tolist(), self.donor.tolist(), strict=True))
        }
        found = zip(self.modality.tolist(), self.donor.tolist(), self.clip.tolist(), strict=True)
        return np.array([number[key] for key in found], np.int64)


def table_shape(sizes: tuple[int, ...], modality: int) -> tuple[int, ...]:
    """(c, c', number, category held, number held) of a layout of these sizes K, J, L, M."""
    K, J, L, M = sizes
    return (L, L, M, K, J) if modality else (K, K, J, L, M)


def aligned_pairs(layout: Layout, replicate: NDArray[np.object_]) -> tuple[Positions, tuple[str, ...]]:
    """The pairs of a layout, arranged so that partners have the same numbers; and what was left out, a line each.

    replicate: (clip), equal for clips that are each other's partners, as `otoscope corpus cross` writes it.
    Sounds and wordings without a partner in each other category, as after failures, are left out.
    Raises ValueError where fewer than two sounds or wordings are left, or where replicates are not crossed.
    """
    pairs = layout.pairs
    names = replicate[pairs]
    texts = _shared(pairs, [names[0, 0, t] for t in range(pairs.shape[2])], 3, 2, "wording")
    names = replicate[texts]
    sounds = _shared(texts, [names[a, :, 0, 0] for a in range(pairs.shape[0])], 1, 0, "sound")
    names = replicate[sounds]
    if (names != names[:1, :, :1]).any() or len({*names[0, :, 0].flat} - {""}) < names[0, :, 0].size:
        raise ValueError(
            "the numbers of replicates do not say which clips are partners; expected equal ones for sounds (and "
            "wordings) that match across categories, and for no others: make the corpus by `otoscope corpus cross`"
        )
    lost = pairs.size - sounds.size
    return sounds, (f"{lost} pairs are left out, which have no partner in some category",) if lost else ()


def _shared(pairs: Positions, names: list[NDArray[np.object_]], axis: int, by: int, kind: str) -> Positions:
    """The pairs along an axis whose names all categories along `by` have, in one order."""
    common = [name for name in names[0] if all(name in set(of) for of in names)]
    if len(common) < FEWEST:
        raise ValueError(
            f"{len(common)} {kind}s of each category have a partner in every other one; expected at least {FEWEST}, of "
            "equal replicate: make the corpus by `otoscope corpus cross`"
        )
    order = [[of.tolist().index(name) for name in common] for of in names]
    parts = [np.take(np.take(pairs, [i], by), own, axis) for i, own in enumerate(order)]
    return np.concatenate(parts, axis=by)


def swaps_of(pairs: Positions) -> Swaps:
    """All swaps of aligned pairs, by clip."""
    parts = []
    for modality in range(2):
        table = np.moveaxis(pairs, (2, 3), (0, 1)) if modality else pairs
        n = len(table)
        own, other = (index.ravel() for index in np.indices((n, n)))
        apart = own != other
        own, other = own[apart], other[apart]
        each = table[0].size
        cells = (own * n + other)[:, None] * each + np.arange(each)
        parts.append(
            [
                table[own].ravel(), table[other].ravel(), np.full(cells.size, modality), np.repeat(own, each),
                np.repeat(other, each), cells.ravel(),
            ]
        )  # fmt: skip
    clip, donor, of, own, other, at = (np.concatenate(both) for both in zip(*parts, strict=True))
    order = np.lexsort((at, of, clip))
    return Swaps(
        pairs=pairs, clip=clip[order], donor=donor[order], modality=of[order], own=own[order],
        other=other[order], at=at[order],
    )  # fmt: skip


def check_sides(layout: Layout) -> tuple[str, ...]:
    """The categories of sounds, which those of texts must be. Raises ValueError where they differ."""
    differ = [*layout.audio_classes, *layout.text_classes]
    differ = [name for name in dict.fromkeys(differ) if differ.count(name) == 1]
    if differ:
        sides = [name for name in differ if name in layout.audio_classes]
        where = "sounds" if differ[0] in sides else "texts"
        raise ValueError(
            f"category {quoted(differ[0])} is one of {where} alone; expected the same categories of sounds and of "
            "texts, as both are held against the same answers: name other columns, or cross them with texts of these"
        )
    return layout.audio_classes

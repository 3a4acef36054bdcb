"""Splits: which clips a probe learns from, which it is stopped by, and which it is tested on.

Goal: the splits and folds of a data set, honoured as they are; where something has to be drawn, it depends on the
clips' names and a seed, never on the order of a file or of a store.
Conventions: a head is a probe of its own: a split has one ("test"), folds have one each, named like the fold that it is
tested on. Arrays are bool (head, clip). Clips with code -1 (no label, failed) take no part. A group are clips that have
something in common, as their singer; a clip whose group is "" is one by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ...messages import quoted

SPLIT_COLUMNS = ("split", "fold")
PARTS = ("train", "valid", "test")
VALID_SHARE = 0.1  # of the training clips, where the data set names none
PARTS_DRAWN = 5  # folds, where as many can be drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """Training, validation and test clips of each head."""

    heads: tuple[str, ...]
    """Names; "test" for a split, else the folds."""
    train: NDArray[np.bool_]
    """(head, clip)."""
    valid: NDArray[np.bool_]
    """(head, clip)."""
    test_fold: NDArray[np.int64]
    """(clip): the head that a clip is tested by, -1 for none."""
    valid_drawn: bool
    """Whether validation clips were drawn from the training clips because the data set names none."""
    groups: NDArray[np.int64]
    """(clip): numbers of the groups, ordered by name, that cross-validation among training clips must not divide. No
    head divides them either."""
    n_unlabelled: int
    """Clips that are marked for test and have no category."""


def splits_column(columns: Sequence[str], wanted: str | None = None) -> str:
    """Name of the label column of a task's splits or folds: the one wanted, else split, else fold.

    Raises LookupError where there is none.
    """
    found = [name for name in ([wanted] if wanted else SPLIT_COLUMNS) if name in columns]
    if not found:
        named = f"no column {wanted!r}" if wanted else "neither a column 'split' nor 'fold'"
        raise LookupError(
            f"this task has {named} among {', '.join(columns) or 'no label columns'}; expected one that says which "
            "clips are for training and which for test: add it with `otoscope label`"
        )
    return found[0]


def make_splits(
    parts: Sequence[str],
    codes: NDArray[np.integer],
    names: Sequence[str],
    seed: int = 0,
    categories: Sequence[str] = (),
    groupings: Sequence[Sequence[str]] = (),
    groups: Sequence[str] | None = None,
) -> Splits:
    """The splits or folds that a column describes.

    parts: (clip) strings. If all are train, valid or test, they are a split, with one head. Otherwise they are folds:
        each fold is tested by a head trained on all others. "" takes no part.
    codes: (clip) categories as whole numbers, -1 for clips that take no part.
    names: (clip) clip names, unique; with `seed` they decide what is drawn. categories: names of the codes, for errors.
    groupings: columns (clip) of what clips have in common, as their speaker. The first that the splits respect (no head
        learns from a group and is tested on it) gives `groups`; else the folds do, if each head learns from at least
        three of them; else each clip is alone.
    groups: one such column (clip) that no line may divide, be it between training, validation or test clips.

    Where nothing is marked valid, a tenth of each category's training clips is drawn for it, at least one of two or
    more, so that every category stays in both. With `groups`, whole groups are, until they have a tenth of the training
    clips, but for those without which a category would have none left; where there are no others, none is drawn.
    Raises ValueError for a split without training or test clips that have a category, or with parts of other names, for
    a single fold, for a head for which a category that is tested has no training clips, and for a group on both sides.
    """
    part = np.array(list(parts), dtype=object)
    counted = (np.asarray(codes) >= 0) & (part != "")
    heads: tuple[str, ...] = ("test",)
    without = (part != "") & ~counted
    values = sorted({str(value) for value in part[counted]}, key=lambda text: (len(text), text))
    if set(values) <= set(PARTS):
        absent = [name for name in ("train", "test") if name not in values]
        if absent:
            marked = " and ".join(f"{n} {name}" for name in absent if (n := int((part[without] == name).sum())))
            if marked:
                raise ValueError(
                    f"none of the clips marked {' or '.join(absent)} has a category ({marked} without one); expected "
                    "labelled clips in train and test: label them, or split by another column"
                )
            raise ValueError(
                f"the split has no clips marked {' or '.join(absent)} (found {', '.join(values) or 'nothing'}); "
                "expected train and test, and valid if there is one"
            )
        tested = (part == "test")[None] & counted
        train, valid = ((part == name)[None] & counted for name in ("train", "valid"))
        marked_test = without & (part == "test")
    else:
        if any(value.strip().lower() in PARTS for value in values):  # "val", "Train": a split, not folds
            others = ", ".join(value for value in values if value not in PARTS)
            raise ValueError(f"the split has parts called {others[:100]}; expected {', '.join(PARTS)}, or folds alone")
        if len(values) < 2:
            others = f", apart from {without.sum()} clips without a category" if without.any() else ""
            raise ValueError(
                f"found one fold, {', '.join(values)}{others}; expected at least 2, or a split train, valid, test"
            )
        heads, marked_test = tuple(values), without
        tested = np.array([part == fold for fold in heads]) & counted
        train, valid = ~tested & counted, np.zeros_like(tested)
    numbers = None
    if groups is not None:
        numbers = numbers_of(groups, names)
        for head, *sides in zip(heads, train, valid, tested, strict=True):
            _check_apart(head, dict(zip(PARTS, sides, strict=True)), numbers, groups)
    drawn = not valid.any()
    if drawn:
        seeds = [(seed, i) for i in range(len(heads))]
        valid = np.array(
            [_drawn(own, codes, names, each) for own, each in zip(train, seeds, strict=True)]
            if numbers is None
            else [_drawn_groups(own, codes, numbers, each) for own, each in zip(train, seeds, strict=True)]
        )
        train = train & ~valid
    for head, trains, tests in zip(heads, train, tested, strict=True):
        untrained = sorted(set(codes[tests].tolist()) - set(codes[trains].tolist()))
        if untrained:
            first = repr(categories[int(untrained[0])]) if categories else f"with code {untrained[0]}"
            raise ValueError(
                f"{len(untrained)} categories have clips in {head} and no training clips, the first {first}; expected "
                "some of every category: split the clips otherwise, or leave it unlabelled in another column"
            )
    if numbers is None:
        offered = [np.array(list(grouping), dtype=object) for grouping in groupings]
        offered += [part] if len(heads) > 3 else []
        numbers = _groups(offered, names, train | valid, tested)
    return Splits(
        heads=heads, train=train, valid=valid, test_fold=np.where(tested.any(axis=0), tested.argmax(axis=0), -1),
        valid_drawn=drawn, groups=numbers, n_unlabelled=int(marked_test.sum()),
    )  # fmt: skip


def draw_folds(
    codes: NDArray[np.integer], names: Sequence[str], groups: Sequence[str], n: int | None = None, seed: int = 0
) -> list[str]:
    """Folds (clip), "1" to "n", drawn by whole groups, as `parts` of `make_splits`; "" for clips that take no part.

    codes, names, groups: as there. n: how many [five, or as many as there are groups].
    Categories are as even in the folds as their groups allow; neither the order of clips nor that of groups counts.
    Raises ValueError for fewer than two folds or groups, and for fewer groups than folds.
    """
    numbers, counted = numbers_of(groups, names), np.asarray(codes) >= 0
    n_groups = len(np.unique(numbers[counted]))
    n_folds = min(PARTS_DRAWN, n_groups) if n is None else n
    if not 2 <= n_folds <= n_groups:
        raise ValueError(
            f"found {n_groups} groups of clips for {max(n_folds, 2)} folds; expected at least two folds, and a group "
            "for each: group by another column, or ask for fewer folds"
        )
    return [str(part + 1) if part >= 0 else "" for part in parts_of(counted, codes, numbers, n_folds, seed).tolist()]


def numbers_of(groups: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Numbers (clip) of groups, ordered by name; "" is a group of that clip alone."""
    texts = [f"of {group}" if group else f"clip {name}" for group, name in zip(groups, names, strict=True)]
    numbers: NDArray[np.int64] = np.unique(np.array(texts, dtype=str), return_inverse=True)[1]
    return numbers


def _check_apart(
    head: str, sides: dict[str, NDArray[np.bool_]], numbers: NDArray[np.int64], groups: Sequence[str]
) -> None:
    """Raise ValueError where two sides of a head have clips of one group."""
    for one, other in combinations(sides, 2):
        both = np.intersect1d(numbers[sides[one]], numbers[sides[other]])
        if len(both):
            first = groups[int(np.flatnonzero(numbers == both[0])[0])]
            at = "" if head == "test" else f" of fold {head}"
            raise ValueError(
                f"{len(both)} groups have clips in {one} and in {other}{at}, the first {quoted(str(first))}; expected "
                "each on one side: draw folds by groups, or split by another column"
            )


def _groups(
    offered: Sequence[NDArray[np.object_]], names: Sequence[str], learned: NDArray[np.bool_], tested: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Numbers (clip) by the first grouping of which no group is on both sides of a head; "" and others stand alone."""
    for values in offered:
        sides = [{*values[one]} & {*values[other]} - {""} for one, other in zip(learned, tested, strict=True)]
        if not any(sides) and all(len({*values[one]}) > 1 for one in learned):
            return numbers_of(values.tolist(), names)
    return numbers_of([""] * len(names), names)


def parts_of(
    clips: NDArray[np.bool_], codes: NDArray[np.integer], groups: NDArray[np.integer], n: int, seed: int
) -> NDArray[np.int64]:
    """Some of the clips in up to n parts for cross-validation: number of its part (clip), -1 for all others.

    No group is divided, and categories are as even in the parts as their groups allow. It depends on the groups'
    numbers and the seed, not on the order of clips.
    """
    _, group, sizes = np.unique(groups[clips], return_inverse=True, return_counts=True)
    category = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(category, group, codes[clips])
    order = np.lexsort([np.random.default_rng(seed).permutation(len(sizes)), -sizes, category])
    part = np.empty(len(sizes), np.int64)
    part[order] = np.arange(len(sizes)) % n
    found = np.full(len(clips), -1, np.int64)
    found[clips] = part[group]
    return found


def _drawn(
    train: NDArray[np.bool_], codes: NDArray[np.integer], names: Sequence[str], seed: tuple[int, int]
) -> NDArray[np.bool_]:
    """A tenth of the training clips of each category (clip), at least one of two or more."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(train), bool)
    by_name = np.argsort(np.array(list(names), dtype=object))
    for code in np.unique(codes[train]):
        own = by_name[(train & (codes == code))[by_name]]
        if len(own) > 1:
            chosen[rng.permutation(own)[: max(1, round(len(own) * VALID_SHARE))]] = True
    return chosen


def _drawn_groups(
    train: NDArray[np.bool_], codes: NDArray[np.integer], numbers: NDArray[np.int64], seed: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whole groups with a tenth of the training clips (clip), or a little more; none whose category would be gone."""
    rng = np.random.default_rng(seed)
    at = np.flatnonzero(train)
    found, of, sizes = np.unique(numbers[at], return_inverse=True, return_counts=True)
    cells = np.zeros((len(found), int(codes[at].max(initial=0)) + 1), np.int64)  # clips (group, category)
    np.add.at(cells, (of, codes[at]), 1)
    left, n, drawn = cells.sum(axis=0), 0, np.zeros(len(found), bool)
    for i in rng.permutation(len(found)):
        if n >= VALID_SHARE * len(at):
            break
        if (left[cells[i] > 0] > cells[i][cells[i] > 0]).all():
            left, n, drawn[i] = left - cells[i], n + int(sizes[i]), True
    chosen = np.zeros(len(train), bool)
    chosen[at] = drawn[of]
    return chosen

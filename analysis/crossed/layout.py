"""Which clip is which sound with which text: the balanced crossed layout of a task.

Goal: what the arithmetic rests on (equal numbers, every sound with every wording, once) is seen to before it begins.
Conventions: a pair is a clip. A sound belongs to one audio class, a wording to one text class: "soft" of two text
classes is two wordings. Classes, sounds and wordings are in the order of their names, but those that match each other
across classes (equal `replicate`, equal name of a wording) go first and in one order.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...messages import quoted

Positions = NDArray[np.intp]
Members = dict[str, list[Any]]
"""Names of sounds, or (text class, wording), by class."""
MAX_NAMED = 3  # sounds or wordings that a message names

FEWEST = 2  # of audio classes, sounds of each, text classes, wordings of each: one has no spread


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A balanced crossed layout."""

    pairs: Positions
    """Positions of the clips among all: (audio class, sound of the class, text class, wording of the class)."""
    audio_classes: tuple[str, ...]
    text_classes: tuple[str, ...]
    sounds: tuple[tuple[str, ...], ...]
    """Names (audio class, sound)."""
    wordings: tuple[tuple[str, ...], ...]
    """Names (text class, wording)."""
    notes: tuple[str, ...] = ()
    """What was left out and why, a line each."""

    @property
    def sizes(self) -> dict[str, int]:
        """K audio classes, J sounds of each, L text classes, M wordings of each."""
        return dict(zip("KJLM", self.pairs.shape, strict=True))


def crossed_layout(
    audio_class: xr.DataArray,
    text_class: xr.DataArray,
    audio: xr.DataArray,
    wording: xr.DataArray,
    replicate: xr.DataArray | None = None,
    extracted: xr.DataArray | None = None,
) -> Layout:
    """The layout that columns of the clips describe; all are strings (clip), "" where a clip has no part in it.

    audio: which sound it is; wording: which of its class's texts. replicate: number of the sound, equal for sounds of
    several classes that match (same speaker and sentence). extracted: bool (clip), False for clips that failed.

    A failed pair takes all pairs of its sound along, or of its wording where more of that wording's failed; and, as all
    classes must have as many, the sounds (or wordings) that match it in the other classes, or else the last ones. The
    `notes` say so. What is not there at all, twice there, or in two classes is an error, and so are fewer than two
    audio classes, sounds of each, text classes or wordings of each.
    Raises ValueError with what is missing and what to do.
    """
    columns = {"audio_class": audio_class, "text_class": text_class, "audio": audio, "wording": wording}
    values = {name: column.values.astype(object) for name, column in columns.items()}
    there = np.all([of != "" for of in values.values()], axis=0)
    clips = np.flatnonzero(there)
    if not len(clips):
        raise ValueError(
            "no clip has an audio class, a text class, a sound and a wording; expected every sound with every text: "
            "make the manifest by `otoscope corpus cross`, or leave a condition out"
        )
    a, t, s, w = (of[clips].tolist() for of in values.values())
    sounds = _members(a, s, "sound", "audio class")
    wordings = _members(t, _in_class(t, w), "wording", "text class")
    _check_equal(sounds, "sounds", "audio class")
    _check_equal(wordings, "wordings", "text class")
    rows, columns_of = _numbers(sounds), _numbers(wordings)
    at = np.array([rows[one] for one in s]), np.array([columns_of[one] for one in _in_class(t, w)])
    table = np.full((len(rows), len(columns_of)), -1, np.intp)
    if (np.bincount(np.ravel_multi_index(at, table.shape)) > 1).any():
        twice = Counter(zip(s, _in_class(t, w), strict=True)).most_common(1)[0][0]
        raise ValueError(
            f"sound {quoted(twice[0])} is there more than once with wording {quoted(twice[1][1])} of "
            f"{quoted(twice[1][0])}; expected every pair once: name the columns that tell them apart"
        )
    table[at] = clips
    if (absent := table < 0).any():
        row, column = np.argwhere(absent)[0]
        name, text = list(rows)[row], list(columns_of)[column]
        raise ValueError(
            f"{np.count_nonzero(absent)} of {table.size} pairs are not there, as sound {quoted(name)} with wording "
            f"{quoted(text[1])} of {quoted(text[0])}; expected every sound with every wording: extract the whole "
            "crossed corpus"
        )
    numbers = {} if replicate is None else dict(zip(s, replicate.values.astype(object)[clips], strict=True))
    ok = np.ones(len(audio_class), bool) if extracted is None else extracted.values
    kept_sounds, kept_wordings = _that_worked(ok[table])
    n_failed = int(np.count_nonzero(~ok[table]))
    own = _balanced(sounds, {list(rows)[i] for i in kept_sounds}, numbers)
    texts = _balanced(wordings, {list(columns_of)[i] for i in kept_wordings}, {text: text[1] for text in columns_of})
    for classes, kind, of in ((own, "sound", "audio class"), (texts, "wording", "text class")):
        _check_enough(classes, kind, of, n_failed)
    pairs = np.array(
        [[[[table[rows[x], columns_of[y]] for y in of_t] for of_t in texts.values()] for x in of_a]
         for of_a in own.values()]
    )  # fmt: skip
    return Layout(
        pairs=pairs,
        audio_classes=tuple(own),
        text_classes=tuple(texts),
        sounds=tuple(map(tuple, own.values())),
        wordings=tuple(tuple(name for _, name in of) for of in texts.values()),
        notes=_notes(n_failed, table.size, pairs.size, _gone(sounds, own), _gone(wordings, texts)),
    )


def _in_class(classes: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(classes, names, strict=True))


def _members(classes: Sequence[str], names: Sequence[Any], kind: str, of: str) -> Members:
    """Names by class, both in order. Raises ValueError for a name of two classes."""
    class_of: dict[Any, str] = {}
    for name, one in zip(names, classes, strict=True):
        if class_of.setdefault(name, one) != one:
            raise ValueError(
                f"{kind} {quoted(name)} is of {of} {quoted(class_of[name])} and of {quoted(one)}; expected one {of} "
                f"for each {kind}: name another column"
            )
    found: Members = {one: [] for one in sorted(set(class_of.values()))}
    for name in sorted(class_of):
        found[class_of[name]].append(name)
    return found


def _numbers(members: Members) -> dict[Any, int]:
    return {name: i for i, name in enumerate(name for of in members.values() for name in of)}


def _that_worked(ok: NDArray[np.bool_]) -> tuple[Positions, Positions]:
    """Sounds and wordings, all of whose pairs worked (sound, wording): what fails in the largest share goes first."""
    sounds, wordings = np.arange(ok.shape[0]), np.arange(ok.shape[1])
    while not (left := ok[np.ix_(sounds, wordings)]).all():
        by_sound, by_wording = (~left).mean(axis=1), (~left).mean(axis=0)
        if by_sound.max() >= by_wording.max():
            sounds = np.delete(sounds, by_sound.argmax())
        else:
            wordings = np.delete(wordings, by_wording.argmax())
    return sounds, wordings


def _balanced(members: Members, kept: set[Any], matching: dict[Any, str]) -> Members:
    """As many of every class: those that match the ones that are gone go first, then the last ones."""
    gone = {matching[name] for of in members.values() for name in of if name not in kept and name in matching}
    shared = set.intersection(*({matching.get(name) for name in of} for of in members.values())) - {None, ""}

    def order(name: object) -> tuple[Any, ...]:
        number = matching.get(name)
        return number in gone, number not in shared, _natural(number) if number in shared else (), name

    fewest = min(sum(name in kept for name in of) for of in members.values())
    return {one: sorted((name for name in of if name in kept), key=order)[:fewest] for one, of in members.items()}


def _natural(number: object) -> tuple[Any, ...]:
    """Order of replicates: 9 before 10."""
    text = str(number)
    return (0, int(text), text) if text.isdecimal() else (1, 0, text)


def _gone(members: Members, kept: Members) -> list[Any]:
    return [name for one, of in members.items() for name in of if name not in kept[one]]


def _check_equal(members: Members, kind: str, of: str) -> None:
    """Raise ValueError for classes of unequal size."""
    *_, largest = by_size = sorted(members, key=lambda one: len(members[one]))
    smallest = by_size[0]
    if len(members[largest]) != len(members[smallest]):
        raise ValueError(
            f"{of} {quoted(largest)} has {len(members[largest])} {kind}, {quoted(smallest)} {len(members[smallest])}; "
            "expected as many of each: make the corpus by `otoscope corpus cross`, or leave some out by --where"
        )


def _check_enough(classes: Members, kind: str, of: str, n_failed: int) -> None:
    n = len(next(iter(classes.values())))
    lost = f" after {n_failed} failed pairs" if n_failed else ""
    if len(classes) < FEWEST:
        raise ValueError(
            f"found {len(classes)} {of}{lost}; expected at least {FEWEST}: an effect is a difference between classes"
        )
    if n < FEWEST:
        remedy = "see `otoscope status --failures`" if n_failed else f"more {kind}s of each {of} tell it from chance"
        article = "an" if of.startswith("audio") else "a"
        raise ValueError(
            f"found {n} {kind}{'s' * (n != 1)} of {article} {of}{lost}; expected at least {FEWEST}: {remedy}"
        )


def _notes(n_failed: int, n_pairs: int, n_kept: int, sounds: list[Any], wordings: list[Any]) -> tuple[str, ...]:
    if not n_failed:
        return ()
    gone = {"sound": list(map(quoted, sounds)), "wording": [f"{quoted(w)} of {quoted(t)}" for t, w in wordings]}
    parts = []
    for kind, names in gone.items():
        some = [*names[:MAX_NAMED], *["..."] * (len(names) > MAX_NAMED)]
        parts += [f"{len(names)} {kind}{'s' * (len(names) != 1)} ({', '.join(some)})"] * bool(names)
    return (
        f"{n_failed} of {n_pairs} pairs failed: {n_pairs - n_kept} are left out so that all classes have as many, of "
        f"{' and '.join(parts)}",
    )

"""Names as they are drawn: in whatever script, by the fonts that are installed, literally and not too long.

Goal: no name is drawn as boxes, and none is taken for a formula.
Conventions: beside the default font, others are looked for only where a name has a letter that it lacks. A name with a
letter that no font has is drawn as a number, [1], and the figure's label (`figure.get_label()`) says which is which.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

MAX_LETTERS = 28  # of a category's name, the rest is cut
MAX_TITLE = 70  # letters of a store's and a labelling's name
BOXES = "Last Resort"  # what a font that has boxes for all letters is called


@dataclass(frozen=True, kw_only=True)
class Letters:
    """How the names in one figure are drawn."""

    fonts: tuple[str, ...] = ()
    """Families that are needed beside the default one."""
    numbers: Mapping[str, int]
    """Of names that no installed font can draw."""

    def __call__(self, name: str, length: int = MAX_LETTERS) -> str:
        """A name as it is drawn, its middle cut out where it is longer than `length`: names often begin alike."""
        shown = _plain(name)
        if shown in self.numbers:
            return f"[{self.numbers[shown]}]"
        end = length // 3
        return shown if len(shown) <= length else f"{shown[: length - 1 - end]}…{shown[-end:]}"

    def title(self, name: str) -> str:
        """A title or an entry of a legend as it is drawn."""
        return self(name, MAX_TITLE)

    def applied(self, figure: Figure) -> Figure:
        """The figure, all of its texts in these fonts, with the key of the numbers as its label."""
        if self.fonts:
            for text in figure.findobj(Text):
                text.set_fontfamily([*mpl.rcParams["font.family"], *self.fonts])
        if self.numbers:
            key = "\n".join(f"[{number}] {name}" for name, number in self.numbers.items())
            figure.set_label(f"no installed font has all letters of these names; install one, such as Noto:\n{key}")
        return figure


def letters_of(names: Iterable[str]) -> Letters:
    """How names are drawn together in a figure, numbered in their order where they cannot be."""
    shown = list(dict.fromkeys(map(_plain, names)))
    needed = {letter for name in shown if not name.isascii() for letter in name}
    fonts, lacking = _fonts_for("".join(sorted(needed))) if needed else ((), frozenset())
    numbered = [name for name in shown if not lacking.isdisjoint(name)]
    return Letters(fonts=fonts, numbers={name: i for i, name in enumerate(numbered, 1)})


def _plain(name: str) -> str:
    """A name on one line: composed, control characters as escapes, without marks that only steer how text is set."""
    letters = (letter if letter.isprintable() else _escaped(letter) for letter in unicodedata.normalize("NFC", name))
    return " ".join("".join(letters).split())


def _escaped(letter: str) -> str:
    if letter.isspace():
        return " "
    return "" if unicodedata.category(letter) == "Cf" else letter.encode("unicode_escape").decode()


def _fonts_for(letters: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families, beside the default one, that have most of what it lacks of these letters; and what none has."""
    default = font_manager.findfont(FontProperties())
    lacking = set(letters) - _letters_in(str(default), getattr(default, "face_index", 0), letters)
    if not lacking:
        return (), frozenset()
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.style == "normal"]
    entries.sort(key=lambda entry: (entry.name, str(entry.weight) == "400", entry.fname))
    wanted = "".join(sorted(lacking))
    has = {
        e.name: _letters_in(e.fname, e.index, wanted) for e in entries if not e.name.startswith(BOXES)
    }  # the regular one
    fonts: list[str] = []
    while lacking and has:
        best = min(has, key=lambda name: (-len(has[name] & lacking), name))
        if not has[best] & lacking:
            break
        fonts.append(best)
        lacking -= has.pop(best)
    return tuple(fonts), frozenset(lacking)


def _letters_in(path: str, face: int, letters: str) -> set[str]:
    """Those of the letters that a font has; none where it cannot be read, or holds pictures of one size."""
    try:
        font = FT2Font(path, face_index=face)
    except (OSError, RuntimeError):
        return set()
    return {letter for letter in letters if font.scalable and font.get_char_index(ord(letter))}

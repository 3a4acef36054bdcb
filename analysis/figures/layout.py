"""How panels lie in a figure, and what stands below them.

Goal: figures that stay legible in a column of a paper.
Conventions: sizes are in inches. A figure of `PAGE_INCHES`, made narrower to a column of 3.5 inches, has its letters of
`FONT` points at 5 points. A few panels of a few categories are not wider; long names and many categories make it so.
"""

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from .letters import Letters

FONT = 7.0
PAGE_INCHES = 4.9
ROW_PAD = 0.08  # above and below each row of panels
LETTER = 0.6 / 72  # a letter's width, at most, over the size of the font in points; in a text it is less


def columns_of(stores: Sequence[str]) -> int:
    """Columns of a grid of panels, given the store of each: where several stores have as many labellings each, a row
    per store; else up to three panels are side by side, and more nearly square.
    """
    n, each = len(stores), len(stores) // max(1, len(set(stores)))
    even = all(stores[i : i + each] == [stores[i]] * each for i in range(0, n, max(1, each)))
    return each if even and 1 < each < n and each <= 4 else n if n <= 3 else math.ceil(math.sqrt(n))


def grid_of(
    n: int, columns: int, size: tuple[float, float], *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of so many equal panels, row by row."""
    figure = Figure(figsize=size, layout="constrained")
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(h_pad=ROW_PAD)  # type: ignore[call-arg]
    axes = figure.subplots(math.ceil(n / columns), columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def wrapped(text: str, inches: float, font: float = FONT) -> str:
    """A text in lines of at most so many inches; words that are longer stay whole."""
    letters = max(8, int(inches / (font * LETTER * 0.87)))
    return "\n".join(wrap(text, letters, break_long_words=False, break_on_hyphens=False))


def parts_of(caption: str) -> list[str]:
    """What a caption says, part by part, as `write_below` draws it."""
    return [part for line in caption.splitlines() for part in line.split("; ")]


def write_below(figure: Figure, letters: Letters, *lines: str, legend: Legend | None = None) -> None:
    """Write lines below all that is in a figure, wrapped to its width; the figure becomes as much higher.

    Their parts, between semicolons, are drawn by `letters`, which must know them. legend: one that is below the panels.
    """
    width, height = figure.get_size_inches()
    drawn = ["; ".join(letters(part, len(part)) for part in parts_of(line)) for line in lines if line]
    text = "\n".join(wrapped(line, width - 0.1) for line in drawn)
    if not text:
        return
    strip = (text.count("\n") + 1) * FONT * 1.3 / 72 + 0.1
    height += strip
    figure.set_figheight(height)
    bottom = strip / height
    if legend is not None:  # no longer on the figure's edge, where the layout would see to its room
        legend.set_bbox_to_anchor((0.5, bottom), figure.transFigure)
        bottom += legend.get_window_extent().height / figure.dpi / height + 0.04 / height
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(rect=(0, bottom, 1, 1 - bottom))  # type: ignore[call-arg]
    about: dict[str, Any] = {"fontsize": FONT, "va": "top", "linespacing": 1.2, "parse_math": False}
    figure.text(0.05 / width, (strip - 0.06) / height, text, **about)

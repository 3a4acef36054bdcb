"""What swaps of a sound and of a text did to the answers, as two tables of categories."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .layout import FONT, PAGE_INCHES, grid_of, parts_of, write_below
from .letters import letters_of
from .save import DIVERGING

ROW_INCHES, HEAD_INCHES = 0.28, 1.3
MAX_INCHES = 30.0
NUMBERED = 9  # categories, above which cells have no room for a number
TITLES = ("sound swapped, E_A", "text swapped, E_T")


def swaps_figure(tables: tuple[pd.DataFrame, pd.DataFrame], caption: str = "") -> Figure:
    """E_A and E_T side by side, a clip's category c down the page, its partner's c' across.

    tables: effects (c, c') of the sound and of the text, named alike on both axes; NaN on the diagonal. Both have one
    scale, even around 0: a cell is dark where the neurons carry what was swapped, light where the reverse is so.
    caption: stands below.
    Letters have 7 points; the figure is as wide as `PAGE_INCHES`, its rows shrink where there are many.
    """
    names = [str(name) for name in tables[0].index]
    letters = letters_of([*names, *parts_of(caption)])
    shown = [letters(name) for name in names]
    rows = min(ROW_INCHES * len(names), MAX_INCHES)
    figure, axes = grid_of(2, 2, (PAGE_INCHES, rows + HEAD_INCHES), sharey=True)
    largest = max(float(np.nanmax(np.abs(table.to_numpy(float)), initial=0.0)) for table in tables) or 1.0
    step = max(1, round(0.11 * len(names) / rows))
    at = np.arange(len(names))
    for ax, table, title in zip(axes, tables, TITLES, strict=True):
        values = table.to_numpy(float)
        image = ax.imshow(values, cmap=DIVERGING, vmin=-largest, vmax=largest, aspect="auto")
        ax.set_title(title, fontsize=FONT)
        ax.set_xticks(at[::step], labels=shown[::step], rotation=90, parse_math=False)
        ax.set_yticks(at[::step], labels=shown[::step], parse_math=False)
        ax.set_xlabel("partner's category, c'", fontsize=FONT)
        ax.tick_params(labelsize=FONT, length=2)
        if len(names) <= NUMBERED:
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    ink = "white" if abs(value) > 0.6 * largest else "black"
                    ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=FONT - 1, color=ink)
    axes[0].set_ylabel("clip's category, c", fontsize=FONT)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=FONT, length=2)
    bar.set_label("change of margin (logits)", fontsize=FONT)
    write_below(figure, letters, caption)
    return letters.applied(figure)

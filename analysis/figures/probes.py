"""What linear probes read off hidden states, and off latents of them by their sparsity, and what SAEs reconstruct."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .layout import FONT, PAGE_INCHES, grid_of, parts_of, write_below
from .letters import letters_of
from .save import COLOURS
from .unit_kinds import STATE, UNITS, Kinds, by_sparsity, plain, with_units

HEIGHT_INCHES = 2.1
COLUMNS = ("kind", "state", "sparsity", "control", "unexplained", "accuracy", "low", "high", "chance")


def probes_figure(table: pd.DataFrame, caption: str = "") -> Figure:
    """Accuracy by hidden state; where there are latents also theirs by sparsity, and what their SAEs leave unexplained.

    table: a row per probe, as of `sae.probe_states`. On the left bars are intervals, and the dashed line is chance. The
    others are as `unit_kinds` says; in the middle chance is the lowest dashed line. The panel on the right is there
    where SAEs are known.
    caption: stands below.
    """
    table = with_units(table, "kind")
    states, kinds = table[table[UNITS] == STATE], Kinds.of(table)
    letters = letters_of([*kinds.controls, *parts_of(caption)])
    n = 1 + bool(kinds.states) + bool(kinds.states and table["unexplained"].notna().any())
    figure, grid = grid_of(n, n, (PAGE_INCHES * (0.6, 1, 1.35)[n - 1], HEIGHT_INCHES))
    _by_state(grid[0], states)
    if n > 1:
        by_sparsity(grid[1], table, "accuracy", kinds)
        grid[1].axhline(float(states["chance"].mean()), color="black", linewidth=0.6, linestyle="--")
        low, high = zip(*(ax.get_ylim() for ax in grid[:2]), strict=True)
        for ax in grid[:2]:
            ax.set_ylim(min(low), max(high))
    if n > 2:
        by_sparsity(grid[2], table, "unexplained", kinds)
        grid[2].set_ylabel("squared error / variance", fontsize=FONT)
        grid[2].set_ylim(bottom=0)
    for ax in grid:
        plain(ax)
    grid[0].set_ylabel("accuracy", fontsize=FONT)
    kinds.legend(figure, letters)
    write_below(figure, letters, caption)
    return letters.applied(figure)


def _by_state(ax: Axes, states: pd.DataFrame) -> None:
    value = states["accuracy"].to_numpy()
    ends = np.stack([value - states["low"].to_numpy(), states["high"].to_numpy() - value])
    ink = mpl.colormaps[COLOURS](0.0)
    ax.errorbar(states["state"], value, ends, color=ink, marker="o", markersize=3, linewidth=1, elinewidth=0.7)
    ax.axhline(float(states["chance"].mean()), color="black", linewidth=0.6, linestyle="--")
    ax.set_xlabel("hidden state", fontsize=FONT)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))

"""What neurons of an audio language model respond to: the sound or the words."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..kinds import STATES
from .layout import FONT, PAGE_INCHES, grid_of, parts_of, write_below
from .letters import letters_of
from .save import COLOURS

HEIGHT_INCHES = 2.4
DECADES = 3  # below the largest effect; smaller ones lie on the edge
CUTS = (0.3, 0.5, 0.7)  # of GC, as lines
LIGHT = {"none": "0.82", "construction": "0.6"}
SHADES = {"audio": 0.0, "interaction": 0.35, "both": 0.65, "text": 1.0}  # of the map of colours, by lightness
MARKERS = {"audio": "o", "text": "^", "both": "s", "interaction": "D", "construction": "x", "none": "."}


def grounding_figure(table: pd.DataFrame, caption: str = "") -> Figure:
    """Effect of the text against that of the sound, by state, and beside it the share of each state by layer.

    table: of `grounding_table`, with layer, state, d_A and d_T. Axes are logarithmic over three decades; effects that
    are smaller, or 0, lie on the edge. Lines are GC 0.3, 0.5 and 0.7.
    caption: stands below.
    Letters have 7 points; the figure is as wide as `PAGE_INCHES`.
    """
    letters = letters_of(parts_of(caption))
    figure, (effects, shares) = grid_of(2, 2, (PAGE_INCHES, HEIGHT_INCHES))
    states = table["state"].astype(str)
    shown = [name for name in reversed(STATES) if (states == name).any()]  # what was found lies above
    colours = {name: LIGHT.get(name) or mpl.colormaps[COLOURS](SHADES[name]) for name in shown}
    _effects(effects, table, states, colours)
    _shares(shares, table, states, colours)
    for ax in (effects, shares):
        ax.tick_params(labelsize=FONT, length=2)
        ax.spines[["top", "right"]].set_visible(False)
    keys = [
        Line2D([], [], linestyle="none", marker=MARKERS[name], color=colours[name], markersize=4, label=name)
        for name in reversed(shown)
    ]
    legend = figure.legend(
        handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=FONT, handletextpad=0.2
    )
    write_below(figure, letters, caption, legend=legend)
    return letters.applied(figure)


def _effects(ax: Axes, table: pd.DataFrame, states: pd.Series, colours: dict[str, Any]) -> None:
    d_a, d_t = (table[name].to_numpy(np.float64) for name in ("d_A", "d_T"))
    largest = float(np.nan_to_num([d_a, d_t]).max()) or 1.0
    lowest = largest / 10**DECADES
    x, y = (np.maximum(d, lowest) for d in (d_a, d_t))
    for name, colour in colours.items():
        own = (states == name).to_numpy()
        size = 3 if name in LIGHT else 7
        # Tens of thousands of dots as an image: as vectors they would make a PDF that no reader scrolls.
        ax.scatter(
            x[own], y[own], s=size, color=colour, marker=MARKERS[name], linewidths=0.4 * (name == "construction"),
            rasterized=True, clip_on=False, zorder=2,
        )  # fmt: skip
    ends = np.array([lowest, largest * 1.3])
    for cut in CUTS:
        ax.plot(
            ends, ends * (1 - cut) / cut, color="black", linewidth=0.6, linestyle="-" if cut == 0.5 else ":", zorder=1
        )
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.minorticks_off()
    ax.set_xlabel("effect of the sound, d_A", fontsize=FONT)
    ax.set_ylabel("effect of the text, d_T", fontsize=FONT)


def _shares(ax: Axes, table: pd.DataFrame, states: pd.Series, colours: dict[str, Any]) -> None:
    counts = pd.crosstab(table["layer"].astype(int), states)
    share = counts.div(counts.sum(axis=1), axis=0)
    bottom = np.zeros(len(share))
    for name in reversed(colours):  # what was found stands on the axis
        height = share[name].to_numpy()
        ax.bar(share.index, height, 0.85, bottom=bottom, color=colours[name], edgecolor="black", linewidth=0.3)
        bottom += height
    ax.set(ylim=(0, 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_xlabel("layer", fontsize=FONT)
    ax.set_ylabel("share of neurons", fontsize=FONT)

"""Where class-specific neurons lie in depth, and how selective all neurons are."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .layout import FONT, LETTER, PAGE_INCHES, ROW_PAD, columns_of, grid_of, parts_of, wrapped, write_below
from .letters import Letters, letters_of
from .save import COLOURS, label_of

Name = str | tuple[str, str]
"""Of what is shown: in a word, or as (store, labelling)."""
PANEL_INCHES = (1.35, 2.9)  # least and greatest width of a panel


def depth_figure(panels: Sequence[tuple[Name, xr.DataArray]], caption: str = "") -> Figure:
    """Class-specific neurons per layer as bars, several stores side by side in each layer, equal panels of labellings.

    panels: (store, or store and labelling, number of neurons (layer)), as from `depth_histogram`. Several labellings
    have a panel each.
    caption: stands below.
    Letters have 7 points; a figure is about as wide as `PAGE_INCHES`, unless more than three panels are side by side.
    """
    stores = list(dict.fromkeys(_store(name) for name, _ in panels))
    labellings = list(dict.fromkeys(_labelling(name) for name, _ in panels))
    letters = letters_of([*stores, *labellings, *parts_of(caption)])
    names = [letters.title(name) for name in stores]
    layers = max((depth.sizes["layer"] for _, depth in panels), default=1)
    columns = columns_of(labellings)
    room = float(np.clip((0.35 * layers * len(stores) ** 0.5 + 0.3), 2.6, PAGE_INCHES - 0.6))
    grid, figure = _grid(letters, labellings, columns, min(room, (PAGE_INCHES - 0.6) / columns), 1.5)
    # Ends of the map are too light and too dark to print well beside each other with black edges.
    colours = mpl.colormaps[COLOURS](np.linspace(0.15, 0.9, max(2, len(stores))))
    width = 0.8 / max(1, len(stores))
    for name, depth in panels:
        i, ax = stores.index(_store(name)), grid[labellings.index(_labelling(name))]
        positions = np.arange(depth.sizes["layer"]) + (i - (len(stores) - 1) / 2) * width
        ax.bar(positions, depth.values, width, color=colours[i], edgecolor="black", linewidth=0.3)
    shown = int(grid[0].get_position().width * figure.get_figwidth() / (3 * FONT * LETTER))
    ticks = np.arange(layers)[:: math.ceil(layers / max(1, shown))]
    longest = max((depth for _, depth in panels), key=lambda depth: depth.sizes["layer"])
    for i, ax in enumerate(grid):
        ax.set_xticks(ticks, [str(v) for v in longest["layer"].values[ticks]])
        ax.set_xlim(-0.6, layers - 0.4)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
        if i + columns >= len(grid):
            ax.set_xlabel("layer", fontsize=FONT)
        if i % columns == 0:
            ax.set_ylabel(wrapped(label_of(longest), 1.4), fontsize=FONT)
    if len(stores) > 1:
        entry_inches = 0.5 + FONT * LETTER * max(map(len, names))  # key, gap and letters
        in_a_row = int(np.clip(figure.get_figwidth() // entry_inches, 1, len(stores)))
        figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(stores) // in_a_row))
        keys = [Patch(facecolor=colours[i], edgecolor="black", linewidth=0.3) for i in range(len(stores))]
        legend = figure.legend(keys, stores, loc="outside upper center", ncols=in_a_row, frameon=False, fontsize=FONT)
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set(text=name, parse_math=False)
    write_below(figure, letters, caption)
    return letters.applied(figure)


def selectivity_figure(panels: Sequence[tuple[Name, xr.Dataset]], caption: str = "") -> Figure:
    """Every neuron by its highest activation probability and its AAPE; the selected ones stand out.

    panels: (title, or store and labelling, selection as of `class_specific`), as a grid of equal panels, a row per
    store where it can be. The dashed line is the AAPE of a neuron that does not care, ln(categories). Neurons that
    never fire are not drawn.
    caption: stands below.
    Letters have 7 points; a figure is about as wide as `PAGE_INCHES`, unless more than three panels are side by side.
    """
    titles = [name if isinstance(name, str) else " ".join(name) for name, _ in panels]
    letters = letters_of([*titles, *parts_of(caption)])
    columns = columns_of([_store(name) for name, _ in panels])
    grid, figure = _grid(
        letters, titles, columns, min(PANEL_INCHES[1], (PAGE_INCHES - 0.6) / columns), 1.6, sharex=True
    )
    ink = mpl.colormaps[COLOURS](0.0)
    for ax, (_, selection) in zip(grid, panels, strict=True):
        square = selection.transpose("layer", "neuron", "category", missing_dims="ignore")
        top, aape = square["probability"].max("category").values.ravel(), square["aape"].values.ravel()
        chosen = square["selected"].values.ravel().astype(bool)
        for which, name, colour, size in ((~chosen, "others", "0.7", 2), (chosen, "selected", ink, 5)):
            # Tens of thousands of dots as an image: as vectors they would make a PDF that no reader scrolls.
            ax.scatter(top[which], aape[which], s=size, color=colour, linewidths=0, label=name, rasterized=True)
        ax.axhline(np.log(selection.sizes["category"]), color="black", linewidth=0.6, linestyle="--")
    for i, ax in enumerate(grid):
        if i + columns >= len(grid):
            ax.set_xlabel(wrapped("highest probability of a category", 1.9), fontsize=FONT)
        if i % columns == 0:
            ax.set_ylabel(label_of(panels[i][1]["aape"]), fontsize=FONT)
    grid[0].set(xlim=(0, 1.02), ylim=(0, None))
    legend = figure.legend(
        *grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, markerscale=3,
        fontsize=FONT,
    )  # fmt: skip
    write_below(figure, letters, caption, legend=legend)
    return letters.applied(figure)


def _grid(
    letters: Letters, titles: Sequence[str], columns: int, width: float, height: float, *, sharex: bool = False
) -> tuple[list[Axes], Figure]:
    """Equal panels of at most so many inches, with titles unless there is one that says nothing."""
    width = float(np.clip(width, *PANEL_INCHES)) if columns > 1 else width
    rows = math.ceil(len(titles) / columns)
    drawn = [wrapped(letters.title(title), width, FONT + 1) for title in titles]
    lines = 1 + max(title.count("\n") for title in drawn) if any(drawn) else 0
    size = (columns * width + 0.6, rows * (height + lines * (FONT + 1) * 1.3 / 72 + 2 * ROW_PAD) + 0.4)
    figure, grid = grid_of(len(titles), columns, size, sharex=sharex, sharey=True)
    for i, (ax, title) in enumerate(zip(grid, drawn, strict=True)):
        ax.set_title(title, fontsize=FONT + 1, parse_math=False)
        ax.tick_params(labelsize=FONT, length=2, labelbottom=not sharex or i + columns >= len(grid))
        ax.spines[["top", "right"]].set_visible(False)
    return grid, figure


def _store(name: Name) -> str:
    return name if isinstance(name, str) else name[0]


def _labelling(name: Name) -> str:
    return "" if isinstance(name, str) else name[1]

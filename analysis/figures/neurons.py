"""Where class-specific neurons lie in depth, and how selective all neurons are."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .letters import letters_of
from .save import COLOURS, label_of


def depth_figure(panels: Sequence[tuple[str, xr.DataArray]]) -> Figure:
    """Class-specific neurons per layer as bars, several stores side by side in each layer.

    panels: (name for the legend, number of neurons (layer)), as from `depth_histogram`.
    """
    letters = letters_of(name for name, _ in panels)
    names = [letters.title(name) for name, _ in panels]
    layers = max((depth.sizes["layer"] for _, depth in panels), default=1)
    figure = Figure(figsize=(float(np.clip(0.5 * layers * len(panels) ** 0.5 + 1.5, 4, 12)), 3), layout="constrained")
    ax = figure.subplots()
    # Ends of the map are too light and too dark to print well beside each other with black edges.
    colours = mpl.colormaps[COLOURS](np.linspace(0.15, 0.9, max(2, len(panels))))
    width = 0.8 / max(1, len(panels))
    for i, (_, depth) in enumerate(panels):
        positions = np.arange(depth.sizes["layer"]) + (i - (len(panels) - 1) / 2) * width
        ax.bar(positions, depth.values, width, color=colours[i], edgecolor="black", linewidth=0.4, label=f"panel {i}")
    ticks = np.arange(layers)[:: max(1, layers // 24)]
    longest = max((depth for _, depth in panels), key=lambda depth: depth.sizes["layer"])
    ax.set_xticks(ticks, [str(v) for v in longest["layer"].values[ticks]])
    ax.set_xlim(-0.6, layers - 0.4)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_xlabel("layer")
    ax.set_ylabel(label_of(longest))
    ax.spines[["top", "right"]].set_visible(False)
    if len(panels) > 1:
        entry_inches = 0.75 + 0.09 * max(map(len, names))  # key, gap and letters
        columns = int(np.clip(figure.get_figwidth() // entry_inches, 1, len(panels)))
        rows = -(-len(panels) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * (rows - 1))
        legend = figure.legend(loc="outside upper center", ncols=columns, frameon=False)
        for text, name in zip(legend.get_texts(), names, strict=True):  # a legend leaves out what begins with "_"
            text.set(text=name, parse_math=False)
    return letters.applied(figure)


def selectivity_figure(panels: Sequence[tuple[str, xr.Dataset]]) -> Figure:
    """Every neuron by its highest activation probability and its AAPE; the selected ones stand out.

    panels: (title, selection as of `class_specific`), side by side on the same axes. The dashed line is the AAPE of a
    neuron that does not care, ln(categories). Neurons that never fire are not drawn.
    """
    letters = letters_of(title for title, _ in panels)
    width, height = 3.0 * len(panels) + 0.5, 3.2
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    ink = mpl.colormaps[COLOURS](0.0)
    for ax, (title, selection) in zip(axes, panels, strict=True):
        square = selection.transpose("layer", "neuron", "category", missing_dims="ignore")
        top, aape = square["probability"].max("category").values.ravel(), square["aape"].values.ravel()
        chosen = square["selected"].values.ravel().astype(bool)
        for which, name, colour, size in ((~chosen, "others", "0.7", 2), (chosen, "selected", ink, 5)):
            # Tens of thousands of dots as an image: as vectors they would make a PDF that no reader scrolls.
            ax.scatter(top[which], aape[which], s=size, color=colour, linewidths=0, label=name, rasterized=True)
        ax.axhline(np.log(selection.sizes["category"]), color="black", linewidth=0.6, linestyle="--")
        ax.set_title(letters.title(title), fontsize=10, parse_math=False)
        ax.set_xlabel("highest probability of a category")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set(xlim=(0, 1.02), ylim=(0, None), ylabel=label_of(panels[0][1]["aape"]))
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, markerscale=3
    )
    return letters.applied(figure)

"""Results as figures: heat maps of common neurons, and where in depth class-specific neurons sit.

Goal: figures that can go into a paper as they are, in colour, in grey and for colour-blind eyes.
Conventions: labels come from the attributes (long_name, units) of what is drawn. Figures are made without
pyplot, so nothing global changes and no display is needed. This file is the only one that imports matplotlib.
Contents: `overlap_figure`, `depth_figure`, `save_figure`.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

COLOURS = "cividis"  # made for colour-blind eyes; its lightness rises evenly, so it reads in grey
ENDINGS = (".pdf", ".png", ".svg")
CELL_INCHES = (0.145, 0.5)  # smallest and largest side of a cell
MAP_INCHES = 4.5  # a map is about so wide where the cells may choose
LONGEST_NAME = 28  # letters of a category's name, the rest is cut
NUMBERED = 12  # up to so many categories the cells bear their numbers


def overlap_figure(panels: Sequence[tuple[str, xr.DataArray]]) -> Figure:
    """Heat maps of common neuron ratios side by side, on one scale from 0 to 1.

    panels: (title, ratio (category, other_category)); NaN, where neither category has a neuron, is hatched
    grey.
    """
    maps = [(title, ratio.transpose("category", "other_category")) for title, ratio in panels]
    cell = _cell_inches(max(max(ratio.shape) for _, ratio in maps))
    font = float(np.clip(cell * 72 * 0.6, 5.0, 9.0))
    widths = [max(1.3, cell * ratio.shape[1]) for _, ratio in maps]
    beside = sum(_name_inches(ratio, "category", font) + 0.2 for _, ratio in maps)
    below = max(_name_inches(ratio, "other_category", font) for _, ratio in maps)
    bar_inches, title_inches = 0.9, 0.4
    height = max(1.3, *(cell * ratio.shape[0] for _, ratio in maps)) + below + title_inches
    figure = Figure(figsize=(sum(widths) + beside + bar_inches, height), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False, width_ratios=widths)[0]
    for ax, (title, ratio) in zip(axes, maps, strict=True):
        image = _heat_map(ax, ratio, font)
        ax.set_title(title, fontsize=font + 2, parse_math=False)
    bar = figure.colorbar(image, ax=list(axes), shrink=min(1.0, 4 / height), aspect=25)
    bar.set_label(_label(maps[0][1]), fontsize=font + 1)
    bar.ax.tick_params(labelsize=font)
    return figure


def depth_figure(panels: Sequence[tuple[str, xr.DataArray]]) -> Figure:
    """Class-specific neurons per layer as bars, several stores side by side in each layer.

    panels: (name for the legend, number of neurons (layer)), as from `depth_histogram`.
    """
    layers = max((depth.sizes["layer"] for _, depth in panels), default=1)
    figure = Figure(figsize=(float(np.clip(0.5 * layers * len(panels) ** 0.5 + 1.5, 4, 12)), 3), layout="constrained")
    ax = figure.subplots()
    # Ends of the map are too light and too dark to print well beside each other with black edges.
    colours = mpl.colormaps[COLOURS](np.linspace(0.15, 0.9, max(2, len(panels))))
    width = 0.8 / max(1, len(panels))
    for i, (name, depth) in enumerate(panels):
        places = np.arange(depth.sizes["layer"]) + (i - (len(panels) - 1) / 2) * width
        ax.bar(places, depth.values, width, color=colours[i], edgecolor="black", linewidth=0.4, label=name)
    ticks = np.arange(layers)[:: max(1, layers // 24)]
    longest = max((depth for _, depth in panels), key=lambda depth: depth.sizes["layer"])
    ax.set_xticks(ticks, [str(v) for v in longest["layer"].values[ticks]])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
    ax.set_ylabel(_label(longest))
    ax.spines[["top", "right"]].set_visible(False)
    if len(panels) > 1:
        entry_inches = 0.75 + 0.09 * max(len(name) for name, _ in panels)  # key, gap and letters
        columns = int(np.clip(figure.get_figwidth() // entry_inches, 1, len(panels)))
        rows = -(-len(panels) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * (rows - 1))
        legend = figure.legend(loc="outside upper center", ncols=columns, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PDF, PNG (200 dots per inch) or SVG by the ending of the name.

    The same figure gives the same bytes; the file appears whole or not at all.
    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"cannot draw to {target.name!r}; expected a name ending in {', '.join(ENDINGS)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent}; expected it for {target.name}: create it")
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with (
            mpl.rc_context({"svg.hashsalt": "otoscope", "pdf.fonttype": 42, "hatch.linewidth": 0.4}),
            warnings.catch_warnings(),
        ):
            # Names in scripts that the font lacks are drawn as boxes: no reason to fail, or to print a line
            # each.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(partial, format=ending[1:], dpi=200, metadata=dates[ending])
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _heat_map(ax: Axes, ratio: xr.DataArray, font: float) -> AxesImage:
    # What is NaN stays transparent and shows the hatched ground.
    ax.patch.set(facecolor="0.88", edgecolor="0.55", hatch="/////")
    values = ratio.values
    image = ax.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    for axis, dim in ((ax.xaxis, "other_category"), (ax.yaxis, "category")):
        axis.set_ticks(range(ratio.sizes[dim]), labels=_names(ratio, dim))
        for text in axis.get_ticklabels():
            text.set_parse_math(False)
    ax.tick_params(labelsize=font, length=0, pad=2)
    ax.tick_params(axis="x", labelrotation=90)
    ax.spines[:].set_linewidth(0.4)
    ax.set_anchor("N")
    if max(values.shape) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                ink = "black" if value > 0.5 else "white"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=font - 1, color=ink)
    return image


def _cell_inches(most_categories: int) -> float:
    return float(np.clip(MAP_INCHES / max(1, most_categories), *CELL_INCHES))


def _name_inches(ratio: xr.DataArray, dim: str, font: float) -> float:
    """Room that the longest name along a dimension takes."""
    return max((len(name) for name in _names(ratio, dim)), default=0) * font * 0.6 / 72


def _names(ratio: xr.DataArray, dim: str) -> list[str]:
    names = [str(name) for name in ratio[dim].values]
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]


def _label(values: xr.DataArray) -> str:
    long_name, units = str(values.attrs.get("long_name", values.name)), str(values.attrs.get("units", "1"))
    return long_name if units in ("1", "neurons") else f"{long_name} ({units})"

"""Heat maps of common neuron ratios."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .save import COLOURS, label_of, short_name

CELL_INCHES = (0.145, 0.5)  # smallest and largest side of a cell
MAP_INCHES = 4.5  # a map is about so wide where the cells may choose
SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)  # tops of the colour scale, if 1 would leave all cells dark
NUMBERED = 12  # up to so many categories the cells bear their numbers


def overlap_figure(panels: Sequence[tuple[str, xr.DataArray]]) -> Figure:
    """Heat maps of common neuron ratios side by side, on one scale.

    The scale ends at 1, or at the next of a few round numbers above the highest ratio of two different categories; the
    diagonal of a labelling with itself, always 1, then lies beyond it, as the arrow of the colour bar says.
    panels: (title, ratio (category, other_category)); NaN, where neither category has a neuron, is hatched
    grey. Sides bear the long_name of their dimension, if it has one, as from `labelled`. Lines divide the groups of
    categories, if they have any, as from `arranged`. Cells that do not exceed the null, by the coordinate
    `within_null` of `null.with_null`, are struck out. A line below says what hatching and strokes mean, if there are
    any.
    """
    maps = [(title, ratio.transpose("category", "other_category")) for title, ratio in panels]
    cell = _cell_inches(max(max(ratio.shape) for _, ratio in maps))
    font = float(np.clip(cell * 72 * 0.6, 5.0, 9.0))
    widths = [
        max(1.3, cell * ratio.shape[1], *(len(text) * (font + 2) * 0.6 / 72 for text in (title, _side(ratio, False))))
        for title, ratio in maps
    ]
    beside = sum(_name_inches(ratio, "category", font) + 0.2 for _, ratio in maps)
    beside += sum(0.25 for _, ratio in maps if _side(ratio, True))
    below = max(_name_inches(ratio, "other_category", font) for _, ratio in maps)
    below += max(_group_inches(ratio, "other_category", font) for _, ratio in maps)
    beside += sum(_group_inches(ratio, "category", font) for _, ratio in maps)
    below += 0.25 * any(_side(ratio, False) for _, ratio in maps)
    notes = _notes(maps)
    bar_inches, title_inches = 0.9, 0.4 + 0.2 * bool(notes)
    highest = max(len(_side(ratio, True)) * (font + 1) * 0.6 / 72 for _, ratio in maps)
    height = max(1.3, highest, *(cell * ratio.shape[0] for _, ratio in maps)) + below + title_inches
    figure = Figure(figsize=(sum(widths) + beside + bar_inches, height), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False, width_ratios=widths)[0]
    top = next((top for top in SCALES if top >= max(_highest(ratio) for _, ratio in maps)), 1.0)
    for ax, (title, ratio) in zip(axes, maps, strict=True):
        image = _heat_map(ax, ratio, font, top)
        ax.set_title(title, fontsize=font + 2, parse_math=False)
    beyond = any(float(ratio.max()) > top for _, ratio in maps)
    bar = figure.colorbar(
        image, ax=list(axes), shrink=min(1.0, 4 / height), aspect=25, extend="max" if beyond else "neither"
    )
    bar.set_label(label_of(maps[0][1]), fontsize=font + 1)
    bar.ax.tick_params(labelsize=font)
    if notes:
        figure.supxlabel(notes, fontsize=font, parse_math=False)
    return figure


def _highest(ratio: xr.DataArray) -> float:
    """Highest ratio, the diagonal of a labelling with itself left out."""
    values = np.nan_to_num(ratio.values)
    itself = np.array_equal(ratio["category"].values, ratio["other_category"].values)
    if itself and np.isin(np.diagonal(values), (0, 1)).all():
        values = values - np.diag(np.diagonal(values))
    return float(values.max(initial=0))


def _heat_map(ax: Axes, ratio: xr.DataArray, font: float, top: float) -> AxesImage:
    # What is NaN stays transparent and shows the hatched ground.
    ax.patch.set(facecolor="0.88", edgecolor="0.55", hatch="/////")
    values = ratio.values
    image = ax.imshow(values, cmap=COLOURS, vmin=0, vmax=top, aspect="equal", interpolation="nearest")
    for axis, dim in ((ax.xaxis, "other_category"), (ax.yaxis, "category")):
        axis.set_ticks(range(ratio.sizes[dim]), labels=_names(ratio, dim), parse_math=False)
    ax.tick_params(labelsize=font, length=0, pad=2)
    ax.set_xlabel(_side(ratio, False), fontsize=font + 1, parse_math=False)
    ax.set_ylabel(_side(ratio, True), fontsize=font + 1, parse_math=False)
    upright = all(
        len(name) * font * 0.7 / 72 < _cell_inches(max(values.shape)) for name in _names(ratio, "other_category")
    )
    ax.tick_params(axis="x", labelrotation=0 if upright else 90)
    ax.spines[:].set_linewidth(0.4)
    ax.set_anchor("N")
    _mark_groups(ax, ratio, font)
    _strike_out(ax, ratio, top)
    if max(values.shape) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                ink = "black" if value > top / 2 else "white"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=font - 1, color=ink)
    return image


def _strike_out(ax: Axes, ratio: xr.DataArray, top: float) -> None:
    """A stroke through the cells that do not exceed the null, light on dark and dark on light."""
    if "within_null" not in ratio.coords:
        return
    rows, columns = np.nonzero(ratio["within_null"].transpose("category", "other_category").values)
    strokes = [[(x - 0.42, y + 0.42), (x + 0.42, y - 0.42)] for y, x in zip(rows, columns, strict=True)]
    inks = ["0.3" if value > top / 2 else "0.6" for value in ratio.values[rows, columns]]
    ax.add_collection(LineCollection(strokes, colors=inks, linewidths=0.4), autolim=False)


def _mark_groups(ax: Axes, ratio: xr.DataArray, font: float) -> None:
    """Lines between groups, their names above and to the right."""
    for dim, line in (("other_category", ax.axvline), ("category", ax.axhline)):
        runs = _groups(ratio, dim)
        if not runs:
            continue
        for start, _, _ in runs[1:]:
            line(start - 0.5, color="white", linewidth=2.2)
            line(start - 0.5, color="black", linewidth=0.8)  # on white, so that it shows on dark and light cells
        across = dim == "other_category"
        side = ax.secondary_xaxis("top") if across else ax.secondary_yaxis("right")
        axis = side.xaxis if across else side.yaxis
        middles = [(start + stop - 1) / 2 for start, stop, _ in runs]
        axis.set_ticks(middles, labels=[name for _, _, name in runs], parse_math=False)
        side.tick_params(labelsize=font + 1, length=0, pad=2)
        if across and not _fit_upright(runs, _cell_inches(max(ratio.shape)), font + 1):
            side.tick_params(axis="x", labelrotation=90)
        side.spines[:].set_visible(False)


def _side(ratio: xr.DataArray, left: bool) -> str:
    """What the categories along a side are of."""
    return str(ratio["category" if left else "other_category"].attrs.get("long_name", ""))


def _notes(maps: Sequence[tuple[str, xr.DataArray]]) -> str:
    """What hatching and strokes mean, where there are any."""
    notes = []
    if any(bool(ratio.isnull().any()) for _, ratio in maps):
        notes.append("hatched: neither category has a neuron")
    if any("within_null" in ratio.coords for _, ratio in maps):
        about = next(ratio.attrs for _, ratio in maps if "within_null" in ratio.coords)
        level, smallest = about.get("level"), max(r.attrs.get("smallest_p", 0.0) for _, r in maps)
        limit = f"; no p can be below {smallest:.2g}" if level and smallest > level else ""
        notes.append("struck out: within shuffled labels" + (f" (corrected p > {level:g}{limit})" if level else ""))
    return "; ".join(notes)


def _groups(ratio: xr.DataArray, dim: str) -> list[tuple[int, int, str]]:
    """Runs of categories of one group: start, stop, name."""
    coord = {"category": "group", "other_category": "other_group"}[dim]
    if coord not in ratio.coords:
        return []
    names = [str(name) for name in ratio[coord].values]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return [(start, stop, names[start]) for start, stop in zip(starts, [*starts[1:], len(names)], strict=True)]


def _fit_upright(runs: Sequence[tuple[int, int, str]], cell: float, font: float) -> bool:
    return all(len(name) * font * 0.62 / 72 < (stop - start) * cell for start, stop, name in runs)


def _group_inches(ratio: xr.DataArray, dim: str, font: float) -> float:
    """Room that the names of groups take, above or to the right."""
    runs = _groups(ratio, dim)
    if dim == "other_category" and _fit_upright(runs, _cell_inches(max(ratio.shape)), font + 1):
        return 0.2 if runs else 0.0
    return max((len(name) for _, _, name in runs), default=0) * (font + 1) * 0.6 / 72


def _cell_inches(n_categories: int) -> float:
    return float(np.clip(MAP_INCHES / max(1, n_categories), *CELL_INCHES))


def _name_inches(ratio: xr.DataArray, dim: str, font: float) -> float:
    """Room that the longest name along a dimension takes."""
    return max((len(name) for name in _names(ratio, dim)), default=0) * font * 0.6 / 72


def _names(ratio: xr.DataArray, dim: str) -> list[str]:
    return [short_name(str(name)) for name in ratio[dim].values]

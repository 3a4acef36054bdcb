"""Heat maps of common neuron ratios."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .letters import Letters, letters_of
from .save import COLOURS, label_of

CELL_INCHES = (0.145, 0.5)  # smallest and largest side of a cell
MAP_INCHES = 4.5  # a map is about so wide where the cells may choose
SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)  # tops of the colour scale, if 1 would leave all cells dark
MAX_INCHES = 15.0  # of a side of a map: with more categories cells shrink, and not every one is named
MIN_STROKE_INCHES = 0.06  # of cells that are struck out; smaller ones are faded
NUMBERED = 12  # up to so many categories the cells bear their numbers


def overlap_figure(panels: Sequence[tuple[str, xr.DataArray]]) -> Figure:
    """Heat maps of common neuron ratios side by side, on one scale.

    The scale ends at 1, or at the next of a few round numbers above the highest ratio of two different categories; the
    diagonal of a labelling with itself, always 1, then lies beyond it, as the arrow of the colour bar says.
    panels: (title, ratio (category, other_category)); NaN, where neither category has a neuron, is hatched
    grey. Sides bear the long_name of their dimension, if it has one, as from `labelled`. Lines divide the groups of
    categories, if they have any, as from `arranged`. Cells that do not exceed the null, by the coordinate
    `within_null` of `null.with_null`, are struck out, where they are too small for strokes faded. Of more categories
    than fit along a side every second is named, or third, and so on. A line below says what of this there is.
    """
    maps = [(title, ratio.transpose("category", "other_category")) for title, ratio in panels]
    letters = letters_of(text for title, ratio in maps for text in (title, *_texts(ratio)))
    cell = _cell_inches(max(max(ratio.shape) for _, ratio in maps))
    drawn = [Map(title=letters.title(title), ratio=ratio, cell=cell, letters=letters) for title, ratio in maps]
    font = drawn[0].font
    widths = [
        max(1.3, each.width, *(len(text) * (font + 2) * 0.6 / 72 for text in (each.title, each.side(False))))
        for each in drawn
    ]
    beside = sum(each.name_inches("category") + 0.2 + each.group_inches("category") for each in drawn)
    beside += sum(0.25 for each in drawn if each.side(True))
    below = max(each.name_inches("other_category") for each in drawn)
    below += max(each.group_inches("other_category") for each in drawn)
    below += 0.25 * any(each.side(False) for each in drawn)
    notes = _notes(drawn)
    bar_inches, title_inches = 0.9, 0.4 + 0.2 * bool(notes)
    highest = max(len(each.side(True)) * (font + 1) * 0.6 / 72 for each in drawn)
    height = max(1.3, highest, *(each.height for each in drawn)) + below + title_inches
    figure = Figure(figsize=(sum(widths) + beside + bar_inches, height), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False, width_ratios=widths)[0]
    top = next((top for top in SCALES if top >= max(_highest(ratio) for _, ratio in maps)), 1.0)
    for ax, each in zip(axes, drawn, strict=True):
        image = _heat_map(ax, each, top)
        ax.set_title(each.title, fontsize=font + 2, parse_math=False)
    beyond = any(float(ratio.max()) > top for _, ratio in maps)
    bar = figure.colorbar(
        image, ax=list(axes), shrink=min(1.0, 4 / height), aspect=25, extend="max" if beyond else "neither"
    )
    bar.set_label(label_of(maps[0][1]), fontsize=font + 1)
    bar.ax.tick_params(labelsize=font)
    if notes:
        figure.supxlabel(notes, fontsize=font, parse_math=False)
    return letters.applied(figure)


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """One heat map: what it shows, and how large its parts are, in inches."""

    title: str
    ratio: xr.DataArray
    """(category, other_category)."""
    cell: float
    """Side of a cell, as long as all of them fit in `MAX_INCHES`."""
    letters: Letters

    @property
    def font(self) -> float:
        """Size of the categories' names, in points."""
        return float(np.clip(self.cell * 72 * 0.6, 5.0, 9.0))

    @property
    def cell_height(self) -> float:
        """Height of a cell."""
        return min(self.cell, MAX_INCHES / max(1, self.ratio.shape[0]))

    @property
    def cell_width(self) -> float:
        """Width of a cell."""
        return min(self.cell, MAX_INCHES / max(1, self.ratio.shape[1]))

    @property
    def height(self) -> float:
        """Of all cells."""
        return self.cell_height * self.ratio.shape[0]

    @property
    def width(self) -> float:
        """Of all cells."""
        return self.cell_width * self.ratio.shape[1]

    @property
    def fades(self) -> bool:
        """Whether cells are too small to be struck out."""
        return min(self.cell_height, self.cell_width) < MIN_STROKE_INCHES

    def step(self, dim: str) -> int:
        """1 where all categories along a dimension are named, 2 where every second one is, ..."""
        return math.ceil(self.cell / (self.cell_height if dim == "category" else self.cell_width) - 1e-6)

    def names(self, dim: str) -> list[str]:
        """The categories that are named, as they are drawn."""
        return [self.letters(str(name)) for name in self.ratio[dim].values[:: self.step(dim)]]

    def side(self, left: bool) -> str:
        """What the categories along a side are of."""
        dim = "category" if left else "other_category"
        return self.letters.title(str(self.ratio[dim].attrs.get("long_name", "")))

    def name_inches(self, dim: str) -> float:
        """Room that the longest name along a dimension takes."""
        return max(map(len, self.names(dim)), default=0) * self.font * 0.6 / 72

    def groups(self, dim: str) -> list[tuple[int, int, str]]:
        """Runs of categories of one group: start, stop, name as it is drawn."""
        return [(start, stop, self.letters(name)) for start, stop, name in _groups(self.ratio, dim)]

    def groups_fit(self) -> bool:
        """Whether the names of groups have room above their columns."""
        letter = (self.font + 1) * 0.62 / 72
        runs = self.groups("other_category")
        return all(len(name) * letter < (stop - start) * self.cell_width for start, stop, name in runs)

    def group_inches(self, dim: str) -> float:
        """Room that the names of groups take, above or to the right."""
        runs = self.groups(dim)
        if dim == "other_category" and self.groups_fit():
            return 0.2 if runs else 0.0
        return max((len(name) for _, _, name in runs), default=0) * (self.font + 1) * 0.6 / 72


def _highest(ratio: xr.DataArray) -> float:
    """Highest ratio, the diagonal of a labelling with itself left out."""
    values = np.nan_to_num(ratio.values)
    itself = np.array_equal(ratio["category"].values, ratio["other_category"].values)
    if itself and np.isin(np.diagonal(values), (0, 1)).all():
        values = values - np.diag(np.diagonal(values))
    return float(values.max(initial=0))


def _heat_map(ax: Axes, each: Map, top: float) -> AxesImage:
    # What is NaN stays transparent and shows the hatched ground.
    ax.patch.set(facecolor="0.88", edgecolor="0.55", hatch="/////")
    values, font, aspect = each.ratio.values, each.font, each.cell_height / each.cell_width
    image = ax.imshow(values, cmap=COLOURS, vmin=0, vmax=top, aspect=aspect, interpolation="nearest")
    for axis, dim in ((ax.xaxis, "other_category"), (ax.yaxis, "category")):
        axis.set_ticks(range(0, each.ratio.sizes[dim], each.step(dim)), labels=each.names(dim), parse_math=False)
    ax.tick_params(labelsize=font, length=0, pad=2)
    ax.set_xlabel(each.side(False), fontsize=font + 1, parse_math=False)
    ax.set_ylabel(each.side(True), fontsize=font + 1, parse_math=False)
    upright = all(len(name) * font * 0.7 / 72 < each.cell_width for name in each.names("other_category"))
    ax.tick_params(axis="x", labelrotation=0 if upright else 90)
    ax.spines[:].set_linewidth(0.4)
    ax.set_anchor("N")
    _mark_groups(ax, each)
    _strike_out(ax, each, top)
    if max(values.shape) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                ink = "black" if value > top / 2 else "white"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=font - 1, color=ink)
    return image


def _strike_out(ax: Axes, each: Map, top: float) -> None:
    """A stroke through the cells that do not exceed the null, light on dark and dark on light; small ones are faded."""
    ratio = each.ratio
    if "within_null" not in ratio.coords:
        return
    within = ratio["within_null"].transpose("category", "other_category").values
    if each.fades:
        veil = np.ones((*within.shape, 4), np.float32)
        veil[..., 3] = 0.7 * within
        ax.imshow(veil, aspect=ax.get_aspect(), interpolation="nearest")
        return
    rows, columns = np.nonzero(within)
    strokes = [[(x - 0.42, y + 0.42), (x + 0.42, y - 0.42)] for y, x in zip(rows, columns, strict=True)]
    inks = ["0.3" if value > top / 2 else "0.6" for value in ratio.values[rows, columns]]
    ax.add_collection(LineCollection(strokes, colors=inks, linewidths=0.4), autolim=False)


def _mark_groups(ax: Axes, each: Map) -> None:
    """Lines between groups, their names above and to the right."""
    for dim, line in (("other_category", ax.axvline), ("category", ax.axhline)):
        runs = each.groups(dim)
        if not runs:
            continue
        for start, _, _ in runs[1:]:
            line(start - 0.5, color="white", linewidth=2.2)
            line(start - 0.5, color="black", linewidth=0.8)  # on white, so that it shows on dark and light cells
        across = dim == "other_category"
        side = ax.secondary_xaxis("top") if across else ax.secondary_yaxis("right")
        axis = side.xaxis if across else side.yaxis
        step = math.ceil(len(runs) * CELL_INCHES[0] / (each.width if across else each.height))  # 1 where all have room
        middles = [(start + stop - 1) / 2 for start, stop, _ in runs[::step]]
        axis.set_ticks(middles, labels=[name for _, _, name in runs[::step]], parse_math=False)
        side.tick_params(labelsize=each.font + 1, length=0, pad=2)
        if across and not each.groups_fit():
            side.tick_params(axis="x", labelrotation=90)
        side.spines[:].set_visible(False)


def _texts(ratio: xr.DataArray) -> Iterator[str]:
    """All names that belong to a map, but its title."""
    for dim in ("category", "other_category"):
        yield from (str(ratio[dim].attrs.get("long_name", "")), *map(str, ratio[dim].values))
        yield from (name for _, _, name in _groups(ratio, dim))


def _notes(maps: Sequence[Map]) -> str:
    """What hatching and strokes mean, and which categories are named, where it is to be said."""
    notes = []
    if any(bool(each.ratio.isnull().any()) for each in maps):
        notes.append("hatched: neither category has a neuron")
    for how, of_such in (("struck out", [x for x in maps if not x.fades]), ("faded", [x for x in maps if x.fades])):
        marked = next((each.ratio for each in of_such if "within_null" in each.ratio.coords), None)
        if marked is not None:
            level, smallest = marked.attrs.get("level"), max(x.ratio.attrs.get("smallest_p", 0.0) for x in of_such)
            limit = f"; no p can be below {smallest:.2g}" if level and smallest > level else ""
            notes.append(f"{how}: within shuffled labels" + (f" (corrected p > {level:g}{limit})" if level else ""))
    step = max(each.step(dim) for each in maps for dim in ("category", "other_category"))
    if step > 1:
        notes.append(f"one category in {step} is named")
    return "; ".join(notes)


def _groups(ratio: xr.DataArray, dim: str) -> list[tuple[int, int, str]]:
    """Runs of categories of one group: start, stop, name."""
    coord = {"category": "group", "other_category": "other_group"}[dim]
    if coord not in ratio.coords:
        return []
    names = [str(name) for name in ratio[coord].values]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return [(start, stop, names[start]) for start, stop in zip(starts, [*starts[1:], len(names)], strict=True)]


def _cell_inches(n_categories: int) -> float:
    return float(np.clip(MAP_INCHES / max(1, n_categories), *CELL_INCHES))

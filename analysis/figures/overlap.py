"""Heat maps of common neuron ratios, observed or beside what shuffled labels give."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from .layout import FONT, LETTER, PAGE_INCHES, ROW_PAD, columns_of, grid_of, parts_of, wrapped, write_below
from .letters import Letters, letters_of
from .save import COLOURS, DIVERGING, label_of

CELL_INCHES = (0.145, 0.5)  # smallest and largest side of a cell
BAR_INCHES = 0.75
MIN_PANEL_INCHES = 1.0
SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)  # tops of the colour scale, if 1 would leave all cells dark
MAX_INCHES = 15.0  # of a side of a map: with more categories cells shrink, and not every one is named
MIN_STROKE_INCHES = 0.06  # of cells that are struck out; smaller ones are faded
NUMBERED = 12  # up to so many categories the cells bear their numbers
RATIO_SCALES = (1.25, 1.5, 2, 3, 5, 10)  # tops of the scale of ratios to shuffled labels, whose ends are 1/2 and 2, ...
MARKS = {"above": "^", "below": "v"}


def overlap_figure(panels: Sequence[tuple[str, xr.DataArray]], caption: str = "") -> Figure:
    """Heat maps of common neuron ratios on one scale, as a grid of equal panels: a row per title where it can be.

    The scale ends at 1, or at the next of a few round numbers above the highest ratio of two different categories; the
    diagonal of a labelling with itself, always 1, then lies beyond it, as the arrow of the colour bar says. Ratios to
    shuffled labels, and differences from them, by the attribute `show` of `null.with_null`, are on a diverging scale
    around 1 (logarithmic) or 0.
    panels: (title, ratio (category, other_category)), all with the same to show; NaN, where neither category has a
    neuron or nothing is to be compared, is hatched grey. Sides bear the long_name of their dimension, if it has one, as
    from `labelled`. Lines divide the groups of categories, if they have any, as from `arranged`. By the coordinates of
    `null.with_null`, cells within the null are struck out, where they are too small for strokes faded, and those beyond
    it bear a triangle that points up or down. Of more categories than fit along a side every second is named, or third,
    and so on.
    caption: stands below, after a line that says what of this there is and how the null was made.
    Letters have 7 points; a figure of 2 x 2 panels of 6 categories with short names is as wide as `PAGE_INCHES`.
    """
    maps = [(title, ratio.transpose("category", "other_category")) for title, ratio in panels]
    tests = list(dict.fromkeys(ratio.attrs["test"] for _, ratio in maps if "test" in ratio.attrs))
    below_it = [part for line in (*tests, caption) for part in parts_of(line)]
    letters = letters_of([*below_it, *(text for title, ratio in maps for text in (title, *_texts(ratio)))])
    columns = columns_of([title for title, _ in maps])
    cells = _cells([ratio for _, ratio in maps], letters, columns)
    drawn = [
        Map(title=letters.title(title), ratio=ratio, cell=cell, letters=letters)
        for (title, ratio), cell in zip(maps, cells, strict=True)
    ]
    sides = max(len(text) * (FONT + 1) * LETTER for each in drawn for text in (each.side(False), ""))
    panel_width = max(MIN_PANEL_INCHES, sides, *(each.width for each in drawn))
    panel_height = max(
        MIN_PANEL_INCHES,
        *(each.height for each in drawn),
        *(len(each.side(True)) * (FONT + 1) * LETTER for each in drawn),
    )
    beside = max(each.name_inches("category") + each.group_inches("category") for each in drawn)
    beside += 0.15 + 0.15 * any(each.side(True) for each in drawn)
    titles = [wrapped(each.title, panel_width + 0.8 * beside, FONT + 1) for each in drawn]
    below = max(each.name_inches("other_category") + each.group_inches("other_category") for each in drawn)
    below += 0.15 + 0.15 * any(each.side(False) for each in drawn)
    below += (FONT + 1) * 1.3 / 72 * (1 + max(title.count("\n") for title in titles)) + 2 * ROW_PAD
    height = math.ceil(len(maps) / columns) * (panel_height + below)
    figure, axes = grid_of(len(maps), columns, (columns * (panel_width + beside) + BAR_INCHES, height))
    scale = _scale([ratio for _, ratio in maps])
    for ax, each, title in zip(axes, drawn, titles, strict=True):
        image = _heat_map(ax, each, scale)
        ax.set_title(title, fontsize=FONT + 1, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 3 / height), aspect=25, extend=_extend(maps, scale))
    _finish_bar(bar, scale, wrapped(label_of(maps[0][1]), min(3.0, height)))
    write_below(figure, letters, "; ".join([*_notes(drawn), *tests]), caption)
    return letters.applied(figure)


def _cells(ratios: Sequence[xr.DataArray], letters: Letters, columns: int) -> list[float]:
    """Side of a cell of each map: all of a map's width that a page leaves, and as wide as the widest map."""
    longest = max(len(letters(str(name))) for ratio in ratios for name in ratio["category"].values) if ratios else 0
    room = (PAGE_INCHES - BAR_INCHES) / columns - longest * FONT * LETTER - 0.3
    counts = [max(1, *ratio.shape) for ratio in ratios]
    widest = max(n * float(np.clip(room / n, *CELL_INCHES)) for n in counts)
    return [float(np.clip(widest / n, *CELL_INCHES)) for n in counts]


def _scale(ratios: Sequence[xr.DataArray]) -> Normalize:
    show = ratios[0].attrs.get("show", "observed")
    if show == "ratio":
        values = np.concatenate([ratio.values.ravel() for ratio in ratios])
        factors = np.abs(np.log(values[np.isfinite(values) & (values > 0)]))
        top = next((top for top in RATIO_SCALES if np.log(top) >= factors.max(initial=0)), RATIO_SCALES[-1])
        return LogNorm(1 / top, top)
    top = next((top for top in SCALES if top >= max(map(_highest, ratios))), 1.0)
    return Normalize(-top if show == "difference" else 0, top)


def _extend(maps: Sequence[tuple[str, xr.DataArray]], scale: Normalize) -> str:
    """Which ends of the colour bar have arrows, for values beyond them."""
    values = np.concatenate([ratio.values.ravel() for _, ratio in maps])
    low, high = (bool(x.any()) for x in (values < scale.vmin, values > scale.vmax))
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[low, high]


def _finish_bar(bar: Colorbar, scale: Normalize, label: str) -> None:
    if isinstance(scale, LogNorm):
        ticks = [float(scale.vmax or 1) ** share for share in (-1, -0.5, 0, 0.5, 1)]
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
        bar.minorticks_off()
    bar.set_label(label, fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT, length=2)


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
        return float(np.clip(self.cell * 72 * 0.6, 5.0, FONT))

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
        longest = max(map(len, self.names(dim)), default=0)
        return self.font * 1.2 / 72 if dim == "other_category" and self.upright else longest * self.font * LETTER

    @property
    def upright(self) -> bool:
        """Whether the names below have room beside each other."""
        return all(len(name) * self.font * 0.7 / 72 < self.cell_width for name in self.names("other_category"))

    def groups(self, dim: str) -> list[tuple[int, int, str]]:
        """Runs of categories of one group: start, stop, name as it is drawn."""
        return [(start, stop, self.letters(name)) for start, stop, name in _groups(self.ratio, dim)]

    def groups_fit(self) -> bool:
        """Whether the names of groups have room above their columns."""
        letter = self.font * 0.62 / 72
        runs = self.groups("other_category")
        return all(len(name) * letter < (stop - start) * self.cell_width for start, stop, name in runs)

    def group_inches(self, dim: str) -> float:
        """Room that the names of groups take, above or to the right."""
        runs = self.groups(dim)
        if dim == "other_category" and self.groups_fit():
            return 0.2 if runs else 0.0
        return max((len(name) for _, _, name in runs), default=0) * self.font * LETTER


def _highest(ratio: xr.DataArray) -> float:
    """Highest ratio, or difference either way, the diagonal of a labelling with itself left out."""
    values = np.abs(np.nan_to_num(ratio.values))
    itself = np.array_equal(ratio["category"].values, ratio["other_category"].values)
    if itself and np.isin(np.diagonal(values), (0, 1)).all():
        values = values - np.diag(np.diagonal(values))
    return float(values.max(initial=0))


def _heat_map(ax: Axes, each: Map, scale: Normalize) -> AxesImage:
    # What is NaN stays transparent and shows the hatched ground.
    ax.patch.set(facecolor="0.88", edgecolor="0.55", hatch="/////")
    values, font, aspect = each.ratio.values, each.font, each.cell_height / each.cell_width
    show = each.ratio.attrs.get("show", "observed")
    colours = COLOURS if show == "observed" else DIVERGING
    # No logarithm is taken of 0, and infinity would be taken for nothing.
    shown = np.clip(values, scale.vmin, scale.vmax) if isinstance(scale, LogNorm) else values
    image = ax.imshow(shown, cmap=colours, norm=scale, aspect=aspect, interpolation="nearest")
    for axis, dim in ((ax.xaxis, "other_category"), (ax.yaxis, "category")):
        axis.set_ticks(range(0, each.ratio.sizes[dim], each.step(dim)), labels=each.names(dim), parse_math=False)
    ax.tick_params(labelsize=font, length=0, pad=2)
    ax.set_xlabel(each.side(False), fontsize=FONT + 1, parse_math=False)
    ax.set_ylabel(each.side(True), fontsize=FONT + 1, parse_math=False)
    ax.tick_params(axis="x", labelrotation=0 if each.upright else 90)
    ax.spines[:].set_linewidth(0.4)
    ax.set_anchor("N")
    _mark_groups(ax, each)
    rgb = image.to_rgba(shown)[..., :3]
    light = rgb @ [0.299, 0.587, 0.114] > 0.5
    _strike_out(ax, each, light)
    sides = each.ratio.coords.get("null_side")
    marked = np.zeros(values.shape, bool) if sides is None else sides.transpose(*each.ratio.dims).values != ""
    numbered = max(values.shape) <= NUMBERED and each.cell_width >= 4 * 5 * LETTER
    if numbered:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                ink = "black" if light[row, column] else "white"
                number, size = _number(float(value), show, each.cell_width, font)
                ax.text(
                    column, row + 0.1 * marked[row, column], number, ha="center", va="center", fontsize=size, color=ink
                )
    _mark_sides(ax, each, light, numbered)
    return image


def _number(value: float, show: str, inches: float, font: float) -> tuple[str, float]:
    """A cell's number and the size of its letters: 0.12, or .12 where that is too wide."""
    text = f"{value:.2g}" if show == "ratio" else f"{value:{'+' if show == 'difference' else ''}.2f}"
    if len(text) * font * LETTER > inches * 1.05:
        text = text.replace("0.", ".", 1) if not text.endswith("1.00") else text.removesuffix(".00")
    return text, float(np.clip(inches * 1.05 / (len(text) * LETTER), 5, font))


def _mark_sides(ax: Axes, each: Map, light: NDArray[np.bool_], numbered: bool) -> None:
    """Triangles in the cells beyond the null, up for those above it and down for those below; over the numbers."""
    if "null_side" not in each.ratio.coords:
        return
    sides = each.ratio["null_side"].transpose("category", "other_category").values
    points = min(each.cell_height, each.cell_width) * 72
    size, shift = (min(5.0, points * 0.26), 0.33) if numbered else (min(6.0, points * 0.5), 0.0)
    for side, marker in MARKS.items():
        for on_light, ink in ((True, "black"), (False, "white")):
            rows, columns = np.nonzero((sides == side) & (light == on_light))
            if rows.size:
                ax.plot(
                    columns, rows - shift, marker, color=ink, markersize=size, markeredgewidth=0,
                    label=f"_{side}", rasterized=each.fades, scalex=False, scaley=False,
                )  # fmt: skip


def _strike_out(ax: Axes, each: Map, light: NDArray[np.bool_]) -> None:
    """A stroke through the cells within the null, light on dark and dark on light; small ones are faded."""
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
    inks = ["0.3" if on_light else "0.6" for on_light in light[rows, columns]]
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
        side.tick_params(labelsize=each.font, length=0, pad=2)
        if across and not each.groups_fit():
            side.tick_params(axis="x", labelrotation=90)
        side.spines[:].set_visible(False)


def _texts(ratio: xr.DataArray) -> Iterator[str]:
    """All names that belong to a map, but its title."""
    for dim in ("category", "other_category"):
        yield from (str(ratio[dim].attrs.get("long_name", "")), *map(str, ratio[dim].values))
        yield from (name for _, _, name in _groups(ratio, dim))


def _notes(maps: Sequence[Map]) -> list[str]:
    """What hatching, triangles and strokes mean, and which categories are named, where it is to be said."""
    notes = []
    if any(bool(each.ratio.isnull().any()) for each in maps):
        compared = maps[0].ratio.attrs.get("show", "observed") != "observed"
        notes.append("hatched: " + ("not compared" if compared else "neither category has a neuron"))
    of_sides = [each.ratio["null_side"].values for each in maps if "null_side" in each.ratio.coords]
    notes += [
        f"{triangle}: {side} shuffled labels"
        for side, triangle in (("above", "▲"), ("below", "▼"))
        if any((sides == side).any() for sides in of_sides)
    ]
    for how, of_such in (("struck out", [x for x in maps if not x.fades]), ("faded", [x for x in maps if x.fades])):
        marked = next((each.ratio for each in of_such if "within_null" in each.ratio.coords), None)
        if marked is not None:
            level, smallest = marked.attrs.get("level"), max(x.ratio.attrs.get("smallest_p", 0.0) for x in of_such)
            limit = f"; no p can be below {smallest:.2g}" if level and smallest > level else ""
            notes.append(f"{how}: within shuffled labels" + (f" (corrected p > {level:g}{limit})" if level else ""))
    step = max(each.step(dim) for each in maps for dim in ("category", "other_category"))
    if step > 1:
        notes.append(f"one category in {step} is named")
    return notes


def _groups(ratio: xr.DataArray, dim: str) -> list[tuple[int, int, str]]:
    """Runs of categories of one group: start, stop, name."""
    coord = {"category": "group", "other_category": "other_group"}[dim]
    if coord not in ratio.coords:
        return []
    names = [str(name) for name in ratio[coord].values]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return [(start, stop, names[start]) for start, stop in zip(starts, [*starts[1:], len(names)], strict=True)]

"""What an ablation did, as a figure: base accuracy, the set's change, and the band of its matched controls.

Goal: one look shows which categories moved, and whether random neurons would have moved them too.
Conventions: as in `figures`; categories go down the page, so that fifty names stay legible. Shades and shapes carry the
meaning, no hue does.
"""

import math
from textwrap import wrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from ..null.significance import check_level
from ..selection.sets import parse_set
from .layout import FONT, parts_of, wrapped, write_below
from .letters import letters_of

ROW_INCHES = 0.19
MAX_INCHES = 40.0  # of all rows: with more categories rows shrink, and not every one is named
PANEL_INCHES = 1.5
LETTERS_PER_INCH, LINE_INCHES = 18, 0.125  # of the notes above
BASE, WIDE, NARROW, INK = "0.75", "0.86", "0.68", "#10316b"
TITLES = {
    "accuracy": "change of accuracy",
    "margin": "change of margin (logits)",
    "log_loss": "change of log-loss (nats)",
    "predicted": "change of the share predicted {target}",
    "target_margin": "change of the margin of {target} (logits)",
}
EVERYTHING = "all clips"
TARGET: dict[str, Any] = {"marker": ">", "color": "black", "markersize": 4, "linestyle": "none", "markeredgewidth": 0}


def ablation_figure(
    result: xr.Dataset, measures: tuple[str, ...] = (), level: float = 0.05, caption: str = ""
) -> Figure:
    """Panels side by side, a row per category and one for all clips: base accuracy, then changes.

    result: of `ablate.effects.compare`, with the controls' changes. measures: of its measures, those whose changes
    are drawn; by default accuracy and margin, and the share predicted where clips were to become another category.
    Dots are the set's changes with their 95 % intervals, where there are any; filled where `p_corrected` is at most
    `level`. If no p can be, with so few controls, the legend says so. The wide band
    is the range of the controls, the narrow one holds the middle 95 % of them, the tick is their mean.
    Above are the result's notes: how many clips changed, and what speaks against the probe. Categories that the set is
    named by, and that of the mode, are bold, with a triangle beside them.
    caption: stands below.
    Letters have 7 points; with two changes and short names a figure is about as wide as `layout.PAGE_INCHES`.
    Raises ValueError for a measure that the result does not have, and a level that is none.
    """
    check_level(level)
    have = [str(name) for name in result["measure"].values]
    shown = measures or ("accuracy", "margin", *(name for name in ("predicted",) if name in have))
    unknown = [name for name in shown if name not in have]
    if unknown:
        raise ValueError(f"the result has no measure {unknown[0]!r}; expected some of {', '.join(have)}")
    request = result.attrs.get("request", {})
    target = str(request.get("category", ""))
    every = [str(name) for name in result["category"].values]
    notes = [str(note) for note in result.attrs.get("notes", ())]
    letters = letters_of([*every, target, *notes, *parts_of(caption)])
    names = [letters(name) for name in every]
    rows = len(names) + 1
    row_inches = min(ROW_INCHES, MAX_INCHES / rows)
    step = math.ceil(ROW_INCHES / row_inches - 1e-6)
    width = PANEL_INCHES * (0.55 + len(shown)) + 0.065 * max(map(len, (*names, EVERYTHING)))
    figure = Figure(figsize=(width, row_inches * rows + 1.1), layout="constrained")
    ratios = [0.55] + [1.0] * len(shown)
    axes = figure.subplots(1, 1 + len(shown), sharey=True, squeeze=False, width_ratios=ratios)[0]
    base = _of(result, "accuracy", "before")
    axes[0].barh(np.arange(rows), base, 0.7, color=BASE)
    axes[0].set(xlim=(0, 1), xlabel=wrapped("base accuracy", 0.55 * PANEL_INCHES), xticks=(0, 0.5, 1))
    for ax, measure in zip(axes[1:], shown, strict=True):
        _changes(ax, result, measure, level)
        ax.set_xlabel(wrapped(TITLES[measure].format(target=letters(target)), PANEL_INCHES), parse_math=False)
    counts = [int(n) for n in result["n_clips"].values]
    labels = [f"{name} ({n})" for name, n in zip(names, counts, strict=True)][::step]
    named = [*range(0, len(names), step), len(names)]
    axes[0].set_yticks(named, labels=[*labels, f"{EVERYTHING} ({sum(counts)})"], parse_math=False)
    if step > 1:
        axes[0].set_ylabel(f"one category in {step} is named", fontsize=FONT)
    axes[0].set_ylim(rows - 0.4, -0.6)  # the first category on top
    for ax in axes:
        ax.axhline(rows - 1.5, color="0.4", linewidth=0.6)
        ax.tick_params(labelsize=FONT, length=2)
        ax.xaxis.label.set_fontsize(FONT)
        ax.spines[["top", "right"]].set_visible(False)
    targets = [i for i, name in enumerate(every) if name in {target, *_named_by_the_set(request)}]
    if targets:
        _mark(figure, targets, step)
    legend = _legend(figure, level, int(result.sizes["control"]), bool(targets))
    if notes:
        lines = [line for note in notes for line in wrap(letters(note, len(note)), round(width * LETTERS_PER_INCH))]
        figure.set_figheight(figure.get_figheight() + LINE_INCHES * len(lines))
        figure.suptitle("\n".join(lines), fontsize=FONT, parse_math=False)
    write_below(figure, letters, caption, legend=legend)
    return letters.applied(figure)


def _named_by_the_set(request: dict[str, Any]) -> list[str]:
    """Categories of the request's own labelling in the name of its set; none where that is another kind of name."""
    try:
        named = parse_set(str(request.get("set", "")))
    except ValueError:
        return []
    own = (request.get("task"), request.get("label"))
    return [each.name for each in named.categories if not each.task or (each.task, each.label) == own]


def _mark(figure: Figure, rows: list[int], step: int) -> None:
    """Bold names, where they are there, and a triangle between each and the first panel."""
    ax = figure.axes[0]
    for row in rows:
        if row % step == 0:
            ax.get_yticklabels()[row // step].set_fontweight("bold")
    ax.tick_params(axis="y", pad=9)
    beside = ScaledTranslation(-6 / 72, 0, figure.dpi_scale_trans)
    ax.plot(np.zeros(len(rows)), rows, transform=ax.get_yaxis_transform() + beside, clip_on=False, **TARGET)


def _changes(ax: Axes, result: xr.Dataset, measure: str, level: float) -> None:
    """Bands of the controls, and the set's change with its interval."""
    change, low, high, p = (_of(result, measure, name) for name in ("change", "low", "high", "p_corrected"))
    p[-1] = float(result["overall_p_rank"].sel(measure=measure))  # one row: nothing to correct for
    controls = np.vstack(
        [
            result["control_change"].sel(measure=measure).transpose("category", "control").values,
            result["overall_control_change"].sel(measure=measure).values,
        ]
    )
    positions = np.arange(len(change))
    there = np.isfinite(change)
    if controls.shape[1]:
        inside = controls[there]
        bottom, top = inside.min(axis=1), inside.max(axis=1)
        lower, upper = np.quantile(inside, [0.025, 0.975], axis=1)
        ax.barh(positions[there], top - bottom, 0.74, left=bottom, color=WIDE)
        ax.barh(positions[there], upper - lower, 0.74, left=lower, color=NARROW)
        # A band without width, where no control moved a single clip, shows as a line too.
        ax.plot(inside.mean(axis=1), positions[there], "|", color="black", markersize=6, markeredgewidth=0.8)
    ax.axvline(0, color="black", linewidth=0.5)
    ax.hlines(positions[there], low[there], high[there], color=INK, linewidth=1.0)
    marked = there & (np.nan_to_num(p, nan=1.0) <= level)
    for which, face in ((marked, INK), (there & ~marked, "white")):
        ax.plot(change[which], positions[which], "o", markersize=4.2, markeredgecolor=INK, markerfacecolor=face)
    ax.use_sticky_edges = False
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))


def _legend(figure: Figure, level: float, n_controls: int, targets: bool) -> Legend:
    dot = {"marker": "o", "color": INK, "markeredgecolor": INK, "markersize": 4.2, "linewidth": 1.0}
    keys: list[Line2D | Patch] = [Line2D([], [], markerfacecolor="white", **dot)]  # type: ignore[arg-type]
    words = ["the set, 95 % interval"]
    if n_controls:
        keys.append(Line2D([], [], markerfacecolor=INK, **dot))  # type: ignore[arg-type]
        keys += [Patch(color=WIDE), Patch(color=NARROW)]
        tick = Line2D([], [], marker="|", color="black", linestyle="none", markersize=6)
        keys.append(tick)
        smallest = 1 / (1 + n_controls)
        limit = ", corrected" if smallest <= level else f": impossible, at least {smallest:.2g}"
        words += [f"p ≤ {level:g}{limit}", f"{n_controls} controls, range", "middle 95 %", "mean"]
    if targets:
        keys.append(Line2D([], [], **TARGET))
        words.append("of the set's name or the mode")
    columns = 3 if figure.get_figwidth() < 7.5 else len(words)
    return figure.legend(
        keys, words, loc="outside lower center", ncols=columns, frameon=False, fontsize=FONT, handlelength=1.6
    )


def _of(result: xr.Dataset, measure: str, name: str) -> np.ndarray:
    """A variable over the categories, then over all clips."""
    own = result[name].sel(measure=measure).values
    overall = float(result[f"overall_{name}"].sel(measure=measure)) if f"overall_{name}" in result else np.nan
    values: np.ndarray = np.append(own, overall)
    return values

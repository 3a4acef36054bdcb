"""Views: from stores and statistics to what a page shows, as plain dataclasses.

Goal: all that a template writes is computed here, with words beside every picture; nothing here knows HTML.
Conventions: coordinates of drawings are in a box of 1,000 by 100 units, from the left and from the top.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..analysis.cards.card import Card
from ..analysis.cards.clip_page import ClipNeurons, neurons_in_clip
from ..analysis.cards.clips import TABS, ListedClips, clip_tab
from ..analysis.cards.home import TaskOverview
from ..analysis.cards.labelling_statistics import LabellingStatistics
from ..analysis.cards.neighbours import ActiveWith, ElsewhereRow, active_with, elsewhere, step_neuron
from .addresses import Scope, media
from .explorer import Explorer

BOX = 1000.0
CLIPS = 20
TAB_NAMES = {
    "top": "Highest", "least": "Lowest", "quantiles": "Quantiles", "random": "Random", "categories": "One per category",
    "range": "Range",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A labelling on the home page."""

    name: str
    href: str
    counts_href: str
    """Where its class-specific neurons are, as a part of a page."""


@dataclass(frozen=True, kw_only=True)
class TaskSection:
    """A task on the home page."""

    about: TaskOverview
    identity: str
    labellings: tuple[Labelled, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One category of a card, with the drawing of its P."""

    category: str
    specific: bool
    n_clips: int
    p: float
    low: float
    high: float
    band_low: float
    band_high: float
    mean: float
    auc: float
    auc_low: float
    auc_high: float
    p_value: float | None
    q_value: float | None
    scale: float
    """What P of the right edge is."""

    @property
    def outside(self) -> bool:
        """Whether P is outside the band of shuffled labels."""
        return self.p < self.band_low or self.p > self.band_high

    def x(self, value: float) -> float:
        """Where a P is in the box; 0 where there is none."""
        return 0.0 if math.isnan(value) else round(BOX * min(max(value / self.scale, 0.0), 1.0), 2)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A bin of the histogram."""

    x: float
    width: float
    height: float
    count: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class HistogramView:
    """Clips by their mean."""

    columns: tuple[Column, ...]
    low: float
    high: float
    zero: float | None
    """Where 0 is; None outside."""
    threshold: float | None
    words: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A clip with its sound, picture and, beside a neuron, its trace."""

    number: int
    name: str
    category: str
    others: tuple[str, ...]
    """Its categories in other labellings, as "timbre: brass"."""
    prompt: str
    value: float | None
    rank: int | None
    href: str
    sound: str
    matched: str
    picture: str
    trace: str
    """"" where there is none."""


@dataclass(frozen=True, kw_only=True)
class RowList:
    """Clips under one heading."""

    heading: str
    total: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class NeuronView:
    """A card."""

    scope: Scope
    card: Card
    bars: tuple[Bar, ...]
    histogram: HistogramView
    tab: str
    lists: tuple[RowList, ...]
    low: float | None
    high: float | None
    seed: int
    with_: ActiveWith | None
    elsewhere: tuple[tuple[ElsewhereRow, str], ...]
    not_computed: tuple[tuple[str, str], ...]
    """Other labellings whose statistics nobody asked for yet: name and address."""
    steps: dict[str, str]
    """Addresses of the previous, next and a random class-specific neuron."""
    no_sound: str
    no_traces: str


def home_view(explorer: Explorer) -> tuple[TaskSection, ...]:
    """The tasks of the stores."""
    found = []
    for task in explorer.offer.labels:
        about, identity, notes = explorer.overview(task), explorer.identity(task), list[str]()
        if explorer.changed(task):
            notes.append("this store has changed since the server opened it: start the server again to see it as it is")
        if reason := explorer.no_traces(task):
            notes.append(reason)
        labels = []
        for label in about.labels:
            scope = Scope(task=task, label=label, store=identity)
            labels.append(Labelled(name=label, href=scope.url(), counts_href=scope.url("counts")))
        found.append(TaskSection(about=about, identity=identity, labellings=tuple(labels), notes=tuple(notes)))
    return tuple(found)


def neuron_view(
    explorer: Explorer, scope: Scope, statistics: LabellingStatistics, layer: int, neuron: int, *, tab: str = "top",
    low: float | None = None, high: float | None = None, seed: int = 0, also_active: bool = False,
) -> NeuronView:  # fmt: skip
    """The card of a neuron. Raises LookupError for one that does not exist, ValueError for an unknown tab."""
    if tab not in TABS:
        raise ValueError(f"no tab {tab!r}; expected one of {', '.join(TABS)}")
    card = explorer.card(statistics, layer, neuron)
    between = {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}
    listed = clip_tab(card, tab, CLIPS, seed=seed, **between)
    ds, no_traces = statistics.ds, explorer.no_traces(statistics.task)
    traced = (layer, neuron) if not no_traces else None
    known, unknown = [], []
    for label in explorer.overview(scope.task).labels:
        if label == scope.label:
            continue
        other = explorer.known_statistics(scope.task, label, statistics.how)
        address = scope.other(scope.task, label).neuron(layer, neuron)
        if other is None:
            unknown.append((label, address))
        else:
            known.append((elsewhere([other], layer, neuron)[0], address))
    steps = {}
    for step in ("previous", "next"):
        if (pair := step_neuron(statistics, layer, neuron, step)) is not None:
            steps[step] = scope.neuron(*pair, tab=None if tab in ("top", "range") else tab)
    if steps:
        steps["random"] = scope.url("random", beside=f"{layer}-{neuron}")
    return NeuronView(
        scope=scope,
        card=card,
        bars=bars(card),
        histogram=histogram(card),
        tab=tab,
        lists=tuple(row_list(scope, ds, each, traced) for each in listed),
        low=low,
        high=high,
        seed=seed,
        with_=active_with(statistics, card) if also_active else None,
        elsewhere=tuple(known),
        not_computed=tuple(unknown),
        steps=steps,
        no_sound=explorer.no_sound(scope.task),
        no_traces=no_traces,
    )


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """A clip and the neurons that are active in it."""

    scope: Scope
    row: Row
    traced: tuple[int, int] | None
    """The neuron whose trace is shown."""
    layers: tuple[ClipNeurons, ...]
    n_clips: int
    no_sound: str
    no_traces: str


def clip_view(
    explorer: Explorer, scope: Scope, statistics: LabellingStatistics, number: int, traced: tuple[int, int] | None
) -> ClipView:
    """The page of a clip. traced: the neuron whose trace is shown, by default the rarest one that is active here.

    Raises LookupError for a clip or a neuron that does not exist.
    """
    at = explorer.at(scope.task, number)
    layers = neurons_in_clip(statistics, at, CLIPS)
    shown = [(each.share[0], each.layer, int(each.neuron[0])) for each in layers if len(each.neuron)]
    if traced is None and shown:
        traced = min(shown)[1:]
    no_traces = explorer.no_traces(scope.task)
    value = explorer.mean(scope.task, *traced, at) if traced and "mean" in statistics.ds else None
    beside = traced if not no_traces else None
    (row,) = clip_rows(scope, statistics.ds, np.array([at]), [value], [None], beside)
    return ClipView(
        scope=scope, row=row, traced=traced, layers=layers, n_clips=int(statistics.n_clips.sum()),
        no_sound=explorer.no_sound(scope.task), no_traces=no_traces,
    )  # fmt: skip


def bars(card: Card) -> tuple[Bar, ...]:
    """The categories of a card, in their order, on a common scale."""
    b = card.bars
    shown = np.concatenate([b.p, b.high, b.band_high])
    largest = float(np.nanmax(shown)) if np.isfinite(shown).any() else 1.0
    scale = next(edge for edge in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if edge >= min(largest, 1.0))
    return tuple(
        Bar(
            category=category, specific=category in card.specific, n_clips=int(card.n_clips[i]), p=float(b.p[i]),
            low=float(b.low[i]), high=float(b.high[i]), band_low=float(b.band_low[i]),
            band_high=float(b.band_high[i]), mean=float(card.mean[i]), auc=float(card.auc[i]),
            auc_low=float(card.auc_low[i]), auc_high=float(card.auc_high[i]),
            p_value=None if card.p_value is None else float(card.p_value[i]),
            q_value=None if card.q_value is None else float(card.q_value[i]), scale=scale,
        )
        for i, category in enumerate(card.categories)
    )  # fmt: skip


def histogram(card: Card) -> HistogramView:
    """The histogram of a card as columns."""
    h = card.histogram
    edges, fullest = h.edges, max(int(h.counts.max(initial=0)), 1)
    low, high = (float(edges[0]), float(edges[-1])) if len(edges) else (0.0, 0.0)
    span = (high - low) or 1.0

    def at(value: float) -> float | None:
        return None if math.isnan(value) or not low <= value <= high else round(BOX * (value - low) / span, 2)

    columns = tuple(
        Column(
            x=round(BOX * (a - low) / span, 2), width=round(BOX * (b - a) / span, 2),
            height=round(100 * n / fullest, 2), count=n, low=a, high=b,
        )
        for a, b, n in zip(edges[:-1].tolist(), edges[1:].tolist(), h.counts.tolist(), strict=True)
    )  # fmt: skip
    counted = card.values[card.codes >= 0]
    words = (
        f"{len(counted):,} clips with means from {low:.4g} to {high:.4g}, half of them below "
        f"{float(np.nanmedian(counted)) if len(counted) else math.nan:.4g}; {int((counted > 0).sum()):,} above 0"
    )
    if not math.isnan(h.threshold):
        words += f", {int((counted > h.threshold).sum()):,} above the threshold {h.threshold:.4g}"
    return HistogramView(columns=columns, low=low, high=high, zero=at(h.zero), threshold=at(h.threshold), words=words)


def row_list(scope: Scope, ds: xr.Dataset, listed: ListedClips, traced: tuple[int, int] | None) -> RowList:
    """Clips under a heading."""
    values: list[float | None] = listed.value.tolist()
    rows = clip_rows(scope, ds, listed.position, values, listed.rank.tolist(), traced)
    return RowList(heading=listed.heading, total=listed.total, rows=rows)


def clip_rows(
    scope: Scope, ds: xr.Dataset, at: NDArray[np.int64], values: Sequence[float | None], ranks: Sequence[int | None],
    traced: tuple[int, int] | None,
) -> tuple[Row, ...]:  # fmt: skip
    """Clips by their places along a data set. traced: the neuron whose trace is shown."""
    names, numbers = ds.indexes["clip"][at], ds["position"].values[at].tolist()
    columns = {label: _column(ds, label, at) for label in ds.otoscope.labels}
    prompts = _column(ds, "prompt", at) if "prompt" in ds else [""] * len(at)
    return tuple(
        Row(
            number=number, name=str(names[i]), category=columns[scope.label][i],
            others=tuple(f"{label}: {of[i]}" for label, of in columns.items() if label != scope.label and of[i]),
            prompt=prompts[i], value=values[i], rank=ranks[i],
            href=scope.clip(number, n=f"{traced[0]}-{traced[1]}" if traced else None),
            sound=media(scope.task, number, "sound.wav"), matched=media(scope.task, number, "matched.wav"),
            picture=media(scope.task, number, "picture"),
            trace=media(scope.task, number, "trace", *traced) if traced else "",
        )
        for i, number in enumerate(numbers)
    )  # fmt: skip


def _column(ds: xr.Dataset, name: str, at: NDArray[np.int64]) -> list[str]:
    found: Any = ds[name].variable.isel(clip=at).compute(scheduler="synchronous").values
    return ["" if x != x or x is None else str(x) for x in found]

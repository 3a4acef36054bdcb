"""How long does a reader of the explorer wait for its numbers, and how much memory do cards take?

The data behind the pages: first page of a labelling, first view of a card of a random neuron, neurons active with it, a
search; by name from the lazy data set, warm (the operating system has the files in memory), each in the process that
has shown nothing yet but what comes before it.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import otoscope
from otoscope.analysis.cards.card import Card, Cards
from otoscope.analysis.cards.clips import clip_tab
from otoscope.analysis.cards.home import neurons_frame, specific_counts
from otoscope.analysis.cards.labelling_statistics import labelling_statistics
from otoscope.analysis.cards.neighbours import active_with
from otoscope.analysis.search import find_neurons
from otoscope.analysis.selection.selection import Selection

from . import harness
from .harness import Figure, Measured, fresh_process, resident_bytes, seconds_of
from .synthetic import LABEL, LAYERS, TASK, WIDTH, write_store


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    categories: int
    block: int
    cards: int
    repetitions: int


FULL = Size(clips=100_000, categories=50, block=2048, cards=1000, repetitions=7)
SMALL = Size(clips=400, categories=4, block=128, cards=6, repetitions=2)
SETTLED = 5  # of all cards, the first 1/5: by then memory has grown
SEARCH = 'layer:2-10 p("category 3")>0.3 aape<4 rate<0.5 top:"category 3"'
TABS = ("top", "least", "quantiles", "random", "categories")


def first_page(url: str) -> Cards:
    """A labelling of a store that is open: P of all neurons, the selection, and the lists of its page."""
    ds = otoscope.open(url)[TASK].to_dataset()
    found = labelling_statistics(ds, LABEL, Selection(rule="lape"), task=TASK)
    specific_counts(found)
    neurons_frame(found)
    return found


def first_view(found: Cards, layer: int, neuron: int) -> Card:
    """A card and what its page lists: the clips of every tab, with names and paths of those shown first."""
    card = found.card(layer, neuron)
    for tab in TABS:
        listed = clip_tab(card, tab)
        if tab == "top":
            shown = found.ds[["path", LABEL]].isel(clip=listed[0].position)
            shown.compute(scheduler="synchronous")
    return card


def look_around(url: str, cards: int, repetitions: int) -> dict[str, Any]:
    """Seconds of each step and bytes of this process, which is a fresh one."""
    bare = resident_bytes("VmRSS")
    pages = [seconds_of(lambda: first_page(url)) for _ in range(repetitions)]
    found = first_page(url)
    rng = np.random.default_rng(0)
    views, together, searches, memory = [], [], [], []
    for layer, neuron in zip(rng.integers(LAYERS, size=cards), rng.integers(WIDTH, size=cards), strict=True):
        began = time.perf_counter()
        card = first_view(found, int(layer), int(neuron))
        views.append(time.perf_counter() - began)
        memory.append(resident_bytes("VmRSS"))
    for _ in range(repetitions):
        together.append(seconds_of(lambda: active_with(found, card)))
        searches.append(seconds_of(lambda: find_neurons(found, SEARCH)))
    assert len(find_neurons(found, SEARCH))
    return {
        "page": pages, "card": views, "together": together, "search": searches,
        "bare": bare, "resident": memory, "peak": resident_bytes("VmHWM"),
    }  # fmt: skip


def measure(scratch: Path, size: Size) -> Measured:
    url = str(scratch / "store.zarr")
    write_store(url, n_clips=size.clips, n_categories=size.categories, keep=("mean",), block=size.block)
    raw = fresh_process("explorer:look_around", url=url, cards=size.cards, repetitions=size.repetitions)
    neurons = f"{size.clips:,} clips x {LAYERS * WIDTH:,} neurons x {size.categories} categories, warm; median of"
    asked = {
        "page": ("explorer, first page of a labelling, stored bits", 2.0, size.repetitions),
        "card": ("explorer, first view of a card", 0.4, size.cards),
        "together": ("explorer, neurons active with one", 1.0, size.repetitions),
        "search": ("explorer, a search", 0.1, size.repetitions),
    }
    figures = [
        Figure(
            name=name, value=statistics.median(raw[key]), unit="s", bound=bound, at_least=False, how=f"{neurons} {n}"
        )
        for key, (name, bound, n) in asked.items()
    ]
    settled = max(raw["resident"][: max(1, size.cards // SETTLED)])
    how = f"{size.cards:,} random cards, one after the other, in a process of its own; resident set"
    figures += [
        Figure(name="explorer, memory of cards", value=raw["peak"] / 1e9, unit="GB", bound=1, at_least=False, how=how),
        Figure(
            name="explorer, growth of memory after the first fifth of the cards",
            value=(max(raw["resident"]) - settled) / 1e9, unit="GB", bound=0.05, at_least=False, how=how,
        ),
    ]  # fmt: skip
    return Measured(figures=figures, raw=raw)


def main() -> None:
    harness.main("explorer")


if __name__ == "__main__":
    main()

"""The routes of the pages: a view of a store by its address, and what is heard and drawn in it.

Goal: thin handlers; a GET changes nothing and starts no job. Errors are pages, those of /m/ one line of JSON.
Conventions: sounds take single byte ranges. A view that is computed shows how far it is, and looks again.
"""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from ..analysis.cards.home import neurons_frame, specific_counts
from ..analysis.cards.labelling_statistics import LabellingStatistics
from ..analysis.cards.neighbours import step_neuron
from ..analysis.search import find_neurons
from ..analysis.spreadsheet import csv_text
from .addresses import KEPT_DEFAULTS, Scope, address, name_in
from .explorer import Explorer, Working
from .lists import labelling_view, overlap_view, sorted_pairs
from .media import picture_bytes, trace_bytes
from .pages import render
from .schemas import selection_fields
from .views import clip_view, home_view, neuron_view

STATIC = Path(__file__).parent / "static"
KEEP = {"Cache-Control": "private, max-age=600"}


def add_pages(app: FastAPI, explorer: Explorer) -> None:
    """Add the pages to an application."""
    pages = APIRouter(include_in_schema=False)
    _add_pages(pages, explorer)
    _add_media(pages, explorer)
    app.include_router(pages)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.exception_handler(Working)
    def working(_: Request, error: Working) -> Response:
        return HTMLResponse(render("working.html", message=str(error)), 202, {"Refresh": "2"})


class View:
    """What a page's address asks for."""

    def __init__(self, request: Request, explorer: Explorer, task: str, label: str) -> None:
        self.explorer, query = explorer, request.query_params
        task, label = name_in(task), name_in(label)
        identity = explorer.identity(task)
        asked = selection_fields((name, value) for name, value in query.multi_items() if value)
        kept = {name: query[name] for name, usual in KEPT_DEFAULTS.items() if query.get(name, usual) != usual}
        self.scope = Scope(task=task, label=label, store=identity, selection=asked, kept=kept)
        self.how = explorer.selection(task, asked)
        self.query = query
        self.notices = []
        if (made_for := query.get("store", identity)) != identity:
            self.notices.append(
                f"This link was made for another store ({made_for[:8]}): here are the same numbers in this one "
                f"({identity}), which are other neurons and clips."
            )
        if explorer.changed(task):
            self.notices.append("This store has changed since the server opened it: start it again to see it as it is.")

    def statistics(self) -> LabellingStatistics:
        """Of the labelling. Raises Working while they are computed."""
        return self.explorer.statistics(self.scope.task, self.scope.label, self.how)

    def number(self, name: str, default: int) -> int:
        """A whole number of the query. Raises ValueError for another text."""
        text = self.query.get(name, str(default))
        if not text.isdecimal() or len(text) > 15:
            raise ValueError(f"{name} is {text[:40]!r}; expected a whole number")
        return int(text)

    def real(self, name: str) -> float | None:
        """A number of the query, None where it is not given. Raises ValueError for another text."""
        text = self.query.get(name, "")
        try:
            value = float(text.replace("−", "-")) if text else None
        except ValueError:
            raise ValueError(f"{name} is {text[:40]!r}; expected a number") from None
        if value is not None and value != value:
            raise ValueError(f"{name} is {text[:40]!r}; expected a number")
        return value

    def page(self, template: str, **shown: Any) -> Response:
        """A page of this view."""
        return HTMLResponse(render(template, scope=self.scope, notices=self.notices, how=self.how, **shown))


def whole_address(request: Request) -> Response | None:
    """Where a form's address leads: the same without fields that were left blank; None where there are none."""
    items = request.query_params.multi_items()
    if all(value for _, value in items):
        return None
    query: dict[str, list[str]] = {}
    for name, value in items:
        if value:
            query.setdefault(name, []).append(value)
    return RedirectResponse(address(request.url.path, query), 303)


def _add_pages(pages: APIRouter, explorer: Explorer) -> None:
    @pages.get("/")
    def home() -> Response:
        """What is in the stores."""
        return HTMLResponse(render("home.html", tasks=home_view(explorer)))

    @pages.get("/t/{task}/{label}")
    def labelling(request: Request, task: str, label: str) -> Response:
        """The neurons of a labelling."""
        if (canonical := whole_address(request)) is not None:
            return canonical
        view = View(request, explorer, task, label)
        shown = labelling_view(
            view.scope, view.statistics(), find=view.query.get("find", "")[:1000], sort=view.query.get("sort", "aape"),
            down="down" in view.query, page=view.number("page", 1),
        )  # fmt: skip
        return view.page("labelling.html", view=shown, counts=shown.counts, categories=shown.statistics.categories)

    @pages.get("/t/{task}/{label}/counts")
    def counts(request: Request, task: str, label: str) -> Response:
        """Class-specific neurons by layer and category, as a part of a page."""
        view = View(request, explorer, task, label)
        statistics = view.statistics()
        return view.page("counts.html", counts=specific_counts(statistics), categories=statistics.categories)

    @pages.get("/t/{task}/{label}/neurons.csv")
    def neurons_csv(request: Request, task: str, label: str) -> Response:
        """The neurons of a search, all of them."""
        view = View(request, explorer, task, label)
        statistics, find = view.statistics(), view.query.get("find", "")[:1000]
        pairs = find_neurons(statistics, find) if find.strip() else statistics.specific
        pairs = sorted_pairs(statistics, pairs, view.query.get("sort", "aape"), "down" in view.query)
        headers = {"Content-Disposition": 'attachment; filename="neurons.csv"'}
        return Response(csv_text(neurons_frame(statistics, pairs)), media_type="text/csv", headers=headers)

    @pages.get("/t/{task}/{label}/random")
    def random_neuron(request: Request, task: str, label: str) -> Response:
        """To a class-specific neuron drawn anew."""
        view = View(request, explorer, task, label)
        layer, _, neuron = view.query.get("beside", "").partition("-")
        here = (int(layer), int(neuron)) if layer.isdecimal() and neuron.isdecimal() else (0, 0)
        found = step_neuron(view.statistics(), *here, "random")
        return RedirectResponse(view.scope.url() if found is None else view.scope.neuron(*found), 303)

    @pages.get("/t/{task}/{label}/n/{layer}/{neuron}")
    def neuron(request: Request, task: str, label: str, layer: str, neuron: str) -> Response:
        """The card of a neuron."""
        if (canonical := whole_address(request)) is not None:
            return canonical
        view = View(request, explorer, task, label)
        shown = neuron_view(
            explorer, view.scope, view.statistics(), *_pair(layer, neuron), tab=view.query.get("tab", "top"),
            low=view.real("low"), high=view.real("high"), seed=view.number("draw", 0), also_active="also" in view.query,
        )  # fmt: skip
        return view.page("neuron.html", view=shown)

    @pages.get("/t/{task}/{label}/c/{number}")
    def clip(request: Request, task: str, label: str, number: str) -> Response:
        """A clip, and the neurons that are active in it."""
        view = View(request, explorer, task, label)
        traced = _pair(*view.query["n"].partition("-")[::2]) if "n" in view.query else None
        shown = clip_view(explorer, view.scope, view.statistics(), _number(number), traced)
        return view.page("clip.html", view=shown)

    @pages.get("/t/{task}/{label}/overlap")
    def overlap(request: Request, task: str, label: str) -> Response:
        """Neurons in common of the categories, of this labelling or of this and another."""
        view = View(request, explorer, task, label)
        other_task, _, other_label = view.query.get("with", "").partition(":")
        statistics = other = view.statistics()
        if other_label:
            how = explorer.selection(other_task, dict(view.scope.selection))
            other = explorer.statistics(other_task, other_label, how)
        cell = (view.query["a"], view.query["b"]) if {"a", "b"} <= set(view.query) else None
        return view.page("overlap.html", view=overlap_view(explorer, view.scope, statistics, other, cell))


def _pair(layer: str, neuron: str) -> tuple[int, int]:
    if not (layer.isdecimal() and neuron.isdecimal() and len(layer) < 9 and len(neuron) < 9):
        raise LookupError(f"no neuron ({layer[:20]}, {neuron[:20]}); expected two whole numbers: layer and neuron")
    return int(layer), int(neuron)


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise LookupError(f"no clip {text[:20]!r}; expected its number")
    return int(text)


def _add_media(pages: APIRouter, explorer: Explorer) -> None:
    one_pass = asyncio.Lock()

    @pages.get("/m/{task}/{number}/sound.wav")
    def sound(request: Request, task: str, number: str) -> Response:
        """A clip as the encoder took it."""
        return ranged(request, explorer.sound(name_in(task), _number(number)).wav(), "audio/wav")

    @pages.get("/m/{task}/{number}/matched.wav")
    def matched(request: Request, task: str, number: str) -> Response:
        """The same at the matched level."""
        return ranged(request, explorer.sound(name_in(task), _number(number)).wav(matched=True), "audio/wav")

    @pages.get("/m/{task}/{number}/picture")
    def picture(task: str, number: str) -> Response:
        """Its spectrogram, as of `media.picture_bytes`."""
        found = picture_bytes(explorer.sound(name_in(task), _number(number)), explorer.unit_seconds(name_in(task)))
        return Response(found, media_type="application/octet-stream", headers=KEEP)

    @pages.get("/m/{task}/{number}/trace/{layer}/{neuron}")
    async def trace(request: Request, task: str, number: str, layer: str, neuron: str) -> Response:
        """What a neuron did in each frame of it, as of `media.trace_bytes`. Whoever leaves makes room for the next."""
        pair, clip = _pair(layer, neuron), _number(number)

        def make() -> bytes:
            name = name_in(task)
            stored = explorer.mean(name, *pair, explorer.at(name, clip))
            return trace_bytes(explorer.trace(name, clip, *pair), pair[1], stored)

        async with one_pass:
            if await request.is_disconnected():
                return Response(status_code=499)
            found = await run_in_threadpool(make)
        return Response(found, media_type="application/octet-stream", headers=KEEP)


def ranged(request: Request, content: bytes, kind: str) -> Response:
    """An answer, or the one range of it that is asked for: 206, or 416 where nothing is. Several are not taken."""
    headers, asked = {"Accept-Ranges": "bytes", **KEEP}, request.headers.get("range", "")
    unit, _, span = asked.partition("=")
    first, dash, last = span.strip().partition("-")
    given = [text for text in (first, last) if text]
    understood = unit.strip() == "bytes" and dash and given and all(x.isdecimal() and len(x) < 16 for x in given)
    if not understood:
        return Response(content, media_type=kind, headers=headers)
    n = len(content)
    start = int(first) if first else max(0, n - int(last))
    stop = min(int(last) + 1, n) if first and last else n
    if start >= stop:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{n}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{n}"
    return Response(content[start:stop], 206, media_type=kind, headers=headers)


def problem_page(status: int, error: str) -> Response:
    """An error as a page."""
    return HTMLResponse(render("problem.html", status=status, error=error), status)

"""A real browser on the explorer: Debian's chromium-headless-shell, driven by Playwright, and what it complains about.

A browser that is not there is no failure, but where OTOSCOPE_REQUIRE_BROWSER is 1. The pages' CSP stays on, so that
nothing waits for expressions: pages say by `data-ready` when all in view is drawn.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium-headless-shell", "chromium", "chrome-headless-shell")
NEEDED = ("playwright", "axe_playwright_python")


def missing() -> str:
    """What there lacks for tests in a browser, or ""."""
    lacks = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not any(map(shutil.which, NAMES)):
        lacks.append(f"{NAMES[0]} (apt-get install --no-install-recommends {NAMES[0]})")
    return ", ".join(lacks)


@contextmanager
def browsing() -> "Iterator[Browser]":
    """A browser; the test is skipped, and says why, where there is none."""
    if reason := missing():
        if os.environ.get("OTOSCOPE_REQUIRE_BROWSER") == "1":
            raise AssertionError(f"no browser for tests: {reason}")
        pytest.skip(f"no browser for tests: {reason}")
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)))
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*root, "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: "Browser", entry: str, **options: Any) -> "Iterator[Page]":
    """A page that has followed the printed link; an error in the end if it complained, or asked elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    complaints: list[str] = []
    try:
        page = context.new_page()
        own = entry.partition("/?")[0]
        page.on("console", lambda message: complaints.append(f"console: {message.text} ({page.url})"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
        page.on("request", lambda asked: asked.url.startswith((own, "data:")) or complaints.append(asked.url))
        page.goto(entry)
        yield page
    finally:
        context.close()
    assert not complaints, complaints


def ready(page: "Page") -> None:
    """Wait until what was asked for is computed, and all of it that is in view is drawn."""
    page.wait_for_selector("html[data-ready=yes] main:not(:has([data-working]))")

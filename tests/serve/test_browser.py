"""The explorer in a real browser: what is heard is what is shown, where it is shown; nothing is asked elsewhere."""

import io
import re
import urllib.request
import wave
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import otoscope

from ..support.browser import browsing, opened, ready
from ..support.explored import CARD, TOKEN, link_of
from ..support.marking_workers import wait_for
from ..support.tones import BURSTS, HOSTILE, N_CLIPS, burst, pitch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ElementHandle, Page

    from ..support.tones import Tones

pytestmark = pytest.mark.slow
LEVEL = "/t/tones/when/n/0/0"
DRAWN = """canvas => {
  const g = canvas.getContext("2d"), w = canvas.width, h = canvas.height, split = Math.round(0.7 * h), out = [];
  const data = g.getImageData(0, split, w, h - split).data;
  for (let x = 0; x < w; x++) {
    let n = 0;
    for (let y = 0; y < h - split; y++) {
      const at = 4 * (y * w + x);
      if (data[at] > 180 && data[at + 1] < 140 && data[at + 2] < 90) n++;
    }
    out.push(n);
  }
  return out;
}"""
"""Height of the line over time, in pixels of the canvas."""


@pytest.fixture(scope="module")
def link(tones: "Tones", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with link_of(tones, tmp_path_factory.mktemp("state") / "s") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with browsing() as found:
        yield found


@pytest.fixture
def page(browser: "Browser", link: str) -> "Iterator[Page]":
    with opened(browser, link, color_scheme="light") as found:
        yield found


def go(page: "Page", link: str, path: str) -> None:
    page.goto(link.partition("/?")[0] + path)
    ready(page)


def follow(page: "Page", selector: str) -> None:
    """Click what leads to another page."""
    with page.expect_navigation():
        page.click(selector)
    ready(page)


def rows(page: "Page") -> "list[ElementHandle]":
    return page.query_selector_all(".row")


def drawn(row: "ElementHandle") -> None:
    """Wait until a row has its trace."""
    row.scroll_into_view_if_needed()
    row.wait_for_selector(".said:has-text('stored')")


def number(row: "ElementHandle") -> int:
    """Of the clip that a row names."""
    found = re.search(r"tone (\d+)", row.query_selector(".clipname").inner_text())
    assert found
    return int(found[1])


def pitch_played(page: "Page", tones: "Tones") -> float:
    """The pitch of what the page's one audio element plays, in Hz."""
    source = page.eval_on_selector("#audio", "audio => audio.currentSrc")
    asked = urllib.request.Request(source, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked) as answer, wave.open(io.BytesIO(answer.read())) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        return tones.pitch_of(samples, file.getframerate())


def check_each_row_plays_itself(page: "Page", tones: "Tones", few: int = 3) -> list[int]:
    found = rows(page)[:few]
    for row in found:
        drawn(row)
        row.query_selector(".play").click()
        page.wait_for_selector(f"[data-number='{row.get_attribute('data-number')}'].playing")
        assert abs(pitch_played(page, tones) - pitch(number(row))) < 5
        assert len(page.query_selector_all("audio")) == len(page.query_selector_all(".playing")) == 1
    return [number(row) for row in found]


def test_the_clip_that_plays_is_the_clip_shown_after_any_filter_sort_and_back(
    page: "Page", link: str, tones: "Tones"
) -> None:
    go(page, link, CARD)
    highest = check_each_row_plays_itself(page, tones)
    assert highest == sorted(highest, reverse=True)  # neuron 1 is the pitch
    follow(page, ".tabs >> text=Lowest")
    lowest = check_each_row_plays_itself(page, tones)
    assert set(lowest).isdisjoint(highest)
    page.fill("#range [name=low]", "1.0")
    page.fill("#range [name=high]", "1.2")
    follow(page, "#range button")
    check_each_row_plays_itself(page, tones)
    page.go_back()
    ready(page)
    assert check_each_row_plays_itself(page, tones) == lowest
    page.go_back()
    ready(page)
    assert check_each_row_plays_itself(page, tones) == highest
    page.select_option("#level", "matched")
    assert check_each_row_plays_itself(page, tones) == highest
    page.wait_for_selector(".said:has-text(' dB')")
    page.click("#stop")
    assert not page.query_selector_all(".playing")


def test_a_burst_lies_under_its_pixels_and_the_cursor(page: "Page", link: str) -> None:
    go(page, link, LEVEL)
    seen = set()
    for row in rows(page)[:6]:
        drawn(row)
        screen = row.query_selector(".screen")
        middle = burst(number(row))
        seen.add(middle)
        heights = np.array(row.query_selector("canvas").evaluate(DRAWN))
        at = np.flatnonzero(heights == heights.max()) / len(heights)  # s, of a clip of one second
        first = int(middle / 0.16) * 0.16
        assert abs(at.min() - first) < 0.005
        assert abs(at.max() - min(first + 0.16, 1.0)) < 0.01
        assert heights.max() > 1.5 * np.median(heights)
        screen.focus()
        screen.press("Home")
        for _ in range(int(middle / 0.05)):
            screen.press("ArrowRight")
        for _ in range(round(middle % 0.05 / 0.01)):
            screen.press("Shift+ArrowRight")
        box, cursor = screen.bounding_box(), row.query_selector(".cursor").bounding_box()
        assert abs((cursor["x"] + 1 - box["x"]) / box["width"] - middle) < 0.01
        assert abs(float(screen.get_attribute("aria-valuenow")) - middle) < 0.006
        row.wait_for_selector(f".said:has-text('highest') >> text=/at {first:.2f} to {min(first + 0.16, 1.0):.2f} s/")
        # What plays from there is the burst.
        screen.press(" ")
        page.wait_for_selector(f"[data-number='{row.get_attribute('data-number')}'].playing")
        assert page.eval_on_selector("#audio", "audio => audio.currentTime") >= middle - 0.011
        screen.press(" ")
    assert seen == set(BURSTS)


def test_a_click_seeks_and_a_drag_repeats(page: "Page", link: str) -> None:
    go(page, link, LEVEL)
    row = rows(page)[0]
    drawn(row)
    screen = row.query_selector(".screen")
    box = screen.bounding_box()
    y = box["y"] + 20
    page.mouse.click(box["x"] + 0.7 * box["width"], y)
    page.wait_for_selector(".row.playing")
    wait_for(lambda: page.eval_on_selector("#audio", "audio => audio.currentTime") > 0.68)  # once the sound is there
    page.mouse.move(box["x"] + 0.2 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.move(box["x"] + 0.4 * box["width"], y)
    page.mouse.up()
    page.wait_for_selector(".screen.looping")
    page.wait_for_timeout(600)  # three rounds of 0.2 s
    assert 0.15 < page.eval_on_selector("#audio", "audio => audio.currentTime") < 0.5
    screen.focus()
    screen.press("Escape")
    assert not page.query_selector_all(".screen.looping")
    page.wait_for_selector(".row:not(.playing)")  # ends


def test_a_range_of_the_histogram_selects_what_numpy_does(page: "Page", link: str, tones: "Tones") -> None:
    go(page, link, CARD)
    page.eval_on_selector("#histogram", "box => box.scrollIntoView({block: 'center'})")
    box = page.query_selector("#histogram").bounding_box()
    y = box["y"] + 40
    page.mouse.move(box["x"] + 0.25 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], y)
    page.mouse.move(box["x"] + 0.6 * box["width"], y)
    with page.expect_navigation():
        page.mouse.up()
    ready(page)
    asked = parse_qs(urlsplit(page.url).query)
    low, high = float(asked["low"][0]), float(asked["high"][0])
    values = otoscope.open(tones.url)["tones"].ds["mean"].values[0, 1].astype(float)
    inside = np.flatnonzero((values >= low) & (values <= high))
    assert 3 < len(inside) < N_CLIPS - 3
    shown = {number(row) for row in rows(page)}
    assert shown == set(inside.tolist())


def test_names_stay_text(page: "Page", link: str) -> None:
    """A listener of dialogs, the console and requests would object (`opened`)."""
    found = "/t/tones/when?find=layer:0"
    for path in ("/", found, LEVEL, "/t/tones/when/c/1", "/t/tones/when/overlap"):
        go(page, link, path)
        assert not page.query_selector_all("img")
        if path != "/":
            assert HOSTILE in page.inner_text("main")
    assert not page.query_selector_all("[style]:not(.cursor):not(.loop)")


def test_a_link_reopened_is_the_same_page(page: "Page", browser: "Browser", link: str) -> None:
    go(page, link, f"{CARD}?tab=quantiles")
    page.select_option("#show", "mean")
    page.select_option("#level", "matched")
    follow(page, "text=Look for them")
    kept = {"show=mean", "loudness=matched", "tab=quantiles"}
    assert kept <= {*urlsplit(page.url).query.split("&")}
    text = page.inner_text("main")
    with opened(browser, link, color_scheme="light") as again:
        again.goto(page.url)
        ready(again)
        assert again.inner_text("main") == text
        assert (again.input_value("#show"), again.input_value("#level")) == ("mean", "matched")


def test_without_scripts_there_are_tables_bars_histogram_and_links_to_sounds(browser: "Browser", link: str) -> None:
    with opened(browser, link, java_script_enabled=False) as page:
        base = link.partition("/?")[0]
        page.goto(base + "/")
        with page.expect_navigation():
            page.click("text=when")
        page.goto(base + CARD)
        assert page.locator("table.bars tbody tr").count() == 2
        assert page.locator("#histogram .bar").count() > 3
        assert page.locator("svg .whisker").first.is_visible()
        assert page.locator(".wav").first.is_visible()
        assert not page.locator(".play").first.is_visible()
        with page.expect_navigation():
            page.click(".tabs >> text=Lowest")
        assert page.locator(".row").count() == 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: "Browser", link: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options: dict[str, Any] = {"color_scheme": scheme, "bypass_csp": True}
    with opened(browser, link, **options) as page:
        overlap = "/t/tones/when/overlap?a=early&b=early"
        for path in ("/", "/t/tones/when", f"{LEVEL}?also=1", "/t/tones/when/c/1", overlap):
            go(page, link, path)
            page.eval_on_selector_all("details", "each => each.forEach(one => { one.open = true; })")
            found = Axe().run(page)
            assert found.violations_count == 0, (path, found.generate_report())


def test_the_keyboard_does_everything(page: "Page", link: str) -> None:
    go(page, link, LEVEL)
    page.eval_on_selector("#clips", "each => each.scrollIntoView()")
    page.focus(".play")
    page.keyboard.press("Enter")
    page.wait_for_selector(".row.playing")
    page.keyboard.press("Enter")
    page.wait_for_selector(".row:first-child:not(.playing)")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").startswith("screen")
    for key in ("Home", "ArrowRight", "ArrowRight", "[", "ArrowRight", "ArrowRight", "]"):
        page.keyboard.press(key)
    text = page.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    assert "0.20 of 1.00 s, activation" in text
    assert "repeating 0.10 to 0.20 s" in text


def test_zoomed_and_narrow_nothing_is_cut_off(browser: "Browser", link: str) -> None:
    for size in ({"width": 640, "height": 450}, {"width": 390, "height": 800}):
        with opened(browser, link) as page:
            page.set_viewport_size(size)
            for path in ("/", "/t/tones/when", LEVEL, "/t/tones/when/c/1", "/t/tones/when/overlap"):
                go(page, link, path)
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= size["width"], (path, wide)

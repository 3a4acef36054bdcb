"""Names of every script: drawn by a font that has their letters, or numbered, and the numbers named."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from otoscope.analysis.figures import letters
from otoscope.analysis.figures.ablation import ablation_figure
from otoscope.analysis.figures.letters import letters_of
from otoscope.analysis.figures.neurons import depth_figure, selectivity_figure
from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.figures.save import save_figure

from .test_ablation import made
from .test_neurons import make_depth
from .test_overlap import make_ratio, words

SCRIPTS = ["猫", "कुत्ता", "Ärger", "кот", "𒀀𒁀", "ጩኸት"]  # the default font has the third and the fourth
PLAIN = ["$x_1$", "a_b^c", r"\frac{1}{2}", "50 % & more", "_hidden", "{x}", "#1", "~", "$", "a$b$c"]


@pytest.fixture
def font(tmp_path: Path) -> Iterator[str]:
    """An installed font that has two letters, 猫 and क, and no others."""
    builder = FontBuilder(1000, isTTF=True)
    pen = TTGlyphPen(None)
    for i, corner in enumerate([(0, 0), (0, 700), (600, 700), (600, 0)]):
        (pen.lineTo if i else pen.moveTo)(corner)
    pen.closePath()
    names = [".notdef", "cat", "ka"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord("猫"): "cat", ord("क"): "ka"})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (700, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Two Letters", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "two.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "two.ttf")
    yield "Two Letters"
    font_manager.fontManager.ttflist[:] = before


def figures(names: list[str]) -> Iterator[Figure]:
    """A figure of each kind with these names in all places."""
    ratio = make_ratio(names, names[::-1]).rename()
    ratio["category"].attrs["long_name"] = names[0]
    ratio = ratio.assign_coords(group=("category", names))
    yield overlap_figure([(names[0], ratio)])
    yield depth_figure([(name, make_depth(3)) for name in names])
    p = xr.DataArray(np.random.default_rng(0).random((1, 9, 2)), dims=("layer", "neuron", "category"))
    chosen = xr.Dataset({"probability": p, "aape": p.mean("category"), "selected": p.min("category") > 0.5})
    yield selectivity_figure([(name, chosen) for name in names])
    result = made(len(names), n_interventions=4)
    yield ablation_figure(result.assign_coords(category=names))


def test_names_that_no_font_can_draw_are_numbered_and_the_key_names_them(tmp_path: Path) -> None:
    for figure in figures(SCRIPTS):
        note = save_figure(figure, tmp_path / "f.png")  # warnings are errors here
        shown = " ".join(words(figure))
        for number, name in enumerate(["猫", "कुत्ता", "𒀀𒁀", "ጩኸት"], 1):
            assert name not in shown
            assert f"[{number}]" in shown
            assert f"\n[{number}] {name}" in f"{note}\n"
        assert "Ärger" in shown
        assert "кот" in shown
        assert "кот" not in note


def test_an_installed_font_that_has_the_letters_draws_them(tmp_path: Path, font: str) -> None:
    for figure in figures(["猫", "dog", "मछली"]):
        note = save_figure(figure, tmp_path / "f.png")
        assert "猫" in " ".join(words(figure))
        assert note.endswith("\n[1] मछली")
        families = {tuple(text.get_fontfamily()) for text in figure.findobj(Text) if "猫" in text.get_text()}
        assert families
        assert all(font in family for family in families)
    with_letter, without = (tmp_path / name for name in ("with.png", "without.png"))
    save_figure(depth_figure([("猫", make_depth(2)), ("b", make_depth(2))]), with_letter)
    save_figure(depth_figure([("[1]", make_depth(2)), ("b", make_depth(2))]), without)
    assert with_letter.read_bytes() != without.read_bytes()


def test_latin_names_cost_no_look_at_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "FT2Font", None)
    assert letters_of(["dog", "$x$"]).fonts == ()


def test_names_are_drawn_literally(tmp_path: Path) -> None:
    for figure, ending in zip(figures(PLAIN), ("pdf", "svg", "png", "svg"), strict=True):
        assert save_figure(figure, tmp_path / f"f.{ending}") == ""
        shown = {text.get_text().partition(" (")[0]: text for text in figure.findobj(Text) if text.get_visible()}
        assert set(shown) >= set(PLAIN)
        assert not any(shown[name].get_parse_math() for name in PLAIN)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\tc", "a b c"), ("\x1b[31mred", r"\x1b[31mred"), ("e\u0301", "é"), ("\u202eabc\u200b", "abc"),
        ("x\u00a0y", "x y"), ("m" * 99 + "n" * 99, "m" * 18 + "…" + "n" * 9), ("\ud800", r"\ud800"), ("", ""),
    ],
)  # fmt: skip
def test_what_is_no_letter_is_written_out_or_left_out(name: str, shown: str) -> None:
    assert letters_of([name])(name) == shown

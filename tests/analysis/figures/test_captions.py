"""What stands below figures: true to the selection, in the figure's letters and within its width."""

import itertools

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis.figures.captions import caption_of
from otoscope.analysis.figures.layout import columns_of, wrapped
from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.selection.selection import Selection

from .test_overlap import make_ratio, words

OF_EACH = xr.DataArray(np.zeros((1, 2)), dims=("layer", "neuron"))


@pytest.mark.parametrize(
    ("how", "n_clips", "caption"),
    [
        ({}, [1200], "rule lape, 1 % of neurons; reading clip, threshold 0; 1,200 clips"),
        (
            {"rule": "paper", "percentile": 2.5, "reading": "frame"}, [],
            "rule paper, 2.5 % of neurons; reading frame",
        ),
        (
            {"threshold": "z1.5", "where": ("split=train", "age!=old")}, [7, 9, 7],
            "rule lape, 1 % of neurons; reading clip, threshold each neuron's mean plus 1.5 sd; "
            "where split=train, age!=old; 7 to 9 clips",
        ),
        (
            {"rule": "contrast", "level": 0.01, "sign": "both", "confirm": "split=test"}, [5],
            "rule contrast, q at most 0.01, AUC at least 0.7, either sign; "
            "reading clip, threshold each neuron's quantile 80 %; without split=test; 5 clips",
        ),
        (
            {"rule": "contrast", "correct": "max", "min_effect": 0.8, "threshold": -0.25, "clips": "train"}, [],
            "rule contrast, family-wise p at most 0.05, AUC at least 0.8; reading clip, threshold -0.25; "
            "selected on training clips",
        ),
        (
            {"rule": "contrast", "group": "speaker", "within": ("split", "room"), "reading": "any"}, [],
            "rule contrast, q at most 0.05, AUC at least 0.7, groups by speaker, within split, room; reading any",
        ),
        ({"threshold": OF_EACH}, [], "rule lape, 1 % of neurons; reading clip, a threshold of each neuron's own"),
    ],
)  # fmt: skip
def test_a_caption_names_what_counts(how: dict, n_clips: list[int], caption: str) -> None:
    assert caption_of([Selection(**{"rule": "lape", **how})], n_clips) == caption


def test_every_choice_reads_differently() -> None:
    choices = itertools.product(("clip", "frame", "any"), ("lape", "paper"), (1, 2), ((), ("a=b",)))
    every = [Selection(reading=r, rule=u, percentile=p, where=w) for r, u, p, w in choices]
    assert len({caption_of([how]) for how in every}) == len(every)
    assert "rule lape, 1 or 2 % of neurons" in caption_of([Selection(percentile=2), Selection(), Selection()])


def test_a_long_caption_wraps_and_a_name_that_no_font_has_is_numbered() -> None:
    caption = "; ".join(["rule lape", "where kind=\U00012000", *(f"and part {i} of it" for i in range(30))])
    plain, figure = (overlap_figure([("", make_ratio(["a", "b"], ["a"]))], text) for text in ("", caption))
    shown = " ".join(words(figure))
    assert "rule lape; [1]; and part 0 of it" in shown
    assert "[1] where kind=\U00012000" in str(figure.get_label())
    figure.draw_without_rendering()
    text = figure.texts[-1].get_window_extent()
    assert text.y0 >= 0
    assert text.x1 <= figure.get_window_extent().x1
    assert all(text.y1 <= ax.get_tightbbox().y0 + 1 for ax in figure.axes[:1])
    assert figure.get_figwidth() == plain.get_figwidth()
    assert figure.get_figheight() > plain.get_figheight() + 1


@pytest.mark.parametrize(
    ("stores", "columns"),
    [
        ("a", 1), ("ab", 2), ("abc", 3), ("abcd", 2), ("aabb", 2), ("aaabbb", 3), ("aabbcc", 2), ("aaaa", 2),
        ("aaab", 2), ("abab", 2), ("aaaaabbbbb", 4), ("aaaaabbbb", 3),
    ],
)  # fmt: skip
def test_panels_are_a_row_per_store_or_nearly_square(stores: str, columns: int) -> None:
    assert columns_of(list(stores)) == columns


def test_words_longer_than_a_line_stay_whole() -> None:
    assert wrapped("one two-three four", 0.1) == "one\ntwo-three\nfour"
    assert wrapped("one two", 5) == "one two"

"""What a figure of grounding shows."""

import numpy as np
import pandas as pd
import pytest

from otoscope.analysis.figures.captions import grounding_caption
from otoscope.analysis.figures.grounding import grounding_figure
from otoscope.analysis.figures.save import save_figure
from otoscope.analysis.kinds import STATES

from .test_overlap import smallest_font, words


def table_of(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "layer": np.arange(n) % 3, "neuron": np.arange(n), "state": np.array(STATES)[np.arange(n) // 2 % 6],
            "d_A": np.where(np.arange(n) % 5, rng.random(n), 0), "d_T": rng.random(n), "K": 6, "J": 8, "L": 5, "M": 4,
        }
    )  # fmt: skip


def test_dots_are_effects_by_state_and_bars_are_shares_by_layer(tmp_path):
    table = table_of()
    figure = grounding_figure(table, grounding_caption(table))
    effects, shares = figure.axes
    dots = [np.asarray(each.get_offsets()) for each in effects.collections]
    assert [len(each) for each in dots] == [10] * 6
    last = table[table["state"] == STATES[0]]  # drawn last, above the others
    largest = table[["d_A", "d_T"]].to_numpy().max()
    np.testing.assert_allclose(dots[-1], np.maximum(last[["d_A", "d_T"]], largest / 1000))
    assert effects.get_xlim() == effects.get_ylim()
    heights = {name: [bar.get_height() for bar in bars] for name, bars in zip(STATES, shares.containers, strict=True)}
    for name in STATES:
        expected = [((table["layer"] == i) & (table["state"] == name)).sum() / 20 for i in range(3)]
        np.testing.assert_allclose(heights[name], expected)
    tops = [bar.get_y() + bar.get_height() for bar in shares.containers[-1]]
    np.testing.assert_allclose(tops, 1)
    caption = "6 sound categories of 8 sounds x 5 text categories of 4 wordings; an effect has q at most 0.05 in 40"
    assert any(caption in " ".join(text.split()) for text in words(figure))
    assert set(STATES) | {"effect of the sound, d_A", "effect of the text, d_T", "layer"} <= words(figure)
    assert smallest_font(figure) * 3.5 / figure.get_figwidth() >= 5
    save_figure(figure, tmp_path / "g.pdf")


@pytest.mark.parametrize("d", [0.0, np.nan])
def test_it_is_drawn_of_neurons_without_an_effect(d, tmp_path):
    table = table_of(4).assign(d_A=d, d_T=d, state="none")
    save_figure(grounding_figure(table), tmp_path / "g.png")

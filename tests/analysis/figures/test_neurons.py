"""What figures of depth and selectivity show."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import aape
from otoscope.analysis.figures.neurons import depth_figure, selectivity_figure

from .test_overlap import smallest_font, words


def make_depth(n_layers):
    attrs = {"long_name": "class-specific neurons", "units": "neurons"}
    return xr.DataArray(np.arange(n_layers), dims="layer", coords={"layer": np.arange(n_layers)}, attrs=attrs)


def test_a_depth_figure_has_a_bar_per_store_and_layer():
    figure = depth_figure([("ssl", make_depth(4)), ("sl", make_depth(3))])
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    assert heights == [[0, 1, 2, 3], [0, 1, 2]]
    assert {"ssl", "sl", "layer", "class-specific neurons"} <= words(figure)
    assert "ssl" not in words(depth_figure([("ssl", make_depth(60))]))


def test_labellings_have_a_panel_each_and_stores_a_colour():
    four = [((store, name), make_depth(12)) for store in ("ssl", "sl") for name in ("t:kind", "t:tone")]
    figure = depth_figure(four, "rule lape; 12 clips")
    assert [ax.get_title() for ax in figure.axes] == ["t:kind", "t:tone"]
    assert [len(ax.containers) for ax in figure.axes] == [2, 2]
    assert {"ssl", "sl", "rule lape; 12 clips"} <= words(figure)
    figure.draw_without_rendering()
    left, right = (ax.get_window_extent() for ax in figure.axes)
    assert left.size == pytest.approx(right.size)
    legend = figure.legends[0].get_window_extent()
    assert all(ax.title.get_window_extent().y1 <= legend.y0 + 1 for ax in figure.axes)
    assert smallest_font(figure) * 3.5 / figure.get_figwidth() >= 5
    many = depth_figure([((f"store {i} of a long name", "t:kind"), make_depth(60)) for i in range(9)])
    assert many.get_figwidth() < 5
    many.draw_without_rendering()
    ticks = [text.get_window_extent() for text in many.axes[0].get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in pairwise(ticks))


def test_selectivity_shows_every_neuron_that_fires():
    rng = np.random.default_rng(0)
    panels = []
    for name in ("ssl", "$sl$"):
        values = rng.random((2, 30, 4))
        values[0, :5] = 0
        p = xr.DataArray(values, dims=("layer", "neuron", "category"))
        selected = xr.DataArray(rng.random((2, 30)) < 0.2, dims=("layer", "neuron"))
        panels.append((name, xr.Dataset({"probability": p, "aape": aape(p), "selected": selected})))
    figure = selectivity_figure(panels)
    assert {"ssl", "$sl$", "AAPE (nat)", "selected", "others"} <= words(figure)
    four = selectivity_figure([((store, name), panels[0][1]) for store in "ab" for name in "cd"], "12 clips")
    four.draw_without_rendering()
    assert [ax.get_title() for ax in four.axes] == ["a c", "a d", "b c", "b d"]
    boxes = np.array([ax.get_window_extent().bounds for ax in four.axes])
    np.testing.assert_allclose(boxes[:, 2:], boxes[:1, 2:].repeat(4, axis=0))
    assert len(set(boxes[:, 0].round(3))) == len(set(boxes[:, 1].round(3))) == 2
    assert smallest_font(four) * 3.5 / four.get_figwidth() >= 5
    legend = four.legends[0].get_window_extent()
    assert all(legend.y1 <= ax.get_tightbbox().y0 + 1 for ax in four.axes)
    for ax, (_, selection) in zip(figure.axes, panels, strict=True):
        p, entropy, selected = (selection[name] for name in ("probability", "aape", "selected"))
        others, chosen = (np.ma.filled(dots.get_offsets(), np.nan) for dots in ax.collections)
        for dots, which in ((others, ~selected.values), (chosen, selected.values)):
            want = np.column_stack([p.values.max(-1)[which], entropy.values[which]])
            want[np.isnan(want[:, 1])] = np.nan  # a neuron that never fires has no place
            np.testing.assert_array_equal(dots, want)
        assert ax.lines[0].get_ydata()[0] == np.log(4)

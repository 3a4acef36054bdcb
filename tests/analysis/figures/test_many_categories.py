"""Figures of very many categories: not larger than a page or a few, not every name, and that said."""

from itertools import pairwise, starmap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from otoscope.analysis.figures.ablation import ablation_figure
from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.figures.save import MAX_PIXELS, save_figure

from ...support.amounts import quick_sample
from .test_ablation import made
from .test_overlap import make_ratio, words


def within(ratio: xr.DataArray) -> xr.DataArray:
    return ratio.assign_coords(within_null=(ratio.dims, np.random.default_rng(1).random(ratio.shape) < 0.9))


@pytest.mark.parametrize(
    ("rows", "columns", "step"),
    quick_sample(starmap(pytest.param, [(2, 500, 5), (100, 100, 1), (500, 500, 5), (500, 3, 5)]), 1),
)
def test_a_heat_map_of_many_categories(rows: int, columns: int, step: int) -> None:
    names = [f"category {i}" for i in range(max(rows, columns))]
    ratio = within(make_ratio(names[:rows], names[:columns]))
    figure = overlap_figure([("store task:label", ratio)])
    FigureCanvasAgg(figure).draw()
    shown, ax = " ".join(words(figure)), figure.axes[0]
    for axis, n in ((ax.xaxis, columns), (ax.yaxis, rows)):
        each = step if n == max(rows, columns) else 1
        assert [text.get_text() for text in axis.get_ticklabels()] == names[:n:each]
        assert list(axis.get_majorticklocs()) == list(range(0, n, each))
        edges = sorted(
            (getattr(box, f"{axis.axis_name}0"), getattr(box, f"{axis.axis_name}1"))
            for box in (text.get_window_extent() for text in axis.get_ticklabels())
        )
        assert all(end <= start + 1 for (_, end), (start, _) in pairwise(edges))
    assert (f"one category in {step} is named" in shown) == (step > 1)
    assert ("faded: within shuffled labels" in shown) == (step > 1)
    assert ("struck out" in shown) == (step == 1)
    assert max(figure.get_size_inches()) < 20
    np.testing.assert_array_equal(np.ma.filled(ax.images[0].get_array(), np.nan), ratio)
    if step > 1:
        np.testing.assert_array_equal(ax.images[1].get_array()[..., 3] > 0, ratio["within_null"])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "step"), [(200, 1), (500, 3)])
def test_an_ablation_of_many_categories(n: int, step: int) -> None:
    result = made(4, n_interventions=5)
    many = result.isel(category=np.arange(n) % 4).assign_coords(category=[f"category {i}" for i in range(n)])
    figure = ablation_figure(many)
    assert max(figure.get_size_inches()) < 45
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[:-1] == [f"category {i} (12)" for i in range(0, n, step)]
    assert labels[-1].startswith("all clips")
    assert len(figure.axes[1].patches) == 2 * (n + 1)
    assert (f"one category in {step} is named" in words(figure)) == (step > 1)


@pytest.mark.slow
def test_many_panels_are_a_grid_and_a_figure_of_too_many_has_fewer_dots_per_inch(tmp_path: Path) -> None:
    ratio = make_ratio(["a", "b"], ["a", "b"])
    figure = overlap_figure([(f"panel {i} {'of a long title' * 9}", ratio) for i in range(30)])
    assert max(figure.get_size_inches()) < 12
    figure.set_figwidth(200)
    save_figure(figure, tmp_path / "f.png")
    assert MAX_PIXELS * 0.8 < max(imread(tmp_path / "f.png").shape) < MAX_PIXELS * 1.1

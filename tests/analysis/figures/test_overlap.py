"""What heat maps show."""

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.overlap import arranged, labelled


def make_ratio(rows, columns):
    values = np.random.default_rng(0).random((len(rows), len(columns)))
    values[0] = np.nan
    attrs = {"long_name": "common neuron ratio", "units": "1"}
    coords = {"category": rows, "other_category": columns}
    return xr.DataArray(values, dims=("category", "other_category"), coords=coords, attrs=attrs)


def words(figure):
    """Each text in a figure, on one line."""
    figure.canvas.draw()
    return {text.get_text().replace("\n", " ") for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def test_a_heat_map_names_categories_and_shares_one_scale():
    ratio = make_ratio(["dog", "$x_1$"], ["cat", "hen", "emu"])
    figure = overlap_figure([("left", ratio), ("right", ratio.isel(other_category=[0]))])
    assert {"dog", "$x_1$", "cat", "hen", "emu", "left", "right", "common neuron ratio"} <= words(figure)
    left, right = (ax.images[0] for ax in figure.axes[:2])
    assert left.get_clim() == right.get_clim() == (0, 1)
    np.testing.assert_array_equal(np.ma.filled(left.get_array(), np.nan), ratio)
    assert figure.axes[0].patch.get_hatch()
    assert f"{float(ratio[1, 0]):.2f}" in words(figure)


def test_two_categories_of_long_labellings_stay_legible():
    """No text lies over another, the names of the sides and of the stores are there whole."""
    ratio = labelled(make_ratio(["f", "m"], ["Female", "Male"]), "voxceleb1:gender", "cremad:gender_of_the_speaker")
    figure = overlap_figure([("ssl", ratio), ("a-store-of-some-name", ratio)])
    assert {"voxceleb1:gender", "cremad:gender_of_the_speaker", "a-store-of-some-name"} <= words(figure)
    FigureCanvasAgg(figure).draw()  # only what really draws puts the names of axes in their places
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent().shrunk(0.9, 0.9) for text in shown]
    for i, box in enumerate(boxes):
        assert not [shown[j].get_text() for j, other in enumerate(boxes) if j != i and box.overlaps(other)], shown[i]


def test_hatching_and_strokes_are_explained_where_they_are():
    ratio = make_ratio(["a", "b"], ["c", "d"])
    within = xr.DataArray([[True, False], [False, False]], dims=ratio.dims)
    marked = ratio.assign_coords(within_null=within).assign_attrs(level=0.01)
    hatched, struck = (
        "hatched: neither category has a neuron",
        "struck out: within shuffled labels (corrected p > 0.01)",
    )
    assert f"{hatched}; {struck}" in words(overlap_figure([("", ratio), ("", marked)]))
    assert struck in words(overlap_figure([("", marked.fillna(0))]))
    assert not {word for word in words(overlap_figure([("", ratio.fillna(0))])) if "hatched" in word}


def test_cells_above_the_null_and_below_bear_other_marks():
    """Up and down, dark on light and light on dark, and the line below says which is which and how it was tested."""
    names = [f"c{i}" for i in range(6)]
    ratio = make_ratio(names, names)
    sides = np.random.default_rng(1).choice(["above", "below", ""], (6, 6)).astype(object)
    beyond = {"within_null": (ratio.dims, sides == ""), "null_side": (ratio.dims, sides)}
    marked = ratio.assign_coords(beyond).assign_attrs(level=0.05, test="two-sided; 99 permutations")
    figure = overlap_figure([("", marked)], "rule lape; 12 clips")
    for side, marker in (("above", "^"), ("below", "v")):
        found = {
            (round(x), round(y + 0.3))
            for line in figure.axes[0].lines
            if line.get_marker() == marker
            for x, y in zip(*line.get_data(), strict=True)
        }
        assert found == {(x, y) for y, x in np.argwhere(sides == side)}
    inks = {line.get_color() for line in figure.axes[0].lines}
    assert inks == {"black", "white"}
    (below,) = (word for word in words(figure) if "clips" in word)
    assert below.endswith("(corrected p > 0.05); two-sided; 99 permutations rule lape; 12 clips")
    assert "▲: above shuffled labels; ▼: below shuffled labels; struck out" in below


def test_beside_what_was_expected_the_scale_is_around_the_middle():
    values = np.array([[np.nan, 0, 1.4], [0.5, 1, 2.6], [np.inf, 1, 1]])
    coords = {"category": list("abc"), "other_category": list("abc")}
    ratio = xr.DataArray(values, coords, ("category", "other_category"), attrs={"show": "ratio", "long_name": "r"})
    image = overlap_figure([("", ratio)]).axes[0].images[0]
    low, high = image.get_clim()
    assert (low, high) == (1 / 3, 3)  # the next of round numbers above 2.6
    assert image.norm(1) == 0.5
    np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan), np.clip(values, low, high))
    assert {"0", "inf", "2.6"} <= words(overlap_figure([("", ratio)]))
    difference = (ratio.where(np.isfinite(ratio)) - 1.3).assign_attrs(show="difference", long_name="d")
    figure = overlap_figure([("", difference)])
    assert figure.axes[0].images[0].get_clim() == (-1, 1)
    assert {"-0.30", "+0.10"} <= words(figure)
    assert "hatched: not compared" in words(figure)


def smallest_font(figure):
    figure.canvas.draw()
    return min(text.get_fontsize() for text in figure.findobj(Text) if text.get_visible() and text.get_text())


def test_two_stores_by_two_labellings_are_equal_panels_that_fit_a_column():
    """2 x 2 panels, a row per store; made 3.5 inches wide, no letter is smaller than 5 points."""
    names = ["anger", "disgust", "fear", "happiness", "neutral", "sadness"]
    panels = [
        (store, labelled(make_ratio(names, names), name, name))
        for store in ("ssl", "sl")
        for name in ("cremad:emotion", "voices:emotion")
    ]
    figure = overlap_figure(panels, "rule lape, 1 % of neurons; 1,000 clips; " * 3)
    FigureCanvasAgg(figure).draw()
    boxes = np.array([ax.get_window_extent().bounds for ax in figure.axes[:4]])
    np.testing.assert_allclose(boxes[:, 2:], boxes[:1, 2:].repeat(4, axis=0), rtol=1e-6)
    np.testing.assert_allclose(boxes[:2, 1], boxes[0, 1])
    np.testing.assert_allclose(boxes[[0, 2], 0], boxes[0, 0])
    assert boxes[2, 1] < boxes[0, 1]
    assert [ax.get_title() for ax in figure.axes[:4]] == ["ssl", "ssl", "sl", "sl"]
    width, height = figure.get_size_inches()
    assert height < 1.25 * width
    assert width <= 4.95
    assert smallest_font(figure) * 3.5 / width >= 4.95
    assert smallest_font(overlap_figure([("ssl", make_ratio(names, names))])) >= 5 * 4.9 / 3.5


def test_a_title_that_is_longer_than_its_panel_wraps():
    ratio = make_ratio(["a", "b"], ["a", "b"])
    figure = overlap_figure([("a store of many words and yet more", ratio), ("b", ratio)])
    FigureCanvasAgg(figure).draw()
    title = figure.axes[0].title
    assert "\n" in title.get_text()
    assert title.get_window_extent().x1 < figure.axes[1].title.get_window_extent().x0
    assert title.get_window_extent().width < 1.3 * figure.axes[0].get_window_extent().width


def test_fifty_categories_stay_legible():
    """Names do not overlap, and are at least 5 points high."""
    names = [f"category {i}" for i in range(51)]
    figure = overlap_figure([("", make_ratio(names[:50], names))])
    figure.canvas.draw()
    for axis, edges in ((figure.axes[0].xaxis, "x"), (figure.axes[0].yaxis, "y")):
        boxes = [text.get_window_extent() for text in axis.get_ticklabels()]
        starts, ends = (sorted(getattr(box, f"{edges}{i}") for box in boxes) for i in (0, 1))
        assert all(end <= start + 1 for end, start in zip(ends[:-1], starts[1:], strict=True))
        assert axis.get_ticklabels()[0].get_fontsize() >= 5


def test_the_scale_ends_above_the_highest_ratio_of_two_categories():
    names = ["dog", "cat", "hen"]
    within = make_ratio(names, names)
    within[:] = np.where(np.eye(3), 1, 0.07)
    for panels, top in (
        ([within], 0.1),
        ([within, within / 10], 0.1),
        ([within, within.where(np.eye(3) == 1, 0.31)], 0.4),
        ([within.assign_coords(other_category=["a", "b", "c"])], 1),  # its ones are findings
        ([within.where(np.eye(3) == 0, 0.15)], 0.15),
        ([within.where(np.eye(3) == 1, 0.81)], 1),
    ):
        figure = overlap_figure([("", ratio) for ratio in panels])
        assert {ax.images[0].get_clim() for ax in figure.axes[: len(panels)]} == {(0, top)}


def test_groups_are_named_and_divided():
    names = [f"category {i}" for i in range(20)]
    groups = {name: ["$odd$", "even"][i % 2] for i, name in enumerate(names[:16])}
    ratio = arranged(make_ratio(names, names[:5]), groups=groups)
    figure = overlap_figure([("left", ratio)])
    assert {"$odd$", "even"} <= words(figure)
    lines = [line.get_xydata() for line in figure.axes[0].lines]
    assert {xy[0, 1] for xy in lines if xy[0, 1] == xy[1, 1]} == {7.5, 15.5}
    assert {xy[0, 0] for xy in lines if xy[0, 0] == xy[1, 0]} == {2.5}

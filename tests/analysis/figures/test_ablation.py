"""The figure of an ablation: what is drawn is what was found, for two categories and for fifty."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from otoscope.ablate.effects import clip_scores, compare
from otoscope.analysis.figures.ablation import EVERYTHING, INK, ablation_figure
from otoscope.analysis.figures.captions import ablation_caption
from otoscope.analysis.figures.save import save_figure
from otoscope.analysis.selection.selection import Selection


def made(n_categories, n_interventions=22, target=None, empty=False):
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(n_categories - empty), 12)
    base = rng.normal(size=(len(truth), n_categories)) + 2 * np.eye(n_categories)[truth]
    logits = base + 0.3 * rng.normal(size=(n_interventions, *base.shape))
    logits[0] = base
    logits[1, truth == 1, 1] -= 3
    names = [f"name $ {i} is long, and goes on and on" for i in range(n_categories)]
    result = compare(*clip_scores(logits, truth, target), truth, names)
    return result.assign_attrs(request={"category": "" if target is None else names[target]})


def dots(ax):
    """Places of the dots by row, and which of them are filled."""
    found = {}
    for line in ax.lines:
        if line.get_marker() == "o":
            filled = line.get_markerfacecolor() == INK
            found |= {round(y): (x, filled) for x, y in zip(*line.get_data(), strict=True)}
    return found


@pytest.mark.parametrize("n_categories", [2, 6, 50])
def test_dots_bands_and_bars_are_the_numbers(n_categories):
    result = made(n_categories)
    figure = ablation_figure(result)
    axes: list[Any] = figure.axes
    base, *panels = axes
    widths = [patch.get_width() for patch in base.patches]
    np.testing.assert_allclose(widths[:-1], result["before"].sel(measure="accuracy"))
    assert widths[-1] == float(result["overall_before"].sel(measure="accuracy"))
    for ax, measure in zip(panels, ("accuracy", "margin"), strict=True):
        of = result.sel(measure=measure)
        found = dots(ax)
        assert len(found) == n_categories + 1
        for i in range(n_categories):
            x, filled = found[i]
            assert x == float(of["change"][i])
            assert filled == (float(of["p_corrected"][i]) <= 0.05)
        assert found[n_categories][0] == float(of["overall_change"])
        wide, narrow = ax.patches[: n_categories + 1], ax.patches[n_categories + 1 :]
        for i in range(n_categories):
            controls = of["control_change"][i].values
            assert wide[i].get_x() == controls.min()
            assert wide[i].get_x() + wide[i].get_width() == pytest.approx(controls.max())
            assert narrow[i].get_x() == pytest.approx(np.quantile(controls, 0.025))
        segments = ax.collections[0].get_segments()
        np.testing.assert_allclose([s[0, 0] for s in segments[:-1]], of["low"])
        np.testing.assert_allclose([s[1, 0] for s in segments[:-1]], of["high"])
    assert any(filled for _, filled in dots(panels[1]).values())
    labels = [text.get_text() for text in base.get_yticklabels()]
    assert labels[-1] == f"{EVERYTHING} ({12 * n_categories})"
    assert labels[0] == "name $ 0 is long, …on and on (12)"


@pytest.mark.parametrize("n_categories", [2, 50])
def test_names_and_axes_do_not_overlap(n_categories):
    figure = ablation_figure(made(n_categories))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
    panels = [ax.get_window_extent() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(panels))


def test_the_same_result_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png", "c.pdf", "d.pdf", "e.svg"):
        save_figure(ablation_figure(made(3, target=2)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "c.pdf").read_bytes() == (tmp_path / "d.pdf").read_bytes()


def test_without_controls_and_without_clips(tmp_path):
    alone = ablation_figure(made(3, n_interventions=2))
    assert not alone.axes[1].patches
    assert not any(filled for _, filled in dots(alone.axes[1]).values())
    save_figure(alone, tmp_path / "a.png")
    figure = ablation_figure(made(3, empty=True))
    assert sorted(dots(figure.axes[1])) == [0, 1, 3]
    save_figure(figure, tmp_path / "b.png")


def test_measures_are_chosen():
    figure = ablation_figure(made(3, target=2))
    label = figure.axes[-1].get_xlabel().replace("\n", " ")
    assert label == "change of the share predicted name $ 2 is long, …on and on"
    assert len(ablation_figure(made(3), ("log_loss",)).axes) == 2
    with pytest.raises(ValueError, match="no measure 'predicted'; expected some of accuracy, margin, log_loss"):
        ablation_figure(made(3), ("predicted",))


def test_a_level_that_no_control_can_reach_is_said():
    for controls, words in ((5, "p ≤ 0.05: impossible, at least 0.17"), (19, "p ≤ 0.05, corrected")):
        figure = ablation_figure(made(3, 2 + controls))
        assert words in [text.get_text() for text in figure.legends[0].get_texts()]
    with pytest.raises(ValueError, match="level is 1; expected a number above 0"):
        ablation_figure(made(2), level=1)


def test_a_category_of_one_clip_has_a_dot_without_an_interval():
    rng = np.random.default_rng(0)
    truth = np.array([0, 0, 0, 1, 1, 2])
    logits = rng.normal(size=(22, 6, 3))
    result = compare(*clip_scores(logits, truth), truth, ["a", "b", "one"])
    assert np.isnan(result["low"].sel(measure="margin", category="one"))
    panel: Any = ablation_figure(result).axes[2]
    assert round(dots(panel)[2][0], 12) == round(float(result["change"].sel(measure="margin", category="one")), 12)
    rows = [segment[0, 1] for segment in panel.collections[0].get_segments() if segment.size]
    assert rows == [0, 1, 3]


def test_targets_are_marked_and_the_legend_says_so():
    """Those that the set is named by, of this labelling, and that of the mode."""
    names = ["a", "b", "c, d", "e"]
    result = made(4, target=3).assign_coords(category=names)
    for name, category, rows in (
        ('shared(b, "c, d")', "", [1, 2]), ("only(t:kind:a)", "e", [0, 3]), ("all(u:kind:a)", "", []),
        ("(0,1)", "b", [1]), ("by hand", "", []), (None, "", []),
    ):  # fmt: skip
        request = {"task": "t", "label": "kind", "set": name, "category": category}
        figure = ablation_figure(result.assign_attrs(request=request))
        base: Any = figure.axes[0]
        bold = [i for i, text in enumerate(base.get_yticklabels()) if text.get_fontweight() == "bold"]
        triangles = [y for line in base.lines if line.get_marker() == ">" for y in line.get_ydata()]
        assert bold == triangles == rows
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("of the set's name or the mode" in words) == bool(rows)


def test_a_caption_says_what_was_done_and_overlaps_nothing():
    how = Selection(percentile=5, threshold="q80")
    request = {
        "task": "t", "label": "kind", "set": "shared(a,b)", "mode": "gain", "category": "", "probe": "logistic",
        "selection": how.to_json(),
    }  # fmt: skip
    result = made(6).assign_attrs(request=request, neurons={"pairs": [[0, 1], [2, 3]]}, gain=2.5, notes=["a note"])
    caption = ablation_caption(result)
    accuracy = float(result["overall_before"].sel(measure="accuracy"))
    assert caption == (
        f"set shared(a,b), 2 neurons; mode gain 2.5; logistic probe, accuracy {accuracy:.3g} on 72 test clips; "
        "rule lape, 5 % of neurons; reading clip, threshold each neuron's quantile 80 %"
    )
    figure: Any = ablation_figure(result, caption=caption)
    figure.draw_without_rendering()
    (text,) = figure.texts[-1:]
    assert text.get_text().replace("\n", " ") == caption
    top = text.get_window_extent().y1
    legend = figure.legends[0].get_window_extent()
    assert top < legend.y0 + 1
    assert all(legend.y1 <= ax.get_tightbbox().y0 + 1 for ax in figure.axes)
    assert text.get_window_extent().y0 >= 0
    assert text.get_window_extent().x1 <= figure.get_window_extent().x1
    with pytest.raises(ValueError, match="selection has fields"):
        ablation_caption(result.assign_attrs(request={"selection": {"rule": "lape"}}))
    assert ablation_caption(made(3, empty=True).assign_attrs(request={})).startswith("probe, accuracy")


def test_notes_stand_above_and_overlap_nothing():
    notes = ["0 clips changed of 36 tested, by controls 0 to 3", "the probe is not better than chance: " + 30 * "so $ "]
    plain = ablation_figure(made(3))
    noted: Any = ablation_figure(made(3).assign_attrs(notes=notes))
    assert not plain.get_suptitle()
    assert noted.get_suptitle().replace("\n", " ") == " ".join(notes).strip()
    noted.draw_without_rendering()
    title = noted._suptitle.get_window_extent()
    assert all(ax.get_window_extent().y1 < title.y0 for ax in noted.axes)
    assert title.x0 >= 0
    assert title.x1 <= noted.get_window_extent().x1

"""What figures of depth and selectivity show."""

import numpy as np
import xarray as xr

from otoscope.analysis import aape
from otoscope.analysis.figures.neurons import depth_figure, selectivity_figure

from .test_overlap import words


def make_depth(n_layers):
    attrs = {"long_name": "class-specific neurons", "units": "neurons"}
    return xr.DataArray(np.arange(n_layers), dims="layer", coords={"layer": np.arange(n_layers)}, attrs=attrs)


def test_a_depth_figure_has_a_bar_per_store_and_layer():
    figure = depth_figure([("ssl", make_depth(4)), ("sl", make_depth(3))])
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    assert heights == [[0, 1, 2, 3], [0, 1, 2]]
    assert {"ssl", "sl", "layer", "class-specific neurons"} <= words(figure)
    assert "ssl" not in words(depth_figure([("ssl", make_depth(60))]))


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
    for ax, (_, selection) in zip(figure.axes, panels, strict=True):
        p, entropy, selected = (selection[name] for name in ("probability", "aape", "selected"))
        others, chosen = (np.ma.filled(dots.get_offsets(), np.nan) for dots in ax.collections)
        for dots, which in ((others, ~selected.values), (chosen, selected.values)):
            want = np.column_stack([p.values.max(-1)[which], entropy.values[which]])
            want[np.isnan(want[:, 1])] = np.nan  # a neuron that never fires has no place
            np.testing.assert_array_equal(dots, want)
        assert ax.lines[0].get_ydata()[0] == np.log(4)

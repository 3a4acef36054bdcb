"""Studies of a store in 16 bits run in them, by replay, and find what is found in float32."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from otoscope.ablate.request import Request
from otoscope.ablate.study import look_up, run_study
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture

from ..support.planted_corpus import write_sounds
from ..support.planted_encoder import PLANTED, planted


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_study_runs_in_the_store_s_precision_by_replay(tmp_path, precision):
    manifest, encoder, url = write_sounds(tmp_path, 45), planted(), str(tmp_path / "s.zarr")
    capture(encoder, manifest, url, task="t", threads=1, batch=16, precision=precision)
    asked = {"task": "t", "label": "letter", "set": "only(d)", "controls": 20}
    study = look_up(Request(**asked, selection=Selection(percentile=4.0, clips="all")), url)
    assert study.neurons.pairs == PLANTED
    result = run_study(study, encoder, read_manifest(manifest))
    assert result.attrs["method"] == ["replay"]
    assert result.attrs["base_deviation"] < 1e-5
    accuracy = result.sel(measure="accuracy")
    np.testing.assert_array_equal(accuracy["change"].sel(category=["a", "b", "c"]), 0)
    assert float(accuracy["change"].sel(category="d")) == -1
    xr.testing.assert_identical(run_study(study, encoder, read_manifest(manifest)), result)
    whole = run_study(study, replace(encoder, maps=()), read_manifest(manifest))
    assert whole.attrs["method"] == ["whole passes"]
    np.testing.assert_allclose(whole["clip_after"], result["clip_after"], atol=0.1)

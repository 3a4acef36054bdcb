"""The same study by workers in Ray actors, of a store in 16 bits: to the last bit the serial result."""

import pytest
import xarray as xr

from otoscope.ablate.request import Request
from otoscope.ablate.study import look_up, run_study
from otoscope.analysis.selection.selection import Selection
from otoscope.cluster.ray import RayExecutor
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture

from ..support import planted_encoder as planted
from ..support.planted_corpus import write_sounds

pytestmark = pytest.mark.slow


def test_actors_give_the_serial_result(tmp_path):
    manifest, url, encoder = write_sounds(tmp_path, 45), str(tmp_path / "s.zarr"), f"module:{planted.__file__}:planted"
    capture(encoder, manifest, url, task="t", threads=1, batch=8, precision="bfloat16")
    corpus = read_manifest(manifest)
    asked = {"task": "t", "label": "letter", "set": "only(d)", "controls": 20}
    for more in ({}, {"mode": "transplant", "category": "d"}):
        study = look_up(Request(**asked, selection=Selection(percentile=4.0), **more), url)
        serial = run_study(study, encoder, corpus)
        with RayExecutor(actors=2, cpus_per_actor=0.5) as executor:
            xr.testing.assert_identical(run_study(study, encoder, corpus, executor=executor), serial)

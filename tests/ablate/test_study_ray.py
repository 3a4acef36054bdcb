"""The same study by workers in Ray actors, of a store in 16 bits and of latents: to the last bit the serial result."""

import pytest
import xarray as xr

from otoscope.ablate.request import Request
from otoscope.ablate.study import look_up, run_study
from otoscope.analysis.selection.selection import Selection
from otoscope.cluster.ray import RayExecutor
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.models.dictionary import write_dictionary

from ..support import planted_encoder as planted
from ..support.planted_corpus import write_sounds
from ..support.planted_latents import planted_dictionary
from ..support.stored_files import tree_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executor():
    """Two actors, of one Ray for both tests."""
    with RayExecutor(actors=2, cpus_per_actor=0.5) as made:
        yield made


def test_actors_give_the_serial_result(tmp_path, executor):
    manifest, url, encoder = write_sounds(tmp_path, 45), str(tmp_path / "s.zarr"), f"module:{planted.__file__}:planted"
    capture(encoder, manifest, url, task="t", threads=1, batch=8, precision="bfloat16")
    corpus = read_manifest(manifest)
    asked = {"task": "t", "label": "letter", "set": "only(d)", "controls": 20}
    for more in ({}, {"mode": "transplant", "category": "d"}):
        study = look_up(Request(**asked, selection=Selection(percentile=4.0), **more), url)
        serial = run_study(study, encoder, corpus)
        xr.testing.assert_identical(run_study(study, encoder, corpus, executor=executor), serial)


def test_actors_extract_and_ablate_latents_as_one_process_does(tmp_path, executor):
    manifest = write_sounds(tmp_path)
    corpus, how = read_manifest(manifest), {"task": "t", "threads": 1, "batch": 8, "block": 32, "device": "cpu"}
    for rows in ("frame", "clip"):
        write_dictionary(planted_dictionary(rows), tmp_path / rows)
        spec = f"latents:{tmp_path / rows}@module:{planted.__file__}:planted"
        url, other = str(tmp_path / f"{rows}.zarr"), str(tmp_path / f"{rows}-ray.zarr")
        capture(spec, manifest, url, **how)
        capture(spec, manifest, other, **how, executor=executor)
        assert tree_of(other) == tree_of(url)
        how_selected = Selection(percentile=2.5, clips="all")
        study = look_up(Request(task="t", label="letter", set="only(d)", controls=5, selection=how_selected), url)
        serial = run_study(study, spec, corpus, device="cpu")
        assert (serial["change"].sel(measure="accuracy", category="d") == -1).all()
        xr.testing.assert_identical(run_study(study, spec, corpus, executor=executor), serial)

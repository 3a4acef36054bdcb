"""Studies refused: other encoders, clips and audio, changed donors, probes that know the answers, embeddings of NaN."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch

import otoscope
from otoscope.ablate.study import look_up, run_study
from otoscope.extract.audio.manifest import read_manifest
from otoscope.store.changes.tasks import add_labels

from ..support.planted_corpus import write_sounds
from ..support.planted_encoder import HOP, LAYERS, RATE, planted
from ..support.wav_corpora import write_wav_file
from .test_study import planted_task, request


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return planted_task(tmp_path_factory.mktemp("planted"))


def test_what_is_not_the_stores_is_refused(here, tmp_path):
    other = planted()
    with torch.no_grad():
        other.module.blocks[0].fc1.weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"the encoder is not the store's \(weights: .*expected the same"):
        run_study(look_up(request(), here.url), other, here.corpus)
    fewer = write_sounds(tmp_path / "fewer", 44)
    with pytest.raises(ValueError, match=r"\(176 against 180, .*expected the same manifest"):
        run_study(look_up(request(), here.url), here.encoder, read_manifest(fewer))
    changed = write_sounds(tmp_path / "changed", 45)
    study = look_up(request(), here.url)
    clip = study.names[20]
    write_wav_file(tmp_path / "changed" / clip, np.ones(8 * HOP, "<i2"), RATE)
    with pytest.raises(ValueError, match=rf"{re.escape(clip)} is not the audio that was extracted; expected"):
        run_study(study, here.encoder, read_manifest(changed))
    probe = study.probe
    with pytest.raises(ValueError, match="of identity"):
        look_up(request(), here.url, dataclasses.replace(probe, identity="other"))
    with pytest.raises(ValueError, match="expected 4 by test: fit one to the store as it is now"):
        look_up(request(), here.url, dataclasses.replace(probe, heads=("1", "2")))
    for more, error, message in (
        ({"set": "only(e)"}, LookupError, "no category 'e' in t:letter; those that exist: a, b, c, d"),
        ({"set": "(3,0)"}, LookupError, r"do not exist, the first \(3, 0\); expected layers 0 to 2 of 60 neurons"),
        ({"task": "x"}, LookupError, "no task 'x'"),
        ({"label": "x"}, LookupError, "no label column 'x'"),
        ({"splits": "x"}, LookupError, "no column 'x'"),
        ({"mode": "transplant", "category": "e"}, LookupError, "no category 'e' in t:letter; expected a, b, c, d"),
    ):
        with pytest.raises(error, match=message):
            look_up(request(**more), here.url)
    assert LAYERS == 3


def test_donors_are_the_stores_too(here, tmp_path):
    """Their audio changed alone: a transplant is refused, while what reads tested clips only still runs."""
    asked = request(mode="transplant", category="d", controls=0)
    study = look_up(asked, here.url)
    read = sorted(set(study.donors.tolist()) - set(study.clips.tolist()))
    manifest = write_sounds(tmp_path, 45)
    for i in read:
        write_wav_file(tmp_path / here.corpus.clips.clip(i).name, np.ones(8 * HOP, "<i2"), RATE)
    with pytest.raises(ValueError, match="is not the audio that was extracted"):
        run_study(study, here.encoder, read_manifest(manifest))
    run_study(look_up(request(controls=0), here.url), here.encoder, read_manifest(manifest))


def test_a_gain_that_leaves_no_numbers_is_refused(here):
    with pytest.raises(ValueError, match=r"under only\(d\) \(gain 1e\+38\) hold NaN or infinity; expected numbers"):
        here.run(mode="gain", gain=1e38, controls=2)


def test_a_probe_that_was_trained_on_the_tested_clips_is_refused(here, tmp_path):
    """Of other splits of the same clips: equal heads, equal categories, other training clips."""
    url = str(tmp_path / "s.zarr")
    shutil.copytree(here.url, url)
    ds = otoscope.open(url)["t"].to_dataset()
    turned = {"train": "test", "test": "train"}
    add_labels(url, "t", {"turned": [turned.get(part, part) for part in ds.otoscope.label("split").values.tolist()]})
    probe = look_up(request(splits="turned"), url).probe
    look_up(request(splits="turned"), url, probe)
    with pytest.raises(ValueError, match="perhaps on some that are tested; expected the same clips"):
        look_up(request(), url, probe)

"""Clips that carry prompts: a prompted encoder against plain arithmetic, and what meets in a batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import otoscope
from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.report import Report
from otoscope.store.changes.tasks import stored_origin
from otoscope.store.neurons import NeuronSet

from ..support import prompted_encoder
from ..support.closed_form import closed_form
from ..support.prompted_encoder import NEURONS, RATE, expected, prompted
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_corpus

PROMPTS = ["{audio} sad?", "{audio} glad?", "mad? {audio}", "{audio} bad?"]


def asked(n: int) -> list[str]:
    return [PROMPTS[i % 4] for i in range(n)]


def run(folder: Path, encoder: Encoder | str, store: str = "s", **options: Any) -> Report:
    given: dict[str, Any] = {
        "task": "t", "block": 8, "batch": 3, "threads": 1, "device": "cpu", "mean_dtype": "float32",
        "keep": ("mean", "embedding"), "max_failures": 1.0, **options,
    }  # fmt: skip
    return capture(encoder, folder / "corpus.csv", str(folder / store), **given)


def corpus(folder: Path, lengths: list[int], prompts: list[str] | None = None) -> list[np.ndarray]:
    prompts = asked(len(lengths)) if prompts is None else prompts
    kinds = ["ab"[i % 2] for i in range(len(lengths))]
    return write_corpus(folder, lengths, columns={"kind": kinds, "prompt": prompts})[1]


@pytest.mark.parametrize("frames", [None, "audio", "published", "all"])
@pytest.mark.parametrize("unit_sec", [None, 0.05])
def test_every_frames_rule_cropped_padded_and_native(
    tmp_path: Path, frames: str | None, unit_sec: float | None
) -> None:
    sounds = corpus(tmp_path, [20, 41, 50, 20, 30, 70, 50, 20, 34, 50, 20])
    run(tmp_path, prompted(), frames=frames, unit_sec=unit_sec)
    task = otoscope.open(str(tmp_path / "s"))["t"]
    assert stored_origin(str(tmp_path / "s"), "t").identity.frames == (frames or "last")
    unit = None if unit_sec is None else round(unit_sec * RATE)
    for clip, (samples, prompt) in enumerate(zip(sounds, asked(len(sounds)), strict=True)):
        mean, count, embedding = expected(samples, prompt, frames or "last", unit)
        one = task.ds.isel(clip=clip)
        np.testing.assert_array_equal(one["mean"].values[0], mean)
        np.testing.assert_array_equal(one["embedding"].values, embedding)
        assert one["frame_count"].values == count


def test_only_clips_of_one_layout_meet_at_a_fixed_length_too(tmp_path: Path) -> None:
    """Layouts are 5 + 5, 5 + 6 and 5 + 5 the other way round; the sound of a failed clip keeps its place."""
    corpus(tmp_path, [50] * 16)
    (tmp_path / "audio/004.wav").write_bytes(b"")
    encoder = prompted()
    report = run(tmp_path, encoder, unit_sec=0.05, block=16)
    assert report.n_failed == 1
    # "sad?" and "bad?" are laid out alike, which makes 8 clips; "glad?" 4, "mad?" 4.
    assert sorted(encoder.module.shapes[-7:]) == sorted([(3, 10), (3, 10), (2, 10), (3, 11), (1, 11), (3, 10), (1, 10)])
    apart = {encoder.layout(50, prompt) for prompt in PROMPTS}
    assert apart == {(0, 5, 5), (0, 5, 6), (5, 5, 0)}


def test_a_clip_gives_the_same_whatever_clips_are_around_it(tmp_path: Path) -> None:
    """Layouts that wait are let go before they are many, and crashing neighbours change nothing."""
    lengths = [10 * (2 + i % 9) for i in range(40)]
    prompts = [f"{'x' * (i % 13)} {{audio}} {'y' * (i % 7)}" for i in range(40)]
    sounds = corpus(tmp_path, lengths, prompts)
    encoder = prompted()
    run(tmp_path, encoder, block=40, batch=2)
    task = otoscope.open(str(tmp_path / "s"))["t"].ds
    for clip, (samples, prompt) in enumerate(zip(sounds, prompts, strict=True)):
        np.testing.assert_array_equal(task["mean"].values[0, :, clip], expected(samples, prompt)[0])
    many = [f"{'x' * i} {{audio}}" for i in range(20)]
    corpus(tmp_path, [50] * 20, many)
    waited = prompted()
    run(tmp_path, waited, "other", block=20, batch=2, unit_sec=0.05)
    assert waited.module.shapes[-20:] == [(1, 6 + i) for i in range(20)]


def test_resuming_and_appending_go_by_the_same_prompts(tmp_path: Path) -> None:
    spec = f"module:{prompted_encoder.__file__}:prompted"
    corpus(tmp_path, [50] * 8)
    run(tmp_path, spec)
    before = tree_of(tmp_path / "s")
    run(tmp_path, spec)
    assert tree_of(tmp_path / "s") == before
    with pytest.raises(ValueError, match="another identity"):
        run(tmp_path, spec, frames="audio")
    corpus(tmp_path, [50] * 16)
    run(tmp_path, spec)
    run(tmp_path, spec, "at once")
    names = ("mean", "embedding", "prompt", "frame_count")
    resumed, whole = (otoscope.open(str(tmp_path / name))["t"].ds for name in ("s", "at once"))
    for name in names:
        np.testing.assert_array_equal(resumed[name].values, whole[name].values)


def test_what_has_no_prompt_and_what_takes_none(tmp_path: Path) -> None:
    write_corpus(tmp_path, [50] * 4)
    with pytest.raises(ValueError, match="asked something about each clip, and these have no prompts; expected"):
        run(tmp_path, prompted())
    assert not (tmp_path / "s").exists()
    for wrong in ("no sound", "{audio} and {audio}"):
        corpus(tmp_path, [50] * 4, ["{audio} sad?", wrong, "{audio}?", "{audio}!"])
        with pytest.raises(ValueError, match=r"prompt '.*' has [02] {audio}; expected one"):
            run(tmp_path, prompted())
        assert not (tmp_path / "s").exists()
    corpus(tmp_path, [50] * 4)
    run(tmp_path, closed_form(), "ignored")  # as ever: the prompts are stored, and nobody is asked
    write_corpus(tmp_path, [50] * 4, columns={"kind": list("abab")})
    run(tmp_path, closed_form(), "none")
    with_, without = (otoscope.open(str(tmp_path / name))["t"].ds for name in ("ignored", "none"))
    np.testing.assert_array_equal(with_["mean"].values, without["mean"].values)
    assert stored_origin(str(tmp_path / "ignored"), "t").identity.frames == "audio"


def test_sounds_that_are_too_long_fail_alone_and_units_are_refused(tmp_path: Path) -> None:
    corpus(tmp_path, [50, 60, 3000, 50])
    report = run(tmp_path, prompted())
    assert report.failures == (("audio/002.wav", "too long: 3000 samples at 1000 Hz, the encoder takes at most 2000"),)
    with pytest.raises(ValueError, match=r"--unit-sec 2.5 is more than the 2 s that encoder prompted takes"):
        run(tmp_path, prompted(), "other", unit_sec=2.5)
    with pytest.raises(ValueError, match="max_samples is 999 at 1000 Hz; expected a second at least"):
        prompted(max_samples=RATE - 1)
    with pytest.raises(ValueError, match="says nothing of its tokens; expected `frame_spans=`"):
        prompted(frame_spans=None).spans(50)


def test_a_rerun_goes_by_the_prompts_and_a_patch_by_the_layouts(tmp_path: Path) -> None:
    """The donor's tokens are put in one by one where its prompt is laid out alike, else the mean over its sound."""
    encoder = prompted()
    rng = np.random.default_rng(0)
    mine, theirs = (torch.from_numpy(rng.integers(-99, 99, (1, 50)).astype(np.float32) / 32768) for _ in range(2))
    every = NeuronSet(pairs=tuple((0, k) for k in range(NEURONS)))
    one = Batch.of(encoder, mine, theirs, prompts=["{audio} sad?"])
    rerunner = Rerunner(encoder, [Intervention(neurons=every, mode="patch")], frames="last")
    found = rerunner(one)
    samples = [np.round(sound[0].numpy() * 32768) for sound in (mine, theirs)]
    base, donor = (expected(sound, "{audio} sad?") for sound in samples)
    np.testing.assert_array_equal(found[0, 0], base[2])
    weight = prompted_encoder.WEIGHT
    patched = base[2] + (donor[0] - base[0]) @ weight  # at the last token, all of the neurons are the donor's
    np.testing.assert_allclose(found[1, 0], patched, rtol=1e-6, atol=1e-6)
    other = Batch.of(encoder, theirs, prompts=["a much longer text, then {audio}"])
    found = rerunner(replace(one, donors=other))
    donor = expected(samples[1], "a much longer text, then {audio}", "published")
    np.testing.assert_allclose(found[1, 0], base[2] + (donor[0] - base[0]) @ weight, rtol=1e-6, atol=1e-6)

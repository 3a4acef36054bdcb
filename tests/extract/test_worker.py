"""Blocks against plain numpy, value by value, and what bad clips and bad encoders get."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.report import Report
from otoscope.store.status import failed_clips

from ..support.closed_form import HOP, RATE, WIDTHS, closed_form, expected, in_frames, of_clips, spans
from ..support.finished_store import Finished
from ..support.wav_corpora import LENGTHS, write_corpus, write_wav_file

ALL = ("mean", "positive_frames", "embedding", "hidden")


def run(manifest: Path, url: Path, encoder: Encoder | None = None, **options: Any) -> Report:
    given: dict[str, Any] = {
        "task": "t",
        "block": 8,
        "batch": 3,
        "threads": 1,
        "keep": ALL,
        "max_failures": 1.0,
        **options,
    }
    return capture(encoder or closed_form(), str(manifest), str(url), **given)


def stored(url: Path | str) -> dict[str, np.ndarray]:
    """Every array as plain zarr reads it; the bits unpacked by numpy."""
    group = zarr.open_group(str(url), path="t", mode="r")
    values = {name: np.asarray(array[...]) for name, array in group.arrays()}
    values["active"] = np.unpackbits(values["active_bits"], axis=-1, count=max(WIDTHS), bitorder="little")
    return values


def compare(values: dict[str, np.ndarray], sounds: list[np.ndarray], **how: Any) -> None:
    for clip, samples in enumerate(sounds):
        wanted = expected(samples, **how)
        for name in ("mean", "positive_frames", "hidden"):
            np.testing.assert_array_equal(
                values[name][:, clip], wanted[name].astype(values[name].dtype), f"{name} of {clip}"
            )
        np.testing.assert_array_equal(values["active"][:, clip], np.nan_to_num(wanted["mean"]) > 0)
        np.testing.assert_array_equal(values["embedding"][clip], wanted["embedding"])
        assert values["frame_count"][clip] == wanted["frame_count"]


def test_native_lengths_of_ten_blocks(finished: Finished) -> None:
    compare(stored(finished.url), finished.sounds)


@pytest.mark.parametrize("frames", ["audio", "published", "all"])
@pytest.mark.parametrize("unit_sec", [None, 0.05])
def test_every_frames_rule_cropped_padded_and_native(tmp_path: Path, frames: str, unit_sec: float | None) -> None:
    """Clips of 2 to 8 tokens, some ending inside a token; a unit of 5 tokens crops some and pads others."""
    manifest, sounds = write_corpus(tmp_path, LENGTHS[:19])
    run(manifest, tmp_path / "s", frames=frames, unit_sec=unit_sec, mean_dtype="float32")
    unit = None if unit_sec is None else round(unit_sec * RATE)
    compare(stored(tmp_path / "s"), sounds, frames=frames, unit=unit)


def test_the_bit_is_taken_before_the_mean_is_rounded(tmp_path: Path) -> None:
    """A mean so small that float16 has only zero for it."""
    folder, weak = tmp_path, np.zeros(400_000, "i2")
    manifest, _ = write_corpus(folder, [20])
    weak[5] = 1  # 1/32768 in one of 40,000 tokens: 2 ** -15 / 40000 = 7.6e-10, half of float16's least is 3e-8
    write_wav_file(folder / "audio/000.wav", weak, RATE)
    run(manifest, folder / "s")
    values, wanted = stored(folder / "s"), expected(weak)
    assert (wanted["mean"] > 0).any()
    assert (values["mean"][:, 0][wanted["mean"] > 0] == 0).all()
    np.testing.assert_array_equal(values["active"][:, 0], np.nan_to_num(wanted["mean"]) > 0)


@pytest.fixture(autouse=True)
def _no_parity_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes that it runs before the first block would be counted."""
    monkeypatch.setattr("otoscope.extract.preflight.check_parity", lambda *_: "")


class Counting(nn.Module):
    """Records the shape of each batch, and the threads; the sound that only asks for the widths is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Identity()
        self.shapes: list[tuple[int, ...]] = []
        self.threads: list[int] = []
        self.sounding: list[list[bool]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        if of_clips(tokens):
            self.shapes.append(tuple(tokens.shape[:2]))
            self.threads.append(torch.get_num_threads())
            self.sounding.append(tokens.flatten(1).any(dim=1).tolist())
        return self.site(tokens)


def plain(module: nn.Module, sites: str = "site", **changes: Any) -> Encoder:
    """An encoder of one site without CLS."""
    return closed_form(
        module=module, sites=[sites], transformer_layers=(), frame_spans=lambda n: spans(n)[1:], **changes
    )


def test_clips_are_batched_by_input_length_and_lengths_that_give_the_same_input_meet(tmp_path: Path) -> None:
    lengths = [20, 31, 25, 29, 34, 20, 40, 39]  # tokens: 2 3 2 2 3 2 4 3
    manifest, _ = write_corpus(tmp_path, lengths)
    module = Counting()
    run(manifest, tmp_path / "s", plain(module), keep=("mean",))
    assert module.shapes == [(3, 2), (3, 3), (1, 2), (1, 4)]
    values = stored(tmp_path / "s")
    np.testing.assert_array_equal(values["frame_count"], [n // HOP for n in lengths])


def test_clips_of_many_lengths_are_not_held_back_without_end(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [10 * n for n in range(1, 41)])
    module = Counting()
    run(manifest, tmp_path / "s", plain(module), keep=("mean",), block=40, batch=2)
    assert [shape[0] for shape in module.shapes] == [1] * 40
    assert (stored(tmp_path / "s")["status"] == 1).all()


def test_at_a_fixed_length_a_failed_clip_keeps_its_place_as_silence(tmp_path: Path) -> None:
    """So that its neighbours are computed in a batch of the same shape, in the same rows."""
    manifest, _ = write_corpus(tmp_path, [50, 30, 70, 50, 20, 50, 60])
    for i in (1, 3):
        (tmp_path / f"audio/{i:03d}.wav").write_bytes(b"")
    module = Counting()
    run(manifest, tmp_path / "s", plain(module), keep=("mean",), unit_sec=0.05)
    assert module.shapes == [(3, 5), (3, 5), (1, 5)]
    assert module.sounding == [[True, False, True], [False, True, True], [True]]


class Spoilt(nn.Module):
    """Gives what is not finite, or very large, to clips that contain a certain sample."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.site, self.value = nn.Identity(), value

    def forward(self, tokens: Tensor) -> Tensor:
        marked = (tokens == 0.5).any(dim=2, keepdim=True)
        return self.site(torch.where(marked, self.value, tokens))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_activations_that_are_not_finite_fail_their_clip_alone(tmp_path: Path, value: float) -> None:
    manifest, sounds = write_corpus(tmp_path, [40] * 9)
    write_wav_file(tmp_path / "audio/004.wav", np.where(np.arange(40) == 7, 1 << 14, sounds[4]), RATE)
    report = run(manifest, tmp_path / "s", plain(Spoilt(value)), keep=("mean", "positive_frames", "embedding"))
    assert (report.n_ok, report.n_failed) == (8, 1)
    assert report.failures == (("audio/004.wav", "the encoder gives activations that are not finite"),)
    values = stored(tmp_path / "s")
    assert values["status"].tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert np.isnan(values["mean"][:, 4]).all()
    assert not values["active_bits"][:, 4].any()
    assert values["frame_count"][4] == 0
    assert np.isfinite(values["mean"][:, [0, 1, 2, 3, 5, 6, 7, 8]]).all()


def test_hidden_states_that_are_not_finite_fail_their_clip_where_they_are_kept(tmp_path: Path) -> None:
    manifest, sounds = write_corpus(tmp_path, [40] * 5)
    write_wav_file(tmp_path / "audio/003.wav", np.where(np.arange(40) == 7, 1 << 14, sounds[3]), RATE)
    module = nn.Sequential(nn.Identity(), Spoilt(math.nan))
    encoder = plain(module, "0", embed=lambda tokens: tokens.nan_to_num().amax(dim=1))
    encoder = replace(encoder, transformer_layers=["1"])
    report = run(manifest, tmp_path / "s", encoder)
    assert report.failures == (("audio/003.wav", "the encoder gives activations that are not finite"),)
    assert np.isfinite(stored(tmp_path / "s")["hidden"][:, [0, 1, 2, 4]]).all()
    assert run(manifest, tmp_path / "without", encoder, keep=("mean", "embedding")).n_ok == 5


def test_clips_with_means_beyond_float16_fail_alone_and_float32_holds_them(tmp_path: Path) -> None:
    manifest, sounds = write_corpus(tmp_path, [10] * 3)
    write_wav_file(tmp_path / "audio/001.wav", np.where(np.arange(10) == 7, 1 << 14, sounds[1]), RATE)
    report = run(manifest, tmp_path / "s", plain(Spoilt(65505.0)), keep=("mean",), max_failures=0.5)
    reason = "a mean activation of 65505: float16 holds up to 65504, keep float32"
    assert report.failures == (("audio/001.wav", reason),)
    assert stored(tmp_path / "s")["status"].tolist() == [1, 2, 1]
    run(manifest, tmp_path / "wide", plain(Spoilt(65505.0)), keep=("mean",), mean_dtype="float32")
    assert stored(tmp_path / "wide")["mean"][0, 1].tolist() == [65505.0] * HOP


def test_more_frames_than_the_count_can_hold_fail_with_a_reason(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [655_350, 655_360, 50])
    report = run(manifest, tmp_path / "s")
    assert report.failures == (("audio/001.wav", "longer than 65535 frames: cut it by start, stop"),)
    assert stored(tmp_path / "s")["frame_count"].tolist() == [65_535, 0, 5]


@pytest.mark.parametrize("bad", [b"", b"no audio at all", b"RIFF"])
def test_a_failed_clip_does_not_change_its_neighbours(tmp_path: Path, bad: bytes) -> None:
    """Real arithmetic, whose last bits depend on the shape of the batch and on a clip's place in it."""
    encoder = load_encoder("tiny-ssl")
    manifest, _ = write_corpus(tmp_path, [9_000 + 100 * i for i in range(11)], rate=16_000)
    options: dict[str, Any] = {"unit_sec": 0.6, "mean_dtype": "float32", "batch": 5, "block": 6}
    run(manifest, tmp_path / "whole", encoder, **options)
    for i in (2, 7):
        (tmp_path / f"audio/{i:03d}.wav").write_bytes(bad)
    report = run(manifest, tmp_path / "broken", encoder, **options)
    assert [name for name, _ in report.failures] == ["audio/002.wav", "audio/007.wav"]
    good = [i for i in range(11) if i not in (2, 7)]
    whole, broken = stored(tmp_path / "whole"), stored(tmp_path / "broken")
    for name, dims in (("mean", 1), ("active_bits", 1), ("positive_frames", 1), ("hidden", 1), ("embedding", 0)):
        np.testing.assert_array_equal(whole[name].take(good, dims), broken[name].take(good, dims), name)


def test_every_kind_of_bad_audio_is_recorded_with_its_reason(tmp_path: Path) -> None:
    manifest, sounds = write_corpus(tmp_path, [50] * 10)
    audio = tmp_path / "audio"
    (audio / "001.wav").write_bytes(b"")
    (audio / "002.wav").write_bytes((audio / "002.wav").read_bytes()[:-20])
    write_wav_file(audio / "003.wav", np.zeros(0), RATE)
    (audio / "004.wav").write_text("these are words")
    write_wav_file(audio / "005.wav", sounds[5][: HOP - 1], RATE)
    (audio / "006.wav").unlink()
    report = run(manifest, tmp_path / "s", allow_missing=True)
    assert (report.n_ok, report.n_failed) == (4, 6)
    starts = ("empty: 0 bytes", "truncated: 10 of 50", "no samples", "does not decode", "too short: 9", "no such file")
    for (_, reason), start in zip(report.failures, starts, strict=True):
        assert reason.startswith(start)
    assert tuple(failed_clips(str(tmp_path / "s"), "t")) == report.failures
    good = [0, 7, 8, 9]
    values = {name: v for name, v in stored(tmp_path / "s").items() if 10 in v.shape[:2]}  # those along clip
    compare({name: v.take(good, v.shape.index(10)) for name, v in values.items()}, [sounds[i] for i in good])


class Pooled(nn.Module):
    """Two sites that differ in their number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Identity(), nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        self.coarse(tokens[:, ::2])
        return self.fine(tokens)


def test_sites_of_other_token_counts_are_refused(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [40] * 9)
    with pytest.raises(
        ValueError, match=r"block 0 \(clips 0 to 7\): site coarse shows 2 frames per clip where .* gives 4"
    ):
        run(manifest, tmp_path / "s", plain(Pooled(), "*"), keep=("mean",))
    assert (stored(tmp_path / "s")["status"] == 0).all()


class Choosy(nn.Module):
    """A model that takes only inputs of five tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Linear(5 * HOP, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.site(tokens.flatten(1))


def test_a_model_that_fails_on_a_batch_is_reported_in_one_line(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [40] * 9)
    encoder = Encoder(
        module=Choosy(), sample_rate=RATE, sites=["site"], embed=lambda x: x, prepare=lambda x: in_frames(x)[:, :5],
        frame_spans=lambda n: np.zeros((1, 4)),
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"the encoder failed on 3 clips of 40 samples \(RuntimeError: mat1 and mat2.*expected a model"
    ) as caught:
        run(manifest, tmp_path / "s", encoder, keep=("mean",))
    assert "\n" not in str(caught.value)


def test_threads_are_those_of_the_plan_and_restored(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    module = Counting()
    manifest, _ = write_corpus(tmp_path, [40] * 3)
    run(manifest, tmp_path / "s", plain(module), keep=("mean",), threads=before + 1)
    assert module.threads == [before + 1]
    assert torch.get_num_threads() == before


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    from hashlib import blake2b

    manifest, _ = write_corpus(tmp_path, [40] * 3)
    (tmp_path / "audio/001.wav").write_bytes(b"words")
    run(manifest, tmp_path / "s")
    for digest, path in zip(
        stored(tmp_path / "s")["audio_digest"], read_manifest(manifest).clips.table["path"], strict=True
    ):
        data = (tmp_path / path).read_bytes()
        assert int(digest) == int.from_bytes(blake2b(data, digest_size=8).digest(), "little")

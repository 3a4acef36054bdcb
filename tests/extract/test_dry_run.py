"""What a dry run foretells, against what then happens."""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.preflight import Forecast, in_time
from otoscope.extract.report import Report

from ..support.closed_form import closed_form, of_clips, spans
from ..support.commands import call, done, extraction, refused
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import tree_of
from ..support.wav_corpora import LENGTHS, write_corpus


class Slow(nn.Module):
    """Takes so many seconds for a batch, by a clock of its own."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.site, self.seconds, self.now = nn.Identity(), seconds, 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        if of_clips(tokens):
            self.now += self.seconds
        return self.site(tokens)

    def perf_counter(self) -> float:
        return self.now


def encoder_of(module: nn.Module) -> Encoder:
    return closed_form(module=module, sites=["site"], transformer_layers=(), frame_spans=lambda n: spans(n)[1:])


def run(manifest: Path, encoder: Encoder | None = None, **options: Any) -> Report:
    given = {"task": "t", "block": 4, "batch": 3, "threads": 1, **options}
    return capture(encoder or closed_form(), manifest, str(manifest.parent / "s"), **given)


def forecast(manifest: Path, encoder: Encoder | None = None, **options: Any) -> Forecast:
    found = run(manifest, encoder, dry_run=True, **options).forecast
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otoscope.extract.preflight.CALIBRATION_SECONDS", 0.5)


@pytest.mark.parametrize("keep", [None, ("mean", "hidden"), ()])
def test_objects_and_bytes_are_those_that_are_then_written(tmp_path: Path, keep: tuple[str, ...] | None) -> None:
    columns = {"kind": ["a"] * 370, "other": ["b"] * 370}
    manifest, _ = write_corpus(tmp_path, [20] * 370, columns=columns)
    found = forecast(manifest, keep=keep, block=37)
    assert not (tmp_path / "s").exists()
    assert (found.n_clips, found.n_blocks) == (370, 10)
    run(manifest, keep=keep, block=37)
    written = tree_of(tmp_path / "s")
    assert found.n_objects == len(written) - 1  # the root's document is no task's
    for name, n_bytes in found.disk.items():
        objects = {key: data for key, data in written.items() if key.startswith(f"t/{name}/c")}
        index = 4 * len(objects) if name in ("frame_count", "embedding") else 100 * len(objects)  # checksums, indexes
        assert 0 <= sum(map(len, objects.values())) - n_bytes <= index, name


def test_what_the_run_would_refuse_is_refused(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    run(manifest)
    for change, message in ((encoder_of(Slow(0)), "another identity"), (None, "planned otherwise")):
        with pytest.raises(ValueError, match=message):
            run(manifest, change, dry_run=True, keep=None if change else ("mean",))


def test_what_is_committed_is_not_counted_again(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    with pytest.raises(KeyboardInterrupt):
        run(manifest, executor=After(6, interrupt))
    before = tree_of(tmp_path / "s")
    found = forecast(manifest)
    assert (found.n_clips, found.n_blocks) == (13, 4)
    assert found.disk_left == sum(found.disk.values()) * 13 // 37
    assert tree_of(tmp_path / "s") == before
    run(manifest)
    found = forecast(manifest)
    assert (found.n_clips, found.n_blocks, found.disk_left, found.clips_per_second, found.seconds) == (0, 0, 0, 0, 0)


def test_appending_counts_the_last_block_anew_where_it_was_partial(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    run(manifest)
    write_corpus(tmp_path, [*LENGTHS, 40, 50, 60, 70])
    found = forecast(manifest)
    assert (found.n_clips, found.n_blocks) == (5, 2)  # clips 36 to 39, and 40
    assert run(manifest).n_extracted == 5


def test_the_time_is_what_the_model_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 ms for a batch of 4: 100 clips/s, and then the run itself takes as long as was said."""
    manifest, _ = write_corpus(tmp_path, [30] * 132)
    module = Slow(0.04)
    with monkeypatch.context() as patched:
        patched.setattr("otoscope.extract.throughput.time", module)
        found = forecast(manifest, encoder_of(module), block=16, batch=4)
    assert found.clips_per_second == pytest.approx(100)
    assert found.seconds == pytest.approx(1.32)
    module.now = 0.0
    run(manifest, encoder_of(module), block=16, batch=4)
    assert module.now == pytest.approx(found.seconds + 0.04 * 2)  # parity: two clips in a batch, and one alone


class Layered(Slow):
    """Takes so many seconds for a clip, a fourth of them in each of its layers, and keeps the sizes of its batches."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.layers = nn.ModuleList(nn.Identity() for _ in range(4))
        self.sizes: list[int] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.sizes += [len(tokens)] if of_clips(tokens) else []
        for layer in self.layers:
            self.now += self.seconds / 4 * len(tokens)
            tokens = layer(tokens)
        return tokens


@pytest.mark.parametrize(
    ("seconds", "sizes", "rate", "basis"),
    [
        (0.02, [1, 2, 4, 8, 8], 50, "measured on 8 clips, up to 8 at once"),
        (0.05, [1, 2, 4], 20, "measured on 4 clips, up to 4 at once"),
        (0.2, [1], 5, "measured on 1 clip, up to 1 at once"),
        (4.0, [1], 0.25, "by 1 of 4 layers of 1 clip, as there was no time for more"),
        (0.7, [1], 1 / 0.7, "by 2 of 4 layers of 1 clip, as there was no time for more"),
    ],
)
def test_an_encoder_however_slow_is_measured_within_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: list[int], rate: float, basis: str
) -> None:
    """One pass tells the sizes, then half a second is left, or the least that there is."""
    manifest, _ = write_corpus(tmp_path, [30] * 132)
    module = Layered(seconds)
    monkeypatch.setattr("otoscope.extract.preflight.MIN_CALIBRATION_SECONDS", 0.3)
    for name in ("preflight", "throughput"):
        monkeypatch.setattr(f"otoscope.extract.{name}.time", module)
    encoder = closed_form(
        module=module, sites=["layers.*"], transformer_layers=(), frame_spans=lambda n: spans(n)[1:]
    )  # fmt: skip
    found = forecast(manifest, encoder, block=16, batch=8)
    assert module.sizes == sizes
    assert module.now <= max(0.5, seconds + 0.3) + seconds / 4 + 1e-9  # and at most a layer of a clip
    assert found.clips_per_second == pytest.approx(rate)
    assert found.seconds == pytest.approx(132 / rate)
    time_ = found.lines()[-1]
    assert time_.endswith(f"clips/s per worker, {basis})")
    assert (" or more with 1 worker" in time_) == found.rough == ("layers" in basis)


def test_a_rate_is_not_made_of_clips_that_cannot_be_decoded(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    for i in range(37):
        (tmp_path / f"audio/{i:03d}.wav").write_bytes(b"words")
    found = forecast(manifest)
    assert (found.clips_per_second, found.seconds) == (0, 0)
    assert found.lines()[-1].startswith("time: not known, as none of the first clips")


def test_memory_grows_with_the_block_and_not_with_the_clips(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [20] * 64)
    base, wide, long = (forecast(manifest, block=block).memory for block in (8, 64, 8))
    assert base == long < wide
    per_clip = sum(forecast(manifest, block=8).disk.values()) / 64
    assert wide - base == pytest.approx(2 * 56 * per_clip, rel=0.7)  # two blocks, and the largest object twice


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_what_does_not_fit_is_refused_by_a_dry_run_and_a_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    expected = forecast(manifest)
    need = expected.disk_left + 4096 * expected.n_objects
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - need + 1, need - 1))
    for more in ((), ("--dry-run",)):
        message = r"s task t needs .* more on disk and .* are free there; expected room for all of it"
        refused(message, *extraction(tmp_path / "s", manifest, *more), watched=tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, need))
    assert call(*extraction(tmp_path / "s", manifest)).exit_code == 0


def test_workers_that_memory_cannot_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    monkeypatch.setattr("otoscope.cluster.resources._memory", lambda: 100_000_000)
    refused(
        r"takes about 0.5\d* GB of memory for each of 1 worker and this machine has 0.1 GB; expected room",
        *extraction(tmp_path / "s", manifest, "--dry-run"), watched=tmp_path,
    )  # fmt: skip


def test_the_command_prints_it(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    todo, disk, memory, time_ = done(*extraction(tmp_path / "s", manifest, "--dry-run")).splitlines()
    assert todo == "to do: 37 clips in 10 blocks"
    assert re.fullmatch(
        r"on disk: .* kB in \d+ objects \(active_bits .*, embedding .*\); .* kB still to be written", disk
    )
    assert re.fullmatch(r"memory: about 50\d MB per worker", memory)
    assert re.fullmatch(
        r"time: about .* s with 1 worker \(.* clips/s per worker, measured on \d+ clips, up to 3 at once\)", time_
    )
    assert not (tmp_path / "s").exists()


def test_bad_clips_do_not_stop_it(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    for i in range(0, 12, 2):
        (tmp_path / f"audio/{i:03d}.wav").write_bytes(b"words")
    (tmp_path / "audio/001.wav").unlink()
    assert forecast(manifest, allow_missing=True).clips_per_second > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (99, "99 s"), (119, "2 min"), (5400, "90 min"), (9000, "2.5 h"), (864000, "10 days")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_time(seconds) == words

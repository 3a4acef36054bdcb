"""One input that would stop or drown a run: it fails alone, with a reason, in little time and memory."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from otoscope.extract.audio.audio_root import Folder
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import BadAudio, Limits, read_clip, write_wav
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.store.status import failed_clips, task_status

from ...support.audio_bytes import encoded, music
from ...support.closed_form import RATE, closed_form


def reason(folder: Path, name: str, **given: object) -> str:
    with pytest.raises(BadAudio) as error:
        read_clip(folder, Clip(name="a", path=name), 16_000, **given)  # type: ignore[arg-type]
    return str(error.value)


def test_only_regular_files_below_the_audio_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for path in (root / "a.wav", root / "sub" / "b.wav", tmp_path / "outside.wav"):
        write_wav(path, np.zeros(400), 16_000)
    (tmp_path / "rooted").mkdir()
    write_wav(tmp_path / "rooted" / "c.wav", np.zeros(400), 16_000)  # a name that begins like the root's
    os.mkfifo(root / "fifo.wav")
    for name, target in (
        ("device.wav", "/dev/zero"), ("out.wav", tmp_path / "outside.wav"), ("in.wav", "sub/b.wav"),
        ("up", tmp_path), ("loop.wav", "loop.wav"), ("gone.wav", "nothing.wav"),
    ):  # fmt: skip
        (root / name).symlink_to(target)
    for name in ("fifo.wav",):
        assert reason(root, name).startswith("no regular file but a device, FIFO or socket")
    for name in (
        "device.wav",
        "out.wav",
        "../outside.wav",
        "up/outside.wav",
        "sub/../../outside.wav",
        "../rooted/c.wav",
    ):
        assert reason(root, name).startswith("outside the audio root, by a link or ..; expected a file below it")
    assert reason(Path("/"), "dev/zero").startswith("no regular file")
    for name in ("in.wav", "sub/../a.wav", "up/root/a.wav"):
        assert len(read_clip(root, Clip(name="a", path=name), 16_000).samples) == 400
    (tmp_path / "link").symlink_to(root)
    assert len(read_clip(tmp_path / "link", Clip(name="a", path="in.wav"), 16_000).samples) == 400
    names = ["a.wav", "fifo.wav", "device.wav", "sub", "loop.wav", "gone.wav", "none.wav"]
    assert sorted(Folder(root).absent(names)) == ["gone.wav", "loop.wav", "none.wav", "sub"]


def test_such_clips_fail_alone_in_a_run(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    for i in range(8):
        write_wav(audio / f"{i}.wav", music(RATE, 0.5), RATE)
    os.mkfifo(audio / "fifo.wav")
    (audio / "zero.wav").symlink_to("/dev/zero")
    with (audio / "sparse.wav").open("wb") as file:
        file.truncate(40 << 30)
    write_wav(audio / "silent.wav", np.zeros(RATE), RATE)
    names = [f"{i}.wav" for i in range(8)] + ["fifo.wav", "zero.wav", "sparse.wav", "silent.wav"]
    (tmp_path / "m.csv").write_text("path,kind\n" + "".join(f"audio/{name},x\n" for name in names))
    report = capture(
        closed_form(), tmp_path / "m.csv", str(tmp_path / "s"), task="t", max_failures=0.5, report=tmp_path / "r.json"
    )
    assert (report.n_ok, report.n_failed, report.n_silent) == (9, 3, 1)
    assert task_status(str(tmp_path / "s"), "t").n_ok == 9
    reasons = dict(failed_clips(str(tmp_path / "s"), "t"))
    assert reasons["audio/fifo.wav"].startswith("no regular file")
    assert reasons["audio/zero.wav"].startswith("outside the audio root")
    assert reasons["audio/sparse.wav"].startswith("too large: 42950 MB; expected at most 512")
    assert json.loads((tmp_path / "r.json").read_text())["clips"]["silent"] == 1


def test_a_run_says_how_many_clips_are_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(4):
        write_wav(tmp_path / f"{i}.wav", np.zeros(RATE) if i < 3 else music(RATE, 1), RATE)
    (tmp_path / "m.csv").write_text("path,kind\n" + "".join(f"{i}.wav,x\n" for i in range(4)))
    capture(closed_form(), tmp_path / "m.csv", str(tmp_path / "s"), task="t")
    assert "3 of 4 clips are digital silence" in caplog.text


def test_sizes_are_bounded_by_options(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", music(16_000, 10), 16_000)
    (tmp_path / "a.mp3").write_bytes(encoded(music(16_000, 10), 16_000, "MP3"))
    small = Limits(file_bytes=319_000)
    assert reason(tmp_path, "a.wav", limits=small) == (
        "too large: 0 MB; expected at most 0: cut it, or raise --max-file-mb"
    )
    short = Limits(clip_bytes=4 * 16_000 * 9)
    for name in ("a.wav", "a.mp3"):
        assert reason(tmp_path, name, limits=short).startswith("too long: to decode 10 s at 16000 Hz takes 1 MB")
        assert len(read_clip(tmp_path, Clip(name="", path=name), 16_000, limits=short, seconds=2).samples) == 32_000
        part = read_clip(tmp_path, Clip(name="", path=name, start=3, stop=5), 16_000, limits=short).samples
        whole = read_clip(tmp_path, Clip(name="", path=name), 16_000).samples
        np.testing.assert_array_equal(part, whole[48_000:80_000])
    for given in ({"max_file_mb": 0}, {"max_clip_mb": float("nan")}):
        with pytest.raises(ValueError, match="expected megabytes above 0"):
            capture(closed_form(), tmp_path / "m.csv", "x", task="t", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_the_first_seconds_are_those_of_the_whole(tmp_path: Path, rate: int, kind: str) -> None:
    if kind == "MP3" and rate == 96_000:
        return
    (tmp_path / "a").write_bytes(encoded(music(rate, 4), rate, kind))
    for times in ({}, {"start": 0.25}, {"start": 0.5, "stop": 1.0}):
        clip = Clip(name="", path="a", **times)
        whole = read_clip(tmp_path, clip, 16_000).samples
        for seconds in (0.1, 1.0, 9.0):
            part = read_clip(tmp_path, clip, 16_000, seconds=seconds).samples
            np.testing.assert_array_equal(part, whole[: round(seconds * 16_000)])


@pytest.mark.parametrize("value", ["1e9", "3601", "inf", "-1", "0"])
def test_a_unit_is_bounded(tmp_path: Path, value: str) -> None:
    (tmp_path / "m.csv").write_text(f"path,unit_sec\na.wav,{value}\n")
    with pytest.raises(ValueError, match="unit_sec"):
        read_manifest(tmp_path / "m.csv")
    write_wav(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    (tmp_path / "m.csv").write_text("path\na.wav\n")
    with pytest.raises(ValueError, match=r"unit_sec|--unit-sec"):
        capture(closed_form(), tmp_path / "m.csv", str(tmp_path / "s"), task="t", unit_sec=float(value))


def test_a_batch_is_bounded(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    (tmp_path / "m.csv").write_text("path,unit_sec\na.wav,3600\n")
    with pytest.raises(ValueError, match=r"--batch 4096 of --unit-sec 3600 is .* expected at most 537 MB"):
        capture(closed_form(), tmp_path / "m.csv", str(tmp_path / "s"), task="t", batch=4096)


LONG = """
import resource, sys
from pathlib import Path
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import BadAudio, read_clip
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
root, name, seconds = Path(sys.argv[1]), sys.argv[2], None if sys.argv[3] == "None" else float(sys.argv[3])
try:
    print(len(read_clip(root, Clip(name="a", path=name), 16_000, seconds=seconds).samples))
except BadAudio as bad:
    print(bad)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""


def alone(folder: Path, name: str, seconds: float | None) -> tuple[str, int]:
    """What reading gives in a process that may take 3 GB of addresses, and the MB of memory that it took."""
    run = subprocess.run(
        [sys.executable, "-c", LONG, str(folder), name, str(seconds)], capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)), check=True,
    )  # fmt: skip
    text, megabytes = run.stdout.splitlines()
    return text, int(megabytes)


@pytest.fixture(scope="module")
def long_flac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLAC of 36 hours of silence, in 7 MB."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    with sf.SoundFile(path, "w", 44_100, 1, "PCM_16") as file:
        for _ in range(36):
            file.write(np.zeros(3600 * 44_100, np.int16))
    return path


@pytest.mark.slow
def test_a_long_clip_is_decoded_as_far_as_is_needed_or_refused(long_flac: Path) -> None:
    assert long_flac.stat().st_size < 30e6
    text, megabytes = alone(long_flac.parent, long_flac.name, 1.0)
    assert text == "16000"
    assert megabytes < 200
    text, megabytes = alone(long_flac.parent, long_flac.name, None)
    assert text.startswith("too long: to decode 129600 s at 44100 Hz takes 22861 MB; expected at most 256")
    assert megabytes < 200


def test_many_channels_are_decoded_piece_by_piece(tmp_path: Path) -> None:
    (tmp_path / "wide.wav").write_bytes(encoded(np.zeros((40_000, 1024), np.int16), 16_000, "WAV"))
    text, megabytes = alone(tmp_path, "wide.wav", None)
    assert text == "40000"
    assert megabytes < 250  # 82 of the file, twice while it is copied; 164 of samples at once would be more

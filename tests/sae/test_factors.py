"""Laws of factors: what opensmile itself gives for a file, of what an encoder is given, or a reason."""

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import opensmile
import pandas as pd
import pytest
import soundfile as sf

import otoscope
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import read_clip
from otoscope.sae import factors_of

from ..support.closed_form import closed_form
from ..support.commands import call, done, refused
from ..support.wav_corpora import write_manifest, write_wav_file

FAMILIES = {
    "formants": ("F[123]", 18), "pitch": ("F0", 14), "quality": ("shimmer|jitter|HNR", 6),
    "loudness": ("loudness|equivalentSoundLevel", 12), "rhythm": ("[vV]oiced", 5),
    "spectral": ("slope|spectral|alphaRatio|hammarberg", 17), "mfcc": ("mfcc", 16),
}  # fmt: skip
"""Pattern and number of features; each feature is of the first family whose pattern is found in its name."""


@pytest.fixture(scope="module")
def smile() -> opensmile.Smile:
    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def voice(rate: int, n: int, seed: int = 0) -> np.ndarray:
    """int16 samples of a tone that glides, with overtones and noise."""
    t = np.arange(n) / rate
    tone = sum(np.sin(2 * np.pi * k * (140 * t + 60 * t**2)) / k for k in range(1, 8))
    noise = np.random.default_rng(seed).standard_normal(n)
    return (9000 * tone + 300 * noise).astype(np.int16)


def features(table: pd.DataFrame) -> np.ndarray:
    return table.iloc[:, 2:-1].to_numpy()


def of_samples(smile: opensmile.Smile, samples: np.ndarray, rate: int) -> np.ndarray:
    return smile.process_signal(samples.astype(np.float32), rate).to_numpy()[0]


def test_features_are_those_of_opensmile_for_the_file(smile: opensmile.Smile, tmp_path: Path) -> None:
    rates = {"a.wav": 16_000, "b.wav": 8_000, "c.wav": 44_100, "d.wav": 16_000}
    for i, (name, rate) in enumerate(rates.items()):
        write_wav_file(tmp_path / name, voice(rate, int(0.3 * rate), seed=i), rate)
    write_manifest(tmp_path / "m.csv", list(rates), {"kind": list("xxyy")})
    ended: list[int] = []
    table = factors_of(tmp_path / "m.csv", progress=ended.append)
    own = pd.concat([smile.process_file(tmp_path / name) for name in rates])
    np.testing.assert_array_equal(features(table), own.to_numpy())
    assert list(table.columns) == ["clip", "audio_digest", *own.columns, "reason"]
    assert table["clip"].tolist() == list(rates)
    assert table["reason"].tolist() == [""] * 4
    digests = [hashlib.blake2b((tmp_path / name).read_bytes(), digest_size=8).digest() for name in rates]
    assert table["audio_digest"].tolist() == [int.from_bytes(digest, "little") for digest in digests]
    assert table["audio_digest"].dtype == np.uint64
    assert set(table.dtypes.iloc[2:-1]) == {np.dtype("float32")}
    assert table.attrs == {
        "feature_set": "eGeMAPSv02", "opensmile": opensmile.__version__, "unit_sec": None,
        "sample_rates": {"8000": 1, "16000": 2, "44100": 1},
    }  # fmt: skip
    assert ended == [1] * 4

    families = [next(f for f, (pattern, _) in FAMILIES.items() if re.search(pattern, name)) for name in own.columns]
    assert {family: families.count(family) for family in FAMILIES} == {f: n for f, (_, n) in FAMILIES.items()}
    assert len(families) == 88


def test_what_is_measured_is_what_an_encoder_is_given(smile: opensmile.Smile, tmp_path: Path) -> None:
    """Parts by start and stop, the mean of the channels, the first unit_sec seconds; no padding."""
    rate, a, b = 11_025, voice(11_025, 11_025), voice(11_025, 11_025, seed=1)
    stereo = np.stack([a, b], axis=1)
    sf.write(tmp_path / "s.wav", stereo, rate)
    mono = (a.astype(np.float32) + b.astype(np.float32)) / 2 / 32768
    manifest = pd.DataFrame({"path": "s.wav", "id": list("pqr"), "start": [None, 0.2, 0.5], "stop": [None, 0.45, None]})
    table = factors_of(manifest, tmp_path)
    parts = [mono, mono[2205:4961], mono[5512:]]  # 0.45 s are 4961.25 samples
    np.testing.assert_array_equal(features(table), [of_samples(smile, part, rate) for part in parts])
    assert table["audio_digest"].nunique() == 1

    cropped = [of_samples(smile, part[:3308], rate) for part in parts]  # 0.3 s are 3307.5; the second is shorter
    np.testing.assert_array_equal(features(factors_of(manifest, tmp_path, unit_sec=0.3)), cropped)
    assert len(read_clip(tmp_path, Clip(name="s", path="s.wav"), None, seconds=0.3).samples) == 3308
    stated = manifest.assign(unit_sec=0.3)
    found = factors_of(stated, tmp_path)
    np.testing.assert_array_equal(features(found), cropped)
    assert found.attrs["unit_sec"] == 0.3
    np.testing.assert_array_equal(features(factors_of(stated, tmp_path, unit_sec="native")), features(table))
    with pytest.raises(ValueError, match="unit_sec is -1; expected seconds above 0"):
        factors_of(manifest, tmp_path, unit_sec=-1)


def test_loud_samples_are_limited_and_do_not_change_sign(smile: opensmile.Smile, tmp_path: Path) -> None:
    """opensmile takes 16 bits, in which 1.0 has no room; decoders of lossy formats give more."""
    loud = 4 * voice(16_000, 4800).astype(np.float32) / 32768
    assert loud.max() > 1
    assert loud.min() < -1
    sf.write(tmp_path / "a.wav", loud, 16_000, subtype="FLOAT")
    limited = np.minimum(np.maximum(loud, -32768 / 32768), 32767 / 32768)
    table = factors_of(pd.DataFrame({"path": ["a.wav"]}), tmp_path)
    np.testing.assert_array_equal(features(table)[0], of_samples(smile, limited, 16_000))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Clips that are good, just long enough, just too short, torn, absent, and past their file's end."""
    for name, n in {"good": 4800, "enough": 960, "short": 959, "torn": 4800}.items():
        write_wav_file(tmp_path / f"{name}.wav", voice(16_000, n), 16_000)
    (tmp_path / "torn.wav").write_bytes((tmp_path / "torn.wav").read_bytes()[:3000])
    names = ["good", "enough", "short", "torn", "absent", "good"]
    times = {"start": [*[""] * 5, "2"], "stop": [*[""] * 5, "3"]}
    write_manifest(tmp_path / "m.csv", [f"{name}.wav" for name in names], times)
    return tmp_path / "m.csv"


def test_clips_without_features_have_a_reason_as_in_a_store(damaged: Path) -> None:
    table = factors_of(damaged)
    reasons = dict(zip(table["clip"], table["reason"], strict=True))
    assert reasons["short.wav"] == "too short: 959 samples at 16000 Hz, opensmile needs 0.06 s"
    np.testing.assert_array_equal(np.isnan(features(table)).all(axis=1), table["reason"] != "")
    np.testing.assert_array_equal(np.isfinite(features(table)).all(axis=1), table["reason"] == "")
    assert table.attrs["sample_rates"] == {"16000": 3}

    url = str(damaged.parent / "store")
    otoscope.capture(closed_form(), str(damaged), url, task="t", allow_missing=True, max_failures=1, threads=1)
    ds = otoscope.open(url, failed="keep")["t"].to_dataset()
    assert ds["clip"].values.tolist() == table["clip"].tolist()
    np.testing.assert_array_equal(ds["audio_digest"], table["audio_digest"])
    stored = dict(zip(ds["clip"].values.tolist(), ds["reason"].values.tolist(), strict=True))
    assert stored == reasons | {"short.wav": ""}
    assert all(stored[name] for name in ("torn.wav", "absent.wav", "good.wav#2-3"))


def test_the_command_writes_the_same_table_and_says_what_is_missing(damaged: Path) -> None:
    target = damaged.parent / "f.parquet"
    result = call("sae", "factors", damaged, "-o", target)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}: 88 factors of 2 clips, 4 failed\n"
    assert "6 clips in" in result.stderr
    assert "failed: absent.wav: no such file\n" in result.stderr
    read, table = pd.read_parquet(target), factors_of(damaged)
    pd.testing.assert_frame_equal(read, table)
    assert read.attrs == table.attrs
    again = damaged.parent / "again.parquet"
    done("sae", "factors", damaged, "-o", again)
    assert again.read_bytes() == target.read_bytes()

    write_wav_file(damaged.parent / "good.wav", voice(8_000, 4800), 8_000)
    assert "note: clips at 8000 Hz (1), 16000 Hz (2);" in call("sae", "factors", damaged, "-o", again).stderr


def test_mistakes_are_one_line_and_leave_nothing(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = damaged.parent
    write_manifest(folder / "none.csv", ["short.wav", "torn.wav"], {})
    none = r"none of 2 clips has factors, the first, short\.wav: too short: 959 .*; expected audio of at least 0\.06 s"
    refused(none, "sae", "factors", folder / "none.csv", "-o", folder / "f.parquet", watched=folder)
    refused("expected a name ending in .parquet", "sae", "factors", damaged, "-o", folder / "f.csv", watched=folder)
    refused(
        "no table .*absent.csv", "sae", "factors", folder / "absent.csv", "-o", folder / "f.parquet", watched=folder
    )

    monkeypatch.setitem(sys.modules, "opensmile", None)  # its import fails
    remedy = r"opensmile .*; expected it to be installed: pip install 'otoscope\[sae\]' .*not for commercial use"
    refused(remedy, "sae", "factors", damaged, "-o", folder / "f.parquet", watched=folder)
    assert len(call("sae", "factors", damaged, "-o", folder / "f.parquet").stderr.splitlines()) == 1

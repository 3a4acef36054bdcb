"""Laws of the synthetic corpora: repeatable, balanced, in tune, no aliases, neither trivial nor hopeless."""

import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otoscope.extract.audio.corpora import sounds, synth

SEED = 11
NOTES = [
    ("A0", 21, 27.5),
    ("C4", 60, 261.6256),
    ("A4", 69, 440.0),
    ("C6", 84, 1046.502),
    ("C8", 108, 4186.009),
]


def files_in(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    root = tmp_path_factory.mktemp("corpus")
    return root, synth.synthesise(root, seed=SEED, notes_per_octave=5, events_per_category=2)


def test_same_seed_same_bytes_other_seed_other_bytes(corpus: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    first = files_in(corpus[0])
    synth.synthesise(tmp_path / "again", seed=SEED, notes_per_octave=5, events_per_category=2)
    assert files_in(tmp_path / "again") == first
    synth.synthesise(tmp_path / "other", seed=SEED + 1, notes_per_octave=1, events_per_category=1)
    audio = [content for name, content in files_in(tmp_path / "other").items() if not name.endswith(".csv")]
    assert not set(audio) & set(first.values())


def test_asking_for_more_leaves_the_earlier_clips_as_they_are() -> None:
    few = [samples for samples, _ in synth.clips(3, {"fm": 1, "events": 1})]
    more = {
        (f["task"], f["octave"], f["event"]): s for s, f in synth.clips(3, {"events": 2, "fm": 2}) if f["number"] == 0
    }
    assert len(few) == len(more) == 19
    for samples, (_, factors) in zip(few, synth.clips(3, {"fm": 1, "events": 1}), strict=True):
        np.testing.assert_array_equal(samples, more[factors["task"], factors["octave"], factors["event"]])


def test_files_are_as_the_manifests_say(corpus: tuple[Path, dict[str, Path]]) -> None:
    root, manifests = corpus
    assert set(manifests) == {"additive", "fm", "events"}
    contents = list(files_in(root).values())
    assert len(set(contents)) == len(contents)  # no two clips are the same
    listed = []
    for task, manifest in manifests.items():
        assert manifest.parent == root
        rows = rows_of(manifest)
        assert list(rows[0])[:3] == ["path", "unit_sec", "split"]
        listed += [row["path"] for row in rows]
        assert {row["unit_sec"] for row in rows} == {"1.0"}
        assert {row["split"] for row in rows} == {"train", "test"}
        if task == "events":
            assert set(Counter(row["event"] for row in rows).values()) == {2}
            assert len({row["event"] for row in rows}) == 10
        else:
            assert Counter(row["octave"] for row in rows) == dict.fromkeys("012345678", 5)
            # timbre families take turns, so they are balanced within each octave
            assert set(Counter((row["octave"], row["timbre"]) for row in rows).values()) == {1}
    on_disk = {name for name in files_in(root) if not name.endswith(".csv")}
    assert sorted(listed) == sorted(on_disk)
    assert {Path(name).suffix for name in listed} == {".wav", ".flac"}
    for name in listed:
        info = soundfile.info(root / name)
        assert (info.frames, info.samplerate, info.channels) == (16_000, 16_000, 1)
        assert info.subtype == "PCM_16"


def test_the_default_set_is_large_enough_and_a_quarter_is_for_testing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(synth, "write_wav", lambda *_: None)
    monkeypatch.setattr(sounds, "in_room", lambda dry, *_, **__: dry)
    monkeypatch.setattr(sounds, "tone", lambda *_, **__: None)
    monkeypatch.setattr(sounds, "event", lambda *_: None)
    rows = [row for manifest in synth.synthesise(tmp_path).values() for row in rows_of(manifest)]
    assert len(rows) == 1590
    assert 0.2 < np.mean([row["split"] == "test" for row in rows]) < 0.3


def test_factors_say_what_was_drawn() -> None:
    for samples, factors in synth.clips(SEED, {"additive": 3, "events": 2}):
        assert samples.dtype == np.float32
        assert samples.shape == (16_000,)
        np.testing.assert_allclose(np.abs(samples).max(), 10 ** (float(factors["level_db"]) / 20), rtol=1e-5)
        note = factors["task"] != "events"
        assert (factors["articulation"] in sounds.ARTICULATIONS) == note
        assert (factors["event"] in sounds.EVENTS) != note
        assert factors["room"] in sounds.ROOMS
        if note:  # the octave of the key, within a quarter of a semitone
            key = round(float(factors["midi"]))
            assert abs(float(factors["midi"]) - key) <= 0.25
            assert key // 12 - 1 == int(str(factors["octave"]))
            assert 21 <= key <= 108


def test_a_wrong_question_is_refused() -> None:
    with pytest.raises(ValueError, match=r"additive, fm, events; found seed 1 and \{'piano': 2\}"):
        next(synth.clips(1, {"piano": 2}))
    with pytest.raises(ValueError, match="seed -1"):
        next(synth.clips(-1, {"fm": 2}))


def share_at(wave: np.ndarray, lines: np.ndarray, width: float) -> float:
    """Share of the energy within `width` Hz of any of the lines (Hz), by a plain Fourier transform."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    f = np.arange(len(power)) * 16_000 / len(wave)
    near = (np.abs(f[:, None] - lines) <= width).any(axis=1)
    return float(power[near].sum() / power.sum())


@pytest.mark.parametrize(("name", "midi", "hertz"), NOTES, ids=[note[0] for note in NOTES])
def test_an_additive_note_has_its_energy_on_the_harmonics_of_its_key(name: str, midi: int, hertz: float) -> None:
    for timbre in ("organ", "string", "brass", "reed"):
        wave = sounds.tone("additive", midi, timbre, np.random.default_rng(0))
        harmonics = np.arange(1, 49) * hertz
        assert share_at(wave, harmonics[harmonics < 8000], 5.0) > 0.999, timbre
        assert share_at(wave, harmonics[harmonics < 8000] * 2 ** (1 / 12), 2.0) < 0.5  # a semitone off
    organ = sounds.tone("additive", midi, "organ", np.random.default_rng(1))
    assert share_at(organ, np.array([hertz]), 5.0) > 0.05  # the fundamental itself is there


@pytest.mark.parametrize("timbre", sounds.TIMBRES)
@pytest.mark.parametrize("midi", [60, 84, 96, 108])
def test_an_fm_note_has_no_aliases(timbre: str, midi: int) -> None:
    """Chowning: lines at |fc + k fm|; whatever folds back at 8 kHz would lie elsewhere."""
    f0 = 440 * 2 ** ((midi + 0.2 - 69) / 12)  # detuned, so that aliases do not fall onto lines
    carrier = {"organ": 2.0, "brass": 3.0, "reed": 3.0}.get(timbre, 1.0)
    carrier = carrier if carrier * f0 < 8000 else 1.0
    modulator = {"reed": 2.0, "mallet": 3.5}.get(timbre, 1.0)
    k = np.arange(-200, 201)
    lines = np.unique(np.abs(carrier + k * modulator)) * f0
    lines = np.append(lines[lines < 8000], f0)
    for seed in range(5):
        wave = sounds.tone("fm", midi + 0.2, timbre, np.random.default_rng(seed), articulation="pluck")
        assert share_at(wave[2000:6000], lines, 60.0) > 1 - 1e-4  # after the attack, which widens every line

    # The check has teeth: the same formula straight at 16 kHz does fold back at the highest notes.
    t = np.arange(16_000) / 16_000
    naive = np.sin(2 * np.pi * carrier * f0 * t + 2.0 * np.sin(2 * np.pi * modulator * f0 * t))
    assert midi < 96 or share_at(naive[2000:6000], lines, 60.0) < 0.999


@pytest.mark.parametrize("method", ["additive", "fm"])
def test_vibrato_and_tremolo_do_what_their_names_say(method: str) -> None:
    """The analytic signal's frequency wanders by 20 to 70 cents with vibrato, its amplitude with tremolo."""
    found = {}
    for modulation in sounds.MODULATIONS:
        wave = sounds.tone(method, 108, "string", np.random.default_rng(2), modulation=modulation)
        spectrum = np.fft.fft(wave)
        spectrum[8001:] = 0
        inner = slice(6000, 14_000)
        analytic = np.fft.ifft(2 * spectrum)
        pitch = (np.diff(np.unwrap(np.angle(analytic))) * 16_000 / (2 * np.pi))[inner]
        loud = np.abs(analytic)[inner]
        found[modulation] = (1200 * np.log2(pitch.max() / pitch.min()), loud.max() / loud.min())
    assert found["none"][0] < 10
    assert found["none"][1] < 1.1
    assert 30 < found["vibrato"][0] < 150
    assert found["tremolo"][1] > 1.5


def test_level_and_noise_are_as_asked() -> None:
    rng = np.random.default_rng(5)
    dry = sounds.tone("additive", 60, "string", rng)
    clean = sounds.in_room(dry, rng, room="dry", noise="white", snr_db=200.0, level_db=-6.0)
    np.testing.assert_allclose(clean, dry / np.abs(dry).max() * 10 ** (-6 / 20), atol=1e-6)
    for noise in sounds.NOISES:
        noisy = sounds.in_room(dry, rng, room="dry", noise=noise, snr_db=10.0, level_db=-6.0).astype(np.float64)
        gain = (noisy @ dry) / (dry @ dry)
        rest = noisy - gain * dry
        np.testing.assert_allclose(
            10 * np.log10(gain**2 * (dry @ dry) / (rest @ rest)), 10.0, atol=0.7
        )  # noise and sound are not quite orthogonal


def test_a_hall_rings_longer_than_a_room() -> None:
    dry = np.zeros(16_000)
    dry[0] = 1.0
    late = {}
    for room in sounds.ROOMS:
        wave = sounds.in_room(dry, np.random.default_rng(6), room=room, noise="white", snr_db=120.0, level_db=0.0)
        late[room] = float((wave[8000:] ** 2).sum() / (wave**2).sum())
    assert late["dry"] < 1e-9
    assert late["room"] < 1e-4
    assert late["hall"] > 1e-4


@pytest.mark.parametrize("kind", sounds.EVENTS)
def test_events_are_sounds(kind: str) -> None:
    waves = np.stack([sounds.event(kind, np.random.default_rng(i)) for i in range(20)])
    assert np.isfinite(waves).all()
    assert (np.abs(waves).max(axis=1) > 0.01).all()
    assert len({wave.tobytes() for wave in waves}) == 20


def features(waves: list[np.ndarray]) -> np.ndarray:
    """Log energies in 40 bands that grow by a constant ratio: (clip, band)."""
    power = np.abs(np.fft.rfft(np.stack(waves), axis=1)) ** 2
    edges = np.geomspace(25, 8000, 41).astype(int)
    bands = [power[:, a : max(b, a + 1)].sum(axis=1) for a, b in pairwise(edges)]
    logs = np.log(np.stack(bands, axis=1) + 1e-9)
    return logs - logs.mean(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("task", "label", "n"), [("additive", "octave", 12), ("fm", "octave", 12), ("events", "event", 12)]
)
def test_categories_overlap_as_real_ones_do(task: str, label: str, n: int) -> None:
    """The nearest category centroid is often right and often wrong."""
    made = list(synth.clips(SEED, {task: n}))
    seen, names = features([samples for samples, _ in made]), np.array([str(f[label]) for _, f in made])
    learn = np.array([int(f["number"]) % 2 == 0 for _, f in made])
    known = np.unique(names)
    centres = np.stack([seen[learn & (names == name)].mean(axis=0) for name in known])
    distance = ((seen[~learn][:, None] - centres) ** 2).sum(axis=2)
    right = float((known[distance.argmin(axis=1)] == names[~learn]).mean())
    assert 2 / len(known) < right < 0.95

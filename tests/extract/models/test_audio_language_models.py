"""Qwen2-Audio from its folder: against the library's own class, and what does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import otoscope
from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import REPLAY, Batch, Rerunner
from otoscope.analysis.probe.head import head_probe
from otoscope.extract.capture import capture
from otoscope.extract.models import audio_language_model
from otoscope.extract.models.qwen2audio import Qwen2Audio
from otoscope.extract.models.registry import load_encoder, source_of
from otoscope.extract.models.tap import tap
from otoscope.extract.plan import origin_of
from otoscope.store.changes.tasks import stored_origin
from otoscope.store.neurons import NeuronSet

from ...support.audio_language_models import (
    RATE,
    WIDTH,
    WINDOW,
    as_tensor,
    by_library,
    extractor,
    library,
    sounds,
    write_folder,
)
from ...support.wav_corpora import write_wav_file

PROMPTS = ["{audio} he sounds sad?", "{audio} he sounds glad?", "very mad? {audio} \\nis", "is {audio} she sad"]
LENGTHS = (16_000, 7_345, 4_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return library(folder)


def close(found: Any, expected: Any, limit: float = 1e-5) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit * np.abs(expected).max())


def test_embedding_products_gates_and_logits_are_the_library_s(folder: Path, model: Any) -> None:
    assert len(list(folder.glob("*.safetensors"))) > 2
    products, gates = (load_encoder(f"{family}:{folder}") for family in ("qwen2audio", "qwen2audio-gate"))
    for samples in sounds(LENGTHS):
        for prompt in PROMPTS:
            output, seen = by_library_with_sites(model, folder, samples, prompt)
            waveform = as_tensor(samples)
            for encoder, kind in ((products, "product"), (gates, "gate")):
                for i, found in enumerate(mine(encoder, waveform, prompt)):
                    close(found, seen[kind, i])
                assert len(encoder.spans(len(samples), prompt)) == output.logits.shape[1]
            embedding = products(waveform, [prompt])[0]
            close(embedding @ model.lm_head.weight.detach().T, output.logits[0, -1])


def by_library_with_sites(model: Any, folder: Path, samples: np.ndarray, prompt: str) -> tuple[Any, dict[Any, Any]]:
    """The library's output, and of each layer what enters `down_proj` and what the gate gives, (token, neuron)."""
    seen: dict[tuple[str, int], Any] = {}

    def keep(kind: str, layer: int) -> Callable[..., None]:
        def hook(_module: Any, given: Any, output: Any) -> None:
            seen[kind, layer] = given[0][0] if kind == "product" else output[0]

        return hook

    hooks = []
    for i, layer in enumerate(model.model.language_model.layers):
        hooks.append(layer.mlp.down_proj.register_forward_hook(keep("product", i)))
        hooks.append(layer.mlp.act_fn.register_forward_hook(keep("gate", i)))
    output = by_library(model, folder, samples / 32768, prompt)
    for registered in hooks:
        registered.remove()
    return output, seen


def mine(encoder: Any, waveform: torch.Tensor, prompt: str) -> list[torch.Tensor]:
    """What the encoder's sites give of one clip, (token, neuron) each."""
    sites = [site.name for site in encoder.anatomy().sites]
    with tap(encoder.module, sites) as seen:
        encoder(waveform, [prompt])
    return [seen[site][0][0] for site in sites]


def test_the_front_end_is_the_library_s(folder: Path) -> None:
    features = load_encoder(f"qwen2audio:{folder}").module.features
    whole = extractor({"num_mel_bins": 16, "max_source_positions": 50})
    for samples in sounds(LENGTHS):
        padded = np.pad(samples / 32768, (0, WINDOW - len(samples))).astype(np.float32)
        expected = whole(samples / 32768, sampling_rate=RATE)["input_features"][0]
        close(features.log_mel(torch.from_numpy(padded)[None])[0], expected)


@pytest.mark.parametrize(("n_samples", "tokens"), [(321, 1), (480, 1), (800, 1), (801, 1), (16_000, 25), (15_999, 25)])
def test_tokens_of_a_sound_and_where_they_lie(folder: Path, model: Any, n_samples: int, tokens: int) -> None:
    encoder = load_encoder(f"qwen2audio:{folder}")
    layout = encoder.layout(n_samples, "is {audio} sad")
    frames = torch.tensor(-(-n_samples // 160))
    assert int(model.model.audio_tower._get_feat_extract_output_lengths(frames)[1]) == tokens
    assert layout == (3, tokens, 3)  # "is", " ", begin; end, " ", "sad"
    spans = encoder.spans(n_samples, "is {audio} sad")
    np.testing.assert_allclose(spans[3 : 3 + tokens, 0], 0.04 * np.arange(tokens))
    assert np.isnan(np.delete(spans[:, 0], range(3, 3 + tokens))).all()


def rows(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> pd.DataFrame:
    """Every sound with every prompt, in order of sound."""
    waves = sounds(lengths)
    for i, wave in enumerate(waves):
        write_wav_file(folder / f"{i}.wav", wave, RATE)
    return pd.DataFrame(
        [
            {"path": f"{i}.wav", "id": f"{i}-{k}", "prompt": prompt, "kind": "ab"[i % 2], "text": "xy"[k % 2]}
            for i in range(len(waves)) for k, prompt in enumerate(PROMPTS)
        ]
    )  # fmt: skip


def extract(table: pd.DataFrame, folder: Path, spec: str, **options: Any) -> Any:
    given: dict[str, Any] = {
        "task": "t", "threads": 1, "device": "cpu", "mean_dtype": "float32", "batch": 4,
        "keep": ("mean", "embedding", "hidden"), **options,
    }  # fmt: skip
    report = capture(spec, table, str(folder / "s"), audio_root=folder, **given)
    assert report.n_failed == 0
    return otoscope.open(str(folder / "s"))["t"].ds


def test_a_store_holds_the_last_token_and_the_tower_runs_once_for_each_sound(
    folder: Path, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, encoder = rows(tmp_path), load_encoder(f"qwen2audio:{folder}")
    module, ran = encoder.module, list[int]()
    module._kept.clear()
    monkeypatch.setattr(Qwen2Audio, "encode", counted(Qwen2Audio.encode, ran))
    ds = extract(table, tmp_path, f"qwen2audio:{folder}")
    assert sorted(n for n in ran if n in LENGTHS[1:]) == sorted(LENGTHS[1:])  # the fixed sound has 16,000, too
    assert stored_origin(str(tmp_path / "s"), "t").identity.frames == "last"
    assert (ds["frame_count"] == 1).all()
    for number, row in enumerate(table.itertuples()):
        samples = sounds(LENGTHS)[int(row.path[0])]
        output = by_library(model, folder, samples / 32768, row.prompt, output_hidden_states=True)
        close(ds["embedding"].values[number], output.hidden_states[-1][0, -1])  # after the last norm
        close(ds["hidden"].isel(clip=number).values[:2], [s[0, -1] for s in output.hidden_states[:2]])
        found = mine(encoder, as_tensor(samples), row.prompt)
        close(ds["mean"].isel(clip=number).values, np.stack([values[-1] for values in found]))


def counted(encode: Callable[..., Any], ran: list[int]) -> Callable[..., Any]:
    def count(self: Any, waveform: torch.Tensor) -> Any:
        ran.append(waveform.shape[1])
        return encode(self, waveform)

    return count


def test_kept_outputs_stay_within_their_bound_and_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(f"qwen2audio:{folder}")
    waves = [as_tensor(wave) for wave in sounds((8000,) * 6)]
    first = [encoder(wave, PROMPTS[:1]) for wave in waves]
    each = encoder.module.sound_tokens(waves[0]).nbytes
    monkeypatch.setattr(audio_language_model, "MAX_KEPT_BYTES", 2 * each)
    encoder.module._kept.clear()
    for _ in range(2):
        again = [encoder(wave, PROMPTS[:1]) for wave in waves]
        assert sum(kept.nbytes for kept in encoder.module._kept.values()) <= 2 * each
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    together = encoder(torch.cat(waves[:3]), PROMPTS[:2] * 1 + PROMPTS[:1])
    close(together, torch.cat([encoder(w, [p]) for w, p in zip(waves, [*PROMPTS[:2], PROMPTS[0]], strict=False)]))


def test_a_prompt_reads_only_what_comes_before(folder: Path) -> None:
    """Of a sound tokens before the text do not depend on it; of one behind the text they do."""
    encoder = load_encoder(f"qwen2audio:{folder}")
    wave = as_tensor(sounds((8000,))[0])
    sad, glad = (mine(encoder, wave, f"{{audio}} {word}") for word in ("sad", "glad"))
    n = len(encoder.spans(8000, "{audio} sad")) - 1
    for a, b in zip(sad, glad, strict=True):
        assert torch.equal(a[:n], b[:n])
        assert not torch.allclose(a[n], b[n])
    sad, glad = (mine(encoder, wave, f"{word} {{audio}}") for word in ("sad", "glad"))
    assert not torch.allclose(sad[1][-1], glad[1][-1])


@pytest.mark.parametrize("family", ["qwen2audio", "qwen2audio-gate"])
def test_a_replay_is_a_whole_pass(folder: Path, family: str) -> None:
    encoder = load_encoder(f"{family}:{folder}")
    some = NeuronSet(pairs=((0, 3), (1, 5), (1, 7)))
    asked = [
        Intervention(neurons=some),
        Intervention(neurons=some, mode="patch"),
        Intervention(neurons=some, keep=True),
    ]
    waves = torch.cat([as_tensor(wave) for wave in sounds((8000, 8000, 8000))])
    batch = Batch.of(encoder, waves, waves.flip(0), prompts=PROMPTS[:1] * 3)
    rerunner, whole = Rerunner(encoder, asked, frames="last"), Rerunner(encoder, asked, replay=False, frames="last")
    found, expected = rerunner(batch), whole(batch)
    assert (rerunner.method == REPLAY) == (family == "qwen2audio")
    assert np.abs(expected[1:] - expected[0]).max() > 0.01
    close(found, expected)
    assert np.array_equal(found[2, 1], found[0, 1])  # the middle clip is its own donor


def test_bfloat16_is_recorded_and_near(folder: Path, tmp_path: Path) -> None:
    table = rows(tmp_path, LENGTHS[1:2])
    spec, encoder = f"qwen2audio:{folder}", load_encoder(f"qwen2audio:{folder}")
    ds = extract(table, tmp_path, spec, precision="bfloat16", keep=("mean", "embedding"))
    assert stored_origin(str(tmp_path / "s"), "t").identity.precision == "bfloat16"
    exact = encoder(as_tensor(sounds(LENGTHS[1:2])[0]), PROMPTS[:1])[0]
    found = ds["embedding"].values[0]
    assert 1e-4 < np.abs(found - exact.numpy()).max() / np.abs(exact.numpy()).max() < 0.1


def test_the_head_s_rows_score_answers(folder: Path, model: Any) -> None:
    encoder = load_encoder(f"qwen2audio:{folder}")
    assert encoder.answers is not None
    answers = {"SAD": "sad", "GLAD": "glad", "ANG": "angry"}
    weight = encoder.answers(answers, [f"{prompt} " for prompt in PROMPTS])
    assert weight.shape == (3, WIDTH)
    probe = head_probe(weight, tuple(answers), identity="i", labelling="t:text")
    samples, prompt = sounds(LENGTHS)[1], f"{PROMPTS[0]} "
    embedding = encoder(as_tensor(samples), [prompt]).numpy()
    logits = probe.logits(embedding, np.zeros(1, np.int64))[0]
    whole = by_library(model, folder, samples / 32768, prompt).logits[0, -1]
    ids = [encoder.module.prompts.tokenizer.token_to_id(token) for token in ("sad", "glad", "ang")]
    close(logits, whole[ids])
    asked = [f"{prompt} " for prompt in PROMPTS]
    with pytest.raises(ValueError, match="answers 'angry' and 'ang' begin with the same token"):
        encoder.answers({"A": "angry", "B": "ang"}, asked)
    with pytest.raises(ValueError, match=r"answer '' changes the tokens of prompt '.*', or adds none"):
        encoder.answers({"A": "sad", "B": ""}, asked)
    with pytest.raises(ValueError, match=r"answer 'ounds' changes the tokens of prompt '\{audio\} s'"):
        encoder.answers({"A": "ounds", "B": "sad"}, ["{audio} s"])
    with pytest.raises(ValueError, match="2 rows of a head for 3 categories"):
        head_probe(weight[:2], tuple(answers), identity="i", labelling="t:text")


def changed(folder: Path, target: Path, change: Callable[[Path], object]) -> str:
    shutil.copytree(folder, target)
    change(target)
    return f"qwen2audio:{target}"


def in_config(**parts: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text())
        for name, value in parts.items():
            config[name] = {**config[name], **value} if isinstance(value, dict) else value
        file.write_text(json.dumps(config))

    return change


def without_a_tensor(folder: Path) -> None:
    file = next(file for file in sorted(folder.glob("*.safetensors")) if "audio_tower.conv1.bias" in load_file(file))
    tensors = load_file(file)
    del tensors["audio_tower.conv1.bias"]
    file.unlink()
    save_file(tensors, file)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "other family": (in_config(model_type="qwen2_5_omni"), "a model of type 'qwen2_5_omni'; qwen2audio: expects"),
    "experts": (in_config(text_config={"model_type": "qwen2_moe"}), "'qwen2_moe', a mixture of experts, which has no"),
    "other text": (in_config(text_config={"model_type": "llama"}), "text_config of type 'llama'; expected 'qwen2'"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json in .*; expected"),
    "torn tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json is not a tokenizer"),
    "other tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text(
            (folder / "tokenizer.json").read_text().replace("<|AUDIO|>", "<|audio|>")
        ),
        r"has no token <\|AUDIO\|>; expected this model's own",
    ),
    "a shard": (lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(), "lists '.*'; expected all shards"),
    "a tensor": (without_a_tensor, r"audio_tower.conv1.bias \(16,\) is missing"),
    "other sizes": (in_config(text_config={"intermediate_size": 40}), r"is \(48, 32\), expected \(40, 32\)"),
    "a torn shard": (
        lambda folder: sorted(folder.glob("*.safetensors"))[1].write_bytes(b"0" * 50), "is not a whole safetensors file"
    ),
    "front end": (in_config(audio_config={"max_source_positions": 100}), "chunk_length.*expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_folder_that_does_not_fit_is_refused_in_a_line(folder: Path, tmp_path: Path, case: str) -> None:
    change, message = WRONG[case]
    spec = changed(folder, tmp_path / "m", change)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


def test_prompts_and_sounds_that_do_not_fit(folder: Path) -> None:
    encoder = load_encoder(f"qwen2audio:{folder}")
    for prompt, message in (
        ("he sounds", r"has 0 \{audio\}; expected one"),
        ("{audio}{audio}", r"has 2 \{audio\}; expected one"),
        ("{audio} <|AUDIO|>", r"has 1 \{audio\}, and <\|AUDIO\|> itself; expected one"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.layout(8000, prompt)
    with pytest.raises(ValueError, match="a sound of 16001 samples; expected at most 16000"):
        encoder(torch.zeros(1, WINDOW + 1), PROMPTS[:1])


def test_only_what_is_needed_is_read_and_all_of_it_is_in_the_digest(folder: Path, tmp_path: Path) -> None:
    """Tensors beside the model, and the head, change neither; a weight of the tower does, and the tokenizer too."""
    spec = f"qwen2audio:{folder}"
    before = identity(spec)

    def scale(name: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            for file in folder.glob("*.safetensors"):
                tensors = load_file(file)
                if name in tensors:
                    tensors[name] = 1.5 * tensors[name]
                    file.unlink()
                    save_file(tensors, file)

        return change

    head = changed(folder, tmp_path / "head", scale("language_model.lm_head.weight"))
    assert source_of(head) != source_of(spec)
    assert not before.differences(identity(head))
    tower = changed(folder, tmp_path / "tower", scale("audio_tower.conv1.weight"))
    assert any("weights" in line for line in before.differences(identity(tower)))


def identity(spec: str) -> Any:
    return origin_of(load_encoder(spec), "last").identity

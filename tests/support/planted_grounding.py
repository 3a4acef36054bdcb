"""A crossed corpus of tones and questions, and a tiny Qwen2-Audio in whose last layer four neurons are planted.

Conventions: sounds and texts have the categories CATEGORIES. Of the last layer neuron SOUND tells whether the sound is
of the first category, TEXT whether the text is of the second, HALF sums both of the third; each writes the answer of
its category, as far as it reads. SILENT reads as SOUND does and writes nothing. What they read is fitted to the states
at the last token, by least squares; all other neurons, of all layers, read what was drawn and write hardly anything.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from otoscope.extract.audio.corpora.cross import cross
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.loader import Loader
from otoscope.extract.models.registry import load_encoder

from .audio_language_models import LAYERS, RATE, library, write_folder
from .wav_corpora import write_wav_file

CATEGORIES = ("sad", "glad", "mad")
ANSWERS = {"ANG": "mad", "HAP": "glad", "SAD": "sad"}
LABELS = tuple(ANSWERS)
FRAMES = ("he sounds {}", "he is {}", "What is {}", "heard {}")
SOUND, TEXT, HALF, SILENT = range(4)
PLANTED = [(LAYERS - 1, number) for number in range(4)]
SAMPLES = 4_000
GATE, WRITTEN = 4.0, 6.0


def write_corpus(
    folder: Path, per_class: int = 8, frames: tuple[str, ...] = FRAMES, samples: Mapping[str, int] | None = None,
    prompt: str = "{audio} QUESTION?",
) -> Path:  # fmt: skip
    """Sounds of two splits, of other speakers each, crossed with a question per frame: the manifest.

    samples: of sounds of a category, where they are not SAMPLES.
    """
    rng = np.random.default_rng(5)
    rows = []
    for k, label in enumerate(LABELS):
        for j in range(per_class):
            n = (samples or {}).get(label, SAMPLES)
            time = np.arange(n) / RATE
            tone = np.sin(2 * np.pi * (400 + 900 * k + 25 * rng.normal()) * time)
            wave = (6000 + 600 * rng.normal()) * tone + 300 * rng.standard_normal(n)
            name = f"{label}{j}"
            write_wav_file(folder / f"{name}.wav", np.round(wave).astype("<i2"), RATE)
            split = "train" if j < per_class // 2 else "test"
            rows.append({"path": f"{name}.wav", "emotion": label, "split": split, "speaker": f"{split}{j}"})
    pd.DataFrame(rows).to_csv(folder / "sounds.csv", index=False)
    prompts = [
        {"prompt": prompt.replace("QUESTION", frame.format(ANSWERS[label])), "text_class": label}
        for label in LABELS for frame in frames
    ]  # fmt: skip
    pd.DataFrame(prompts).to_csv(folder / "prompts.csv", index=False)
    cross(
        folder / "sounds.csv", folder / "prompts.csv", folder / "cross.csv", label="emotion", clips=per_class // 2,
        same=("speaker",),
    )  # fmt: skip
    return folder / "cross.csv"


@torch.inference_mode()
def embeddings(encoder: Any, corpus: Any, clips: Iterable[int]) -> np.ndarray:
    """What the encoder makes of some clips of a corpus, each by itself, (clip, embedding)."""
    plan: Any = SimpleNamespace(batch=1, unit_sec=None)
    loader, found = Loader(corpus.clips, encoder, plan), []
    for i in clips:
        clip = loader.load(0, corpus.clips.clip(int(i)))
        found.append(encoder(torch.from_numpy(clip.samples)[None], [clip.prompt]).double())
    return torch.cat(found).numpy()


def states(encoder: Any, corpus: Any) -> np.ndarray:
    """What goes into the last layer's neurons at the last token of each clip, (clip, width)."""
    found: list[torch.Tensor] = []
    norm = encoder.module.language_model.layers[LAYERS - 1].post_attention_layernorm
    hook = norm.register_forward_hook(lambda _module, _inputs, output: found.append(output[:, -1].double()))
    embeddings(encoder, corpus, range(len(corpus)))
    hook.remove()
    return torch.cat(found).numpy()


def plant(folder: Path, manifest: Path) -> Path:
    """A model's folder with the planted neurons, fitted to a crossed corpus."""
    text = {"intermediate_size": 256}
    write_folder(folder, text=text, shard="10MB")
    model = library(folder)
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.mlp.down_proj.weight *= 0.02  # whatever is swapped, answers hardly move by them
    model.save_pretrained(folder, max_shard_size="10MB")
    encoder, corpus = load_encoder(f"qwen2audio:{folder}"), read_manifest(manifest)
    x = states(encoder, corpus)
    of_sound, of_text = (
        np.stack([(corpus.labels[column] == label).to_numpy(float) for label in LABELS])
        for column in ("audio_class", "text_class")
    )
    reads = {SOUND: of_sound[0], TEXT: of_text[1], HALF: of_sound[2] + of_text[2], SILENT: of_sound[0]}
    prompts = corpus.clips.table["prompt"].unique().tolist()
    assert encoder.answers is not None
    head = encoder.answers(ANSWERS, prompts).astype(float)
    writes = {SOUND: 0, TEXT: 1, HALF: 2}

    def fitted(wanted: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(x, wanted, rcond=1e-4)[0]

    mlp = model.get_submodule(f"model.language_model.layers.{LAYERS - 1}.mlp")
    with torch.no_grad():
        for number, wanted in reads.items():
            mlp.gate_proj.weight[number] = torch.from_numpy(fitted(np.full(len(x), GATE))).float()
            mlp.up_proj.weight[number] = torch.from_numpy(fitted(wanted - wanted.mean())).float()
            column = np.zeros(head.shape[1])
            if number in writes:
                own = writes[number]
                column = head[own] - np.delete(head, own, axis=0).mean(axis=0)
                column *= WRITTEN / np.linalg.norm(column)
            mlp.down_proj.weight[:, number] = torch.from_numpy(column).float()
    model.save_pretrained(folder, max_shard_size="10MB")
    return folder


def extracted(manifest: Path, encoder: Any, url: str, **options: Any) -> str:
    """A store of the corpus, task "emotion"."""
    capture(encoder, manifest, url, task="emotion", threads=1, **{"batch": 64, **options})
    return url

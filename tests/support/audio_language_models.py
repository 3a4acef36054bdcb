"""Tiny Qwen2-Audio models of the library's own class, in folders as they are published, and what the library makes of
a sound in a prompt.

Conventions: sounds are int16 (sample) at 16 kHz; a window is 1 s. Words are tokens, so that prompts may be of unequal
layout.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

RATE, WINDOW, LAYERS, NEURONS, WIDTH = 16_000, 16_000, 2, 48, 32
AUDIO, BEGIN, END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
WORDS = ["\n", " ", "?", "sad", "glad", "mad", "he", "she", "sounds", "very", "is", "What", "heard", "in", "ang", "ry"]
TEXT: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": WIDTH, "intermediate_size": NEURONS, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 256,
    "rope_theta": 1e6,
}  # fmt: skip
SOUND: dict[str, Any] = {
    "model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "d_model": 16, "encoder_layers": 1,
    "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "max_source_positions": 50,
}  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """Single characters, the words made of them, and the special tokens."""
    letters = sorted({letter for word in WORDS for letter in word} | set("abcdefghijklmnopqrstuvwxyzW"))
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    tokenizer.add_special_tokens([AUDIO, BEGIN, END])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_folder(folder: Path, *, seed: int = 0, text: Any = None, sound: Any = None, shard: str = "40KB") -> Path:
    """A model's folder, weights drawn so that inputs matter."""
    folder.mkdir(exist_ok=True)
    write_tokenizer(folder)
    size = {"vocab_size": Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()}
    parts = {"audio_config": {**SOUND, **(sound or {})}, "text_config": {**TEXT, **size, **(text or {})}}
    token = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(AUDIO)
    model = transformers.Qwen2AudioForConditionalGeneration(
        transformers.Qwen2AudioConfig(**parts, audio_token_index=token)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = {"embed_tokens": 1.0}.get(name.split(".")[-2], 2.0 / value.shape[-1] ** 0.5)
            drawn = (spread if value.ndim > 1 else 0.1) * torch.randn(value.shape, generator=generator)
            value.copy_(1 + drawn if "norm" in name and name.endswith("weight") else drawn)
    model.save_pretrained(folder, max_shard_size=shard)
    extractor(parts["audio_config"]).save_pretrained(folder)
    return folder


def extractor(sound: Any) -> transformers.WhisperFeatureExtractor:
    seconds = sound["max_source_positions"] // 50
    return transformers.WhisperFeatureExtractor(feature_size=sound["num_mel_bins"], chunk_length=seconds)


def library(folder: Path) -> Any:
    """The library's own model of a folder."""
    return transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()


@torch.inference_mode()
def by_library(model: Any, folder: Path, samples: np.ndarray, prompt: str, **options: Any) -> Any:
    """What the library's processing and forward pass make of one sound (sample) in one prompt."""
    audio = model.config.audio_config
    features = extractor({"num_mel_bins": audio.num_mel_bins, "max_source_positions": audio.max_source_positions})
    found = features(samples, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt")
    frames = int(found["attention_mask"].sum())
    n = ((frames - 1) // 2 + 1 - 2) // 2 + 1
    text = prompt.replace("\\n", "\n").replace("{audio}", BEGIN + AUDIO * n + END)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return model(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        input_features=found["input_features"], feature_attention_mask=found["attention_mask"], **options,
    )  # fmt: skip


def sounds(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Tones of different height in noise, int16 (sample)."""
    rng = np.random.default_rng(seed)
    waves = []
    for i, n in enumerate(lengths):
        tone = np.sin(2 * np.pi * (300 + 350 * i) * np.arange(n) / RATE)
        waves.append(np.round(8000 * tone + 900 * rng.standard_normal(n)).astype("<i2"))
    return waves


def as_tensor(samples: np.ndarray) -> Tensor:
    """(1, sample) in [-1, 1]."""
    return torch.from_numpy(samples.astype(np.float32) / 32768)[None]

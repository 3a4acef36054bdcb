"""Tiny models of transformers in folders as they are published, and what the library's own modules make of a sound.

Conventions: weights are drawn so that activations differ much between neurons; sounds are int16 (sample).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from otoscope.extract.capture import capture
from otoscope.store.reader import open_store

from .wav_corpora import write_manifest, write_wav_file

transformers.utils.logging.disable_progress_bar()

LAYERS, WIDTH, NEURONS = 3, 32, 40
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": NEURONS,
}  # fmt: skip


def write_model(folder: Path, model: nn.Module, front_end: Mapping[str, Any], *, seed: int = 0) -> Path:
    """The model's folder, its weights redrawn; they are what `save_pretrained` writes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if value.ndim > 1 else 0.1
            drawn = spread * torch.randn(value.shape, generator=generator)
            value.copy_(1 + drawn if "norm" in name and name.endswith("weight") else drawn)
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(front_end))
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder: Path, change: Any) -> None:
    """Replace the tensors (name -> tensor) by what `change` makes of them."""
    file = folder / "model.safetensors"
    tensors = change(load_file(file))
    file.unlink()
    save_file(tensors, file)


def noise(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Noise whose loudness swells and fades, around a level that is not 0."""
    rng = np.random.default_rng(seed)
    return [
        np.round(300 + 6000 * np.sin(np.arange(n) / 700) * rng.standard_normal(n)).clip(-32768, 32767).astype("<i2")
        for n in lengths
    ]


def capture_sounds(spec: str, folder: Path, sounds: list[np.ndarray], rate: int, **options: Any) -> Any:
    """The dataset of a store made from these sounds as WAV files: mean and hidden in float32."""
    paths = [f"{i}.wav" for i in range(len(sounds))]
    for path, samples in zip(paths, sounds, strict=True):
        write_wav_file(folder / path, samples, rate)
    write_manifest(folder / "m.csv", paths, {"kind": ["ab"[i % 2] for i in range(len(sounds))]})
    given = {"keep": ("mean", "positive_frames", "embedding", "hidden"), "mean_dtype": "float32", **options}
    report = capture(spec, folder / "m.csv", str(folder / "s"), task="t", threads=1, device="cpu", **given)
    assert (report.n_ok, report.n_failed) == (len(sounds), 0)
    return open_store(str(folder / "s"))["t"].to_dataset().compute()


@torch.inference_mode()
def library_run(model: nn.Module, activations: Sequence[nn.Module], inputs: torch.Tensor) -> dict[str, Any]:
    """One forward pass: activation (frame, neuron) of each module, hidden states (frame, width), output."""
    seen: list[torch.Tensor] = []
    hooks = [part.register_forward_hook(lambda _m, _i, output: seen.append(output[0])) for part in activations]
    output = model(inputs, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return {"active": seen, "hidden": [state[0] for state in output.hidden_states], "last": output.last_hidden_state[0]}


def assert_close(found: Any, expected: Any) -> None:
    """max |a - b| <= 1e-5 max |b|, the tolerance promised across machines."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

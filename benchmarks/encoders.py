"""How far are captured activations from those of the library's own modules, in float32, from the waveform on?

Every family at full size with random weights, in a folder that the library wrote and that both load; a sound goes
through our front end and tap, and through the library's front end and hooks. Compared are all frames of all layers,
hidden states and the output. M2D, which is in no library, is compared with its arithmetic in float64 numpy.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tests.support import m2d_in_numpy as m2d_witness

from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.models.tap import match_sites, tap

from . import harness
from .harness import Figure, Measured

BOUND = 1e-5
SPEECH = {
    "hubert": ("Hubert", 16_000), "wavlm": ("WavLM", 16_000), "wav2vec2": ("Wav2Vec2", 16_000),
    "data2vec": ("Data2VecAudio", 16_000), "mert": ("Hubert", 24_000),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Size:
    layers: int
    width: int
    neurons: int
    seconds: float
    families: tuple[str, ...]


FULL = Size(layers=12, width=768, neurons=3072, seconds=2.0, families=(*SPEECH, "ast", "whisper", "m2d"))
SMALL = Size(layers=2, width=64, neurons=96, seconds=0.5, families=("hubert", "ast", "m2d"))


def sound(seconds: float, rate: int) -> np.ndarray:
    """Noise whose loudness swells, float32 (sample)."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.2 * np.sin(3 * t) * noise + 0.1 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def redraw(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that neither die out nor blow up over the layers, so that neurons differ as trained ones do."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
            drawn = spread * torch.randn(value.shape, generator=random)
            value.copy_(1 + drawn if "norm" in name and name.endswith("weight") else drawn)
    return model.eval()


def read_by_us(encoder: Encoder, wave: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Activations, hidden states and output (token, width) from one waveform."""
    sites, blocks = (match_sites(encoder.module, names) for names in (encoder.sites, encoder.transformer_layers))
    first: list[torch.Tensor] = []

    with (
        torch.inference_mode(),
        tap(encoder.module, sites) as seen,
        tap(encoder.module, blocks, read_inputs={blocks[0]: lambda hidden: first.append(hidden.clone())}) as out,
    ):
        output = encoder.module(encoder.prepare(torch.from_numpy(wave)[None]))
    hidden = [first[0], *(out[name][0][0] if isinstance(out[name][0], tuple) else out[name][0] for name in blocks)]
    last = output if isinstance(output, torch.Tensor) else output.last_hidden_state
    return {
        "activations": [seen[name][0][0].numpy() for name in sites],
        "hidden": [state[0].numpy() for state in hidden],
        "output": [last[0].numpy()],
    }


@torch.inference_mode()
def read_by_library(model: Any, activations: list[Any], inputs: torch.Tensor) -> dict[str, list[np.ndarray]]:
    seen: list[np.ndarray] = []
    hooks = [part.register_forward_hook(lambda _m, _i, out: seen.append(out[0].numpy())) for part in activations]
    output = model(inputs, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    hidden = [state[0].numpy() for state in output.hidden_states]
    return {"activations": seen, "hidden": hidden, "output": [output.last_hidden_state[0].numpy()]}


def pairs(family: str, folder: Path, size: Size) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(what, ours, theirs) for each quantity of each layer."""
    if family == "m2d":
        yield from m2d_pairs(folder, size)
        return
    rate = SPEECH.get(family, ("", 16_000))[1]
    wave = sound(size.seconds, rate)
    folder = folder / family
    model, front_end = write(family, folder, size, rate)
    inputs = front_end(wave, sampling_rate=rate, return_tensors="pt")
    layers = model.layers if family in ("ast", "whisper") else model.encoder.layers
    acts = {
        "ast": lambda layer: layer.mlp.activation_fn,
        "whisper": lambda layer: layer.activation_fn,
    }.get(family, lambda layer: layer.feed_forward.intermediate_act_fn)
    theirs = read_by_library(model, [acts(layer) for layer in layers], next(iter(inputs.values())))
    ours = read_by_us(load_encoder(f"{family}:{folder}"), wave)
    if family == "whisper":  # the library's last state is after the last norm, ours before; ours ends with the audio
        kept = len(ours["output"][0])
        theirs = {what: [values[:kept] for values in states] for what, states in theirs.items()}
        ours = {what: [values[:kept] for values in states] for what, states in ours.items()}
        ours["hidden"].pop(), theirs["hidden"].pop()
    for what, values in theirs.items():
        assert len(ours[what]) == len(values)
        for a, b in zip(ours[what], values, strict=True):
            yield what, a, b


def write(family: str, folder: Path, size: Size, rate: int) -> tuple[Any, Any]:
    """The model's folder, and the library's own model and front end."""
    heads = size.width // 64
    shape = {"hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": heads,
             "intermediate_size": size.neurons}  # fmt: skip
    front_end: Any
    if family == "whisper":
        config = transformers.WhisperConfig(
            d_model=size.width, encoder_layers=size.layers, encoder_attention_heads=heads, encoder_ffn_dim=size.neurons,
            decoder_layers=1, decoder_ffn_dim=64, decoder_attention_heads=heads, vocab_size=8, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        whole, front_end = redraw(transformers.WhisperModel(config)), transformers.WhisperFeatureExtractor()
        whole.save_pretrained(folder)
        front_end.save_pretrained(folder)
        return transformers.WhisperModel.from_pretrained(folder).encoder.eval(), front_end
    stem = "AST" if family == "ast" else SPEECH[family][0]
    model_class = getattr(transformers, f"{stem}Model")
    redraw(model_class(getattr(transformers, f"{stem}Config")(**shape))).save_pretrained(folder)
    if family == "ast":
        front_end = transformers.ASTFeatureExtractor()
    else:
        front_end = transformers.Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=True)
    front_end.save_pretrained(folder)
    model = model_class.from_pretrained(folder).eval()
    if family == "mert":
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "mert_model"}))
    return model, front_end


def m2d_pairs(folder: Path, size: Size) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    checkpoint = folder / "m2d_vit-80x608p16x16-made"
    checkpoint.mkdir()
    state = m2d_witness.encoder_state(
        depth=size.layers, width=size.width, hidden=size.neurons, n_patches=190, patch=(16, 16)
    )
    torch.save(state, checkpoint / "checkpoint-1.pth")
    encoder, wave = load_encoder(f"m2d:{checkpoint}"), sound(size.seconds, 16_000)
    ours = read_by_us(encoder, wave)
    log_mel = encoder.prepare(torch.from_numpy(wave)[None])[0].double().numpy()
    output, activations = m2d_witness.frame_features(state, log_mel, heads=size.width // 64, frames=608, grid=(5, 38))
    yield "output", ours["output"][0], output
    for a, b in zip(ours["activations"], activations, strict=True):
        yield "activations", a, b


def measure(scratch: Path, size: Size) -> Measured:
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(2)
    figures, raw = [], {}
    for family in size.families:
        worst: dict[str, float] = {}
        for what, ours, theirs in pairs(family, scratch, size):
            assert ours.shape == theirs.shape
            assert np.isfinite(ours).all()
            assert theirs.std() > 0
            difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            worst[what] = max(worst.get(what, 0.0), difference)
        against = "float64 numpy" if family == "m2d" else "the library's modules"
        figures.append(
            Figure(
                name=f"{family}: activations against {against}", value=worst["activations"], unit="", bound=BOUND,
                at_least=False, how=f"{size.layers} x {size.neurons} neurons, all frames of {size.seconds:g} s; "
                "largest difference over largest value of a layer, worst layer",
            )
        )  # fmt: skip
        raw[family] = worst
    return Measured(figures=figures, raw=raw)


def main() -> None:
    harness.main("encoders")


if __name__ == "__main__":
    main()

"""Qwen2-Audio: Whisper's shape of tower over 30 s, a linear projector, and Qwen2 as decoder.

Goal: what transformers' Qwen2AudioForConditionalGeneration computes of one sound in a prompt, up to the last norm.
Conventions: as in `audio_language_model`. A sound is filled with zeros to the window; its log-mel is Whisper's, of
which ceil(samples / 160) frames are its own; the tower sees no other. Two convolutions of stride 2, the second of which
is a mean, make a token of 40 ms. The sound stands between <|audio_bos|> and <|audio_eos|>.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .audio_language_model import AudioLanguageModel, Prompts, as_encoder
from .checkpoint import filled
from .encoder import Encoder
from .transformers_files import Folder, open_folder, transformers_part
from .whisper import FLOOR, HOP, N_FFT, RANGE, SAMPLE_RATE, Features

TOKEN = 4 * HOP  # samples
MIN_SAMPLES = 2 * HOP + 1  # of which there are three frames and one token
AROUND, PLACEHOLDER = ("<|audio_bos|>", "<|audio_eos|>"), "<|AUDIO|>"
# Where its parts are in the files, and here.
NAMES = {
    "audio_tower.": "audio_tower.",
    "multi_modal_projector.linear.": "multi_modal_projector.",
    "language_model.model.": "language_model.",
    "language_model.lm_head.": "lm_head.",
}


class Qwen2Audio(AudioLanguageModel):
    """Its tower, projector and decoder."""

    features: Features

    def __init__(self, audio: "object", text: "object") -> None:
        """audio, text: configurations of transformers."""
        super().__init__()
        library, decoder = (transformers_part(f".models.{name}.modeling_{name}") for name in ("qwen2_audio", "qwen2"))
        self.audio_tower = library.Qwen2AudioEncoder(audio)
        self.multi_modal_projector = nn.Linear(audio.d_model, text.hidden_size)  # type: ignore[attr-defined]
        self.language_model = decoder.Qwen2Model(text)

    def encode(self, waveform: Tensor) -> Tensor:
        """As `AudioLanguageModel.encode`."""
        window = self.prompts.window
        mel = self.features.log_mel(F.pad(waveform, (0, window - waveform.shape[1])))
        n_seen = (n_frames(waveform.shape[1]) - 1) // 2 + 1  # after the first stride of 2
        n = window // HOP // 2
        seen = (torch.arange(n, device=waveform.device) < n_seen).expand(1, 1, n, n)  # clip, head, query, key
        states = self.audio_tower(mel, attention_mask=seen).last_hidden_state
        tokens: Tensor = self.multi_modal_projector(states)[0, : n_tokens(waveform.shape[1])]
        return tokens.clone()  # not a view that keeps all of the window


def n_frames(n_samples: int) -> int:
    """Frames of log-mel that hold some of the sound."""
    return -(-n_samples // HOP)


def n_tokens(n_samples: int) -> int:
    """Tokens of a sound."""
    return ((n_frames(n_samples) - 1) // 2 + 1 - 2) // 2 + 1


def here(name: str) -> str | None:
    """What a tensor of the files is called here; None for one that is not needed."""
    return next((new + name.removeprefix(old) for old, new in NAMES.items() if name.startswith(old)), None)


def part_of(folder: Folder, name: str, kind: str) -> Folder:
    """The configuration of a part of the model. Raises ValueError where it is another kind of model."""
    config = folder.config.get(name)
    found = config.get("model_type", kind) if isinstance(config, dict) else None
    if not isinstance(config, dict) or found != kind:
        experts = ", a mixture of experts, which has no site for each neuron" if "moe" in str(found) else ""
        raise ValueError(
            f"{folder.path}/config.json has a {name} of type {str(found)[:60]!r}{experts}; expected {kind!r}, as "
            "Qwen2-Audio is published: wrap other models in a module: factory"
        )
    return Folder(path=folder.path, config=config, front_end=folder.front_end)


def load(path: str, family: str = "qwen2audio") -> Encoder:
    """Encoder from a folder of Qwen2-Audio; neurons by the family, "qwen2audio" or "qwen2audio-gate".

    Raises ImportError without transformers, FileNotFoundError for files that are not there, ValueError for another
    model, a front end or tokenizer that is not this model's, or weights that do not fit.
    """
    folder = open_folder(path, family.partition("-")[0])
    parts = part_of(folder, "audio_config", "qwen2_audio_encoder"), part_of(folder, "text_config", "qwen2")
    library = transformers_part()
    classes = library.Qwen2AudioEncoderConfig, library.Qwen2Config
    audio, text = (part.configuration(kind) for part, kind in zip(parts, classes, strict=True))
    window, n_mels = audio.max_source_positions * 2 * HOP, audio.num_mel_bins
    folder.check_front_end(
        sampling_rate=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, chunk_length=window / SAMPLE_RATE, feature_size=n_mels,
        dither=0,
    )  # fmt: skip
    prompts = Prompts(
        folder.path, around=AROUND, placeholder=PLACEHOLDER, vocabulary=text.vocab_size, window=window,
        n_tokens=n_tokens,
    )  # fmt: skip
    tensors = folder.lazy_tensors(here)
    own = tensors.only(lambda name: not name.startswith("lm_head."))
    model = filled(
        lambda: Qwen2Audio(audio, text), own, str(folder.path), "config.json and weights of one published model"
    )
    # What is no weight, and has no values where the model was made.
    model.language_model.rotary_emb = transformers_part(".models.qwen2.modeling_qwen2").Qwen2RotaryEmbedding(text)
    model.features, model.prompts = Features(n_mels), prompts
    return as_encoder(
        model, tensors, family=family, sample_rate=SAMPLE_RATE, samples=TOKEN, min_samples=MIN_SAMPLES,
        front_end={
            "kind": "log10-mel", "n_fft": N_FFT, "hop": HOP, "n_mels": n_mels, "floor": FLOOR, "range": RANGE,
            "window": window, "token_samples": TOKEN,
        },
    )  # fmt: skip

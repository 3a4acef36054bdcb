"""Audio language models: a sound and a text become tokens, which a decoder reads one after the other.

Goal: what adapters of such models share: prompts as tokens around a sound, the tower's outputs, computed once for each
distinct sound, the decoder as module, and its own head.
Conventions: frames are tokens, (clip, token, width); those of text have no time. In a prompt {audio} stands where the
sound is, and \\n for a line break, as cells of a manifest have none; special tokens are written out. Neurons are the
inputs of each layer's `down_proj`, act(gate) * up, which an Identity before it makes a site; or act(gate) alone, as
LAPE counts. The embedding is the last token's after the last norm: the head takes it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...messages import one_line, quoted
from ..audio.clip import AUDIO
from .checkpoint import Tensors, shown
from .encoder import Encoder, spans_of_all_bands
from .transformers_files import TOKENIZER, transformers_part

MAX_KEPT_BYTES = 2**28  # of outputs of the tower
MAX_TOKENIZER_BYTES = 100_000_000
PRODUCT, GATE = "product", "gate"
SITES = {
    PRODUCT: ("language_model.layers.*.mlp.down_proj.neurons",),
    GATE: ("language_model.layers.*.mlp.act_fn",),
}
MAPS = {PRODUCT: ("language_model.layers.*.mlp.down_proj.map",), GATE: ()}
LAYERS = ("language_model.layers.*",)


class Prompts:
    """Prompts as token ids, by a folder's tokenizer.json.

    around: the texts before and after the sound's tokens. placeholder: the token that stands for each of those.
    vocabulary: how many tokens the model has. window: the longest sound, in samples.
    n_tokens: samples -> tokens of a sound.
    Raises ImportError without transformers, FileNotFoundError for a folder without tokenizer, ValueError for one that
    is damaged, or another model's.
    """

    def __init__(
        self, folder: Path, *, around: tuple[str, str], placeholder: str, vocabulary: int, window: int,
        n_tokens: Callable[[int], int],
    ) -> None:  # fmt: skip
        transformers_part()  # which brings the other
        from tokenizers import Tokenizer

        file = folder / TOKENIZER
        if not file.is_file():
            raise FileNotFoundError(f"no {TOKENIZER} in {folder}; expected the folder as it was published")
        if file.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ValueError(f"{file} has more than {MAX_TOKENIZER_BYTES} bytes; fetch it again")
        content = file.read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            self.tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"{file} is not a tokenizer ({shown(one_line(error))}); fetch it again") from error
        self.sound, self.placeholder = f"{around[0]}{placeholder}{around[1]}", placeholder
        self.vocabulary, self.window, self.n_tokens = vocabulary, window, n_tokens
        found = self.tokenizer.token_to_id(placeholder)
        if found is None or self._ids(placeholder) != [found]:
            raise ValueError(f"{file} has no token {placeholder}; expected this model's own: fetch it again")
        self.token: int = found
        self.around = lru_cache(maxsize=4096)(self._around)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def _around(self, prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids before and after the sound's. Raises ValueError for a prompt in which the sound is not once."""
        ids = self._ids(self.text(prompt))
        n = prompt.count(AUDIO)
        if n != 1 or ids.count(self.token) != 1:
            beside = f", and {self.placeholder} itself" if n == 1 else ""
            raise ValueError(
                f"prompt {quoted(prompt)} has {n} {AUDIO}{beside}; expected one, where the sound stands: correct it"
            )
        if max(ids) >= self.vocabulary:
            raise ValueError(
                f"{TOKENIZER} knows token {max(ids)} and the model {self.vocabulary} tokens; expected those of one "
                "published model"
            )
        at = ids.index(self.token)
        return tuple(ids[:at]), tuple(ids[at + 1 :])

    def text(self, prompt: str) -> str:
        """What the model reads, one placeholder where the sound is."""
        return prompt.replace("\\n", "\n").replace(AUDIO, self.sound)

    def layout(self, n_samples: int, prompt: str) -> tuple[int, int, int]:
        """Tokens before the sound, of it and after it. Raises ValueError for a sound that is longer than a window."""
        if n_samples > self.window:
            raise ValueError(f"a sound of {n_samples} samples; expected at most {self.window}, as the tower takes")
        before, after = self.around(prompt)
        return len(before), self.n_tokens(n_samples), len(after)

    def ids(self, n_samples: int, prompt: str) -> list[int]:
        """Token ids of a whole prompt."""
        before, after = self.around(prompt)
        return [*before, *[self.token] * self.n_tokens(n_samples), *after]

    def spans(self, n_samples: int, prompt: str, *, samples: int, sample_rate: int) -> np.ndarray:
        """Spans (token, 4), each token of the sound `samples` long; times NaN for text."""
        before, n, after = self.layout(n_samples, prompt)
        t0 = np.full(before + n + after, np.nan)
        t0[before : before + n] = np.arange(n) * samples / sample_rate
        return spans_of_all_bands(t0, t0 + samples / sample_rate, sample_rate)

    def first_tokens(self, answers: Mapping[str, str], prompts: Iterable[str]) -> list[int]:
        """The first token of each answer, written right behind a prompt.

        Raises ValueError for answers that are empty, that share a first token, that change the prompt's own tokens, or
        that begin otherwise behind another prompt.
        """
        first: dict[str, tuple[int, str]] = {}
        for prompt in dict.fromkeys(prompts):
            ids = self._ids(self.text(prompt))
            for answer in answers.values():
                both = self._ids(self.text(prompt) + answer.replace("\\n", "\n"))
                if both[: len(ids)] != ids or len(both) == len(ids):
                    raise ValueError(
                        f"answer {quoted(answer)} changes the tokens of prompt {quoted(prompt)}, or adds none; "
                        "expected one that begins a token of its own, maybe with a space: reword one of them"
                    )
                token, other = first.setdefault(answer, (both[len(ids)], prompt))
                if token != both[len(ids)]:
                    raise ValueError(
                        f"answer {quoted(answer)} begins with other tokens behind {quoted(other)} and "
                        f"{quoted(prompt)}; expected one: let the prompts end alike"
                    )
        shared: dict[int, str] = {}
        for answer in answers.values():
            before = shared.setdefault(first[answer][0], answer)
            if before is not answer:
                raise ValueError(
                    f"answers {quoted(before)} and {quoted(answer)} begin with the same token; expected answers that "
                    "their first tokens tell apart: reword one of them"
                )
        return list(shared)


class AudioLanguageModel(nn.Module, ABC):
    """Token embeddings (clip, token, width) to states after the last norm (clip, token, width).

    A family's own has `language_model`, a decoder of transformers without its head, and gives a sound's tokens by
    `encode`. What it prepares is for nobody else: `prepare` keeps outputs of `encode`.
    """

    language_model: nn.Module
    prompts: Prompts

    def __init__(self) -> None:
        super().__init__()
        self._kept: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()

    def forward(self, embeddings: Tensor) -> Tensor:
        """A pass of the decoder, in which each token sees itself and those before it."""
        states: Tensor = self.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return states

    @abstractmethod
    def encode(self, waveform: Tensor) -> Tensor:
        """Tokens (token, width) of one sound (1, sample)."""

    def prepare(self, waveforms: Tensor, prompts: Sequence[str]) -> Tensor:
        """Token embeddings (clip, token, width) of sounds (clip, sample) in prompts (clip) of one layout."""
        n_samples = waveforms.shape[1]
        before, n, _ = self.prompts.layout(n_samples, prompts[0])
        ids = torch.tensor([self.prompts.ids(n_samples, prompt) for prompt in prompts], device=waveforms.device)
        embeddings: Tensor = self.language_model.get_input_embeddings()(ids)  # type: ignore[operator]
        for row, waveform in zip(embeddings, waveforms, strict=True):
            row[before : before + n] = self.sound_tokens(waveform[None])
        return embeddings

    def sound_tokens(self, waveform: Tensor) -> Tensor:
        """Tokens (token, width) of one sound (1, sample), computed alone, so that neighbours change no last bit.

        Those of the sounds that came last are kept, as far as MAX_KEPT_BYTES hold them.
        """
        kind = waveform.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        digest = hashlib.sha256(waveform.detach().cpu().numpy().tobytes()).digest()
        key = digest, str(waveform.device), precision
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        with torch.inference_mode(False), torch.no_grad():  # they stay when this pass is over
            tokens = self.encode(waveform.clone())
        self._kept[key] = tokens
        while sum(kept.nbytes for kept in self._kept.values()) > MAX_KEPT_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return tokens


def with_products(decoder: nn.Module) -> None:
    """Make the input of each layer's `down_proj` the output of a module: Sequential(neurons=Identity, map=Linear)."""
    for layer in decoder.layers:  # type: ignore[union-attr]
        parts = OrderedDict(neurons=nn.Identity(), map=layer.mlp.down_proj)
        layer.mlp.down_proj = nn.Sequential(parts)


def last_token(states: Tensor) -> Tensor:
    """(clip, token, width) -> (clip, width)."""
    return states[:, -1]


def head_rows(tensors: Tensors, prompts: Prompts) -> Callable[[Mapping[str, str], Iterable[str]], np.ndarray]:
    """What `Encoder.answers` asks for, of a head that is a linear map without bias: rows of "lm_head.weight", or of the
    embeddings, with which it is tied where it is not there."""

    def answers(texts: Mapping[str, str], asked: Iterable[str]) -> np.ndarray:
        name = "lm_head.weight" if "lm_head.weight" in tensors else "language_model.embed_tokens.weight"
        numbers = prompts.first_tokens(texts, asked)
        if max(numbers) >= tensors.shape(name)[0]:
            raise ValueError(f"the model's head has {tensors.shape(name)[0]} tokens, and an answer another; reword it")
        rows: np.ndarray = tensors.rows(name, numbers).float().numpy()
        return rows

    return answers


def as_encoder(
    model: AudioLanguageModel, tensors: Tensors, *, family: str, sample_rate: int, samples: int, min_samples: int,
    front_end: Mapping[str, Any],
) -> Encoder:  # fmt: skip
    """The encoder of a model.

    tensors: its files'. family: ends in "-gate" for act(gate) as neurons. samples: of a token of a sound.
    """
    kind, prompts = GATE if family.endswith(f"-{GATE}") else PRODUCT, model.prompts
    if kind == PRODUCT:
        with_products(model.language_model)

    def spans(n_samples: int, prompt: str) -> np.ndarray:
        return prompts.spans(n_samples, prompt, samples=samples, sample_rate=sample_rate)

    return Encoder(
        module=model.eval(),
        sample_rate=sample_rate,
        sites=SITES[kind],
        prepare=model.prepare,
        prompted=True,
        embed=last_token,
        frame_spans=spans,
        input_length=prompts.layout,
        transformer_layers=LAYERS,
        maps=MAPS[kind],
        min_samples=min_samples,
        max_samples=prompts.window,
        name=family,
        front_end={**front_end, "tokenizer": prompts.digest, "sound": prompts.sound, "neurons": kind},
        answers=head_rows(tensors, prompts),
    )

"""How near do pairs of sounds and prompts come to what an audio language model must compute of them?

Qwen2-Audio's classes with random weights and a tower of 30 s, a crossed corpus from WAV files to a committed store,
against one whole forward pass per pair. What must be computed are the tower's passes, once for each sound, and the
decoder's, in the batches that extraction makes: they are timed alone, and their sum is the limit.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tests.support.audio_language_models import as_tensor, sounds, write_folder
from tests.support.wav_corpora import write_wav_file

from otoscope.extract.audio.corpora.cross import cross
from otoscope.extract.audio.corpus import Corpus
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.forward import arithmetic
from otoscope.extract.loader import LoadedClip, Loader
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.plan import clip_table, make_plan
from otoscope.store.blocks import Block

from . import harness
from .harness import Figure, Measured, median_ratio
from .throughput import Interleaved

RATE = 16_000
WORDS = ("he sounds", "she sounds", "is he", "is she", "What is heard in", "very")
FEELINGS = ("sad", "glad", "mad", "angry")


@dataclass(frozen=True, kw_only=True)
class Size:
    sounds: int
    """Of four categories."""
    blocks: int
    seconds: float
    batch: int
    whole: int
    """Pairs of each block that are run whole."""
    text: dict[str, Any]
    sound: dict[str, Any]


FULL = Size(
    sounds=48, blocks=8, seconds=2.5, batch=32, whole=3,
    text={
        "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    sound={
        "num_mel_bins": 128, "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536, "max_source_positions": 1500,
    },
)  # fmt: skip
SMALL = Size(sounds=8, blocks=2, seconds=0.3, batch=8, whole=1, text={}, sound={})


def write_pairs(folder: Path, size: Size) -> Path:
    """The crossed corpus: every sound with four feelings in six wordings each."""
    names = [f"{i:02d}.wav" for i in range(size.sounds)]
    for name, wave in zip(names, sounds([round(size.seconds * RATE)] * size.sounds), strict=True):
        write_wav_file(folder / name, wave, RATE)
    pd.DataFrame({"path": names, "kind": ["abcd"[i % 4] for i in range(size.sounds)]}).to_csv(
        folder / "sounds.csv", index=False
    )
    rows = [(f"{{audio}} {words} {feeling}?", feeling) for feeling, words in product(FEELINGS, WORDS)]
    pd.DataFrame(rows, columns=["prompt", "text_class"]).to_csv(folder / "prompts.csv", index=False)
    cross(folder / "sounds.csv", folder / "prompts.csv", folder / "pairs.csv", label="kind", clips=size.sounds // 4)
    return folder / "pairs.csv"


def parts_of(encoder: Encoder, corpus: Corpus, size: Size, block: int) -> dict[str, Callable[[Block], None]]:
    """What a block takes: its sounds through the tower, its pairs through the decoder, and some pairs whole."""
    model: Any = encoder.module
    n, threads = round(size.seconds * RATE), torch.get_num_threads()
    waves = dict(zip([f"{i:02d}.wav" for i in range(size.sounds)], sounds([n] * size.sounds), strict=True))
    table = corpus.clips.table
    plan = make_plan(
        None, corpus, clip_table(corpus), unit_sec=None, variables=None, mean_dtype=None, block=block,
        batch=size.batch, threads=threads,
    )  # fmt: skip
    loader = Loader(corpus.clips, encoder, plan)

    def clips_of(block: Block) -> list[LoadedClip]:
        found = table.iloc[block.clips]
        return [
            LoadedClip(index=i, samples=as_tensor(waves[path])[0].numpy(), digest=0, prompt=prompt)
            for i, (path, prompt) in enumerate(zip(found["path"], found["prompt"], strict=True))
        ]

    def tower(block: Block) -> None:
        with torch.no_grad(), arithmetic(threads):
            for path in table["path"].iloc[block.clips].unique():
                model.encode(as_tensor(waves[path]))

    def decoder(block: Block) -> None:
        """Of other token embeddings than those of the clips, which it does not matter to."""
        with torch.no_grad(), arithmetic(threads):
            for batch in loader.batches(clips_of(block)):
                layout: Any = loader.layout(batch[0])
                encoder.run(torch.zeros(len(batch), sum(layout), model.multi_modal_projector.out_features))

    def whole(block: Block) -> None:
        with torch.no_grad(), arithmetic(threads):
            for clip in clips_of(block)[: size.whole]:
                model._kept.clear()
                encoder(torch.from_numpy(clip.samples)[None], [str(clip.prompt)])
        model._kept.clear()

    return {"tower": tower, "decoder": decoder, "bare": whole}


def measure(scratch: Path, size: Size) -> Measured:
    logging.getLogger("otoscope").setLevel(logging.WARNING)
    corpus = read_manifest(write_pairs(scratch, size))
    encoder = load_encoder(f"qwen2audio:{write_folder(scratch / 'model', text=size.text, sound=size.sound)}").to("cpu")
    block = len(corpus) // size.blocks
    executor = Interleaved(**parts_of(encoder, corpus, size, block))
    capture(
        encoder, corpus, str(scratch / "store.zarr"), task="t", block=block, batch=size.batch,
        threads=torch.get_num_threads(), device="cpu", executor=executor,
    )  # fmt: skip
    seconds = {name: [of_block[name][0] for of_block in executor.seconds] for name in executor.seconds[0]}
    limit = [tower + decoder for tower, decoder in zip(seconds["tower"], seconds["decoder"], strict=True)]
    share = median_ratio(limit, seconds["extraction"])
    each = [whole / size.whole * block for whole in seconds["bare"]]
    how = (
        f"{len(corpus) // 24} sounds of {size.seconds:g} s x 24 prompts through a tower of 30 s and a decoder of "
        f"random weights, from WAV files to a committed store in blocks of {block} pairs, batches of {size.batch}: "
        "speed against one whole forward pass per pair, over what the tower's passes (one for each sound) and the "
        f"decoder's alone would allow; median of {size.blocks} ratios, block by block in turn"
    )
    name = "pairs of sounds and prompts: speed against the limit from the parts' own times"
    figure = Figure(name=name, value=share, unit="", bound=0.85, at_least=True, how=how)
    raw = {**seconds, "times_faster": median_ratio(each, seconds["extraction"]), "pairs": len(corpus)}
    raw["times_faster_at_most"] = median_ratio(each, limit)
    raw["pairs_per_second"] = block / float(np.median(seconds["extraction"]))
    return Measured(figures=[figure], raw=raw)


def main() -> None:
    harness.main("pairs")


if __name__ == "__main__":
    main()

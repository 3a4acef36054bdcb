"""Stores and audio made up for the benchmarks, with the structure of categories, in the real format.

Conventions: 12 layers of 3,072 neurons as ViT-Base has; category of clip i is i % n_categories.
"""

from pathlib import Path

import numpy as np

from otoscope.extract.audio.decoding import write_wav
from otoscope.store.blocks import Block, blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.schema import FAILED, OK
from otoscope.store.writer import write_block

LAYERS, WIDTH = 12, 3072
TASK, LABEL = "made", "category"


def write_store(
    url: str, *, n_clips: int, n_categories: int, keep: tuple[str, ...] = (), block: int = 2048, n_labels: int = 1,
    failed: float = 0.0,
) -> None:  # fmt: skip
    """A finished store of random bits and, if kept, means of their sign, and positive frames where there are any.

    A neuron is active in 62.5 % of the clips of about half of the categories and in 25 % of the others'.
    n_labels: columns of labels, the first one the categories, the others of one category more each.
    failed: share of the clips that failed, here and there.
    """
    names = [f"clip {i:06}" for i in range(n_clips)]
    category = np.arange(n_clips) % n_categories
    clips = ClipTable(
        name=names,
        path=[f"audio/{name}.wav" for name in names],
        start=np.full(n_clips, np.nan),
        stop=np.full(n_clips, np.nan),
        labels={
            LABEL if i == 0 else f"{LABEL} {i}": [f"category {c}" for c in np.arange(n_clips) % (n_categories + i)]
            for i in range(n_labels)
        },
    )
    identity = Identity(
        encoder="synthetic", weights="0" * 64, front_end={"sample_rate": 16_000},
        sites=tuple((f"blocks.{layer}.mlp.act", WIDTH) for layer in range(LAYERS)),
        embedding=768, hidden=(0, 0), frames="audio",
    )  # fmt: skip
    plan = Plan(n_clips=n_clips, **clips.digests, block=block, batch=32, threads=1, unit_sec=None, variables=kept(keep))
    create(url)
    add_task(url, TASK, Origin(identity=identity, check=np.zeros(identity.n_check)), plan, clips)
    rng, lost = np.random.default_rng(0), np.random.default_rng(1).random(n_clips) < failed
    liked = rng.integers(0, 256, (LAYERS, n_categories, WIDTH // 8), dtype=np.uint8)
    for each in blocks(TASK, n_clips, block):
        values = block_values(each, category, liked, rng, keep=keep)
        gone = lost[each.clips]
        values["active_bits"][:, gone] = 0
        values["frame_count"][gone] = 0
        values["reason"][gone] = "made up"
        if "mean" in keep:
            values["mean"][:, gone] = np.nan
        if "positive_frames" in keep:
            values["positive_frames"][:, gone] = 0
        write_block(url, each, values, np.where(gone, FAILED, OK).astype(np.uint8), "made up")


def block_values(
    block: Block, category: np.ndarray, liked: np.ndarray, rng: np.random.Generator, *, keep: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Bits: (layer, clip, byte), active where two coins say so, or one coin and the category's liking."""
    shape = (LAYERS, len(block), WIDTH // 8)
    first, second, third = (np.frombuffer(rng.bytes(np.prod(shape)), np.uint8).reshape(shape) for _ in range(3))
    bits = (first & second) | (third & liked[:, category[block.clips]])
    values = {
        "active_bits": bits,
        "frame_count": np.full(len(block), 320, np.uint16),
        "reason": np.full(len(block), "", dtype=object),
        "audio_digest": np.zeros(len(block), np.uint64),
    }
    if "positive_frames" in keep:
        active = np.unpackbits(bits, axis=-1, bitorder="little")
        frames = np.frombuffer(rng.bytes(active.size), np.uint8).reshape(active.shape)
        values["positive_frames"] = active * (frames.astype(np.uint16) + 1)
    if "mean" in keep:
        # A float16's sign is its highest bit; without the second highest, its size is below 2.
        n_values = int(np.prod(shape)) * 8
        pattern = np.frombuffer(rng.bytes(2 * n_values), np.uint16).reshape(*shape[:2], WIDTH) & 0x3FFF | 1
        silent = np.unpackbits(~bits, axis=-1, bitorder="little").astype(np.uint16)
        values["mean"] = (pattern | silent << 15).view(np.float16)
    return values


def write_audio(folder: Path, *, n_clips: int, seconds: float, n_categories: int, sample_rate: int = 16_000) -> Path:
    """WAV files of noise over one short pattern per category, and their manifest, whose path is returned."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    n_samples = round(seconds * sample_rate)
    patterns = rng.normal(0, 0.03, (n_categories, 16)).repeat(25, axis=1)
    rows = [f"path,{LABEL}"]
    for i in range(n_clips):
        sound = np.resize(patterns[i % n_categories], n_samples) + rng.normal(0, 0.5, n_samples)
        write_wav(folder / "audio" / f"{i:06}.wav", sound.astype(np.float32), sample_rate)
        rows.append(f"audio/{i:06}.wav,category {i % n_categories}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest

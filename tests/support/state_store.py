"""Stores of hidden states that are known, by the store's own writer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from otoscope.store.blocks import blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.schema import FAILED, OK
from otoscope.store.writer import write_block


def planted_states(n_states: int, n_clips: int, width: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    """Float32 (state, clip, width): sums of a few of 2 x width directions, about a mean of so many times the spread."""
    rng = np.random.default_rng(seed)
    states = np.empty((n_states, n_clips, width), np.float32)
    for state in states:
        directions = rng.normal(size=(2 * width, width))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        amounts = np.where(rng.random((n_clips, 2 * width)) < 3 / (2 * width), rng.uniform(0.5, 1.5), 0.0)
        mean = rng.normal(size=width) * spread / np.sqrt(width)
        state[:] = amounts @ directions + mean + rng.normal(0, 0.02, (n_clips, width))
    return states


def write_states(
    url: str | Path,
    states: np.ndarray,
    *,
    block: int,
    failed: Sequence[int] = (),
    labels: Mapping[str, list[str]] | None = None,
    n_blocks: int | None = None,
    means: np.ndarray | None = None,
    order: Sequence[int] | None = None,
) -> None:
    """A store with a task "t" of hidden states (state, clip, width) and one layer of 8 neurons.

    failed: clips that could not be extracted. n_blocks: that are written [all]. means: of other neurons (layer, clip,
    neuron), which are kept. order: in which clips stand in the store, by number.
    """
    order = list(range(states.shape[1])) if order is None else list(order)
    states, labels = states[:, order], {name: [of[i] for i in order] for name, of in (labels or {}).items()}
    n_states, n, width = states.shape
    kept_means = means is not None
    means = np.zeros((1, n, 8), np.float32) if means is None else means[:, order].astype(np.float32)
    clips = ClipTable(
        name=[f"clip {i:05}" for i in order], path=[f"{i}.wav" for i in order], start=np.full(n, np.nan),
        stop=np.full(n, np.nan), labels=dict(labels or {}),
    )  # fmt: skip
    sites = tuple((f"layer {i}", means.shape[2]) for i in range(len(means))) if kept_means else (("a", 8),)
    identity = Identity(
        encoder="made", weights="00", front_end={"sample_rate": 16_000}, sites=sites, embedding=4,
        hidden=(n_states, width), frames="audio",
    )  # fmt: skip
    plan = Plan(
        n_clips=n, **clips.digests, block=block, batch=4, threads=1, unit_sec=None,
        variables=kept(("hidden",) + ("mean",) * kept_means),
        mean_dtype="float32" if kept_means else "float16",
    )  # fmt: skip
    create(str(url))
    add_task(str(url), "t", Origin(identity=identity, check=np.zeros(identity.n_check, "f4")), plan, clips)
    status = np.full(n, OK, np.uint8)
    status[list(failed)] = FAILED
    for each in list(blocks("t", n, block))[:n_blocks]:
        own = status[each.clips]
        values = {
            "active_bits": np.packbits((means[:, each.clips] > 0) & (own == OK)[:, None], axis=-1, bitorder="little"),
            "frame_count": np.where(own == OK, 5, 0).astype(np.uint16),
            "hidden": np.where((own == OK)[:, None], states[:, each.clips], np.float32(np.nan)),
            "reason": np.array(["" if ok else "made up" for ok in own == OK], object),
            "audio_digest": np.zeros(len(each), np.uint64),
        }
        if kept_means:
            values["mean"] = np.where((own == OK)[:, None], means[:, each.clips], np.float32(np.nan))
        write_block(str(url), each, values, own, "made")

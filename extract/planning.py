"""What an extraction is to do, settled before a byte is written: encoder in its place, identity, clips, plan.

Goal: whatever does not fit together, or with the store, is refused while nothing has happened yet.
Conventions: options given, else those stored, else the defaults.
Contents: `placed`, `identify`, `clip_table`, `make_plan`, `describe`, `refuse_impossible`, `refuse_absent`.
"""

import os
from typing import Any

import numpy as np
import torch

from ..store.blocks import default_block_size
from ..store.group import one_line
from ..store.provenance import Identity, Plan, kept
from ..store.schema import sizes
from ..store.writer import ClipTable
from .corpus import Corpus
from .encoder import Encoder, weights_digest
from .tap import match_sites

DEFAULT_BATCH = 32


def placed(encoder: Encoder, device: str | None) -> Encoder:
    """The encoder on a device, by default CUDA where there is one. Raises ValueError where that cannot be."""
    try:
        return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # torch's, for devices unknown, absent or full
        raise ValueError(
            f"no place for encoder {encoder.name} on device {device!r} ({one_line(error)}); expected cpu, or a device "
            "that this torch and machine have"
        ) from error


def identify(encoder: Encoder, frames: str) -> Identity:
    """The identity of stores made with an encoder on its present device."""
    try:
        anatomy = encoder.anatomy()
    except RuntimeError as error:  # what torch raises; ours are ValueError and LookupError
        raise ValueError(
            f"encoder {encoder.name} failed on a second of silence ({one_line(error)}); expected a module that takes "
            "what its `prepare` gives: check both"
        ) from error
    device = encoder.silence(1).device
    n_blocks = len(match_sites(encoder.module, encoder.blocks)) if encoder.blocks else 0
    return Identity(
        encoder=encoder.name,
        weights=weights_digest(encoder.module),
        front_end={"sample_rate": encoder.sample_rate, **encoder.front_end},
        sites=tuple((site.name, site.width) for site in anatomy.sites),
        embedding=anatomy.embedding,
        hidden=(n_blocks + 1, anatomy.hidden) if n_blocks else (0, 0),
        frames=frames,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )


def clip_table(corpus: Corpus) -> ClipTable:
    """A corpus as the store records it: without the audio root, which may differ from machine to machine."""
    table = corpus.table
    return ClipTable(
        name=table["name"].tolist(),
        path=table["path"].tolist(),
        start=table["start"].to_numpy(float),
        stop=table["stop"].to_numpy(float),
        labels={str(column): corpus.labels[column].tolist() for column in corpus.labels},
    )


def make_plan(stored: Plan | None, corpus: Corpus, clips: ClipTable, **given: Any) -> Plan:
    """The plan: options given, else those stored, else the defaults."""
    defaults: dict[str, Any] = {
        "unit_sec": corpus.unit_sec or "native",
        "variables": kept(None),
        "mean_dtype": "float16",
        "block": default_block_size(len(clips)),
        "batch": DEFAULT_BATCH,
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    for name, default in defaults.items():
        if given[name] is None:
            given[name] = getattr(stored, name) if stored else default
    if given["unit_sec"] == "native":
        given["unit_sec"] = None
    return Plan(n_clips=len(clips), names=clips.digest, **given)


def describe(url: str, task: str, identity: Identity, plan: Plan) -> str:
    """One paragraph on what a plan stores and how large it is."""
    each = {name: n / plan.n_clips for name, n in sizes(identity, plan).items()}
    parts = ", ".join(f"{name} {_bytes(n)}" for name, n in each.items())
    length = "native length" if plan.unit_sec is None else f"{plan.unit_sec:g} s"
    return (
        f"{url} task {task}: {plan.n_clips} clips of {length} in {-(-plan.n_clips // plan.block)} blocks "
        f"of {plan.block}; {len(identity.sites)} layers, {sum(width for _, width in identity.sites)} neurons; "
        f"{_bytes(sum(each.values()) * plan.n_clips)} on disk, per clip {parts}"
    )


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def refuse_impossible(encoder: Encoder, identity: Identity, plan: Plan) -> None:
    """Raise ValueError for a plan that the encoder cannot carry out."""
    if "hidden" in plan.variables and not identity.hidden[0]:
        raise ValueError(
            f"encoder {encoder.name} names no blocks, so it has no hidden states to keep; expected `blocks=` on the "
            "encoder: leave hidden out of --keep"
        )
    if "hidden" in plan.variables:
        widths = encoder.hidden_widths()
        if len(set(widths)) > 1:
            raise ValueError(
                f"hidden states of encoder {encoder.name} are {_listed(widths)} wide (the first block's input, then "
                "each block's output); expected one width: name blocks of one width as `blocks=`, or leave hidden out "
                "of --keep"
            )
    if plan.unit_sec is not None and plan.unit_sec * encoder.sample_rate < encoder.min_samples:
        raise ValueError(
            f"--unit-sec {plan.unit_sec:g} is {round(plan.unit_sec * encoder.sample_rate)} samples at "
            f"{encoder.sample_rate} Hz; encoder {encoder.name} needs at least {encoder.min_samples}: "
            "choose a longer unit"
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def refuse_absent(corpus: Corpus, committed: np.ndarray | None) -> None:
    """Raise FileNotFoundError where files of clips are absent that are not yet committed (bool per stored clip)."""
    clips = None if committed is None else [i for i in range(len(corpus)) if i >= len(committed) or not committed[i]]
    absent = corpus.absent(clips)
    if absent:
        names = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise FileNotFoundError(
            f"{len(absent)} of {len(corpus)} audio files are not under {corpus.root} ({names}); expected every "
            "file of the manifest: give the folder that holds them as --audio-root, or --allow-missing to record them "
            "as failed"
        )

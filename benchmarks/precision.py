"""What do 16 bits save, and what do they cost?

Encoders of ViT-Base's size with random weights, and the bundled ones, which were trained. Time: passes over inputs in
memory, in each precision in turn. Price, against float32: the same notes extracted in each precision, their means, the
bits mean > 0, the neurons that two rules select for octaves, and the accuracy of a probe.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from otoscope.analysis.probe.probe import fit_probe
from otoscope.analysis.probe.splits import make_splits
from otoscope.analysis.selection.check import NothingSelected
from otoscope.analysis.selection.labellings import labellings, select_neurons
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.corpora.synth import synthesise
from otoscope.extract.capture import capture
from otoscope.extract.forward import arithmetic
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.extract.models.registry import load_encoder
from otoscope.store.provenance import PRECISIONS
from otoscope.store.reader import open_store

from . import harness
from .encoders import Size as Shape
from .encoders import redraw, write
from .harness import Figure, Measured, interleaved, median_ratio

LABEL, SPLIT = "octave", "split"
RULES = {
    "contrast": Selection(),
    "lape": Selection(percentile=5.0),
    "lape, frames": Selection(percentile=5.0, reading="frame"),
}
AST_FRAMES = 128  # of its input, in place of 1024: the notes are short


@dataclass(frozen=True, kw_only=True)
class Size:
    notes_per_octave: int
    layers: int
    width: int
    neurons: int
    batch: int
    repetitions: int
    families: tuple[str, ...] = ("tiny-ssl", "tiny-sl", "m2d", "ast", "hubert")


FULL = Size(notes_per_octave=30, layers=12, width=768, neurons=3072, batch=32, repetitions=5)
SMALL = Size(
    notes_per_octave=8, layers=1, width=64, neurons=96, batch=2, repetitions=1, families=("tiny-ssl", "ast")
)  # fmt: skip


def encoder_of(family: str, folder: Path, size: Size) -> Encoder:
    """The bundled encoder, or one of the size with random weights."""
    if family.startswith("tiny-"):
        return load_encoder(family).to("cpu")
    torch.manual_seed(0)
    heads = size.width // 64
    if family == "m2d":
        model = redraw(M2D(depth=size.layers, width=size.width, heads=heads, hidden=size.neurons))
        return as_encoder(model).to("cpu")  # type: ignore[arg-type]
    if family == "ast":
        config = transformers.ASTConfig(
            hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=heads,
            intermediate_size=size.neurons, max_length=AST_FRAMES,
        )  # fmt: skip
        redraw(transformers.ASTModel(config)).save_pretrained(folder)  # type: ignore[operator]
        transformers.ASTFeatureExtractor(max_length=AST_FRAMES).save_pretrained(folder)
    else:
        shape = Shape(layers=size.layers, width=size.width, neurons=size.neurons, seconds=0, families=())
        write(family, folder, shape, 16_000)
    return load_encoder(f"{family}:{folder}").to("cpu")


def seconds_of_passes(encoder: Encoder, size: Size, threads: int) -> dict[str, list[float]]:
    """Of a batch of clips of a second, whose inputs are in memory."""
    inputs = encoder.prepare(0.1 * torch.randn(size.batch, encoder.sample_rate))

    def passes(precision: str) -> Any:
        run = encoder.at(precision).run
        return lambda: run(inputs)

    with torch.inference_mode(), arithmetic(threads):
        cases = {precision: passes(precision) for precision in PRECISIONS}
        interleaved(cases, 1)  # warm
        return interleaved(cases, size.repetitions)


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What one precision gave: means (layer, neuron, clip), neurons selected (category, layer, neuron) by rule."""

    means: np.ndarray
    selected: dict[str, np.ndarray]
    accuracy: float

    @staticmethod
    def of(url: str) -> "Extracted":
        """Of a store's only task."""
        (one,) = labellings({"s": open_store(url)}, [f"t:{LABEL}"])
        selected = {}
        for rule, how in RULES.items():
            try:
                member = select_neurons(one, how).selection["member"]
                selected[rule] = member.transpose("category", "layer", "neuron").values
            except NothingSelected:  # random weights, whose neurons are all on, or all off
                selected[rule] = np.zeros((1, 1, 1), bool)
        codes = one.ds.otoscope.codes(LABEL)
        categories = tuple(map(str, codes.attrs["categories"]))
        parts, names = one.ds.otoscope.label(SPLIT).values.astype(str), [str(name) for name in one.ds["clip"].values]
        splits = make_splits(parts, codes.values, names)
        embedding = one.ds["embedding"].values
        probe = fit_probe(embedding, codes.values, splits, categories=categories, identity="", labelling=one.name)
        tested = splits.test_fold >= 0
        found = probe.logits(embedding[tested], splits.test_fold[tested]).argmax(axis=-1)
        return Extracted(
            means=one.ds["mean"].transpose("layer", "neuron", "clip").values, selected=selected,
            accuracy=float((found == codes.values[tested]).mean()),
        )  # fmt: skip


def price(found: Extracted, exact: Extracted) -> dict[str, Any]:
    """What a precision moved: shares, and errors of the means over the largest mean of a layer, the worst layer's."""
    off = np.abs(found.means - exact.means)
    largest = np.abs(exact.means).max(axis=(1, 2))
    moved: dict[str, Any] = {
        "means_largest_error": float((off.max(axis=(1, 2)) / largest).max()),
        "means_rms_error": float(np.sqrt((off**2).mean() / (exact.means**2).mean())),
        "bits_flipped": float(((found.means > 0) != (exact.means > 0)).mean()),
        "probe_accuracy": [exact.accuracy, found.accuracy],
    }
    for rule in RULES:
        ours, theirs = found.selected[rule], exact.selected[rule]
        changed, either = (ours != theirs).any(axis=0).sum(), (ours | theirs).any(axis=0).sum()
        moved[f"{rule}_changed"] = [int(changed), int(either)]
    return moved


def measure(scratch: Path, size: Size) -> Measured:
    logging.getLogger("otoscope").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    manifest = synthesise(scratch / "audio", notes_per_octave=size.notes_per_octave, events_per_category=1)["additive"]
    figures, raw = [], {}
    for family in size.families:
        encoder = encoder_of(family, scratch / family, size)
        seconds = seconds_of_passes(encoder, size, threads)
        found = {}
        for precision in PRECISIONS:
            url = str(scratch / f"{family}-{precision}.zarr")
            how: dict[str, Any] = {"task": "t", "device": "cpu", "threads": threads, "mean_dtype": "float32"}
            capture(encoder, manifest, url, precision=precision, **how)
            found[precision] = Extracted.of(url)
        lower = [precision for precision in PRECISIONS if precision != "float32"]
        ratios = {precision: median_ratio(seconds[precision], seconds["float32"]) for precision in lower}
        costs = {precision: price(found[precision], found["float32"]) for precision in lower}
        raw[family] = {"seconds": seconds, "ratios": ratios, "costs": costs}
        bundled, n_clips = family.startswith("tiny-"), found["float32"].means.shape[2]
        what = "bundled" if bundled else f"{size.layers} x {size.neurons} neurons, random weights"
        flipped = Figure(
            name=f"{family}: bits that bfloat16 flips", value=100 * costs["bfloat16"]["bits_flipped"], unit="%",
            bound=1.0, at_least=False, how=f"{what}, {n_clips} notes of 1 s, mean > 0 against float32",
        )  # fmt: skip
        passes = Figure(
            name=f"{family}: a pass in bfloat16 against float32", value=ratios["bfloat16"], unit="times", bound=0.7,
            at_least=False, how=f"{what}, {size.batch} clips of 1 s, {threads} threads; median of {size.repetitions} "
            "ratios",
        )  # fmt: skip
        figures += [flipped] if bundled else [passes, flipped]  # small matrices gain nothing
    return Measured(figures=figures, raw=raw)


def main() -> None:
    harness.main("precision")


if __name__ == "__main__":
    main()

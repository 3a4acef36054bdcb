"""What do 16 bits save, and what do they cost?

Encoders of the published sizes with random weights, and the bundled ones, which were trained. Speed: notes from WAV
files to committed blocks, against the bare pass in the same precision and the bare pass in float32; one block of each
in turn. Price, against float32: the means of the same notes, the bits mean > 0, the neurons that three rules select for
octaves, and the accuracy of a probe. On a processor without instructions for 16 bits, whose passes take several times
those in float32, notes are few and shorter, and the large encoders are left out in float16.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from otoscope.analysis.probe.probe import fit_probe
from otoscope.analysis.probe.splits import make_splits
from otoscope.analysis.selection.check import NothingSelected
from otoscope.analysis.selection.labellings import labellings, select_neurons
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.corpora.synth import synthesise
from otoscope.extract.audio.manifest import corpus_of
from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.extract.models.registry import load_encoder
from otoscope.store.provenance import PRECISIONS
from otoscope.store.reader import open_store

from . import harness
from .encoders import Size as Shape
from .encoders import redraw, write
from .harness import Figure, Measured, median_ratio, recorded
from .throughput import Interleaved, bare_pass

LABEL, SPLIT = "octave", "split"
RULES = {
    "contrast": Selection(),
    "lape": Selection(percentile=5.0),
    "lape, frames": Selection(percentile=5.0, reading="frame"),
}
AST_FRAMES = 128  # of its input, in place of 1024: the notes are short
FLAGS = {"bfloat16": {"avx512_bf16", "amx_bf16", "bf16"}, "float16": {"avx512_fp16", "amx_fp16", "fphp"}}
"""What Linux calls the instructions, on x86 and on Arm."""


@dataclass(frozen=True, kw_only=True)
class Family:
    layers: int
    width: int
    neurons: int
    seconds: float
    """Notes of a second are filled with zeros up to that."""


BASE: dict[str, int] = {"layers": 12, "width": 768, "neurons": 3072}
BUNDLED: dict[str, Family | None] = {"tiny-ssl": None, "tiny-sl": None}


@dataclass(frozen=True, kw_only=True)
class Size:
    notes_per_octave: int
    """That the bundled encoders run on."""
    block: int
    """Notes of a block, and of a batch."""
    blocks: int
    """That the others run on."""
    families: Mapping[str, Family | None]


def can(precision: str) -> bool:
    """Whether this processor has instructions for it."""
    words = set(Path("/proc/cpuinfo").read_text().split())
    return precision == "float32" or bool(words & FLAGS[precision])


FAST = can("bfloat16")
FULL = Size(
    notes_per_octave=20, block=36 if FAST else 9, blocks=3 if FAST else 2,
    families={
        **BUNDLED, "m2d": Family(**BASE, seconds=5.0 if FAST else 1.0), "ast": Family(**BASE, seconds=1.0),
        "hubert": Family(**BASE, seconds=2.0 if FAST else 1.0),
        "whisper": Family(layers=4, width=384, neurons=1536, seconds=1.0),
    },
)  # fmt: skip
SMALL = Size(
    notes_per_octave=8, block=9, blocks=2,
    families={"tiny-ssl": None, "ast": Family(layers=1, width=64, neurons=96, seconds=1.0)},
)  # fmt: skip


def encoder_of(name: str, shape: Family | None, folder: Path) -> Encoder:
    """The bundled encoder, or one of a shape with random weights."""
    if shape is None:
        return load_encoder(name).to("cpu")
    torch.manual_seed(0)
    heads = shape.width // 64
    if name == "m2d":
        model = redraw(M2D(depth=shape.layers, width=shape.width, heads=heads, hidden=shape.neurons))
        return as_encoder(model).to("cpu")  # type: ignore[arg-type]
    if name == "ast":
        config = transformers.ASTConfig(
            hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=heads,
            intermediate_size=shape.neurons, max_length=AST_FRAMES,
        )  # fmt: skip
        redraw(transformers.ASTModel(config)).save_pretrained(folder)  # type: ignore[operator]
        transformers.ASTFeatureExtractor(max_length=AST_FRAMES).save_pretrained(folder)
    else:
        sizes = Shape(layers=shape.layers, width=shape.width, neurons=shape.neurons, seconds=0, families=())
        write(name, folder, sizes, 16_000)
    return load_encoder(f"{name}:{folder}").to("cpu")


def extract(
    encoder: Encoder, notes: pd.DataFrame, folder: Path, url: str, precision: str, block: int, seconds: float
) -> dict[str, list[float]]:
    """Notes into a store; seconds of its blocks, and of bare passes over them in this precision and in float32."""
    corpus, threads = corpus_of(notes.drop(columns="unit_sec"), folder), torch.get_num_threads()
    bare = {p: bare_pass(encoder.at(p), corpus, block, seconds) for p in {precision, "float32"}}
    executor = Interleaved(bare[precision], float32=bare["float32"])
    capture(
        encoder, corpus, url, task="t", unit_sec=seconds, block=block, batch=block, precision=precision, device="cpu",
        threads=threads, mean_dtype="float32", executor=executor,
    )  # fmt: skip
    return {name: [of_block[name][0] for of_block in executor.seconds] for name in executor.seconds[0]}


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


def speed(seconds: Mapping[str, Mapping[str, list[float]]], precision: str) -> dict[str, float]:
    """Of what `extract` gave by precision: share of the own bare pass; times float32's of the pass, of all."""
    found, exact = seconds[precision], seconds["float32"]
    # What is not in turn is joined by what is: the bare pass in float32.
    whole = median_ratio(found["extraction"], found["float32"]) * median_ratio(exact["bare"], exact["extraction"])
    return {
        "share": median_ratio(found["bare"], found["extraction"]),
        "pass_against_float32": median_ratio(found["bare"], found["float32"]),
        "extraction_against_float32": whole,
    }


def measure(scratch: Path, size: Size) -> Measured:
    logging.getLogger("otoscope").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    manifest = synthesise(scratch / "audio", notes_per_octave=size.notes_per_octave, events_per_category=1)["additive"]
    notes = pd.read_csv(manifest, dtype={LABEL: str})
    few = notes.groupby(LABEL).head(-(-size.block * size.blocks // notes[LABEL].nunique()))
    figures = []
    raw: dict[str, Any] = {"instructions": {precision: can(precision) for precision in FLAGS}, "families": {}}
    for name, shape in size.families.items():
        encoder, seconds, found = encoder_of(name, shape, scratch / name), {}, {}
        for precision in PRECISIONS:
            if shape is not None and precision == "float16" and not can(precision):
                continue
            url = str(scratch / f"{name}-{precision}.zarr")
            about = (notes, len(notes) // 3, 1.0) if shape is None else (few, size.block, shape.seconds)
            seconds[precision] = extract(encoder, about[0], manifest.parent, url, precision, about[1], about[2])
            found[precision] = Extracted.of(url)
        lower = list(found)[1:]
        shares = {precision: speed(seconds, precision) for precision in lower}
        costs = {precision: price(found[precision], found["float32"]) for precision in lower}
        n_clips, anatomy = found["float32"].means.shape[2], encoder.anatomy()
        raw["families"][name] = {
            "clips": n_clips, "neurons": sum(site.width for site in anatomy.sites), "layers": len(anatomy.sites),
            "seconds": seconds, "speed": shares, "costs": costs,
        }  # fmt: skip
        what = "bundled" if shape is None else f"{shape.layers} x {shape.neurons} neurons, random weights"
        how = f"{what}, {n_clips} notes of 1 s, mean > 0 against float32"
        figures.append(
            Figure(name=f"{name}: bits that bfloat16 flips", value=100 * costs["bfloat16"]["bits_flipped"], unit="%",
                   bound=1.0, at_least=False, how=how)
        )  # fmt: skip
        if shape is None:
            continue  # small matrices gain nothing, and passes of milliseconds are no measure
        how = (
            f"{what}, {n_clips} notes filled up to {shape.seconds:g} s, WAV files to committed blocks of {size.block}; "
            f"median of {len(seconds['bfloat16']['bare'])} ratios"
        )
        figures.append(
            Figure(name=f"{name}: extraction in bfloat16 against its own bare pass", value=shares["bfloat16"]["share"],
                   unit="", bound=0.9, at_least=True, how=how)
        )  # fmt: skip
    return Measured(figures=figures, raw=raw)


def precision_table(results: Path = harness.RESULTS) -> str:
    """Markdown: a row per encoder and precision, from what was recorded."""
    record = recorded("precision", results)
    head = (
        "encoder", "", "pass / float32", "extraction / float32", "of its own pass", "means", "bits",
        "neurons selected", "probe",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, found in record["raw"]["families"].items():
        for precision, cost in found["costs"].items():
            rate = found["speed"][precision]
            times = [f"{rate[key]:.2f}" for key in ("pass_against_float32", "extraction_against_float32", "share")]
            before, after = (100 * accuracy for accuracy in cost["probe_accuracy"])
            changed = ", ".join(f"{cost[f'{rule}_changed'][0]}/{cost[f'{rule}_changed'][1]}" for rule in RULES)
            cells = [
                f"{name}, {found['layers']} layers", precision, *times, f"{100 * cost['means_largest_error']:.2g} %",
                f"{100 * cost['bits_flipped']:.2g} %", changed, f"{before:.0f} to {after:.0f} %",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    there = [precision for precision, has in record["raw"]["instructions"].items() if has]
    machine = f"{record['machine']['cores']} cores of {record['machine']['cpu']}"
    note = (
        f"Times against float32, the smaller the faster, on {machine}, which has instructions for "
        f"{' and '.join(there) or 'neither'}, {record['date']}. Means: the largest error over the layer's largest "
        "mean. Neurons: whose selection changes, of those that either precision selects, by the rules "
        f"{'; '.join(RULES)}. Probe: of octaves, in float32 and in this precision. "
        "The bundled encoders are trained, the others random."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    harness.main("precision")


if __name__ == "__main__":
    main()

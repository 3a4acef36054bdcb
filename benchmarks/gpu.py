"""How fast, and how exactly, does a GPU extract? One script, without Ray: `python -m benchmarks.gpu [--json FILE]`.

The same ViT-Base M2D (random weights) in float32 and bfloat16: results against the processor's, extraction from
waveforms in pinned memory against the bare pass, the reduction against a transformer layer, WAV files to committed
blocks with the rate of each stage, and the profile of a batch. Sizes are those for 8 minutes of one H100 or H200;
`--small --cpu` goes through all of it on a processor, to see that it runs: what comes out there is no measurement.
"""

import argparse
import copy
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otoscope.extract.audio.decoding import write_wav
from otoscope.extract.capture import capture
from otoscope.extract.forward import Forward, Results, arithmetic, hardware_of, now
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.extract.models.tap import match_sites, tap
from otoscope.extract.plan import origin_of
from otoscope.extract.summarise import ByTorch, Reduction, counted_frames, reduction_on
from otoscope.store.block_values import Summary
from otoscope.store.provenance import Plan, kept

from .harness import Figure, Measured, _commit, _rounded, interleaved, machine, median_ratio

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Size:
    depth: int
    seconds: float
    """Of a clip."""
    checked: int
    """Clips whose results are compared with the processor's."""
    batch: int
    batches: int
    """Of the pass from pinned memory, in each repetition."""
    repetitions: int
    loops: int
    """Calls in a row of a layer, and of its reduction."""
    files: int


FULL = Size(depth=12, seconds=5.0, checked=8, batch=128, batches=24, repetitions=7, loops=100, files=4096)
SMALL = Size(depth=2, seconds=0.5, checked=3, batch=2, batches=3, repetitions=2, loops=2, files=70)


def encoder_in(precision: str, device: str, size: Size) -> Encoder:
    """The same weights each time, to be run as `capture(..., precision=...)` runs them."""
    torch.manual_seed(0)
    return as_encoder(M2D(depth=size.depth)).at(precision).to(device)


def all_in(dtype: torch.dtype, encoder: Encoder) -> Encoder:
    """The encoder with weights, and input, cast to a type."""
    module = copy.deepcopy(encoder.module).to(dtype)
    return replace(encoder, module=module, prepare=lambda w: encoder.prepare(w).to(dtype), precision="float32")


def sounds(n_clips: int, size: Size) -> np.ndarray:
    """Noise whose loudness swells, float32 (clip, sample)."""
    n_samples = round(size.seconds * 16_000)
    swell = np.sin(np.arange(n_samples) / 3000) ** 2
    noise = np.random.default_rng(0).standard_normal((n_clips, n_samples), np.float32)
    return (0.2 * swell * noise).astype(np.float32)


def forward_of(encoder: Encoder, size: Size) -> Forward:
    plan = Plan(
        n_clips=size.batch, names="", sources="", block=size.batch, batch=size.batch, threads=torch.get_num_threads(),
        unit_sec=size.seconds, variables=kept(None),
    )  # fmt: skip
    return Forward(encoder, origin_of(encoder, "audio").identity, plan)


def extracted(forward: Forward, waveforms: Tensor, lengths: np.ndarray) -> Results:
    """What extraction does with a batch whose waveforms (clip, sample) lie in memory, of `lengths` (clip) samples."""
    began = now(forward.device)
    inputs = forward.encoder.prepare(forward.to_device(waveforms))
    return forward.copied(forward.reduced(inputs, waveforms.shape[1], lengths), began)


def means(encoder: Encoder, waveforms: np.ndarray, lengths: np.ndarray, size: Size) -> Summary:
    """What extraction makes of clips of unlike length."""
    return extracted(forward_of(encoder, size), torch.from_numpy(waveforms), lengths).fetch()[0]


def plain_means(encoder: Encoder, waveforms: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The same by hooks that keep every frame, and a plain mean in float64."""
    sites = match_sites(encoder.module, encoder.sites)
    with tap(encoder.module, sites) as seen:
        encoder(torch.from_numpy(waveforms).to(encoder.device))
    weights = counted_frames(encoder.spans(waveforms.shape[1]), lengths / encoder.sample_rate, "audio")
    kept = [seen[site][0].double().cpu().numpy() * weights[..., None] for site in sites]
    return [values.sum(axis=1) / weights.sum(axis=1)[:, None] for values in kept]


def worst(ours: Any, theirs: Any) -> float:
    """Largest difference over the largest value of a layer, of the worst layer."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def check_results(device: str, size: Size) -> Measured:
    waveforms = sounds(size.checked, size)
    lengths = np.linspace(waveforms.shape[1] / 4, waveforms.shape[1], size.checked).astype(int)
    for row, length in zip(waveforms, lengths, strict=True):
        row[length:] = 0
    cpu = {precision: encoder_in(precision, "cpu", size) for precision in PRECISIONS}
    exact = plain_means(cpu["float32"], waveforms, lengths)
    own = worst(plain_means(cpu["bfloat16"], waveforms, lengths), exact)
    found = {p: worst(means(encoder_in(p, device, size), waveforms, lengths, size).means, exact) for p in PRECISIONS}
    how = f"{size.checked} clips of up to {size.seconds:g} s; largest difference over largest mean, worst layer"
    return Measured(
        figures=[
            Figure(name="float32 means against the processor's", value=found["float32"], unit="", bound=1e-5,
                   at_least=False, how=how),
            Figure(name="bfloat16 means, difference from float32 over that of torch on the processor",
                   value=found["bfloat16"] / own, unit="", bound=2, at_least=False, how=how),
        ],
        raw={"differences": {**found, "bfloat16 on the processor": own}, **check_reduction(device)},
    )  # fmt: skip


def check_reduction(device: str) -> dict[str, Any]:
    """Counts by the device's reduction are torch's, and sums within rounding, for ragged shapes of each precision."""
    random, largest = torch.Generator().manual_seed(0), 0.0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for shape in ((1, 1, 1), (3, 157, 3072), (5, 33, 129), (2, 1500, 768)):
            values = torch.randn(shape, generator=random).to(dtype)
            weights = (torch.rand(shape[:2], generator=random) < 0.7).float()
            for frames in (values, values.transpose(1, 2).contiguous().transpose(1, 2)):
                total, positive = (torch.zeros(shape[0], shape[2], device=device) for _ in range(2))
                reduction_on(torch.device(device))().add(frames.to(device), weights.to(device), total, positive)
                exact = frames.double() * weights[..., None]
                if not torch.equal(positive.double().cpu(), (exact > 0).double().sum(dim=1)):
                    sys.exit(f"counts of {tuple(shape)} {dtype} are wrong; expected those of torch")
                error = (total.double().cpu() - exact.sum(dim=1)).abs() / exact.abs().sum(dim=1).clamp(min=1e-30)
                largest = max(largest, float(error.max()))
    if largest > 1e-5:
        sys.exit(f"sums differ by {largest:.2g} of the sum of sizes; expected at most 1e-05")
    return {"reduction": reduction_on(torch.device(device)).name, "largest_error_of_sums": largest}


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_each(action: Callable[[], object], device: str, size: Size) -> float:
    """Of so many calls in a row, on the device, after as many to warm up."""
    for _ in range(2):
        wait_for(device)
        began = time.perf_counter()
        for _ in range(size.loops):
            action()
        wait_for(device)
    return (time.perf_counter() - began) / size.loops


def share_of_bare_pass(precision: str, device: str, size: Size) -> Measured:
    encoder = encoder_in(precision, device, size)
    forward = forward_of(encoder, size)
    waveforms = torch.from_numpy(sounds(size.batch, size))
    pinned = waveforms.pin_memory() if device == "cuda" else waveforms
    lengths = np.full(size.batch, waveforms.shape[1])

    def bare(encoder: Encoder = encoder) -> None:
        for _ in range(size.batches):
            encoder(forward.to_device(pinned))
        wait_for(device)

    def ours() -> None:
        before = None
        for _ in range(size.batches):
            results = extracted(forward, pinned, lengths)
            if before is not None:
                before.fetch()
            before = results
        assert before is not None
        before.fetch()

    cases: dict[str, Callable[[], object]] = {"bare": bare, "ours": ours}
    if precision != "float32":  # told beside it: what autocast costs over weights and layers of 16 bits alone
        cases["bare, all in 16 bits"] = partial(bare, all_in(PRECISIONS[precision], encoder))
    interleaved(cases, 1)  # warm
    seconds = interleaved(cases, size.repetitions)
    figure = Figure(
        name=f"{precision}: share of the bare pass", value=median_ratio(seconds["bare"], seconds["ours"]), unit="",
        bound=0.9, at_least=True,
        how=f"ViT-Base M2D, waveforms of {size.seconds:g} s in pinned memory, batches of {size.batch}, results in "
        f"memory; median of {size.repetitions} ratios of {size.batches} batches in turn",
    )  # fmt: skip
    rate = size.batch * size.batches / min(seconds["bare"])
    return Measured(figures=[figure], raw={"seconds": seconds, "bare_clips_per_second": rate})


def share_of_a_layer(precision: str, device: str, size: Size) -> Measured:
    encoder = encoder_in(precision, device, size)
    assert isinstance(encoder.module, M2D)
    n_frames, layer = len(encoder.spans(round(size.seconds * 16_000))), encoder.module.blocks[0]
    tokens = torch.randn(size.batch, n_frames, 768, device=device)
    activation = torch.randn(size.batch, n_frames, 3072, device=device).to(PRECISIONS[precision])
    weights = torch.ones(size.batch, n_frames, device=device)
    total, positive = (torch.zeros(size.batch, 3072, device=device) for _ in range(2))

    def run_layer() -> None:
        with encoder.autocast():
            layer(tokens)

    def reduce(reduction: Reduction) -> Callable[[], None]:
        return lambda: reduction.add(activation, weights, total, positive)

    seconds = {
        "layer": seconds_each(run_layer, device, size),
        "reduction": seconds_each(reduce(reduction_on(torch.device(device))()), device, size),
        "by torch": seconds_each(reduce(ByTorch()), device, size),
    }
    figure = Figure(
        name=f"{precision}: reduction's share of a layer", value=seconds["reduction"] / seconds["layer"], unit="",
        bound=0.08, at_least=False,
        how=f"a layer of ViT-Base on {size.batch} clips of {n_frames} frames; mean of {size.loops} calls in a row",
    )  # fmt: skip
    rate = activation.nbytes / seconds["reduction"] / 1e9
    return Measured(figures=[figure], raw={"seconds": seconds, "gigabytes_read_per_second": rate})


def write_files(folder: Path, size: Size) -> Path:
    """WAV files of noise, and their manifest."""
    noise, n_samples = sounds(2, replace(size, seconds=60.0)).ravel(), round(size.seconds * 16_000)
    (folder / "audio").mkdir()
    for i in range(size.files):
        start = 7 * i % (len(noise) - n_samples)
        write_wav(folder / "audio" / f"{i:06}.wav", noise[start : start + n_samples], 16_000)
    (folder / "manifest.csv").write_text(
        "path,half\n" + "".join(f"audio/{i:06}.wav,{i % 2}\n" for i in range(size.files))
    )
    return folder / "manifest.csv"


def from_files(precision: str, device: str, size: Size, scratch: Path, manifest: Path) -> dict[str, Any]:
    """From WAV files, which are in the page cache, to committed blocks: the rate of each stage and which one limits."""
    report = scratch / f"{precision}.json"
    capture(
        encoder_in("float32", device, size), manifest, str(scratch / f"{precision}.zarr"), task="t", device=device,
        precision=precision, unit_sec=size.seconds, report=report,
    )  # fmt: skip
    done = json.loads(report.read_text())
    stages = {name: stage for name, stage in done["stages"].items() if name != "waiting"}
    return {
        "limiting_stage": max(stages, key=lambda name: stages[name]["share"]),
        "clips_per_second_with_preflight": done["clips_per_second"],
        "batch": done["plan"]["batch"],
        "clips_per_second_of_a_stage": {
            name: size.files * stage["threads"] / stage["seconds"] for name, stage in stages.items() if stage["seconds"]
        },
        "stages": done["stages"],
    }


def profile(device: str, size: Size) -> Measured:
    """Where a bfloat16 batch spends its time, by torch's profiler: the lines of its table."""
    forward = forward_of(encoder_in("bfloat16", device, size), size)
    waveforms = torch.from_numpy(sounds(size.batch, size))

    def once() -> None:
        extracted(forward, waveforms, np.full(size.batch, waveforms.shape[1])).fetch()

    once()
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * (device == "cuda")
    with torch.profiler.profile(activities=kinds) as profiled:
        once()
        wait_for(device)
    table = profiled.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=25, max_name_column_width=60)
    return Measured(figures=[], raw={"table": str(table).splitlines()})


def measure(scratch: Path, size: Size, device: str, measured: Measured, save: Callable[[], None]) -> None:
    """All stages, one after the other: added to what was measured, and saved, as soon as each ends."""

    def end(name: str, raw: Any, began: float) -> None:
        measured.raw[name] = raw
        measured.raw.setdefault("seconds_of_stages", {})[name] = time.perf_counter() - began
        save()

    def ask(name: str, question: Callable[..., Measured], *about: Any) -> None:
        began = time.perf_counter()
        with torch.no_grad(), arithmetic(torch.get_num_threads()):  # each with 16-bit copies of weights of its own
            found = question(*about)
        measured.figures.extend(found.figures)
        for figure in found.figures:
            verdict = "holds" if figure.holds else "MISSED"
            word = "at least" if figure.at_least else "under"
            print(f"{figure.name}: {figure.value:.3g} ({word} {figure.bound:g}) {verdict}", flush=True)
        end(name, found.raw, began)

    ask("results", check_results, device, size)
    for precision in PRECISIONS:
        ask(f"{precision} pass", share_of_bare_pass, precision, device, size)
        ask(f"{precision} layer", share_of_a_layer, precision, device, size)
    ask("profile", profile, device, size)
    manifest = write_files(scratch, size)
    for precision in PRECISIONS:
        began = time.perf_counter()
        found = from_files(precision, device, size, scratch, manifest)
        end(f"{precision} from files", found, began)
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in found["clips_per_second_of_a_stage"].items())
        print(
            f"{precision}, WAV files to blocks: {found['limiting_stage']} limits; clips/s by stage: {rates}", flush=True
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--json", type=Path, default=Path("gpu.json"), metavar="FILE", help="written anew after each stage [gpu.json]"
    )
    parser.add_argument("--scratch", metavar="DIR", help="folder for audio and stores, emptied again [the system's]")
    parser.add_argument("--small", action="store_true", help="small sizes")
    parser.add_argument("--cpu", action="store_true", help="on the processor")
    options = parser.parse_args(arguments)
    if not options.cpu and not torch.cuda.is_available():
        sys.exit("no CUDA device; expected one: run where there is one, or try the script by --small --cpu")
    device, size = "cpu" if options.cpu else "cuda", SMALL if options.small else FULL
    logging.getLogger("otoscope").setLevel(logging.WARNING)
    began, measured = time.perf_counter(), Measured(figures=[], raw={})
    hardware = hardware_of(encoder_in("float32", device, SMALL))

    def save() -> None:
        record = {
            "question": "gpu",
            "hardware": hardware,
            "figures": [{**asdict(figure), "holds": figure.holds} for figure in measured.figures],
            "size": asdict(size),
            "raw": _rounded(measured.raw),
            "date": date.today().isoformat(),
            "commit": _commit(),
            "took_seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
            "versions": {"otoscope": version("otoscope"), "torch": torch.__version__, "cuda": torch.version.cuda},
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")

    with tempfile.TemporaryDirectory(prefix="otoscope-gpu-", dir=options.scratch) as scratch:
        measure(Path(scratch), size, device, measured, save)
    print(f"{options.json} has it all; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

"""The kernel in Triton's interpreter on this processor, against sums in float64 and counts in whole numbers."""

import importlib.util
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

import otoscope
from otoscope.extract.capture import capture
from otoscope.extract.summarise import FrameSum, counted_frames
from otoscope.store.status import block_versions

from ..support.closed_form import closed_form
from ..support.finished_store import Finished

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (extra [triton])"),
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """A process of its own: triton reads the variable once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(os.getpid).result()
            patch.undo()
            yield pool


def arranged(values: np.ndarray, dtype: str, arrangement: str) -> torch.Tensor:
    """The same values in another memory layout."""
    frames = torch.from_numpy(values).to(DTYPES[dtype])
    if arrangement == "(clip, neuron, frame)":
        return frames.transpose(1, 2).contiguous().transpose(1, 2)
    if arrangement == "(frame, clip, neuron)":
        return frames.transpose(0, 1).contiguous().transpose(0, 1)
    if arrangement == "every second neuron":
        return frames.repeat_interleave(2, dim=2)[..., ::2]
    if arrangement == "one frame for all":
        return frames[:, :1].expand(frames.shape)
    return frames


def added(
    values: np.ndarray, weights: np.ndarray, dtype: str, arrangement: str, runs: int
) -> tuple[str, np.ndarray, np.ndarray]:
    """In whatever process calls this: by which reduction, sums and counts."""
    frames = arranged(values, dtype, arrangement)
    frame_sum = FrameSum("a", torch.from_numpy(weights), values.shape[2], count=True)
    for part in frames.tensor_split(runs, dim=1):
        frame_sum.add(part)
    frame_sum.check_count()
    assert frame_sum.positive is not None
    return frame_sum.reduction.name, frame_sum.total.numpy(), frame_sum.positive.numpy()


def check(
    interpreter: ProcessPoolExecutor, values: np.ndarray, weights: np.ndarray, dtype: str = "float32",
    arrangement: str = "as it is", runs: int = 1,
) -> None:  # fmt: skip
    name, total, positive = interpreter.submit(added, values, weights, dtype, arrangement, runs).result()
    assert name.startswith("triton ")
    exact = arranged(values, dtype, arrangement).double().numpy() * weights[..., None]
    # Of each value at most so many roundings: 32 partial sums, their tree, one per run.
    roundings = values.shape[1] / 32 + 6 + 2 * runs
    assert (np.abs(total - exact.sum(axis=1)) <= roundings * 2**-24 * np.abs(exact).sum(axis=1)).all()
    np.testing.assert_array_equal(positive, (exact > 0).sum(axis=1))
    _, by_torch, counts_by_torch = added(values, weights, dtype, arrangement, runs)
    np.testing.assert_allclose(total, by_torch, rtol=1e-5, atol=1e-5 * np.abs(exact).sum(axis=1).max())
    np.testing.assert_array_equal(positive, counts_by_torch)


def activations(shape: tuple[int, int, int]) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(shape).astype("f4")
    values[:, :, 0] = 0.0  # is not positive
    values[:, ::2, shape[2] // 2] = -0.0
    values[0, -1, -1] = 6e-5  # small, and a number in float16
    return values


def some_weights(n_clips: int, n_frames: int) -> np.ndarray:
    return (np.random.default_rng(1).random((n_clips, n_frames)) < 0.6).astype("f4")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 32, 128), (2, 33, 129), (1, 100, 300)])
def test_any_shape_in_any_precision(interpreter: ProcessPoolExecutor, shape: tuple[int, int, int], dtype: str) -> None:
    check(interpreter, activations(shape), some_weights(*shape[:2]), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rule", ["audio", "published", "all", "last"])
def test_each_rule_of_frames_on_clips_of_unlike_length(interpreter: ProcessPoolExecutor, rule: str, dtype: str) -> None:
    t0 = np.concatenate([[np.nan], np.tile(np.arange(9) / 10, 5)])  # CLS, then five rows of patches
    weights = counted_frames(np.column_stack([t0] * 4), np.array([0.05, 0.3, 0.9, 2.0]), rule)
    check(interpreter, activations((4, 46, 40)), weights, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(
    "arrangement", ["(clip, neuron, frame)", "(frame, clip, neuron)", "every second neuron", "one frame for all"]
)
def test_any_memory_layout_in_one_run_or_several(
    interpreter: ProcessPoolExecutor, arrangement: str, runs: int, dtype: str
) -> None:
    check(interpreter, activations((3, 41, 140)), some_weights(3, 41), dtype, arrangement, runs)


def test_a_clip_gives_the_same_whatever_shares_its_batch(interpreter: ProcessPoolExecutor) -> None:
    values, weights = activations((5, 70, 30)), some_weights(5, 70)
    _, many, _ = interpreter.submit(added, values, weights, "float32", "as it is", 1).result()
    _, alone, _ = interpreter.submit(added, values[3:4], weights[3:4], "float32", "as it is", 1).result()
    np.testing.assert_array_equal(many[3:4], alone)


def test_what_is_no_number_shows_as_by_torch_in_frames_that_do_not_count_too(
    interpreter: ProcessPoolExecutor,
) -> None:
    values, weights = activations((2, 5, 4)), np.ones((2, 5), "f4")
    values[0, 1, 2], values[1, 4, 1], weights[1, 4] = np.nan, np.inf, 0
    _, total, positive = interpreter.submit(added, values, weights, "float32", "as it is", 1).result()
    _, by_torch, counts_by_torch = added(values, weights, "float32", "as it is", 1)
    assert np.argwhere(np.isnan(total)).tolist() == np.argwhere(np.isnan(by_torch)).tolist() == [[0, 2], [1, 1]]
    np.testing.assert_array_equal(positive, counts_by_torch)


def extract(manifest: str, url: str) -> None:
    keep = ("mean", "positive_frames", "embedding", "hidden")
    capture(
        closed_form(), manifest, url, task="t", block=4, batch=3, threads=1, keep=keep, mean_dtype="float32"
    )  # fmt: skip


def test_a_whole_extraction_says_by_what_it_was_reduced(
    interpreter: ProcessPoolExecutor, finished: Finished, tmp_path: Path
) -> None:
    stores = {}
    for name, run in (("torch", extract), ("triton", lambda *a: interpreter.submit(extract, *a).result())):
        run(str(finished.manifest), str(tmp_path / name))
        (version,) = block_versions(str(tmp_path / name), "t")
        assert f", frames by {name}" in version
        stores[name] = otoscope.open(str(tmp_path / name))["t"].to_dataset().load()
    for variable in ("active", "mean", "positive_frames", "frame_count", "embedding", "hidden"):
        np.testing.assert_array_equal(stores["triton"][variable], stores["torch"][variable])  # sums are exact here


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "fp64"])
@pytest.mark.parametrize("count", [True, False])
def test_the_kernel_compiles_for_gpus_that_are_not_here_and_reads_16_bytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: int, dtype: str, count: bool
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from otoscope.extract import triton_sums

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    steps = dict.fromkeys(("n_frames", "width", "clip_step", "frame_step", "weights_clip"), "i32")
    constants: dict[str, int | None] = {
        "neuron_step": 1,
        "weights_frame": 1,
        "FRAMES": triton_sums.FRAMES,
        "NEURONS": triton_sums.NEURONS,
    }
    signature = {"frames": f"*{dtype}", "weights": "*fp32", "total": "*fp32", "positive": "*fp32", **steps}
    if not count:
        constants["positive"] = None
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {(triton_sums._add.arg_names.index(name),): [["tt.divisibility", 16]]
               for name in ("frames", "total", "width", "clip_step", "frame_step")}  # fmt: skip
    source = ASTSource(triton_sums._add, signature, constants, aligned)
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32))
    assert len(kernel.asm["cubin"]) > 1000
    assert ("ld.global.v2.b64" if dtype == "fp64" else "ld.global.v4.b32") in kernel.asm["ptx"]

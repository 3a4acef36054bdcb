"""A task as the reader shows it, made of random activations, and a scheduler that refuses to run."""

import dask
import numpy as np
import pytest
import xarray as xr

from otoscope.store.bits import pack


@pytest.fixture
def nothing_computes():
    """Dask computations within the test, or until the fixture's context is left, are errors."""

    def forbid(*args, **kwargs):
        raise AssertionError("something was computed that should have stayed lazy")

    return lambda: dask.config.set(scheduler=forbid)


def make_task(seed=0, n_clips=120, n_layers=3, n_neurons=20, categories=("dog", "cat", "hen"), chunk=32):
    """Random activations; the last layer is 5 neurons narrower; some clips failed or have no label."""
    rng = np.random.default_rng(seed)
    bias = rng.uniform(-1, 0.5, (n_layers, 1, n_neurons))
    exact = rng.standard_normal((n_layers, n_clips, n_neurons)) + bias
    frame_count = rng.integers(5, 12, n_clips).astype(np.uint16)
    share = 1 / (1 + np.exp(-exact))
    positive = np.minimum(rng.poisson(share * frame_count[:, None]), frame_count[:, None]).astype(np.uint16)
    status = rng.choice([1, 1, 1, 1, 2], n_clips).astype(np.uint8)
    failed = status == 2
    exact[:, failed], positive[:, failed] = np.nan, 0
    frame_count[failed] = 0
    valid = np.ones((n_layers, n_neurons), bool)
    valid[-1, -5:] = False
    active = np.nan_to_num(exact) > 0
    bits = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": n_neurons}
    codes = rng.integers(-1, len(categories), n_clips).astype(np.int32)
    by_neuron = ("layer", "neuron", "clip")
    ds = xr.Dataset(
        {
            "active_bits": (("layer", "clip", "neuron_byte"), pack(active), bits),
            "active": (by_neuron, active.transpose(0, 2, 1)),
            "mean": (by_neuron, exact.astype(np.float16).transpose(0, 2, 1)),
            "positive_frames": (by_neuron, positive.transpose(0, 2, 1)),
            "frame_count": ("clip", frame_count),
            "status": ("clip", status),
            "neuron_valid": (("layer", "neuron"), valid),
        },
        coords={
            "layer": np.arange(n_layers),
            "neuron": np.arange(n_neurons),
            "clip": [f"clip{i}.wav" for i in range(n_clips)],
            "position": ("clip", np.arange(n_clips)),
            "animal": ("clip", np.array([*categories, np.nan], object)[codes]),
            "size": ("clip", np.array(["s", "xl"], object)[rng.integers(0, 2, n_clips)]),
            "site": ("layer", [f"blocks.{i}.act" for i in range(n_layers)]),
        },
    )
    return ds.chunk(clip=chunk) if chunk else ds


@pytest.fixture
def task():
    return make_task()


@pytest.fixture
def new_task():
    return make_task


@pytest.fixture
def p():
    """Probabilities (layer, neuron, category) with awkward names of categories."""
    values = np.random.default_rng(0).random((2, 60, 3)) ** 4
    coords = {
        "layer": [0, 1],
        "neuron": np.arange(60),
        "category": ["7", "a|b", "日本"],
        "site": ("layer", ["x", "y"]),
    }
    return xr.DataArray(values, dims=("layer", "neuron", "category"), coords=coords)

"""Activation probabilities against plain numpy on unpacked arrays; laziness, chunking and memory laws."""

import pickle
import tracemalloc

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.analysis import above, activation_counts, activation_probability, category_mean, frame_probability, totals
from otoscope.analysis.selection.selectivity import overall_rate
from otoscope.store.bits import pack

CATEGORIES = ["a", "b", "c"]
PACKED = {"packed_dim": "neuron", "bitorder": "little"}


def as_labels(codes, categories=CATEGORIES):
    return xr.DataArray(np.asarray(codes, np.int32), dims="clip", attrs={"categories": categories})


def as_bits(active):
    """(layer, clip, neuron) bools to packed bits as stored."""
    attrs = {**PACKED, "n_neurons": active.shape[2]}
    return xr.DataArray(pack(active), dims=("layer", "clip", "neuron_byte"), attrs=attrs)


def as_array(values):
    """(layer, clip, neuron) to what the reader shows."""
    return xr.DataArray(values, dims=("layer", "clip", "neuron")).transpose("layer", "neuron", "clip")


def share(active, codes):
    """Plain share of clips: (layer, clip, neuron) -> (layer, neuron, category)."""
    return np.stack([active[:, np.asarray(codes) == c].mean(axis=1) for c in range(len(CATEGORIES))], axis=-1)


@pytest.fixture
def example():
    rng = np.random.default_rng(5)
    return rng.standard_normal((2, 90, 13)), rng.integers(-1, 3, 90)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_chunking_gives_the_same_probabilities(data):
    n_layers, n_clips, n_neurons = data.draw(st.tuples(st.integers(1, 3), st.integers(3, 60), st.integers(1, 20)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    active = rng.random((n_layers, n_clips, n_neurons)) < 0.4
    codes = np.r_[0, 1, 2, rng.integers(-1, 3, n_clips - 3)]
    chunks = {dim: data.draw(st.integers(1, 25)) for dim in ("layer", "clip", "neuron", "neuron_byte")}
    label_chunks = data.draw(st.sampled_from([None, 1, 7]))
    labels = as_labels(codes) if label_chunks is None else as_labels(codes).chunk(clip=label_chunks)
    expected = share(active, codes)
    for values in (as_bits(active), as_array(active)):
        p = activation_probability(values.chunk({d: n for d, n in chunks.items() if d in values.dims}), labels)
        assert p.dims == ("layer", "neuron", "category")
        assert p.chunks is not None
        assert p.data.npartitions == 1
        np.testing.assert_array_equal(p.values, expected)


@pytest.mark.parametrize(("n_chains", "step_bytes"), [(1, 1 << 30), (3, 1), (1000, 1), (2, 100)])
def test_any_number_of_steps_and_chains_gives_the_same_counts(example, monkeypatch, n_chains, step_bytes):
    values, codes = example
    monkeypatch.setattr(totals, "CHAINS", n_chains)
    monkeypatch.setattr(totals, "STEP_BYTES", step_bytes)
    monkeypatch.setattr(totals, "JOINED_BYTES", 40)
    active = values > 0
    expected = [active[:, codes == c].sum(axis=1) for c in range(3)]
    for array in (as_bits(active).chunk(clip=7), as_array(active).chunk(clip=7, neuron=4)):
        counts = activation_counts(array, as_labels(codes))
        assert counts.dtype == np.int32
        np.testing.assert_array_equal(counts.values, np.stack(expected, -1))
        np.testing.assert_array_equal(counts["n_clips"].values, [(codes == c).sum() for c in range(3)])


def test_numpy_in_numpy_out(example):
    values, codes = example
    p = activation_probability(as_bits(values > 0), as_labels(codes))
    assert isinstance(p.data, np.ndarray)
    np.testing.assert_array_equal(p, share(values > 0, codes))
    assert p["category"].values.tolist() == CATEGORIES
    assert p["neuron"].values.tolist() == list(range(13))
    assert p.attrs["long_name"] == "activation probability"


def test_frames_are_summed_before_they_are_divided(example):
    rng = np.random.default_rng(1)
    _, codes = example
    frames = rng.integers(1, 60_000, 90).astype(np.uint16)
    positive = (rng.random((2, 90, 13)) * (frames[:, None] + 1)).astype(np.uint16)
    expected = np.stack(
        [positive[:, codes == c].sum(1, dtype=float) / frames[codes == c].sum(dtype=float) for c in range(3)],
        -1,
    )
    count = xr.DataArray(frames, dims="clip")
    plain = frame_probability(as_array(positive), count, as_labels(codes))
    lazy = frame_probability(as_array(positive).chunk(clip=8), count.chunk(clip=11), as_labels(codes).chunk(clip=9))
    for p in (plain, lazy):
        np.testing.assert_array_equal(p, expected)
    assert float(plain.max()) <= 1


def test_the_overall_rate_is_that_of_all_labelled_clips_or_frames(example):
    rng = np.random.default_rng(1)
    values, codes = example
    active, labelled = values > 0.5, codes >= 0
    p = activation_probability(as_bits(active), as_labels(codes, [*CATEGORIES, "without clips"]))
    np.testing.assert_allclose(overall_rate(p), active[:, labelled].mean(axis=1))
    frames = rng.integers(1, 300, 90)
    positive = (rng.random((2, 90, 13)) * (frames[:, None] + 1)).astype(np.uint16)
    count = xr.DataArray(frames, dims="clip")
    of_frames = frame_probability(as_array(positive).chunk(clip=8), count.chunk(clip=11), as_labels(codes))
    assert of_frames["n_frames"].values.tolist() == [frames[codes == c].sum() for c in range(3)]
    assert of_frames["n_clips"].values.tolist() == [(codes == c).sum() for c in range(3)]
    expected = positive[:, labelled].sum(axis=1) / frames[labelled].sum()
    np.testing.assert_allclose(overall_rate(of_frames), expected)
    nobody = of_frames.drop_vars(["n_frames", "n_clips"])
    np.testing.assert_allclose(overall_rate(nobody), nobody.mean("category"))


def test_means_are_sums_in_float64(example):
    values, codes = example
    for dtype in (np.float16, np.float32):
        stored = (values * 100).astype(dtype)
        expected = np.stack([stored[:, codes == c].astype(np.float64).mean(1) for c in range(3)], -1)
        mean = category_mean(as_array(stored).chunk(clip=13, neuron=5), as_labels(codes))
        assert mean.dtype == np.float64
        np.testing.assert_allclose(mean, expected, rtol=1e-14, atol=1e-12)


def test_what_clips_without_a_label_hold_is_never_seen(example):
    values, codes = example
    codes[:20] = -1
    poisoned = values.copy()
    poisoned[:, :20] = np.nan
    lazy, labels = as_array(poisoned).chunk(clip=6), as_labels(codes)
    np.testing.assert_allclose(category_mean(lazy, labels), category_mean(as_array(values), labels), atol=1e-14)


def test_a_category_without_clips_is_nan(example):
    values, codes = example
    codes = np.where(codes == 1, -1, codes)
    for bits in (as_bits(values > 0), as_bits(values > 0).chunk(clip=20)):
        p = activation_probability(bits, as_labels(codes))
        assert np.isnan(p.sel(category="b")).all()
        assert not np.isnan(p.sel(category=["a", "c"])).any()
        assert p["n_clips"].sel(category="b") == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_thresholds_are_compared_exactly(dtype):
    """Against the comparison of python numbers, at thresholds that the stored type cannot hold."""
    rng = np.random.default_rng(2)
    values = np.r_[rng.standard_normal(300), 0.1, 0.3, -0.1, 0.0, -0.0, 1e4, np.nan].astype(dtype)
    stored = as_array(np.broadcast_to(values, (1, 1, len(values))))
    for threshold in [0.0, -0.0, 0.1, -0.1, 0.3, 1e-9, -1e-9, 1e6, 1e300, *values[:5].astype(float)]:
        expected = [float(v) > threshold for v in values]
        assert above(stored, threshold).values.ravel().tolist() == expected
        assert above(stored.chunk(neuron=50), threshold).values.ravel().tolist() == expected


def test_a_threshold_per_neuron(example):
    values, codes = example
    threshold = np.random.default_rng(0).standard_normal((2, 13))
    expected = share(values > threshold[:, None], codes)
    by_neuron = xr.DataArray(threshold, dims=("layer", "neuron"))
    for lines in (by_neuron, by_neuron.chunk(layer=1)):
        p = activation_probability(above(as_array(values).chunk(clip=9), lines), as_labels(codes))
        np.testing.assert_array_equal(p, expected)


def test_nothing_computes_until_needed_and_results_travel(task, nothing_computes):
    labels, mean = task.otoscope.codes("animal"), task["mean"]
    with nothing_computes():
        lazy = [
            activation_counts(task["active_bits"], labels),
            activation_probability(task["active_bits"], labels),
            activation_probability(task["active"], labels),
            activation_probability(task["positive_frames"] > 0, labels),
            activation_probability(above(mean, 0.5), labels),
            frame_probability(task["positive_frames"], task["frame_count"], labels),
            category_mean(mean, labels),
        ]
    for result in lazy:
        xr.testing.assert_identical(pickle.loads(pickle.dumps(result)).compute(), result.compute())


def test_asking_twice_is_one_computation(task):
    names = [activation_probability(task["active_bits"], task.otoscope.codes("animal")).data.name for _ in range(2)]
    assert names[0] == names[1]


@pytest.mark.parametrize("kind", ["bits", "bool", "frames"])
def test_peak_memory_does_not_grow_with_the_clips(kind):
    """8 blocks of 4,096 clips against 80, on two threads: two chains run in either case."""
    block = {
        "bits": ((4, 4096, 64), np.uint8),
        "bool": ((4, 4096, 64), bool),
        "frames": ((4, 4096, 64), np.uint16),
    }
    shape, dtype = block[kind]

    def peak(n_blocks):
        n_clips = n_blocks * shape[1]
        chunks = ((shape[0],), (shape[1],) * n_blocks, (shape[2],))
        data = da.map_blocks(lambda: np.ones(shape, dtype), chunks=chunks, dtype=dtype, meta=np.empty(0, dtype))
        last = "byte" if kind == "bits" else "neuron"
        values = xr.DataArray(data, dims=("layer", "clip", last))
        labels = as_labels(np.arange(n_clips) % 3)
        if kind == "frames":
            p = frame_probability(values, xr.DataArray(np.ones(n_clips, np.uint16), dims="clip"), labels)
        else:
            attrs = {**PACKED, "n_neurons": 512} if kind == "bits" else {}
            p = activation_probability(values.assign_attrs(attrs), labels)
        tracemalloc.start()
        try:
            p.compute(scheduler="threads", num_workers=2)
            return tracemalloc.get_traced_memory()[1] - 20 * n_clips  # the codes themselves, and sorting them
        finally:
            tracemalloc.stop()

    peak(8)  # imports and caches
    few, many = peak(8), peak(80)
    one_block = np.prod(shape) * np.dtype(dtype).itemsize
    assert many < 1.5 * few
    assert many < 8 * one_block  # of 80


def test_input_that_does_not_fit_raises(example):
    values, codes = example
    labels, active = as_labels(codes), as_array(values > 0)
    with pytest.raises(ValueError, match=r"expected bools or packed bits: compare numbers first"):
        activation_probability(as_array(values), labels)
    with pytest.raises(ValueError, match=r"expected uint8 and 'little'"):
        activation_probability(as_bits(values > 0).assign_attrs(bitorder="big"), labels)
    with pytest.raises(ValueError, match=r"expected layer, neuron, clip: .*one layer keeps .* layer=\[3\]"):
        activation_probability(active.isel(layer=0), labels)
    with pytest.raises(ValueError, match=r"found dimensions layer, clip; .*one neuron keeps .* neuron=\[7\]"):
        activation_probability(active.assign_coords(neuron=np.arange(13) + 5).sel(neuron=7), labels)
    with pytest.raises(ValueError, match=r"expected integer codes along clip with attrs\['categories'\]"):
        activation_probability(active, labels.drop_attrs())
    with pytest.raises(ValueError, match=r"values have 89 clips and labels 90"):
        activation_probability(active.isel(clip=slice(89)), labels)
    named = active.assign_coords(clip=np.arange(90))
    with pytest.raises(ValueError, match=r"not the same ones in the same order"):
        activation_probability(named, labels.assign_coords(clip=np.arange(90)[::-1]))

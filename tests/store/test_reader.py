"""What a reader sees: names, order of dimensions, committed clips only, nothing computed, damage named."""

import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import dask
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
import zarr

from otoscope.store import reader
from otoscope.store.group import open_root
from otoscope.store.reader import open_store, read_task

from ..support.amounts import quick_sample
from ..support.known_store import Known, make_known
from ..support.stored_files import files


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("computed before it was asked for")


def test_values_by_name(known: Known, url: str) -> None:
    ds = open_store(url, failed="keep")["t"].to_dataset()
    active = (known.mean > 0).transpose(0, 2, 1)
    assert ds["active"].dims == ds["mean"].dims == ds["positive_frames"].dims == ("layer", "neuron", "clip")
    assert ds["active"].dtype == bool
    np.testing.assert_array_equal(ds["active"], active)
    np.testing.assert_array_equal(ds["mean"], known.mean.astype("f2").transpose(0, 2, 1))
    one = ds["mean"].sel(layer=0, neuron=299, clip="clip 260 é")
    assert float(one) == np.float16(known.mean[0, 260, 299])
    assert [str(s) for s in ds["site"].values] == ["a", "b"]


@pytest.mark.parametrize("failed", quick_sample(["keep", "hide"], 1))
@pytest.mark.parametrize("chunks", [None, {}, {"clip": 29, "neuron": 77}])
@pytest.mark.filterwarnings("ignore:The specified chunks separate")
def test_any_selection_equals_that_of_numpy(known: Known, url: str, chunks: dict[str, int] | None, failed: str) -> None:
    ds = xr.open_dataset(url, engine="otoscope", group="t", chunks=chunks, failed=failed)
    rng = np.random.default_rng(0)
    clips = known.status == 1 if failed == "hide" else slice(None)
    whole = {
        "active": (known.mean > 0).transpose(0, 2, 1)[..., clips],
        "mean": known.mean.astype("f2").transpose(0, 2, 1)[..., clips],
    }
    for _ in range(25):
        keys = {
            "layer": rng.choice([0, 1, slice(None), slice(None, None, -1)]),
            "neuron": [int(rng.integers(300)), rng.integers(0, 300, 4), slice(5, 290, 13), slice(0, 0)][
                rng.integers(4)
            ],
            "clip": [int(rng.integers(259)), np.sort(rng.integers(0, 259, 6)), slice(200, 20, -9)][rng.integers(3)],
        }
        for name, values in whole.items():
            expected = values
            for axis, dim in zip((2, 1, 0), ("clip", "neuron", "layer"), strict=True):
                expected = expected[(slice(None),) * axis + (keys[dim],)]
            np.testing.assert_array_equal(ds[name].isel(keys).values, expected)


def test_nothing_is_computed_until_asked(url: str) -> None:
    with dask.config.set(scheduler=forbidden):
        ds = open_store(url)["t"].to_dataset()
        lazy = ds["active"].mean("clip") + ds["mean"].max("clip")
        with pytest.raises(AssertionError, match="before it was asked"):
            lazy.compute()


def test_pickled_and_back(url: str) -> None:
    ds = open_store(url)["t"].to_dataset()
    xr.testing.assert_identical(pickle.loads(pickle.dumps(ds)).compute(), ds.compute())


def test_a_store_being_written_shows_committed_clips_only(known: Known, tmp_path: Path) -> None:
    url = str(tmp_path / "s.zarr")
    known.begin(url)
    assert open_store(url)["t"].sizes["clip"] == 0
    known.write(url, [known.blocks()[i] for i in (8, 2)])
    ds = open_store(url, failed="keep")["t"].to_dataset()
    shown = [*range(64, 96), *range(256, 261)]
    assert [str(c) for c in ds["clip"].values] == [known.clips.name[i] for i in shown]
    np.testing.assert_array_equal(ds["active"], (known.mean > 0).transpose(0, 2, 1)[..., shown])
    known.write(url, known.blocks()[:1])  # a reader that is open keeps what it has seen
    np.testing.assert_array_equal(ds["mean"], known.mean.astype("f2").transpose(0, 2, 1)[..., shown])


def test_failed_clips_are_hidden_unless_they_are_asked_for(known: Known, url: str) -> None:
    """Whatever is hidden, a chunk of Dask is what is left of one stored object."""
    ds = open_store(url)["t"].to_dataset()
    ok = np.flatnonzero(known.status == 1)
    assert ds["position"].values.tolist() == ok.tolist()
    assert [str(name) for name in ds["clip"].values] == [known.clips.name[i] for i in ok]
    np.testing.assert_array_equal(ds["active"].mean("clip").T, (known.mean > 0)[:, ok].mean(axis=1).T)
    assert "status" not in ds
    assert ds["mean"].chunks[2] == (31, *[32] * 7, 4)
    kept = open_store(url, failed="keep")["t"].to_dataset()
    np.testing.assert_array_equal(kept["status"], known.status)
    assert str(kept["reason"][3].values) == "schlecht, très mauvais"
    assert kept["mean"].chunks[2] == (*[32] * 8, 5)
    assert (ds.attrs["n_failed"], ds.attrs["n_pending"]) == (2, 0)
    with pytest.raises(ValueError, match="failed is 'drop'; expected 'hide' or 'keep'"):
        open_store(url, failed="drop")


def test_a_label_is_a_coordinate_that_xarray_groups_and_selects_by(known: Known, url: str) -> None:
    ds = open_store(url)["t"].to_dataset()
    digits = np.array(known.clips.labels["digit"], dtype=object)[ds["position"].values]
    found = ds["digit"].values
    assert [x for x in found if isinstance(x, str)] == [x for x in digits if x]
    assert sum(x != x for x in found) == (digits == "").sum()  # NaN
    mean = ds["mean"].sel(layer=1, neuron=7).astype("f8").groupby(ds["digit"]).mean()
    values = known.mean[1, ds["position"].values, 7].astype("f2").astype("f8")
    for digit in mean["digit"].values:
        assert float(mean.sel(digit=digit)) == pytest.approx(values[digits == digit].mean())
    three = ds.sel(clip=ds["digit"] == "3")
    assert three["position"].values.tolist() == ds["position"].values[digits == "3"].tolist()


def test_plots_and_sorting_by_a_label_that_every_clip_has(url: str) -> None:
    ds = open_store(url)["t"].to_dataset()
    name = "who, exactly"
    ds["embedding"].groupby(name).mean("clip").plot.line(x="embedding_dim", hue=name)
    ds.isel(embedding_dim=0).reset_coords("position").plot.scatter(x="position", y="embedding", hue=name)
    assert ds.sortby(name)[name].values.tolist() == sorted(ds[name].values.tolist())
    plt.close("all")


def test_means_of_many_clips_do_not_overflow(tmp_path: Path) -> None:
    """65,504 is the largest float16; sums of these means are beyond it, in xarray as in pandas."""
    loud = make_known()
    loud = replace(loud, mean=np.where(np.isnan(loud.mean), np.nan, loud.mean + 1000).astype("f4"))
    url = str(tmp_path / "s.zarr")
    loud.begin(url)
    loud.write(url)
    ds = open_store(url)["t"].to_dataset()
    stored = loud.mean[:, loud.status == 1].astype("f2").astype("f8").transpose(0, 2, 1)
    np.testing.assert_allclose(ds["mean"].mean("clip"), stored.mean(-1), rtol=1e-6)
    np.testing.assert_allclose(ds["mean"][0].std("clip"), stored[0].std(-1), rtol=1e-4)
    one = ds["mean"].sel(layer=0, neuron=7)
    assert one.to_pandas().mean() == pytest.approx(stored[0, 7].mean())
    for digit, mean in one.groupby("digit").mean().to_series().items():
        assert mean == pytest.approx(stored[0, 7][ds["digit"].values == digit].mean())


def test_one_neuron_is_drawn_over_clips(url: str) -> None:
    ds = open_store(url)["t"].to_dataset()
    (line,) = ds["mean"].sel(layer=0, neuron=7).plot()  # type: ignore[call-arg]  # stubs lag
    np.testing.assert_array_equal(line.get_ydata(), ds["mean"].sel(layer=0, neuron=7))
    ds["mean"].sel(layer=0).isel(clip=slice(9), neuron=slice(5)).plot()  # type: ignore[call-arg]
    plt.close("all")


def test_names_of_many_clips_take_no_more_room_than_they_need(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_DRAWN", 100)
    ds = open_store(url)["t"].to_dataset()
    assert ds["clip"].dtype == object
    assert str(ds["mean"].idxmax("clip")[0, 7].values) in ds.indexes["clip"]


def test_what_xarray_marks_as_missing(known: Known, url: str) -> None:
    ds = open_store(url)["t"].to_dataset()
    three = ds.where(ds["digit"] == "3", drop=True)
    assert three["path"].values.tolist() == [known.clips.path[i] for i in three["position"].values]
    assert ds["path"].where(ds["digit"] == "3").isnull().sum() == ds.sizes["clip"] - three.sizes["clip"]


def test_each_opening_has_names_of_its_own(known: Known, tmp_path: Path) -> None:
    """What is at a location may be another store the next time; Dask takes equal names for equal values."""
    url = str(tmp_path / "s.zarr")
    before, after = make_known(), make_known()
    after = replace(after, mean=after.mean * 2)
    found = []
    for each in (before, after):
        each.begin(url)
        each.write(url)
        found.append(open_store(url)["t"].to_dataset())
        if each is before:
            found[0] = found[0].persist()
            shutil.rmtree(url)
    first, second = found
    assert not first.equals(second)
    np.testing.assert_allclose(((second["mean"] - first["mean"]) / first["mean"]).isel(layer=1, neuron=5), 1, rtol=1e-2)


def test_a_label_that_is_changed_in_memory_stays_what_it_is_in_the_store(url: str) -> None:
    tree = open_store(url, failed="keep")
    ds = tree["t"].to_dataset()
    expected = ds["who, exactly"].values.tolist()
    ds["who, exactly"].values[:] = "x"
    assert tree["t"].to_dataset()["who, exactly"].values.tolist() == expected


def test_plain_xarray_opens_every_group_without_a_warning(known: Known, url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "otoscope" in xr.open_zarr(url).attrs
        plain = xr.open_zarr(url, group="t")
        tree = xr.open_datatree(url, engine="zarr", chunks={})
    np.testing.assert_array_equal(plain["mean"], known.mean.astype("f2"))
    assert tree["t"].sizes["clip"] == len(known.clips)


def test_xarray_wants_a_group_where_there_are_several(known: Known, url: str) -> None:
    from otoscope.store.changes.tasks import add_task

    add_task(url, "second", known.origin, known.plan, known.clips)
    with pytest.raises(ValueError, match=r"holds 2 tasks \(second, t\)"):
        xr.open_dataset(url, engine="otoscope")
    assert set(xr.open_datatree(url, engine="otoscope").children) == {"second", "t"}
    with pytest.raises(LookupError, match=r"no task 'third'.*it holds second, t"):
        read_task(url, "third")


def test_what_is_not_a_valid_store_is_refused_in_one_sentence(tmp_path: Path, url: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no store at .*otoscope extract"):
        open_root(str(tmp_path / "none"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    zarr.create_group(str(tmp_path / "plain"))
    zarr.create_array(str(tmp_path / "array"), shape=(3,), dtype="i4")
    for name in ("folder", "file", "plain", "array"):
        with pytest.raises(ValueError, match="expected a"):
            open_root(str(tmp_path / name))
    path = Path(url) / "zarr.json"
    path.write_text(path.read_text().replace('"format": "2.0"', '"format": "1.0"'))
    with pytest.raises(ValueError, match=r"has format 1.0; expected 2.x"):
        open_root(url)


def test_a_missing_object_is_an_error_not_silence(url: str) -> None:
    (Path(url) / "t/active_bits/c/0/3/0").unlink()
    ds = open_store(url)["t"].to_dataset()
    assert ds["active"].isel(clip=slice(0, 90)).any().compute()
    with pytest.raises(FileNotFoundError, match=r"t/active_bits/c/0/3/0 is missing.*otoscope verify"):
        ds["active"].compute()


def test_a_flipped_byte_is_an_error_that_names_the_array(url: str) -> None:
    path = Path(url) / "t/mean/c/0/3/0"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"t/mean in .* is damaged .*otoscope verify"):
        open_store(url)["t"]["mean"].compute()


def test_reading_leaves_the_store_as_it_is(url: str) -> None:
    before = files(url)
    open_store(url)["t"].to_dataset().compute()
    assert files(url) == before

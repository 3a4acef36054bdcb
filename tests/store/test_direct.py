"""Reading shards from their bytes gives what zarr gives, and notices every flipped, missing or cut byte."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.store import fetched
from otoscope.store.direct import can_read, opened, parts, read_shards
from otoscope.store.fetched import Fetching, worth_whole
from otoscope.store.folder import Folder
from otoscope.store.group import array_of, open_root, open_task

from ..support.amounts import quick_sample
from ..support.known_store import N_CLIPS, Known

SHARDED = ("active_bits", "mean", "positive_frames", "hidden")


@pytest.fixture(params=["opened", "fetched whole", "fetched in parts"], scope="module")
def how(request: pytest.FixtureRequest) -> Iterator[Any]:
    """How shards are opened: from files, or as objects that are not local."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "fetched in parts":
            patch.setattr(fetched, "worth_whole", lambda array, shard: False)
        yield opened if request.param == "opened" else lambda array, wanted: Fetching()(array, wanted)


def array(url: str, name: str) -> zarr.Array:
    return array_of(open_task(open_root(url, mode="r"), "t")[0], name)


@pytest.fixture(scope="module")
def finished(known: Known, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("direct") / "known.zarr")
    known.begin(url)
    known.write(url)
    return url


def axis(n: int) -> st.SearchStrategy:
    """An int, a slice in steps of either sign, or positions in any order and number, repeated or none."""
    positions = st.lists(st.integers(0, n - 1), max_size=6).map(lambda found: np.array(found, dtype=int))
    return st.integers(0, n - 1) | st.slices(n) | positions


@pytest.mark.parametrize("name", SHARDED)
def test_every_sharded_variable_is_read_directly_as_by_zarr(finished: str, name: str, how: Any) -> None:
    stored = array(finished, name)
    assert can_read(stored)
    np.testing.assert_array_equal(read_shards(stored, [slice(None)] * 3, how), stored[:])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_outer_selection_is_that_of_numpy(finished: str, known: Known, how: Any, data: st.DataObject) -> None:
    whole = known.mean.astype("f2")  # what went in: (layer, clip, neuron)
    selection = [data.draw(axis(n)) for n in whole.shape]
    expected = whole
    for at in (2, 1, 0):  # one axis after the other is the outer product
        expected = expected[(slice(None),) * at + (selection[at],)]
    read = read_shards(array(finished, "mean"), selection, how)
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, expected)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    hidden=st.lists(st.integers(0, N_CLIPS - 1), max_size=12), first=st.integers(0, 99), name=st.sampled_from(SHARDED)
)
def test_all_clips_but_a_few(finished: str, how: Any, hidden: list[int], first: int, name: str) -> None:
    """Chunks that are wanted almost whole are read where their values belong, of one object or of several."""
    stored = array(finished, name)
    for end in (first + 32, N_CLIPS):
        clips = np.setdiff1d(np.arange(first // 32 * 32, end), hidden)
        read = read_shards(stored, [slice(None), clips, slice(None)], how)
        np.testing.assert_array_equal(read, stored[:][:, clips])


@pytest.mark.parametrize("small_bytes", [0, 1 << 20])
def test_half_of_an_object_or_any_part_of_a_small_one_is_worth_all(
    finished: str, small_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects hold 2 layers of 32 clips by 3 chunks of neurons."""
    monkeypatch.setattr(fetched, "SMALL_BYTES", small_bytes)
    mean = array(finished, "mean")
    for layers, neurons, share in (([0, 1], [0, 299], 2 / 3), ([0], range(300), 1 / 2), ([1], [0, 299], 1 / 3)):
        wanted = [next(parts(np.array(at), n)) for at, n in ((layers, 2), ([5], 32), (neurons, 384))]
        assert worth_whole(mean, wanted) == (share >= 0.5 or small_bytes > 0)


def test_what_is_encoded_otherwise_is_left_to_zarr(finished: str) -> None:
    assert not can_read(array(finished, "status"))
    in_memory = zarr.create_array({}, shape=(4, 4), chunks=(2, 2), shards=(4, 4), dtype="u1")
    assert not can_read(in_memory)


def last_shard(url: str) -> Path:
    return Path(url) / "t/active_bits/c/0" / str((N_CLIPS - 1) // 32) / "0"


def test_every_flipped_byte_is_noticed(url: str, how: Any) -> None:
    stored, shard = array(url, "active_bits"), last_shard(url)
    intact = shard.read_bytes()
    rng = np.random.default_rng(0)
    index = np.arange(len(intact) - 36, len(intact))  # two inner chunks: 2 x 16 bytes, and 4 of their checksum
    for position in [*rng.integers(0, len(intact), 40), *index]:
        flipped = bytearray(intact)
        flipped[position] ^= 1 << rng.integers(8)
        shard.write_bytes(flipped)
        with pytest.raises(ValueError, match="c/0/8/0"):
            read_shards(stored, [slice(None), slice(N_CLIPS - 2, None), slice(None)], how)


@pytest.mark.parametrize("size", quick_sample([0, 3, 35, 36, -1], 2))
def test_a_cut_file_is_noticed(url: str, size: int, how: Any) -> None:
    stored, shard = array(url, "active_bits"), last_shard(url)
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(ValueError, match="c/0/8/0"):
        read_shards(stored, [0, N_CLIPS - 1, slice(None)], how)


def test_an_absent_file_is_an_error(url: str, how: Any) -> None:
    last_shard(url).unlink()
    with pytest.raises(FileNotFoundError):
        read_shards(array(url, "active_bits"), [slice(None), slice(None), slice(None)], how)


def test_an_inner_chunk_that_was_never_written_is_noticed(tmp_path: Path) -> None:
    stored = zarr.create_array(
        Folder(tmp_path / "a"),
        shape=(4,),
        chunks=(2,),
        shards=(4,),
        dtype="u1",
        compressors=[zarr.codecs.Crc32cCodec()],
    )
    stored[:2] = 1  # the other chunk is all fill, and left out
    assert can_read(stored)
    np.testing.assert_array_equal(read_shards(stored, [slice(2)]), [1, 1])
    with pytest.raises(ValueError, match="c/0"):
        read_shards(stored, [slice(None)])


def test_a_whole_chunk_in_another_order_is_not_read_as_it_lies(finished: str, known: Known) -> None:
    back = np.arange(31, -1, -1)
    read = read_shards(array(finished, "mean"), [slice(None), back, slice(None)])
    np.testing.assert_array_equal(read, known.mean.astype("f2")[:, back])
    bits = array(finished, "active_bits")
    np.testing.assert_array_equal(read_shards(bits, [slice(None), back, slice(None)]), bits[:, :32][:, ::-1])

"""Laws of rows from the store: the same rows however they lie in memory, each once per epoch, in an order that repeats;
no object read twice in a pass; no more memory than was said.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from otoscope.sae.rows import HeldRows
from otoscope.sae.source import Source, find_source
from otoscope.sae.stored_rows import Layout, StreamedRows, held_rows, layout_of, rows_of
from otoscope.store.state_rows import StateRows

from ..support.s3_server import BUCKET, ObjectServer
from ..support.state_store import write_states

N, WIDTH, BLOCK = 203, 6, 16
FAILED = (0, 17, 18, 202)
ROW = 4 * WIDTH


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, N, WIDTH)).astype("f4")


@pytest.fixture(scope="module")
def store(states: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("states") / "s")
    singer = ["abcdefg"[i * i % 7] if i % 5 else "" for i in range(N)]
    write_states(url, states, block=BLOCK, failed=FAILED, labels={"singer": singer, "one": ["x"] * N})
    return url


@pytest.fixture
def objects_read(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each object was read."""
    counts: Counter[int] = Counter()
    read = StateRows.read

    def counted(self: StateRows, number: int, out: np.ndarray) -> None:
        counts[number] += 1
        read(self, number, out)

    monkeypatch.setattr(StateRows, "read", counted)
    return counts


def streamed(source: Source, objects: int, state: int = 1, order_seed: int = 0) -> StreamedRows:
    return StreamedRows(source.state(state), source.train, objects, order_seed)


def test_clips_are_held_out_by_their_names_and_failed_ones_are_no_rows(store: str, states: np.ndarray) -> None:
    source = find_source(store, "t")
    both = np.concatenate([source.train, source.held_out])
    assert sorted(both.tolist()) == [i for i in range(N) if i not in FAILED]
    assert len(source.held_out) == round(0.2 * (N - len(FAILED))) == source.about["held_out"]["n"]
    assert find_source(store, "t", order_seed=1).held_out.tolist() != source.held_out.tolist()
    few = find_source(store, "t", where=["singer=a", "singer=b"])
    assert {*few.train, *few.held_out} < {*both}


def test_a_group_is_on_one_side_whatever_the_seed(store: str) -> None:
    sides = set()
    for seed in range(20):
        source = find_source(store, "t", group="singer", order_seed=seed, held_out=0.3)
        singer = np.array(["abcdefg"[i * i % 7] if i % 5 else "" for i in range(N)])
        train, out = ({*singer[own]} for own in (source.train, source.held_out))
        assert train
        assert out
        assert not train & out
        assert train | out == {*singer}
        assert source.about["held_out"]["n_groups"] == len(out)
        assert len(source.held_out) >= 0.3 * (N - len(FAILED)) or len(train) == 1
        sides.add(frozenset(out))
    assert len(sides) > 5


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"group": "colour"}, LookupError, r"no label column 'colour' to group clips by; its columns: one, singer"),
        ({"group": "one"}, ValueError, r"has 1 groups by one; expected two at least"),
        ({"where": ["singer=zz"]}, LookupError, r"no clip has singer 'zz'"),
        ({"held_out": 1.0}, ValueError, r"share held out is 1.0; expected more than 0"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    store: str, asked: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_source(store, "t", **asked)  # type: ignore[arg-type]


def test_a_state_that_is_not_there_is_refused(store: str) -> None:
    with pytest.raises(LookupError, match="task t has no hidden state 3; expected 0 to 2"):
        find_source(store, "t").state(3)


@pytest.mark.parametrize("objects", [1, 3, 13])
def test_rows_that_are_streamed_are_those_of_the_store_each_once(
    store: str, states: np.ndarray, objects_read: Counter[int], objects: int
) -> None:
    source = find_source(store, "t")
    rows = streamed(source, objects)
    wanted = states[1, source.train]
    assert (rows.n, rows.width) == wanted.shape
    np.testing.assert_array_equal(torch.cat(list(rows.plain(7))), wanted)
    for batch in (1, 7, 32, 1000):
        for number in (0, 1):
            objects_read.clear()
            batches = list(rows.epoch(number, batch))
            assert [len(each) for each in batches[:-1]] == [batch] * ((rows.n - 1) // batch)
            found = torch.cat(batches).numpy()
            assert (found != wanted).any()
            np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(wanted, axis=0))
            assert {*map(bytes, found)} == {*map(bytes, wanted)}
            assert objects_read == dict.fromkeys(range(-(-N // BLOCK)), 1)


def test_the_order_depends_on_seed_epoch_and_window_alone(store: str) -> None:
    source = find_source(store, "t")

    def order(number: int = 0, batch: int = 8, **how: int) -> bytes:
        rows = streamed(source, **{"objects": 3, **how})
        return torch.cat(list(rows.epoch(number, batch))).numpy().tobytes()

    assert order() == order() == order(batch=31)
    assert len({order(), order(number=1), order(objects=4), order(order_seed=1)}) == 4
    half = streamed(source, 3).epoch(0, 8)
    first = next(half)
    del half  # nothing is left running, and another epoch is not disturbed
    assert torch.equal(next(streamed(source, 3).epoch(0, 8)), first)


def test_rows_that_fit_are_held_and_read_once(store: str, states: np.ndarray, objects_read: Counter[int]) -> None:
    source = find_source(store, "t")
    every = len(source.train) + len(source.held_out)
    held = []
    for memory in (every * ROW, 10**9):
        layout = layout_of(source, source.state(2), memory)
        assert layout == Layout(memory=every * ROW, objects=0)
        objects_read.clear()
        train, held_out = rows_of(source, 2, layout, 5, "cpu")
        held.append(torch.cat(list(train.epoch(3, 9))))
        assert objects_read == dict.fromkeys(range(-(-N // BLOCK)), 1)
        np.testing.assert_array_equal(torch.cat(list(held_out.plain(9))), states[2, source.held_out])
    exact = HeldRows(torch.from_numpy(states[2, source.train]), 5)
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[0], torch.cat(list(exact.epoch(3, 9))))


def test_a_layout_is_that_of_the_memory_it_takes(store: str, states: np.ndarray) -> None:
    source = find_source(store, "t")
    state = source.state(0)
    smallest = 3 * state.object_bytes
    seen = set()
    for memory in range(smallest, (N + 1) * ROW, 40):
        layout = layout_of(source, state, memory)
        assert layout.memory <= memory
        assert layout_of(source, state, layout.memory) == layout
        held = ROW * len(source.held_out) if layout.hold_out else 0
        if layout.objects:
            assert (2 * layout.objects + 1) * state.object_bytes + held <= memory
        seen.add(layout)
    assert {layout.hold_out for layout in seen} == {True, False}
    assert {layout.objects for layout in seen} >= {0, 1, 2, 3}
    with pytest.raises(
        ValueError, match=f"do not fit into a memory of {smallest - 1} bytes.*; expected at least {smallest}"
    ):
        layout_of(source, state, smallest - 1)
    for layout in seen:
        train, held_out = rows_of(source, 0, layout, 0, "cpu")
        np.testing.assert_array_equal(torch.cat(list(held_out.plain(9))), states[0, source.held_out])
        assert train.n == len(source.train)


def test_damaged_and_missing_objects_are_errors(states: np.ndarray, tmp_path: Path) -> None:
    write_states(tmp_path / "s", states, block=BLOCK)
    source = find_source(str(tmp_path / "s"), "t")
    clips = [np.arange(N)]
    assert torch.equal(held_rows(source.state(2), clips)[0], torch.from_numpy(states[2]))
    damaged = tmp_path / "s/t/hidden/c/0/4/0"
    data = bytearray(damaged.read_bytes())
    data[3] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match=r"t/hidden in .* is damaged .*0/4/0"):
        list(StreamedRows(source.state(0), clips[0], 2).epoch(0, 9))
    damaged.unlink()
    with pytest.raises(FileNotFoundError, match="missing"):
        list(StreamedRows(source.state(0), clips[0], 2).epoch(0, 9))


def test_an_object_store_gives_the_same_rows(
    store: str, s3: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore
    from obstore.store import S3Store

    prefix = tmp_path.name
    bucket = S3Store(BUCKET, prefix=prefix, client_options={"allow_http": True})
    for path in Path(store).rglob("*"):
        if path.is_file():
            obstore.put(bucket, path.relative_to(store).as_posix(), path.read_bytes())
    here, there = find_source(store, "t"), find_source(f"s3://{BUCKET}/{prefix}", "t")
    assert (here.about, here.base) == (there.about, there.base)
    s3.log.clear()
    assert torch.equal(torch.cat(list(streamed(there, 3).epoch(0, 9))), torch.cat(list(streamed(here, 3).epoch(0, 9))))
    asked = Counter(key.rpartition("/hidden/c/")[2] for method, key in s3.log)
    assert {*asked.values()} == {1}, "objects so small are fetched whole, and once"

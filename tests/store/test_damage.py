"""Single objects flipped, cut, removed, exchanged and put back: nothing wrong is read, and `verify` finds it.

Laws: after a flip, a cut or a removal whatever is shown is right; names and labels are right after anything; `verify`
names everything but the complete earlier state of a block put back, which no single object is.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from otoscope.store.changes.tasks import add_labels
from otoscope.store.verify import verify
from otoscope.store.writer import write_block

from ..support.amounts import quick_sample, some
from ..support.known_store import N_CLIPS, Known
from ..support.shown import REFUSALS, Shown, shown
from ..support.stored_files import tree_of

LABELS = ("digit", "who, exactly")
KINDS = ("flip", "cut", "remove", "swap", "rollback")


@pytest.fixture(scope="module")
def states(known: Known, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A finished store of two tasks, and objects as they were before it was grown, relabelled and written again."""
    url = tmp_path_factory.mktemp("states") / "s.zarr"
    part = known.head(N_CLIPS - 40)
    part.begin(str(url))
    part.write(str(url))
    before = tree_of(url)
    known.begin(str(url))
    louder = replace(known, mean=known.mean + 1, positive=known.positive + 1)
    for block in known.blocks():
        write_block(str(url), block, louder.values(block), known.status[block.clips], "code 0")
    before |= {
        key: data for key, data in tree_of(url).items() if "/c/" in key and key.split("/")[1] not in ("clip", "path")
    }
    known.write(str(url))
    add_labels(str(url), "t", {"digit": ["7"] * N_CLIPS}, overwrite=True)
    add_labels(str(url), "t", {"digit": known.clips.labels["digit"]}, overwrite=True)
    return url, before


def damaged(
    kind: str, rng: np.random.Generator, now: dict[str, bytes], before: dict[str, bytes]
) -> dict[str, bytes | None]:
    """What objects become, of a kind chosen first, so that rare ones are met as often."""
    arrays = sorted({key.partition("/c/")[0] for key in now})
    of = str(rng.choice(arrays))
    key = str(rng.choice(sorted(k for k in now if k.partition("/c/")[0] == of)))
    data = now[key]
    if kind == "flip":
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        return {key: bytes(broken)}
    if kind == "cut":
        return {key: data[: rng.integers(len(data))]}
    if kind == "remove":
        return {key: None}
    if kind == "swap":
        alike = sorted(k for k in now if k != key and (k.partition("/c/")[0] == of or len(now[k]) == len(data)))
        other = str(rng.choice(alike or sorted(now)))
        return {key: now[other], other: data}
    earlier = sorted(k for k, old in before.items() if k in now and now[k] != old)
    key = str(rng.choice(earlier))
    return {key: before[key]}


@pytest.mark.parametrize("kind", quick_sample(KINDS, 2))
@pytest.mark.parametrize("n", [8, pytest.param(some(40, of=130), marks=pytest.mark.slow)])
def test_a_damaged_object_shows_nothing_wrong_and_is_found(
    states: tuple[Path, dict[str, bytes]], tmp_path: Path, kind: str, n: int
) -> None:
    url, before = states
    now = {key: data for key, data in tree_of(url).items() if "/label_digit.2/" not in key}  # the former one
    rng = np.random.default_rng(KINDS.index(kind) * 1000 + n)
    truth = shown(str(url))
    copy = tmp_path / "s.zarr"
    shutil.copytree(url, copy)
    for _ in range(n):
        changed = damaged(kind, rng, now, before)
        if all(data == now.get(key) for key, data in changed.items()):
            continue
        for key, data in changed.items():
            copy.joinpath(key).unlink() if data is None else copy.joinpath(key).write_bytes(data)
        check(str(copy), truth, kind, changed, now)
        for key in changed:
            copy.joinpath(key).write_bytes(now[key])
    assert shown(str(copy)) == truth


def check(url: str, truth: Shown, kind: str, changed: dict[str, bytes | None], now: dict[str, bytes]) -> None:
    try:
        found = [str(damage) for damage in verify(url)]
    except REFUSALS as error:
        found = [str(error)]
    assert found or all(data and is_same_document(data, now[key]) for key, data in changed.items()), (kind, [*changed])
    try:
        seen = shown(url)
    except REFUSALS:
        return
    for task, clips in seen.items():
        for clip, values in clips.items():
            right = truth[task][clip]
            if kind in ("swap", "rollback"):  # of a block's values: `verify` finds them
                values, right = ({name: row[name] for name in ("clip", *LABELS)} for row in (values, right))
            assert values == right, (kind, [*changed], clip)


def is_same_document(data: bytes, before: bytes) -> bool:
    """Whether only the white space of a document is another."""
    try:
        return bool(json.loads(data) == json.loads(before))
    except ValueError:
        return False

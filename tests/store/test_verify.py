"""Verify finds every flipped byte, every missing object, and two writes mixed in one block."""

from pathlib import Path

import numpy as np
import pytest

from otoscope.store.verify import verify
from otoscope.store.writer import write_block

from .conftest import Known, files


def damage(url: str) -> list[str]:
    try:
        return [str(d) for d in verify(url)]
    except (ValueError, OSError) as e:
        return [str(e)]


def test_an_intact_store_has_no_damage(url: str) -> None:
    assert list(verify(url)) == []


def data_files(url: str) -> list[str]:
    return [name for name in files(url) if not name.endswith("zarr.json")]


def test_every_flipped_byte_is_found(url: str) -> None:
    rng = np.random.default_rng(0)
    names = data_files(url)
    kinds = {name.split("/c")[0]: name for name in names}
    assert len(kinds) == 21  # one file of every array
    for name in [*kinds.values(), *rng.choice(names, 20)]:
        path = Path(url) / name
        intact = path.read_bytes()
        broken = bytearray(intact)
        broken[rng.integers(len(intact))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(broken))
        assert damage(url), name
        path.write_bytes(intact)
    assert damage(url) == []


@pytest.mark.filterwarnings("ignore:Object at")
def test_a_flipped_byte_in_metadata_is_found_or_harmless(known: Known, url: str) -> None:
    """A change in white space, or in the root's copy of what the tasks say, changes nothing that is read."""
    rng = np.random.default_rng(1)
    for name in ("t/mean/zarr.json", "t/label_digit/zarr.json", "t/zarr.json"):
        path = Path(url) / name
        intact = path.read_bytes()
        solid = [i for i, byte in enumerate(intact) if byte not in b" \n"]
        for at in rng.choice(solid, 12):
            broken = bytearray(intact)
            broken[at] ^= 1
            path.write_bytes(bytes(broken))
            assert damage(url), (name, at, intact[max(0, at - 20) : at + 20])
            path.write_bytes(intact)


def test_every_missing_or_empty_object_is_found(url: str) -> None:
    kinds = {name.split("/c")[0]: name for name in data_files(url)}
    for kind, name in kinds.items():
        if kind == "t/status":
            continue  # a block without status is pending
        path = Path(url) / name
        intact = path.read_bytes()
        path.unlink()
        assert any(kind in line or "block" in line for line in damage(url)), name
        path.write_bytes(b"")
        assert damage(url), name
        path.write_bytes(intact)


@pytest.mark.parametrize("name", ["active_bits", "mean", "embedding", "reason"])
def test_a_block_mixed_of_two_writes_is_found(known: Known, url: str, tmp_path: Path, name: str) -> None:
    block = known.blocks()[4]
    values = known.values(block)
    values[name] = np.roll(values[name], 1, axis=-1) if name != "reason" else np.full_like(values[name], "late")
    other = str(tmp_path / "late.zarr")
    known.begin(other)
    write_block(other, block, values, known.status[block.clips], "code 1")
    for late in Path(other, "t", name, "c").rglob("*"):
        if late.is_file():
            Path(url, late.relative_to(other)).write_bytes(late.read_bytes())
    if name == "embedding":  # equal in every column: rolling it changes nothing
        assert damage(url) == []
    else:
        assert any("mixture" in line and f"t/{name} block 4" in line for line in damage(url))

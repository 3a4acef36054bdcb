"""Write blocks and commit them. FORMAT.md is the norm; blocks are written here, everything else in changes/.

Goal: whatever happens, a store holds whole committed blocks and nothing else that counts; also where several runs
write at the same instant.
Conventions: values are in disk order (see schema.py), without padding. A block exists if and only if its status is
written, which is therefore written last.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
import zarr

from .blocks import Block, blocks
from .group import array_of, digested_in, dims_of, open_root, open_task, status_of, task_at
from .location import zarr_store
from .objects import put_parts
from .provenance import Plan
from .schema import COMMITTING, PENDING


def pending_blocks(url: str, task: str) -> list[Block]:
    """Blocks that are not committed, in order."""
    group, record = open_task(open_root(url), task)
    plan = record.plan
    status = status_of(group, plan)
    return [b for b in blocks(task, plan.n_clips, plan.block) if (status[b.clips] == PENDING).any()]


def reset_block(url: str, block: Block) -> None:
    """Put a block back to pending, so that the next run extracts it again."""
    group, _ = open_task(open_root(url), block.task)
    put_pending(group, block)


def put_pending(group: zarr.Group, block: Block) -> None:
    """Write a block as one that was never committed: its status, then no digests."""
    put_values(group, block, {"status": np.full(len(block), PENDING, "uint8")})
    put_values(group, block, {"digest": np.zeros((1, len(digested_in(group))), "uint32")})


def write_block(
    url: str, block: Block, values: Mapping[str, np.ndarray], status: np.ndarray, version: str,
    *, plan: Plan | None = None,
) -> None:  # fmt: skip
    """Write a block's values and commit it: objects, then their digests, then the status.

    values: every kept variable, `reason` and `audio_digest`, in disk order, restricted to the block's clips.
    status: uint8 (clip), `OK` or `FAILED`. Writing the same block again gives the same bytes.
    version: of the code and the device that it comes from.
    plan: what the block was extracted by. Raises ValueError where it is the store's no longer, before anything is
    written and again before the commit; OSError where something could not be written: the block is then not committed.
    """
    group, begun = _open_as_planned(url, block.task, plan)  # one document: all that is read for a block
    digested = digested_in(group)
    if set(digested) != {*values, *COMMITTING}:
        kept = sorted(set(digested) - set(COMMITTING))
        raise ValueError(f"block {block.index} brings {sorted(values)}; the plan keeps {kept}")
    if status.shape != (len(block),) or (status == PENDING).any():
        raise ValueError(f"block {block.index} brings no final status for each of its {len(block)} clips")
    put_values(group, block, {name: values[name] for name in digested if name in values})
    whole = {**values, "version": np.array([version], dtype=object), "status": status}
    digests = np.array([[digest_block(block, name, whole[name]) for name in digested]], dtype="uint32")
    _open_as_planned(url, block.task, begun)
    put_values(group, block, {"digest": digests, "version": whole["version"]})
    put_values(group, block, {"status": status})


def _open_as_planned(url: str, task: str, plan: Plan | None) -> tuple[zarr.Group, Plan]:
    """A task's group and plan, to be written. Raises ValueError where the plan is another, or gone."""
    found = task_at(zarr_store(url).with_read_only(False), task)
    if found is None or plan not in (None, found[1].plan):
        how = "; ".join(found[1].plan.differences(plan)) if found and plan else "it is gone"
        raise ValueError(
            f"{url} task {task} was begun anew or appended to while this run was at work ({how}); expected the plan "
            "that it began with: what is committed is kept, run the command again"
        )
    return found[0], found[1].plan


def put_values(group: zarr.Group, block: Block, values: Mapping[str, np.ndarray]) -> None:
    """Write values of a block, by array; several objects at a time where that saves waiting.

    Raises the first error once nothing is under way any more, so that nothing arrives after the call.
    """
    arrays = {name: array_of(group, name) for name in values}
    put_parts(group.store, [part for name in values for part in _parts(arrays[name], block, values[name])])


def _parts(
    array: zarr.Array[Any], block: Block, values: np.ndarray
) -> Iterator[tuple[str, zarr.Array[Any], np.ndarray]]:
    """(key, array, values) of each object of an array that a block fills."""
    size = array.shards or array.chunks
    where = {"clip": block.start, "block": block.index}
    first = [where.get(dim, 0) // n for dim, n in zip(dims_of(array), size, strict=True)]
    for at in np.ndindex(*(-(-n // s) for n, s in zip(values.shape, size, strict=True))):
        part = values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, size, strict=True))]
        key = array.metadata.encode_chunk_key(tuple(a + b for a, b in zip(first, at, strict=True)))
        yield f"{array.path}/{key}", array, part


def digest_block(block: Block, name: str, values: np.ndarray) -> int:
    """CRC-32C of a block's values of an array, after the task's, the array's and the block's name."""
    return digest_values(values, google_crc32c.value(f"{block.task}/{name}/{block.index}\0".encode()))


def digest_values(values: np.ndarray, crc: int = 0) -> int:
    """CRC-32C of an array's values: little-endian, C order; strings as UTF-8 joined by NUL.

    crc: that of what comes before.
    """
    if values.dtype.kind in "TOU":
        return int(google_crc32c.extend(crc, "\0".join(map(str, values)).encode()))
    for part in values if values.ndim > 1 else [values]:
        little = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
        crc = google_crc32c.extend(crc, little.tobytes())
    return int(crc)

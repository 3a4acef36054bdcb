"""Write blocks and commit them. FORMAT.md is the norm; blocks are written here, everything else in tasks.py.

Goal: whatever happens, a store holds whole committed blocks and nothing else that counts; also where several runs
write at the same instant.
Conventions: values are in disk order (see schema.py), without padding. A block exists if and only if its status is
written, which is therefore written last.
Contents: `pending_blocks`, `reset_block`, `write_block`, `digest_values`; from elsewhere `ClipTable`, `create`,
`add_task`, `add_labels`.
"""

from collections.abc import Mapping

import google_crc32c
import numpy as np

from .blocks import Block, blocks
from .changes.tasks import add_labels as add_labels
from .changes.tasks import add_task as add_task
from .changes.tasks import create as create
from .clips import ClipTable as ClipTable
from .group import digested_in, document_at, open_root, open_task, plan_of, task_at, values_of
from .location import zarr_store
from .objects import put_values
from .provenance import Plan
from .schema import PENDING


def pending_blocks(url: str, task: str) -> list[Block]:
    """Blocks that are not committed, in order."""
    group, plan = open_task(open_root(url), task)
    status = values_of(group, "status", slice(plan.n_clips))
    return [b for b in blocks(task, plan.n_clips, plan.block) if (status[b.clips] == PENDING).any()]


def reset_block(url: str, block: Block) -> None:
    """Put a block back to pending, so that the next run extracts it again."""
    group, _ = open_task(open_root(url), block.task)
    put_values(group, block, {"status": np.full(len(block), PENDING, "uint8")})


def write_block(
    url: str, block: Block, values: Mapping[str, np.ndarray], status: np.ndarray, version: str,
    *, plan: Plan | None = None,
) -> None:  # fmt: skip
    """Write a block's values and commit it: objects, then their digests, then the status.

    values: every kept variable, `reason` and `audio_digest`, in disk order, restricted to the block's clips.
    status: uint8 (clip), `OK` or `FAILED`. Writing the same block again gives the same bytes.
    plan: what the block was extracted by. Raises ValueError where it is the store's no longer, before anything is
    written and again before the commit; OSError where something could not be written: the block is then not committed.
    """
    store = zarr_store(url).with_read_only(False)
    found = task_at(store, block.task)  # one document: all that is read for a block, now and before the commit
    _refuse_other_plan(url, block.task, found and found[1], plan)
    assert found is not None
    group = found[0]
    digested = digested_in(group)
    if set(digested) != set(values):
        raise ValueError(f"block {block.index} brings {sorted(values)}; the plan keeps {sorted(digested)}")
    if status.shape != (len(block),) or (status == PENDING).any():
        raise ValueError(f"block {block.index} brings no final status for each of its {len(block)} clips")
    put_values(group, block, {name: values[name] for name in digested})
    digests = np.array([[digest_values(values[name]) for name in digested]], dtype="uint32")
    now = plan_of(block.task, document_at(store, f"{block.task}/zarr.json"))
    _refuse_other_plan(url, block.task, now, plan or found[1])
    put_values(group, block, {"digest": digests, "version": np.array([version], dtype=object)})
    put_values(group, block, {"status": status})


def _refuse_other_plan(url: str, task: str, stored: Plan | None, plan: Plan | None) -> None:
    if stored is None or (plan is not None and stored != plan):
        how = "; ".join(stored.differences(plan)) if stored and plan else "it is gone"
        raise ValueError(
            f"{url} task {task} was begun anew or appended to while this run was at work ({how}); expected the plan "
            "that it began with: what is committed is kept, run the command again"
        )


def digest_values(values: np.ndarray) -> int:
    """CRC-32C of an array's values: little-endian, C order; strings as UTF-8 joined by NUL."""
    if values.dtype.kind in "TOU":
        return int(google_crc32c.value("\0".join(map(str, values)).encode()))
    crc = 0
    for part in values if values.ndim > 1 else [values]:
        little = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
        crc = google_crc32c.extend(crc, little.tobytes())
    return int(crc)

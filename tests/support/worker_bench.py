"""A worker with a store to write to, as a run makes it, for tests that call it themselves."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.plan import Extraction, Model, clip_table, make_plan, origin_of, prepare_store
from otoscope.extract.worker import BlockReport, Worker
from otoscope.store.blocks import Block
from otoscope.store.provenance import kept
from otoscope.store.status import task_status
from otoscope.store.writer import pending_blocks

from .wav_corpora import write_corpus


@dataclass(frozen=True, kw_only=True)
class Bench:
    url: str
    worker: Worker
    blocks: list[Block]
    sounds: list[np.ndarray]

    def all_at_once(self, pieces: list[Any]) -> list["Future[BlockReport]"]:
        """Two calls at a time, as executors do; all have ended."""
        with ThreadPoolExecutor(2, thread_name_prefix="piece") as pool:
            return [pool.submit(self.worker, piece) for piece in pieces]

    def committed(self) -> list[int]:
        return [block.index for block in task_status(self.url, "t").blocks()]


@contextmanager
def bench(folder: Path, encoder: Encoder, lengths: list[int], **options: Any) -> Iterator[Bench]:
    """Task "t" of WAV files of so many samples; blocks of 4, batches of 3, means only, unless told otherwise."""
    manifest, sounds = write_corpus(folder, lengths)
    corpus, url = read_manifest(manifest), str(folder / "s")
    clips = clip_table(corpus)
    given = {"block": 4, "batch": 3, "threads": 1, "variables": ("mean",), "unit_sec": None, "mean_dtype": None}
    given |= options
    given["variables"] = kept(given["variables"])
    plan, origin = make_plan(None, corpus, clips, **given), origin_of(encoder, "audio")
    prepare_store(url, "t", origin, plan, clips, replan=False)
    extraction = Extraction(
        url=url, clips=corpus.clips, origin=origin, plan=plan, model=Model(encoder=encoder), code="code"
    )
    worker = Worker(extraction, encoder)
    try:
        yield Bench(url=url, worker=worker, blocks=pending_blocks(url, "t"), sounds=sounds)
    finally:
        worker.close()

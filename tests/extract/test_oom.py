"""A device whose memory has room for some clips only: batches are halved, that is recorded, and the run goes on."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.report import Report
from otoscope.store.status import task_status
from otoscope.store.verify import verify

from ..support.closed_form import RATE, closed_form, of_clips, spans
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_corpus, write_wav_file


class Small(nn.Module):
    """Has room for so many clips at a time; fewer while a marked clip is among them. Records what it was given."""

    def __init__(self, room: int, marked_room: int | None = None, message: str = "CUDA out of memory") -> None:
        super().__init__()
        self.site, self.room, self.message = nn.Identity(), room, message
        self.marked_room = room if marked_room is None else marked_room
        self.tried: list[int] = []

    def forward(self, tokens: Tensor) -> Tensor:
        if of_clips(tokens):
            self.tried.append(len(tokens))
            if len(tokens) > (self.marked_room if (tokens == 0.5).any() else self.room):
                kind = torch.OutOfMemoryError if "memory" in self.message else RuntimeError
                raise kind(self.message)
        return self.site(tokens)


def encoder(module: nn.Module) -> Encoder:
    return closed_form(module=module, sites=["site"], transformer_layers=(), frame_spans=lambda n: spans(n)[1:])


@pytest.fixture(autouse=True)
def _no_parity_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passes would be counted."""
    monkeypatch.setattr("otoscope.extract.preflight.check_parity", lambda *_: "")


def run(folder: Path, module: nn.Module, url: str = "s", **options: Any) -> Report:
    given = {"block": 16, "batch": 16, "threads": 1, "keep": ("mean", "positive_frames")}
    return capture(encoder(module), folder / "corpus.csv", str(folder / url), task="t", **{**given, **options})


def versions(url: Path) -> list[str]:
    return [str(text) for text in np.asarray(zarr.open_group(url, mode="r")["t/version"])]


@pytest.mark.parametrize(
    "message", ["CUDA out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublas"]
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    """16 clips, room for 5: 16, 8, then fours; each block begins with the plan's batch again."""
    write_corpus(tmp_path, [40] * 132)  # 9 blocks, the last of 4 clips
    module = Small(5, message=message)
    with caplog.at_level(logging.WARNING):
        report = run(tmp_path, module, report=tmp_path / "report.json")
    assert (report.n_ok, report.n_failed) == (132, 0)
    assert module.tried == [16, 8, 4, 4, 4, 4] * 8 + [4]
    assert caplog.text.count("had room for 4 of the 16 clips of a batch in block ") == 8
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["halved"] == [{"block": i, "batch": 4, "planned": 16} for i in range(8)]
    *halved, whole = versions(tmp_path / "s")
    assert all(" batch 4 for want of memory on " in text for text in halved)
    assert "memory" not in whole
    run(tmp_path, Small(1000), url="roomy")
    values = [
        {
            name: data
            for name, data in tree_of(tmp_path / url).items()
            if "/version/" not in name and "/digest/" not in name
        }
        for url in ("s", "roomy")
    ]
    assert values[0] == values[1]  # this arithmetic is exact in batches of any size
    assert list(verify(str(tmp_path / "s"))) == []


def test_the_rest_of_the_block_goes_on_in_smaller_batches_and_lengths_do_not_mix(tmp_path: Path) -> None:
    """Two lengths: the batch that did not fit is of the longer clips, and all that follow in the block are smaller."""
    _, sounds = write_corpus(tmp_path, [40, 60] * 16 + [40] * 8)
    write_wav_file(tmp_path / "audio/001.wav", np.where(np.arange(60) == 7, 1 << 14, sounds[1]), RATE)
    module = Small(100, marked_room=7)
    run(tmp_path, module, block=40, batch=8)
    assert module.tried == [8] + [8, 4, 4] + [4, 4] * 3


def test_one_clip_that_does_not_fit_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    _, sounds = write_corpus(tmp_path, [40] * 37)
    write_wav_file(tmp_path / "audio/030.wav", np.where(np.arange(40) == 7, 1 << 14, sounds[30]), RATE)
    with pytest.raises(
        ValueError,
        match=r"block 7 \(clips 28 to 31\): one clip of 40 samples does not fit .*\(CUDA out of memory\).*shorter",
    ) as caught:
        run(tmp_path, Small(1000, marked_room=0), block=4)
    assert "\n" not in str(caught.value)
    done = [block.index for block in task_status(str(tmp_path / "s"), "t").blocks()]
    assert done in ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 8])  # the one after it was under way
    assert run(tmp_path, Small(1000), block=4).n_ok == 37


def test_other_errors_of_the_model_are_no_want_of_memory(tmp_path: Path) -> None:
    write_corpus(tmp_path, [40] * 16)
    module = Small(5, message="no such kernel")
    with pytest.raises(
        ValueError, match=r"the encoder failed on 16 clips of 40 samples \(RuntimeError: no such kernel\)"
    ):
        run(tmp_path, module)
    assert module.tried == [16]


def test_what_did_not_fit_is_let_go_before_the_next_attempt(tmp_path: Path) -> None:
    """Nothing holds the tensors of the pass that failed while the halves run."""
    import gc
    import weakref

    class Watched(Small):
        def forward(self, tokens: Tensor) -> Tensor:
            if of_clips(tokens) and len(tokens) == 16:
                self.given = weakref.ref(tokens)
            elif of_clips(tokens):
                assert self.given() is None
            return super().forward(tokens)

    write_corpus(tmp_path, [40] * 16)
    gc.disable()  # nor is it left to a collection
    try:
        run(tmp_path, Watched(8))
    finally:
        gc.enable()

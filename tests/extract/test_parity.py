"""Padding parity: a model that mixes clips of a batch is refused before anything is written."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from torch import Tensor, nn

from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.report import Report

from ..support.closed_form import closed_form, of_clips, spans
from ..support.wav_corpora import write_corpus


class Leaky(nn.Module):
    """Adds `leak` times the largest value, for each neighbour in the batch; keeps the shapes it has seen."""

    def __init__(self, leak: float = 0.0) -> None:
        super().__init__()
        self.site, self.leak = nn.Identity(), leak
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        if of_clips(tokens):
            self.shapes.append(tuple(tokens.shape[:2]))
        mean = tokens.mean(dim=1, keepdim=True)
        return self.site(tokens + self.leak * (len(tokens) - 1) * mean.abs().amax())


def encoder(module: nn.Module, **changes: Any) -> Encoder:
    return closed_form(
        module=module, sites=["site"], transformer_layers=(), embed=lambda out: out.mean(dim=1),
        frame_spans=lambda n: spans(n)[1:],
        **changes,
    )  # fmt: skip


def run(folder: Path, module: nn.Module, lengths: list[int], **options: Any) -> Report:
    manifest = folder / "corpus.csv"
    if not manifest.exists():
        write_corpus(folder, lengths)
    return capture(
        encoder(module), manifest, str(folder / "s"), task="t", threads=1, **{"block": 8, "keep": ("mean",), **options}
    )


def recorded(folder: Path) -> set[str]:
    return set(np.asarray(zarr.open_group(folder / "s", mode="r")["t/version"]).tolist())


def test_a_model_that_keeps_clips_apart_runs_and_the_tolerance_is_recorded(tmp_path: Path) -> None:
    module = Leaky()
    assert run(tmp_path, module, [40] * 9, batch=3).n_ok == 9
    assert module.shapes[:2] == [(2, 4), (1, 4)]
    assert sorted(module.shapes[2:]) == [(1, 4), (2, 4), (3, 4), (3, 4)]  # of two blocks, whichever is decoded first
    (version,) = recorded(tmp_path)
    assert " parity within 0.0001 on " in version
    module.shapes.clear()
    run(tmp_path, module, [], batch=3)
    assert module.shapes == []  # a finished task is not checked again


def test_a_model_that_mixes_clips_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a clip in a batch of 2 other results.*(embedding|site).*at most 0.0001"
    ) as caught:
        run(tmp_path, Leaky(0.5), [40] * 9)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_it_runs_if_told_and_that_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path, Leaky(0.5), [40] * 9, parity="warn").n_ok == 9
    assert "other results than alone" in caplog.text
    (version,) = recorded(tmp_path)
    assert " parity not within 0.0001, accepted on " in version


def test_it_runs_in_batches_of_one(tmp_path: Path) -> None:
    assert run(tmp_path, Leaky(0.5), [40] * 3, batch=1).n_ok == 3
    assert "parity" not in recorded(tmp_path).pop()


@pytest.mark.parametrize(("leak", "refused"), [(0.9e-4, False), (1.1e-4, True)])
def test_the_tolerance_is_a_share_of_the_largest_value(tmp_path: Path, leak: float, refused: bool) -> None:
    """The leak is that share of the largest mean in a batch of two, as the check takes."""
    if refused:
        with pytest.raises(ValueError, match="other results"):
            run(tmp_path, Leaky(leak), [40] * 4)
    else:
        run(tmp_path, Leaky(leak), [40] * 4)


def test_a_model_that_breaks_in_batches_only_is_refused(tmp_path: Path) -> None:
    class Breaking(Leaky):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens * (1.0 if len(tokens) == 1 else float("nan")))

    with pytest.raises(ValueError, match="differs by inf"):
        run(tmp_path, Breaking(), [40] * 4)


def test_clips_of_other_lengths_are_cut_to_share_a_batch_and_bad_ones_left_out(tmp_path: Path) -> None:
    write_corpus(tmp_path, [50, 30, 34, 80, 45, 90])
    (tmp_path / "audio/000.wav").write_bytes(b"")
    module = Leaky()
    run(tmp_path, module, [], max_failures=1.0)
    assert module.shapes[:2] == [(2, 3), (1, 3)]


def test_an_encoder_that_fails_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    class Failing(Leaky):
        def forward(self, tokens: Tensor) -> Tensor:
            if of_clips(tokens):
                raise RuntimeError("no such kernel")
            return super().forward(tokens)

    for batch in (1, 3):
        with pytest.raises(ValueError, match=r"failed on \d clips of 40 samples \(RuntimeError: no such kernel\)"):
            run(tmp_path, Failing(), [40] * 4, batch=batch)
        assert not (tmp_path / "s").exists()


def test_normalisation_over_the_batch_is_found(tmp_path: Path) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.site = nn.BatchNorm1d(10, track_running_stats=False), nn.Identity()

        def forward(self, tokens: Tensor) -> Tensor:
            return self.site(self.norm(tokens.transpose(1, 2)).transpose(1, 2))

    with pytest.raises(ValueError, match="nothing is computed over the batch"):
        run(tmp_path, Normed(), [40] * 4)


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'ignore' is not a valid way.*expected refuse or warn"):
        run(tmp_path, Leaky(), [40] * 2, parity="ignore")
    assert not (tmp_path / "s").exists()

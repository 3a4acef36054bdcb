"""What travels to where workers run: small, and made into the same worker there; nothing of the model stays here."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from otoscope.cluster.executor import Done, SerialExecutor
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.loader import LoadedClip
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.plan import Extraction, Model, clip_table, make_plan, origin_of, prepare_store, to_device
from otoscope.extract.preflight import Preflight, proposed_batch
from otoscope.extract.worker import make_worker
from otoscope.store.provenance import kept
from otoscope.store.status import task_status

from ..support.amounts import quick_sample
from ..support.closed_form import ClosedForm, closed_form, of_clips
from ..support.commands import CLOSED_FORM
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import tree_of
from ..support.wav_corpora import LENGTHS, write_corpus


class Elsewhere(SerialExecutor):
    """An executor that pickles all that it is given and gives back, as if workers were in other processes."""

    name, remote, on_this_machine = "elsewhere", True, False

    def __init__(self, cpus: float = 1.0) -> None:
        self.cpus_per_worker = cpus
        self.sent: list[bytes] = []
        self.pieces: list[Any] = []

    def run(self, make_worker: Any, pieces: Any) -> Any:
        self.sent.append(cloudpickle.dumps(make_worker))
        pieces = list(pieces)
        self.pieces.append(pieces)
        for event in super().run(cloudpickle.loads(self.sent[-1]), cloudpickle.loads(cloudpickle.dumps(pieces))):
            yield cloudpickle.loads(cloudpickle.dumps(event))


def options(**more: Any) -> dict[str, Any]:
    return {"task": "t", "block": 4, "batch": 3, "threads": 1, **more}


def test_the_store_is_that_of_a_run_in_this_process_and_the_model_is_never_sent(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [4000 + 160 * i for i in range(33)], rate=16_000)
    executor = Elsewhere()
    report = capture("tiny-ssl", manifest, str(tmp_path / "a"), executor=executor, **options())
    capture("tiny-ssl", manifest, str(tmp_path / "b"), **options())
    assert report.n_ok == 33
    assert tree_of(tmp_path / "a") == tree_of(tmp_path / "b")
    assert [len(pieces) for pieces in executor.pieces] == [1, 9]  # a look at the encoder, then the blocks
    assert max(map(len, executor.sent)) < 20_000  # the model has 1.5 MB


def test_one_pass_tells_the_shapes_of_an_encoder(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    encoder, of_sounds = closed_form(), list[bool]()
    encoder.module.register_forward_pre_hook(lambda _, inputs: of_sounds.append(not of_clips(inputs[0])))
    capture(encoder, manifest, str(tmp_path / "s"), **options())
    assert of_sounds.count(True) == 1


def test_this_process_loads_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loads it is called only while a worker is made or a piece is worked on."""
    working: list[bool] = []
    calls: list[bool] = []

    class Noted(Elsewhere):
        def run(self, make_worker: Any, pieces: Any) -> Any:
            working.append(True)
            yield from super().run(make_worker, pieces)
            working.clear()

    def load(spec: str) -> Any:
        calls.append(bool(working))
        return load_encoder(spec)

    monkeypatch.setattr("otoscope.extract.plan.load_encoder", load)
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    capture(CLOSED_FORM, manifest, str(tmp_path / "s"), executor=Noted(), **options())
    assert calls
    assert all(calls)


def test_what_a_worker_finds_wrong_with_the_encoder_is_said_as_it_would_be_here(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    for spec, message in (
        (CLOSED_FORM[:-4] + "fern", "has no function 'closed_fern'"),
        ("m2d:gone", "nothing at gone"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            capture(spec, manifest, str(tmp_path / "s"), executor=Elsewhere(), **options())
    assert not (tmp_path / "s").exists()


def extraction(folder: Path, spec: str) -> Extraction:
    manifest, _ = write_corpus(folder, LENGTHS)
    corpus, url = read_manifest(manifest), str(folder / "s")
    clips = clip_table(corpus)
    plan = make_plan(
        None, corpus, clips, unit_sec=None, variables=kept(None), mean_dtype=None, block=4, batch=3, threads=1
    )
    origin = origin_of(to_device(load_encoder(spec), None), "audio")
    prepare_store(url, "t", origin, plan, clips, replan=False)
    return Extraction(url=url, clips=corpus.clips, origin=origin, plan=plan, model=Model(encoder=spec))


def test_another_encoder_where_a_worker_runs_is_refused(tmp_path: Path) -> None:
    """The same path holds another file there; in the process that looked at it nobody asks again."""
    shutil.copy(CLOSED_FORM.split(":")[1], tmp_path / "mine.py")
    here = extraction(tmp_path, f"module:{tmp_path / 'mine.py'}:closed_form")
    make_worker(here, check=True).close()
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("default_rng(seed)", "default_rng(seed + 1)"))
    with pytest.raises(ValueError, match=r"not the same for all workers \(weights: ") as e:
        make_worker(here, check=True)
    assert "\n" not in str(e.value)
    assert "expected the same files, and devices of one kind (cpu or cuda)" in str(e.value)


def test_an_encoder_given_as_an_object_is_sent_with_its_weights(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    capture(closed_form(), manifest, str(tmp_path / "a"), executor=Elsewhere(), **options())
    capture(closed_form(), manifest, str(tmp_path / "b"), **options())
    assert tree_of(tmp_path / "a") == tree_of(tmp_path / "b")


class Pairs(nn.Module):
    """What a layer gives, and something beside it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, int]:
        return self.inner(tokens), 1


@pytest.mark.parametrize("executor", [None, Elsewhere()])
def test_sites_that_cannot_be_ablated_are_warned_of_before_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, executor: Any
) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:9])
    module = ClosedForm()
    module.layers[1].neurons = Pairs(module.layers[1].neurons)

    def first(output: Any) -> torch.Tensor:
        return output[0] if isinstance(output, tuple) else output

    encoder = closed_form(module=module, neurons=first)
    assert capture(encoder, manifest, str(tmp_path / "s"), executor=executor, **options()).n_ok == 9
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "can be extracted but not ablated at site layers.1.neurons: the site gives a tuple" in warning
    caplog.clear()
    assert capture(encoder, manifest, str(tmp_path / "s"), executor=executor, **options()).n_ok == 9
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_threads_of_a_new_plan_are_the_processors_of_a_worker(tmp_path: Path) -> None:
    """And those of an older plan stay."""
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    given = options()
    del given["threads"]
    for name, cpus, threads in (("a", 3.0, 3), ("b", 0.5, 1)):
        executor = Elsewhere(cpus)
        with pytest.raises(KeyboardInterrupt):
            capture(CLOSED_FORM, manifest, str(tmp_path / name), executor=Stopping(executor), **given)
        document = json.loads((tmp_path / name / "t/zarr.json").read_text())
        assert document["attributes"]["otoscope"]["plan"]["threads"] == threads
        assert capture(CLOSED_FORM, manifest, str(tmp_path / name), executor=Elsewhere(), **given).n_ok == 37


class Stopping(After):
    """Interrupts before the first block, but not before the encoder was looked at."""

    remote = True

    def __init__(self, executor: Elsewhere) -> None:
        super().__init__(0, interrupt)
        self.cpus_per_worker, self.inner = executor.cpus_per_worker, executor

    def run(self, make_worker: Any, pieces: Any) -> Any:
        yield from (self.inner if isinstance(make_worker, Preflight) else super()).run(make_worker, pieces)


def test_a_look_at_an_encoder_can_be_had_anywhere(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    corpus = read_manifest(manifest)
    plan = make_plan(
        None, corpus, clip_table(corpus), unit_sec=None, variables=kept(None), mean_dtype=None, block=4, batch=3,
        threads=1,
    )  # fmt: skip
    model = Model(encoder=CLOSED_FORM)
    preflight = Preflight(
        extraction=Extraction(url="s", clips=corpus.clips, plan=plan, model=model), frames="audio", parity="refuse",
        calibrate=False,
    )  # fmt: skip
    (event,) = Elsewhere().run(preflight, [""])
    assert isinstance(event, Done)
    for found in (preflight.look(), preflight.run(Elsewhere())):
        assert replace(found, origin=event.result.origin) == event.result
        assert found.origin.identity == event.result.origin.identity
        np.testing.assert_array_equal(found.origin.check, event.result.origin.check)
    assert event.result.parity == " parity within 0.0001"
    assert event.result.weights_bytes == sum(
        p.numel() * 4 for p in nn.Module.parameters(load_encoder(CLOSED_FORM).module)
    )
    assert event.result.origin.identity.device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the device have so many bytes free, of which a pass takes 500 and 100 for each clip."""

    def free(n: int) -> None:
        monkeypatch.setattr("otoscope.extract.preflight.free_bytes", lambda _: n)
        monkeypatch.setattr("otoscope.extract.preflight.pass_bytes", lambda _, batch: 500 + 100 * len(batch))

    return free


@pytest.mark.parametrize("where", quick_sample([SerialExecutor, Elsewhere], 1))
@pytest.mark.parametrize(
    ("bytes_free", "batch"),
    [
        (0, 32),  # no CUDA: the default
        (100, 1),  # room for none: a batch of one, which will be refused when it does not fit
        (2 * (500 + 100 * 4), 4),
        (2 * (500 + 100 * 4) - 2, 2),  # 3 have room
        (2 * (500 + 100 * 7), 4),
        (10**9, 16),  # a block
    ],
)
def test_the_device_memory_suggests_a_batch_which_is_recorded(
    tmp_path: Path, memory: Callable[[int], None], bytes_free: int, batch: int, where: type[SerialExecutor]
) -> None:
    memory(bytes_free)
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    given = {"task": "t", "block": 16, "threads": 1, "executor": where(), "report": tmp_path / "report.json"}
    capture(closed_form(), manifest, str(tmp_path / "s"), **given)
    assert task_status(str(tmp_path / "s"), "t").plan.batch == batch
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["plan"]["batch"], report["halved"]) == (batch, [])
    memory(2 * (500 + 100 * 8))  # what there was before is kept
    write_corpus(tmp_path, [*LENGTHS, 40])
    assert capture(closed_form(), manifest, str(tmp_path / "s"), **given).n_extracted == 6  # the last block of 5 grew
    assert task_status(str(tmp_path / "s"), "t").plan.batch == batch


def test_a_batch_that_is_given_is_taken(tmp_path: Path, memory: Callable[[int], None]) -> None:
    memory(10**9)
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    capture(closed_form(), manifest, str(tmp_path / "s"), **options())
    assert task_status(str(tmp_path / "s"), "t").plan.batch == 3


@pytest.mark.parametrize(
    ("block", "n_samples", "batch"), [(600, 50, 256), (200, 50, 128), (600, 2_000_000, 64), (600, 2**28, 1)]
)
def test_a_batch_is_bounded_by_a_block_by_samples_and_by_what_is_of_use(
    monkeypatch: pytest.MonkeyPatch, memory: Callable[[int], None], block: int, n_samples: int, batch: int
) -> None:
    memory(10**9)
    clip = LoadedClip(index=0, samples=np.zeros(4, np.float32), digest=0)
    monkeypatch.setattr("otoscope.extract.preflight._few", lambda _: [clip])
    plan, forward = SimpleNamespace(block=block, threads=1), SimpleNamespace(longest=lambda _: n_samples)
    assert proposed_batch(SimpleNamespace(plan=plan, forward=forward), 10**9) == batch

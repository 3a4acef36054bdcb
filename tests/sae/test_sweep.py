"""Laws of sweeps: side by side as one after the other, held or streamed, here or in actors, interrupted or not, the
files are the same, byte for byte; what is finished is not done again; what cannot be trained is a line, and no file.
"""

import errno
import json
import logging
import os
import platform
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from otoscope.cluster.executor import SerialExecutor
from otoscope.extract.models.dictionary import read_dictionary, write_dictionary
from otoscope.extract.pipeline import Stopped
from otoscope.sae import sweep as sweeps
from otoscope.sae.config import Sweep, bytes_of, read_config, sweep_of
from otoscope.sae.model import first_weights
from otoscope.sae.recipe import recipe_named
from otoscope.sae.sweep import PARTIAL, SweepWorker, planned, run_sweep
from otoscope.sae.table import sae_table
from otoscope.store.state_rows import StateRows

from ..support.amounts import some
from ..support.commands import call, command, done
from ..support.counting import count_calls
from ..support.state_store import planted_states, write_states
from ..support.stored_files import files, tree_of

output = logging.getLogger(__name__)
N, WIDTH, BLOCK = 150, 8, 16
ASKED: dict[str, Any] = {"task": "t", "latents": 32, "sparsity": "0.9", "batch": 16, "epochs": 3}
TWO_STATES = {**ASKED, "state": [0, 2], "sparsity": ["0.9", "0.75"], "seed": [0, 1]}
STREAMED = 4 * WIDTH * BLOCK * 5  # bytes: two objects at a time
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("states") / "s")
    labels = {"singer": ["abcde"[i % 5] for i in range(N)], "one": ["x"] * N}
    states = planted_states(4, N, WIDTH)
    states[3] = states[3, 0]
    write_states(url, states, block=BLOCK, failed=(5,), labels=labels)
    return url


def trained(store: str, folder: Path, **asked: Any) -> dict[str, bytes]:
    run_sweep(store, sweep_of({**ASKED, **asked}), folder)
    return tree_of(folder)


def test_side_by_side_is_one_after_the_other(store: str, tmp_path: Path) -> None:
    together = trained(store, tmp_path / "a", **TWO_STATES)
    assert len(together) == 2 * 2 * 2 * 2
    sweep = sweep_of(TWO_STATES)
    for state, name, recipe in sweep.each():
        assert trained(store, tmp_path / "b", state=state, sparsity=recipe.sparsity, seed=recipe.seed)
        found = read_dictionary(tmp_path / "b" / name)
        assert (found.state, found.k, found.n_latents) == (state, recipe.k, 32)
    assert tree_of(tmp_path / "b") == together


@pytest.mark.parametrize("memory", [10**9, STREAMED])
def test_objects_are_read_once_per_pass_whatever_the_number_of_recipes(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    counts: Counter[int] = Counter()
    read = StateRows.read

    def counted(self: StateRows, number: int, out: np.ndarray) -> None:
        counts[number] += 1
        read(self, number, out)

    monkeypatch.setattr(StateRows, "read", counted)
    of_sweeps = []
    for seeds in ([0], [0, 1, 2]):
        for epochs in (1, 4):
            counts.clear()
            trained(store, tmp_path / f"{len(of_sweeps)}", state=1, seed=seeds, epochs=epochs, memory=memory)
            assert sorted(counts) == list(range(-(-N // BLOCK)))
            of_sweeps.append(counts.copy())
    one, more_epochs, three, three_more = of_sweeps
    assert (one, more_epochs) == (three, three_more)
    for found, epochs in ((one, 1), (more_epochs, 4)):
        # Beside the epochs a pass for what is held and the moments, and one to measure what came out.
        assert found == dict.fromkeys(range(-(-N // BLOCK)), epochs + 2 if memory == STREAMED else 1)
    counts.clear()
    trained(store, tmp_path / "untrained", state=1, control="untrained", memory=memory)
    assert counts == dict.fromkeys(range(-(-N // BLOCK)), 2 if memory == STREAMED else 1)


def test_an_untrained_control_has_what_was_drawn_and_no_epochs(store: str, tmp_path: Path) -> None:
    controls = {"state": 1, "control": ["none", "untrained"], "batch_topk": [False, True]}
    shown: list[tuple[int, int]] = []
    run_sweep(store, sweep_of({**ASKED, **controls}), tmp_path, progress=lambda *done: shown.append(done))
    assert shown[-1] == (3 + 0 + 3 + 1, 7)  # a threshold takes one pass
    for batch_topk, epochs in ((False, 0), (True, 1)):
        name = f"state1-s0.9-seed0-{'' if batch_topk else 'no-'}batch-topk-untrained"
        found = read_dictionary(tmp_path / name)
        drawn = first_weights(recipe_named(latents=32, sparsity="0.9"), WIDTH)
        scale = (found.encoder.norm() / drawn["encoder"].norm()).item()
        torch.testing.assert_close(found.encoder, scale * drawn["encoder"])
        torch.testing.assert_close(found.decoder, drawn["decoder"] / scale)
        assert (found.about["epoch"], len(found.about["history"])) == (epochs, epochs)
        assert found.about["measures"]["held_out"]["rows"] == 30
        assert (found.threshold is not None) == batch_topk


def test_memory_enough_is_the_exact_way_and_less_is_recorded(store: str, tmp_path: Path) -> None:
    exact = trained(store, tmp_path / "a", state=1)
    assert trained(store, tmp_path / "b", state=1, memory="1G") == exact
    smallest = json.loads(exact["state1-s0.9-seed0/sae.json"])["config"]["memory"]
    assert smallest == (N - 1) * WIDTH * 4
    assert trained(store, tmp_path / "c", state=1, memory=smallest) == exact
    streamed = trained(store, tmp_path / "d", state=1, memory=smallest - 1)
    assert streamed != exact
    about = json.loads(streamed["state1-s0.9-seed0/sae.json"])
    assert about["layout"]["objects_at_a_time"] > 0
    assert trained(store, tmp_path / "e", state=1, memory=about["config"]["memory"]) == streamed
    run_sweep(store, sweep_of(about["config"]), tmp_path / "d")  # finished, and known as such


def test_what_is_finished_is_not_done_again(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(store, tmp_path / "a", state=[1, 2])
    calls = count_calls(monkeypatch, "otoscope.sae.sweep.train")
    assert trained(store, tmp_path / "a", state=[1, 2]) == first
    assert not calls
    more = trained(store, tmp_path / "a", state=[1, 2], sparsity=["0.9", "0.75"])
    assert calls["train"] == 2
    assert {name: more[name] for name in first} == first
    assert len(more) == 2 * len(first)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"lr": 0.01}, "config.lr: 0.003, not 0.01"),
        ({"order_seed": 1}, "config.order_seed: 0, not 1; .*source.train.digest"),
        ({"group": "singer"}, 'config.group: "", not "singer"'),
        ({"threads": 2}, "config.threads: 1, not 2"),
        ({"memory": STREAMED}, "config.memory: .*layout.objects_at_a_time: 0, not 1"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    store: str, tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    before = trained(store, tmp_path / "a", state=1)
    with pytest.raises(ValueError, match=f"state1-s0.9-seed0 holds an SAE of other settings .*{difference}"):
        trained(store, tmp_path / "a", state=1, **change)
    assert tree_of(tmp_path / "a") == before


def test_a_worker_that_is_closed_stops_after_an_epoch_and_leaves_a_checkpoint(store: str, tmp_path: Path) -> None:
    whole = trained(store, tmp_path / "a", state=1, epochs=6)
    sweep = sweep_of({**ASKED, "state": 1, "epochs": 6})
    (piece,) = planned(store, sweep, tmp_path / "b")
    worker = SweepWorker(store, sweep, tmp_path / "b", lambda _: worker.close())
    with pytest.raises(Stopped):
        worker(piece)
    assert not list((tmp_path / "b").glob("state*"))
    assert {path.name for path in (tmp_path / "b" / PARTIAL).glob("*/*")} == {"names", "checkpoint"}
    run_sweep(store, sweep, tmp_path / "b")
    assert files(tmp_path / "b") == whole


def test_what_was_trained_stays_where_a_store_turns_out_damaged_and_goes_where_nothing_can_come_of_it(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way, as an object that is damaged since the training began."""
    asked = {"state": 1, "memory": STREAMED, "epochs": 4}
    whole = trained(store, tmp_path / "a", **asked)
    read, calls = StateRows.read, iter(range(25))

    def damaged(self: StateRows, number: int, out: np.ndarray) -> None:
        if next(calls, None) is None:
            raise ValueError("t/hidden is damaged")
        read(self, number, out)

    with monkeypatch.context() as patch:
        patch.setattr(StateRows, "read", damaged)
        with pytest.raises(ValueError, match="is damaged"):
            trained(store, tmp_path / "b", **asked)
    (begun,) = (tmp_path / "b" / PARTIAL).iterdir()
    (checkpoint,) = begun.glob("checkpoint")
    kept = checkpoint.read_bytes()
    checkpoint.write_bytes(kept[:-9])
    with pytest.raises(ValueError, match="is not a whole checkpoint of a training; expected one: delete it"):
        trained(store, tmp_path / "b", **asked)
    checkpoint.write_bytes(kept)
    shown: list[int] = []
    run_sweep(store, sweep_of({**ASKED, **asked}), tmp_path / "b", progress=lambda done, _total: shown.append(done))
    assert shown == [*range(1, len(shown)), 4]
    assert len(shown) < 5  # it went on from the first epoch
    assert tree_of(tmp_path / "b") == whole
    write_states(tmp_path / "huge", planted_states(1, 64, WIDTH) * np.float32(1e30), block=BLOCK)
    with pytest.raises(ValueError, match="gave no numbers in any epoch"):
        trained(str(tmp_path / "huge"), tmp_path / "c", state=0, scale=False)
    assert not (tmp_path / "c").exists()


def test_two_commands_on_one_folder_are_told_apart(store: str, tmp_path: Path) -> None:
    """And one that was killed is in nobody's way."""
    folder = tmp_path / "a"
    sweep = sweep_of({**ASKED, "state": 1})
    refusals = []

    def second(_done: int, _total: int) -> None:
        result = call("sae", "train", store, "--task", "t", "--state", 2, "-o", folder)
        refusals.append((result.exit_code, result.stderr))

    run_sweep(store, sweep, folder, progress=second)
    who = f"process {os.getpid()} on {platform.node()} since 20"
    for status, line in refusals:
        assert status == 2
        assert line.startswith(f"Error: {folder} is in use by another `otoscope sae train`, {who}")
        assert line.endswith("expected one at a time: wait for it, or give another folder with -o\n")
    assert len(refusals) >= 3
    assert [path.name for path in folder.iterdir()] == ["state1-s0.9-seed0"]
    (folder / ".lock").write_text("process 1 on elsewhere since long ago")
    assert len(trained(store, folder, state=2)) == 4
    assert not (folder / ".lock").exists()


def test_a_full_disk_loses_nothing_that_is_finished(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(store, tmp_path / "a", **TWO_STATES)
    monkeypatch.setattr(sweeps, "write_dictionary", failing_after(5, write_dictionary))
    with pytest.raises(OSError, match="No space left"):
        trained(store, tmp_path / "b", **TWO_STATES)
    left = tree_of(tmp_path / "b")
    assert {name: value for name, value in left.items() if name in whole}.items() <= whole.items()
    assert len([name for name in left if name in whole]) == 5 * 2
    monkeypatch.undo()
    assert trained(store, tmp_path / "b", **TWO_STATES) == whole


def failing_after(n: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that finds the disk full from the n-th call on."""
    calls = iter(range(n))

    def call_or_fail(*given: Any) -> Any:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*given)

    return call_or_fail


def test_a_table_has_a_row_per_sae_with_every_setting_and_measure(store: str, tmp_path: Path) -> None:
    trained(store, tmp_path / "a", state=1, lr=[0.001, 0.003], centre=[True, False])
    rows = sae_table(tmp_path / "a").set_index("name")
    assert sorted(rows.index) == sorted(
        f"state1-s0.9-seed0-{centre}-lr{lr}" for centre in ("centre", "no-centre") for lr in ("0.001", "0.003")
    )
    for name, row in rows.iterrows():
        about = json.loads((tmp_path / "a" / str(name) / "sae.json").read_text())
        assert set(about["config"]) <= set(rows.columns)
        assert row["lr"] == about["config"]["lr"]
        for side, measures in about["measures"].items():
            assert row[f"{side}.fve"] == measures["fve"]
        assert row["k"] == 3
    printed = done("sae", "table", tmp_path / "a", "-o", tmp_path / "t.parquet")
    assert printed == f"{tmp_path / 't.parquet'}\n"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), rows.reset_index())
    assert "no SAE in" in call("sae", "table", tmp_path).stderr
    name = "state1-s0.9-seed0-centre-lr0.001"
    pd.testing.assert_frame_equal(sae_table(tmp_path / "a" / name), rows.loc[[name]].reset_index())
    assert name in done("sae", "table", tmp_path / "a" / name)
    about = json.loads((tmp_path / "a" / name / "sae.json").read_text())
    assert not {"recipe", "threads", "device"} & set(about)  # which its config holds
    assert about["config"]["recipe"] == "centred"


# Configs


def test_a_config_is_what_the_command_line_says_and_what_an_sae_holds(store: str, tmp_path: Path) -> None:
    options = ("--latents", 32, "--batch", 16, "--epochs", 2, "--no-scale", "--where", "singer!=a")
    given = ("--task", "t", "--state", "1,2", "--sparsity", ".90,0.75", *options, "-o", tmp_path / "a")
    names = "state1-s0.9-seed0, state1-s0.75-seed0, state2-s0.9-seed0, state2-s0.75-seed0"
    assert done("sae", "train", store, *given) == f"{tmp_path / 'a'}: 4 SAEs, {names}\n"
    whole = tree_of(tmp_path / "a")
    config = tmp_path / "c.yaml"
    config.write_text(
        "task: t\nstate: [1, 2]\nsparsity: [0.9, 0.75]\nlatents: 32\nbatch: 16\nepochs: 2\nscale: false\n"
        "where: singer!=a\n"
    )
    done("sae", "train", store, "--config", config, "-o", tmp_path / "b")
    assert tree_of(tmp_path / "b") == whole
    for name in ("state1-s0.9-seed0", "state2-s0.75-seed0"):
        done("sae", "train", store, "--config", tmp_path / "a" / name / "sae.json", "-o", tmp_path / "d")
    assert tree_of(tmp_path / "d").items() < whole.items()
    assert len(tree_of(tmp_path / "d")) == 4
    done("sae", "train", store, "--config", config, "--state", 1, "--sparsity", "0.9", "-o", tmp_path / "e")
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["state1-s0.9-seed0"]


def test_names_have_what_varies() -> None:
    sweep = sweep_of({"task": "t", "state": 3, "recipe": ["centred", "published"], "auxk": [False, True], "lr": "1e-3"})
    assert [name for _, name, _ in sweep.each()] == [
        "state3-s0.95-seed0-centred-no-auxk", "state3-s0.95-seed0-centred-auxk",
        "state3-s0.95-seed0-published-no-auxk", "state3-s0.95-seed0-published-auxk",
    ]  # fmt: skip
    assert sweep.recipes[2] == recipe_named("published", lr=1e-3, auxk=False)
    assert isinstance(sweep, Sweep)
    assert [bytes_of(text) for text in ("12", "1.5k", "4G")] == [12, 1500, 4 * 10**9]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"state": 1}, "task not given"),
        ({"task": "t", "state": 1, "colour": 2}, "no option 'colour' to train by; expected some of task, state"),
        ({"task": "t", "state": 1, "seed": "x"}, 'seed is "x"; expected int'),
        ({"task": "t", "state": 1, "recipe": "best"}, "no recipe 'best'; expected one of centred, published"),
        ({"task": "t", "state": 1, "sparsity": "x"}, "'x' is not a valid decimal"),
        ({"task": "t", "state": 1, "sparsity": "0.9999"}, "leaves 0 of them for a row"),
        ({"task": "t", "state": 1, "sparsity": "0.001", "latents": 10, "seed": []}, "seed has no value"),
        ({"task": "t", "state": 1, "memory": "4X"}, "'4X' is not a valid memory; expected bytes, such as 500M"),
        ({"task": "t", "state": 1, "order_seed": -1}, "order_seed is -1; expected 0 to"),
        ({"task": "t", "state": 1, "seed": list(range(10_001))}, "the sweep has 10001 SAEs; expected at most 10000"),
        ({"task": "t", "state": [], "seed": 1}, "no state was given"),
        ({"task": "t", "state": 1, "seed": [[1]]}, r"\[1\] is not a value of an option; expected a number, a name"),
    ],
)
def test_a_config_that_is_none_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        sweep_of(config)
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert read_config(tmp_path / "c.json") == config


# Bad input


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--state", 9), "task t has no hidden state 9; expected 0 to 3, 0 the first layer's input"),
        (("--state", 1, "--task", "u"), "no task 'u'"),
        (("--state", 1, "--batch", 500), "has 119 rows to train on, fewer than a batch of 500; expected a batch"),
        (("--state", 1, "--sparsity", "0.99"), "sparsity 0.99 of 32 latents leaves 0 of them for a row"),
        (("--state", 1, "--sparsity", "0"), "leaves 32 of them for a row; expected 1 to 31"),
        (("--state", 3), "the state is the same in all 119 training rows"),
        (("--state", 1, "--group", "one"), "has 1 groups by one; expected two at least"),
        (("--state", 1, "--group", "colour"), "no label column 'colour' to group clips by"),
        (("--state", "1,x"), "--state is '1,x'; expected N,..."),
        (("--state", 1, "--memory", "100"), "do not fit into a memory of 100 bytes, nor do parts of them"),
        (("--state", 1, "--device", "toaster"), "no device 'toaster'"),
        (("--state", 1, "--device", "meta"), "no device 'meta'"),
        (("--state", 1, "--config", "nothing.yaml"), "no file nothing.yaml; expected options as YAML or JSON"),
        (("--state", 1, "--threads", 65_000), "--threads is 65000, and this machine has"),
    ],
)
def test_what_cannot_be_trained_is_a_line_and_no_file(
    store: str, tmp_path: Path, asked: tuple[object, ...], message: str
) -> None:
    given = ("--task", "t", "--latents", 32, "--batch", 16, "--epochs", 1, "--sparsity", "0.9", *asked)
    result = call("sae", "train", store, *given, "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    (error,) = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "encode", "import"])
@pytest.mark.parametrize("sign", [",", "@"])
def test_a_name_by_which_latents_could_not_be_asked_for_is_refused(
    store: str, tmp_path: Path, command: str, sign: str
) -> None:
    given = {
        "train": (store, "--task", "t", "--state", 1), "encode": (store, "--task", "t", "--sae", "x"),
        "import": (tmp_path, "--from", "saelens"),
    }[command]  # fmt: skip
    result = call("sae", command, *given, "-o", tmp_path / f"a{sign}b")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert f"a{sign}b has '{sign}' in its name; expected neither, since latents:SAE,SAE@ENCODER" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_ready_is_refused(tmp_path: Path) -> None:
    states = planted_states(2, 64, WIDTH)
    states[1, 40, 3] = np.nan
    for name, n_blocks in (("whole", None), ("half", 2)):
        write_states(tmp_path / name, states, block=BLOCK, n_blocks=n_blocks)
    given = ("--task", "t", "--latents", 16, "--sparsity", "0.9", "--batch", 8, "-o", tmp_path / "out")
    pending = call("sae", "train", tmp_path / "half", "--state", 0, *given)
    assert "is not finished, 32 clips are pending; expected none: run its `otoscope extract` again" in pending.stderr
    wrong = call("sae", "train", tmp_path / "whole", "--state", 1, "--epochs", 1, *given)
    assert "rows hold NaN or infinity" in wrong.stderr
    assert not (tmp_path / "out").exists()
    assert (pending.exit_code, wrong.exit_code) == (2, 2)


def test_a_task_without_hidden_states_is_refused(original: str, tmp_path: Path) -> None:
    result = call("sae", "train", original, "--task", "t", "--state", 0, "-o", tmp_path / "out")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "keeps no hidden states; expected them: extract it anew with --keep hidden" in result.stderr


def test_a_folder_that_is_no_sae_is_left_alone(store: str, tmp_path: Path) -> None:
    (tmp_path / "a/state1-s0.9-seed0").mkdir(parents=True)
    (tmp_path / "a/state1-s0.9-seed0/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there and is no SAE"):
        trained(store, tmp_path / "a", state=1)
    shutil.rmtree(tmp_path / "a/state1-s0.9-seed0")
    trained(store, tmp_path / "a", state=1)


def test_what_is_no_folder_of_its_own_is_refused(store: str, tmp_path: Path) -> None:
    before = tree_of(Path(store))
    for inside in (Path(store), Path(store) / "saes", Path(store) / "t/../saes"):
        with pytest.raises(ValueError, match=r"lies within the store .*; expected a folder of its own"):
            trained(store, inside, state=1)
    assert tree_of(Path(store)) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; expected a folder, or nothing"):
        trained(store, tmp_path / "file", state=1)


def test_an_sae_that_is_damaged_is_refused(store: str, tmp_path: Path) -> None:
    """Whatever bytes are missing or other ones."""
    trained(store, tmp_path / "a", state=1)
    (whole,) = (tmp_path / "a").iterdir()
    weights, about = (whole / name for name in ("sae.safetensors", "sae.json"))
    document, data = json.loads(about.read_text()), weights.read_bytes()
    for change in ({"base": None}, {"rows": ["clip"]}, {"latents": 33}, {"width": 9}, {"k": 5}):
        about.write_text(json.dumps({**document, **change}))
        with pytest.raises(ValueError, match=r"is not text|are not those that its sae.json was written with"):
            read_dictionary(whole)
    about.write_text(json.dumps(document))
    weights.write_bytes(data[:-100])
    with pytest.raises(ValueError, match=f"weights in {whole} cannot be read: .*not a whole safetensors file"):
        read_dictionary(whole)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=f"no sae.safetensors in {whole}; expected it beside sae.json"):
        read_dictionary(whole)


# Whole commands, killed and on a cluster


@pytest.mark.slow
def test_killed_at_random_instants_the_same_command_ends_in_the_same_files(store: str, tmp_path: Path) -> None:
    """kill -9, eight or twenty times over settings: held and streamed rows, thresholds, dead latents revived."""
    seed = int(os.environ.get("OTOSCOPE_SEED", time.time_ns() % 10**9))
    output.warning("seed %d: OTOSCOPE_SEED repeats it", seed)
    rng = np.random.default_rng(seed)
    n_killed, each = 0, some(2, of=5)
    streamed = {"memory": STREAMED}
    settings: list[dict[str, Any]] = [
        {},
        streamed,
        {"batch-topk": True, "recipe": "published"},
        {**streamed, "auxk": True},
    ]
    for turn, more in enumerate(settings):
        words = ["sae", "train", store, "--task", "t", "--state", "0,2", "--sparsity", "0.9,0.75", "--seed", "0,1"]
        words += ["--latents", "64", "--batch", "16", "--epochs", "150"]
        for name, value in more.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        began = time.monotonic()
        done(*words, "-o", tmp_path / f"whole{turn}")
        took = time.monotonic() - began
        folder = tmp_path / f"killed{turn}"
        for _ in range(each):
            process = subprocess.Popen(command(*words, "-o", folder), stderr=subprocess.PIPE)
            wait_for_training(process, folder)
            time.sleep(rng.uniform(0, took / 3))
            n_killed += process.poll() is None
            process.kill()
            process.communicate()
        done(*words, "-o", folder)
        assert files(folder) == files(tmp_path / f"whole{turn}")
    output.warning("%d of %d were killed at work", n_killed, each * len(settings))
    assert n_killed > each


def wait_for_training(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until something is written, or the command ends."""
    while process.poll() is None and not folder.exists():
        time.sleep(0.01)


@pytest.mark.slow
def test_actors_end_in_the_serial_files(store: str, tmp_path: Path) -> None:
    from otoscope.cluster.ray import RayExecutor

    with RayExecutor(actors=2, cpus_per_actor=0.5) as executor:
        for name, memory in (("held", 10**9), ("streamed", STREAMED)):
            sweep = sweep_of({**TWO_STATES, "memory": memory})
            run_sweep(store, sweep, tmp_path / name, executor=SerialExecutor())
            run_sweep(store, sweep, tmp_path / f"{name} in actors", executor=executor)
            assert tree_of(tmp_path / f"{name} in actors") == tree_of(tmp_path / name)

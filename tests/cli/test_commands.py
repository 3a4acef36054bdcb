"""The command line: help, manifests, options, encoders and audio, and what bad ones get."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from otoscope.cli.errors import Mistake, as_one_line
from otoscope.cli.main import COMMANDS
from otoscope.extract.capture import capture

from ..support import closed_form
from ..support.commands import CLOSED_FORM, LABELS, call, command, done, extraction, otoscope, refused
from ..support.interrupted_executor import After, interrupt
from ..support.m2d_in_numpy import encoder_state
from ..support.stored_files import tree_of
from ..support.wav_corpora import LENGTHS, write_corpus, write_wav_file
from ..test_house import HEAVY


def test_every_command_explains_itself() -> None:
    overview = done("--help")
    for group, commands in COMMANDS.items():
        assert f"\n{group}:\n" in overview
        for name, (_, line) in commands.items():
            assert re.search(rf"^  {name} +{re.escape(line)}$", overview, re.M)
            words = name.split()
            assert re.match(rf"Usage: otoscope {name} .*?\n\n  {re.escape(line)}\n", done(*words, "-h"), re.S)
            assert re.search(rf"^  {words[-1]} +{re.escape(line)}$", done(*words[:-1], "-h"), re.M)
    assert "No such command 'tabel'" in call("tabel").stderr
    assert done("--version").startswith("otoscope, version ")


def test_no_command_needs_anything_heavy_to_explain_itself() -> None:
    code = "from otoscope.cli import main; [main.load(name) for group in main.COMMANDS.values() for name in group]"
    code += "; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "otoscope.cli.papers" in loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def test_the_real_command(original: str) -> None:
    result = otoscope("status", original)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "t: 37 clips, 37 ok, 0 failed, 0 pending; 10 of 10 blocks committed\n"
    wrong = otoscope("status", original + "x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"Error: no store at {original}x; expected one made by `otoscope extract {original}x ...`\n"
    assert "Traceback" in otoscope("--debug", "status", original + "x").stderr


# Manifests


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no table .*; expected a .csv, .tsv or .parquet file; check the path"),
        ("", "expected UTF-8 text, one header"),
        (
            "pfad,kind\naudio/000.wav,a\n",
            r"expected one column 'path' \(or 'file_name'\), found the columns 'pfad', 'kind'",
        ),
        (
            "path,kind\naudio/000.wav,\naudio/001.wav,\n",
            "label column 'kind' is empty in every row; expected at least one",
        ),
        (
            "path\naudio/000.wav\naudio/001.wav\naudio/000.wav\n",
            "'audio/000.wav' is in rows 2, 4 .*expected each clip once",
        ),
        ("path\nold/000.wav\nold/001.wav\n", "2 of 2 audio files are not under .*expected every file.*--audio-root"),
        ("path,start,stop\naudio/000.wav,2,1\n", "row 2 has start 2 and stop 1.*expected seconds, 0 <= start < stop"),
        ("path,unit_sec\naudio/000.wav,-1\n", "column 'unit_sec' has -1; expected one positive length"),
        ("path,kind\naudio/000.wav,a\naudio/001.wav\n", "Expected 2 columns, got 1"),
    ],
)
def test_bad_manifests(corpus: Path, text: str | None, message: str) -> None:
    manifest = corpus.parent / "bad.csv"
    if text is not None:
        manifest.write_text(text)
    try:
        refused(message, *extraction(corpus.parent / "new", manifest), watched=corpus.parent)
    finally:
        manifest.unlink(missing_ok=True)


def test_audio_that_moved_is_found_by_its_new_root(corpus: Path, original: str, tmp_path: Path) -> None:
    """The same store comes out: it does not know where the audio lay."""
    shutil.copytree(corpus.parent / "audio", tmp_path / "moved/audio")
    shutil.copy(corpus, tmp_path)
    done(*extraction(tmp_path / "s", tmp_path / corpus.name, "--audio-root", tmp_path / "moved"))
    assert tree_of(tmp_path / "s") == tree_of(original)


# Options and encoders


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--encoder", "hubrt"), r"no encoder 'hubrt'; expected one of m2d:\.\.\., .*module:\.\.\., tiny-ssl, tiny-sl"),
        (("--encoder", "module:absent.py:build"), "no file absent.py; expected the Python file"),
        (("--encoder", f"module:{closed_form.__file__}:absent"), "has no function 'absent'; found "),
        (
            ("--encoder", f"module:{closed_form.__file__}:in_frames"),
            "raised TypeError.*expected it to return an Encoder",
        ),
        (("--encoder", "m2d:absent"), "nothing at absent; expected an M2D checkpoint or the folder"),
        (("--task", "a:b"), "'a:b' cannot name a task; expected at most 200 bytes"),
        (("--unit-sec", "two"), "--unit-sec is 'two'; expected seconds such as 2.5, or native"),
        (("--unit-sec", "-1"), "unit_sec is -1.0; expected seconds above 0, or native"),
        (("--unit-sec", "nan"), "unit_sec is nan; expected seconds above 0"),
        (("--unit-sec", "0.005"), "--unit-sec 0.005 is 5 samples at 1000 Hz; encoder module needs at least 10"),
        (("--keep", "mean,meen"), "no variable meen to keep; expected some of active_bits, mean"),
        (("--block", "0"), "block is 0; expected at least 1"),
        (("--block", "3000"), "block is 3000; expected at most 2048 clips, or a multiple of 2048"),
        (("--batch", "-3"), "batch is -3; expected at least 1"),
        (("--threads", "0"), "threads is 0; expected at least 1"),
        (("--max-failures", "10"), "max_failures is 10.0; expected a share between 0 and 1"),
        (("--device", "tpu"), "encoder module cannot go to device 'tpu' .*expected cpu, or a device"),
    ],
)
def test_bad_options(corpus: Path, options: tuple[str, ...], message: str) -> None:
    refused(message, *extraction(corpus.parent / "new", corpus, *options), watched=corpus.parent)


def test_a_site_pattern_that_matches_nothing(corpus: Path, tmp_path: Path) -> None:
    source = Path(closed_form.__file__).read_text().replace('["layers.*.neurons"]', '["layers.*.mlp.act"]')
    (tmp_path / "mine.py").write_text(source)
    url = corpus.parent / "new"
    message = r"'layers\.\*\.mlp\.act' matches none of the model's 5 modules; .* named like layers\.0\.neurons"
    refused(
        message, *extraction(url, corpus, "--encoder", f"module:{tmp_path}/mine.py:closed_form"), watched=corpus.parent
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("blocks.1.mlp.fc2.bias"), r"blocks\.1\.mlp\.fc2\.bias \(48,\) is missing"),
        (lambda s: s.update({"norm.weight": torch.ones(7)}), r"norm\.weight is \(7,\), expected \(48,\)"),
        (lambda s: s.pop("cls_token"), "has no cls_token .*expected an M2D encoder"),
    ],
)
def test_checkpoints_with_missing_or_misshapen_keys(
    corpus: Path, tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = encoder_state(depth=2, width=48, hidden=64, n_patches=35, patch=(16, 16))
    spoil(state)
    folder = tmp_path / "m2d_vit_tiny-80x112p16x16-230101"
    folder.mkdir()
    save_file(state, folder / "weights.safetensors")
    refused(message, *extraction(corpus.parent / "new", corpus, "--encoder", f"m2d:{folder}"), watched=corpus.parent)


# Audio


def bad_audio(folder: Path) -> Path:
    """37 clips, of which 9 are bad in as many ways."""
    manifest, sounds = write_corpus(folder, LENGTHS, columns=LABELS)
    audio = folder / "audio"
    (audio / "002.wav").unlink()
    (audio / "005.wav").write_bytes(b"")
    (audio / "008.wav").write_bytes((audio / "008.wav").read_bytes()[:-9])
    write_wav_file(audio / "011.wav", np.zeros(0), closed_form.RATE)
    (audio / "014.wav").write_text("no audio")
    write_wav_file(audio / "017.wav", sounds[17][:9], closed_form.RATE)
    data = bytearray((audio / "020.wav").read_bytes())
    data[20:22], data[34:36] = (3).to_bytes(2, "little"), (32).to_bytes(2, "little")  # float32: format 3, 32 bits
    data[28:34] = (4000).to_bytes(4, "little") + (4).to_bytes(2, "little")
    length = (len(data) - 44) // 4 * 4
    data[4:8], data[40:44] = (36 + length).to_bytes(4, "little"), length.to_bytes(4, "little")
    for clip, value in (("020", np.nan), ("023", np.inf)):
        (audio / f"{clip}.wav").write_bytes(bytes(data[:44]) + np.full(length // 4, value, "<f4").tobytes())
    (audio / "026.wav").write_bytes(bytes(500))
    return manifest


def test_bad_clips_are_recorded_with_their_reasons_and_the_run_goes_on(tmp_path: Path) -> None:
    manifest, url = bad_audio(tmp_path), tmp_path / "s"
    refused(
        "1 of 37 audio files are not under .*audio/002.wav.*--allow-missing",
        *extraction(url, manifest),
        watched=tmp_path,
    )
    result = call(*extraction(url, manifest, "--allow-missing", "--max-failures", 0.3))
    assert (result.exit_code, result.stdout) == (0, f"{url} task t: 37 clips, 28 ok, 9 failed\n")
    listed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    status = done("status", url, "--failures").splitlines()
    assert status[0] == "t: 37 clips, 28 ok, 9 failed, 0 pending; 10 of 10 blocks committed"
    assert [f"failed: {line.strip()}" for line in status[1:]] == listed
    reasons = ["no such file", "empty: 0 bytes", "truncated: ", "no samples: 0 frames", "does not decode"]
    reasons += ["too short: 9 samples", "are NaN or infinite", "are NaN or infinite", "does not decode"]
    assert all(reason in line for line, reason in zip(status[1:], reasons, strict=True))
    assert done("verify", url) == "intact\n"


def test_bad_clips_enter_no_statistic(tmp_path: Path, original: str) -> None:
    """The rates of what is left, counted by hand from the audio."""
    manifest = bad_audio(tmp_path)
    done(*extraction(tmp_path / "s", manifest, "--allow-missing", "--max-failures", 1))
    done("table", "probability", tmp_path / "s", "--task", "t:kind", "--threshold", 0, "-o", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    sounds = write_corpus(tmp_path / "again", LENGTHS)[1]
    good = [i for i in range(37) if i not in range(2, 27, 3)]
    active = {i: closed_form.expected(sounds[i])["mean"] > 0 for i in good}
    for category in "abc":
        clips = [i for i in good if LABELS["kind"][i] == category]
        rates = np.mean([active[i] for i in clips], axis=0)
        rates[1, closed_form.WIDTHS[1] :] = np.nan
        np.testing.assert_allclose(found[category].to_numpy().reshape(2, -1), rates)


def test_more_than_a_share_of_failures_stops_and_the_same_command_says_so_again(tmp_path: Path) -> None:
    manifest, url = bad_audio(tmp_path), tmp_path / "s"
    command_ = extraction(url, manifest, "--allow-missing")
    first = call(*command_)
    assert first.exit_code == 2
    assert re.search(r"Error: .* 4 of 37 clips failed, the last .*; expected at most a share of 0.1: ", first.stderr)
    assert done("verify", url) == "intact\n"
    refused("[45] of 37 clips failed; expected at most a share of 0.1", *command_, watched=tmp_path)
    refused(
        r"store|s task t is not finished, \d+ clips are pending", "neurons", url, "--task", "t:kind", watched=tmp_path
    )


# What is there already


def test_a_finished_store_needs_neither_encoder_nor_audio(
    original: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is not loaded, and the clips are gone; what can be compared without them still is."""
    shutil.copytree(original, tmp_path / "s")
    shutil.copy(corpus, tmp_path)
    before = tree_of(tmp_path)
    monkeypatch.setattr("otoscope.extract.plan.load_encoder", None)
    own = ("--encoder", CLOSED_FORM)
    again = ("extract", tmp_path / "s", "--corpus", tmp_path / corpus.name, "--task", "t")
    assert done(*again, *own) == f"{tmp_path / 's'} task t: 37 clips, 37 ok, 0 failed\n"
    assert tree_of(tmp_path) == before
    identity = "the task holds activations of another identity"
    for options, message in (
        ((*own, "--frames", "all"), rf'{identity} \(frames: "all", not "audio"\); expected the same encoder'),
        (("--encoder", "tiny-ssl"), rf'{identity} \(encoder: "tiny-ssl", not "module"\)'),
        ((*own, "--device", "cuda"), rf'{identity} \(device: "cuda", not "cpu"\)'),
        ((*own, "--block", 5), r"planned otherwise \(block: 5, not 4\); expected the same"),
        (("--encoder", "module:gone.py:build"), "no file gone.py; expected the Python file that defines the factory"),
    ):
        refused(message, *again, *options, watched=tmp_path)


def test_other_labels_are_refused_where_nothing_is_left_to_do(original: str, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "s")
    manifest, _ = write_corpus(tmp_path, LENGTHS, columns={**LABELS, "kind": ["z"] * 37})
    command_ = extraction(tmp_path / "s", manifest)
    refused("has other values for the manifest's label column 'kind'", *command_, watched=tmp_path)


def test_a_plan_with_nothing_committed_is_kept_unless_it_is_to_be_made_anew(
    original: str, corpus: Path, tmp_path: Path
) -> None:
    """Two runs that were started with unequal plans: the second may not wipe the first one's."""
    url = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        capture(CLOSED_FORM, corpus, str(url), task="t", block=5, batch=2, threads=1, executor=After(0, interrupt))
    assert done("status", url) == "t: 37 clips, 0 ok, 0 failed, 37 pending; 0 of 8 blocks committed\n"
    refused(
        r"planned otherwise \(batch: 3, not 2; block: 4, not 5\); expected the same options .*--replan if no other run",
        *extraction(url, corpus), watched=tmp_path,
    )  # fmt: skip
    shutil.copytree(url, tmp_path / "kept")
    short = ("--corpus", corpus, "--encoder", CLOSED_FORM, "--task", "t")
    done("extract", tmp_path / "kept", *short)  # options left out are those of the plan
    assert len(list((tmp_path / "kept/t/status/c").iterdir())) == 8
    assert done(*extraction(url, corpus, "--replan")) == f"{url} task t: 37 clips, 37 ok, 0 failed\n"
    assert tree_of(url) == tree_of(original)
    refused(
        r"task t has 10 committed blocks; expected none for --replan: leave it out, or choose another task name",
        *extraction(url, corpus, "--replan"), watched=tmp_path,
    )  # fmt: skip


# Executors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--actors", 2, "--address", "auto"),
            "--address, --actors given with --executor serial; expected --executor ray",
        ),
        (("--gpus-per-actor", 0.5), "--gpus-per-actor given with --executor serial; expected --executor ray: add it"),
        (("--executor", "ray", "--actors", 0), "0 actors were asked for; expected at least 1"),
        (("--executor", "ray", "--cpus-per-actor", 0), "an actor is to take 0 CPUs and 0 GPUs; expected something"),
        (
            ("--executor", "ray", "--gpus-per-actor", 1.5),
            "an actor is to take 1.5 GPUs; expected a fraction of one",
        ),
    ],
)
def test_bad_choices_of_where_workers_run(corpus: Path, options: tuple[object, ...], message: str) -> None:
    refused(message, *extraction(corpus.parent / "new", corpus, *options), watched=corpus.parent)


def test_the_report_of_a_command(corpus: Path, tmp_path: Path) -> None:
    done(*extraction(tmp_path / "s", corpus, "--report", tmp_path / "report.json"))
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["state"], found["clips"]["committed"]) == ("finished", 37)


# Watching


def test_watching_a_run_that_is_under_way(corpus: Path, original: str, tmp_path: Path) -> None:
    """A line per look, until all blocks are there; then it ends by itself."""
    url = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        capture(CLOSED_FORM, corpus, str(url), task="t", block=4, batch=3, threads=1, executor=After(6, interrupt))
    watching = subprocess.Popen(
        command("status", url, "--watch", "--interval", 0.05), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    first = watching.stdout.readline()
    assert first == "t: 37 clips, 24 ok, 0 failed, 13 pending; 6 of 10 blocks committed; 0.0 clips/s\n"
    done(*extraction(url, corpus))
    rest, errors = watching.communicate(timeout=300)
    assert (watching.returncode, errors) == (0, "")
    assert re.fullmatch(r"t: 37 clips, 37 ok, .* 10 of 10 blocks committed; [\d.]+ clips/s", rest.splitlines()[-1])
    assert done("status", original, "--watch").count("\n") == 1
    refused("--interval is 0; expected seconds above 0", "status", url, "--watch", "--interval", 0, watched=tmp_path)


def test_watching_ends_by_control_c(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        capture(CLOSED_FORM, corpus, str(tmp_path / "s"), task="t", threads=1, executor=After(0, interrupt))
    watching = subprocess.Popen(
        command("status", tmp_path / "s", "--watch"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("t: 37 clips, 0 ok")
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=300)
    assert (watching.returncode, errors) == (130, "")


def test_a_disk_that_is_full_has_a_remedy(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))
    with pytest.raises(Mistake, match=r"No space left on device.*; expected free space: make room"), as_one_line(False):
        raise full
    assert Mistake.exit_code == 2

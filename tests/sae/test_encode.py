"""Laws of latents as neurons: codes as numpy has them, one store however it came about, every question answered."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import otoscope
from otoscope.analysis.kinds import COMPARISONS, NULL_ROWS, TABLES
from otoscope.extract.models.dictionary import read_dictionary, write_dictionary
from otoscope.extract.models.latents import latents_origin
from otoscope.sae.encoding import EncodingReport, encode
from otoscope.store.blocks import blocks
from otoscope.store.changes.tasks import add_labels, stored_origin
from otoscope.store.status import failed_clips, task_status
from otoscope.store.verify import verify
from otoscope.store.writer import pending_blocks, reset_block, write_block

from ..support.amounts import quick_sample, some
from ..support.closed_form import closed_form
from ..support.commands import CLOSED_FORM, call, done, refused
from ..support.finished_store import Finished
from ..support.s3_server import BUCKET, ObjectServer
from ..support.stored_files import damage, files, stop_after, stored, tree_of
from ..support.stored_states import (
    BLOCK,
    FAILED_CLIPS,
    N_CLIPS,
    PLANTED,
    States,
    codes_in_numpy,
    make_states,
    write_dictionaries,
)


@pytest.fixture(scope="module")
def states() -> States:
    return make_states()


@pytest.fixture(scope="module")
def folder(states: States, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source "s", two SAEs, and "l", their latents; read only."""
    folder = tmp_path_factory.mktemp("encoded")
    states.write(str(folder / "s"))
    encode(str(folder / "s"), "t", write_dictionaries(states, folder), str(folder / "l"))
    return folder


def saes_in(folder: Path) -> list[str]:
    return [str(folder / "topk"), str(folder / "threshold")]


def command(
    folder: Path, out: Path | str, *more: object, saes: tuple[str, ...] = ("topk", "threshold")
) -> list[object]:
    given = [part for name in saes for part in ("--sae", folder / name)]
    return ["sae", "encode", folder / "s", "--task", "t", *given, "-o", out, *more]


def test_bits_and_values_are_those_of_plain_numpy(states: States, folder: Path, tmp_path: Path) -> None:
    """Also in float16, where the threshold SAE's code of 2^-26 rounds to 0 and its bit does not."""
    half = str(tmp_path / "half")
    report = encode(str(folder / "s"), "t", saes_in(folder), half, mean_dtype="float16")
    assert report == EncodingReport(
        task="t", n_clips=N_CLIPS, n_ok=N_CLIPS - 3, n_failed=3, n_encoded=N_CLIPS, latents=(40, 30), other_labels=()
    )
    ok = states.status == 1
    for url, dtype in ((folder / "l", "f4"), (half, "f2")):
        group = zarr.open_group(str(url), path="t", mode="r")
        bits = np.unpackbits(group["active_bits"][:], axis=-1, count=40, bitorder="little").astype(bool)
        for layer, name in enumerate(("topk", "threshold")):
            dictionary = read_dictionary(folder / name)
            n, codes = dictionary.n_latents, codes_in_numpy(dictionary, states.hidden[layer + 1, ok])
            np.testing.assert_array_equal(group["mean"][layer, :, :n][ok], codes.astype(dtype))
            np.testing.assert_array_equal(bits[layer, :, :n][ok], codes > 0)
            assert np.isnan(group["mean"][layer, :, n:]).all()
            assert not bits[layer, :, n:].any()
            assert 0.1 < (codes > 0).mean() < 0.6
        assert ((group["mean"][1, :, 0] == 0) & bits[1, :, 0])[ok].all() == (dtype == "f2")
        assert np.isnan(group["mean"][:, ~ok]).all()
        assert not bits[:, ~ok].any()
        np.testing.assert_array_equal(group["frame_count"][:], ok)
        assert {"hidden", "positive_frames"}.isdisjoint(group)


def test_what_it_holds_beside_latents_is_the_source_s(states: States, folder: Path) -> None:
    source, latents = (zarr.open_group(str(folder / name), path="t", mode="r") for name in "sl")
    columns = ("clip", "path", "start", "stop", "prompt", "embedding", "reason", "audio_digest", "status")
    for name in (*columns, *(f"label_{label}" for label in states.clips.labels)):
        np.testing.assert_array_equal(latents[name][:], source[name][:])
    failed = failed_clips(str(folder / "l"), "t")
    assert failed == [(f"clip {i} é", "schlecht, très mauvais") for i in FAILED_CLIPS]
    plan, own = (task_status(str(folder / name), "t").plan for name in "sl")
    assert own == replace(plan, variables=("active_bits", "mean", "frame_count", "embedding"))
    (versions,) = set(latents["version"][:])
    assert re.match(r"otoscope \S+ torch \S+ on ", str(versions))
    assert list(verify(str(folder / "l"))) == []


def test_its_identity_is_that_of_its_sources(folder: Path) -> None:
    origin = latents_origin(stored_origin(str(folder / "s"), "t"), [read_dictionary(path) for path in saes_in(folder)])
    there = stored_origin(str(folder / "l"), "t")
    assert there.identity == origin.identity
    assert there.source == origin.source
    np.testing.assert_array_equal(there.check, origin.check)


def test_plain_xarray_opens_it_without_a_word(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(folder / "l", group="t")
        assert ds["mean"].dims == ("layer", "clip", "neuron")
        assert ds["site"].values.tolist() == ["saes.0_of_state_1.codes", "saes.1_of_state_2.codes"]
        shown = otoscope.open(str(folder / "l"))["t"].to_dataset()
    assert shown.attrs["rows"] == "clip"
    assert "saes.0_of_state_1.codes" in shown._repr_html_()


def test_again_there_is_nothing_to_do(folder: Path, tmp_path: Path) -> None:
    before = files(folder / "l")
    report = encode(str(folder / "s"), "t", saes_in(folder), str(folder / "l"))
    assert report.n_encoded == 0
    assert files(folder / "l") == before


@pytest.mark.parametrize("first", [pytest.param(1, marks=pytest.mark.slow), BLOCK + 7])
def test_what_grew_with_its_source_equals_what_was_made_at_once(
    states: States, folder: Path, tmp_path: Path, first: int
) -> None:
    url, out = str(tmp_path / "s"), str(tmp_path / "l")
    states.head(first).write(url)
    assert encode(url, "t", saes_in(folder), out).n_clips == first
    states.write(url)
    assert encode(url, "t", saes_in(folder), out).n_encoded == N_CLIPS - first // BLOCK * BLOCK
    assert files(out) == files(folder / "l")


def killed_at(n: int, states: States, folder: Path, tmp_path: Path) -> bool:
    """Whether an encoding of two blocks is killed by its n-th change; it is run again, and its bytes are compared."""
    out = str(tmp_path / f"killed{n}")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(n, patch)
        killed = ""
        try:
            encode(str(tmp_path / "s"), "t", saes_in(folder), out)
        except OSError as error:
            killed = str(error)
    if not killed:
        return False
    assert re.search(r"could not be written \(killed\); expected a writable", killed)
    assert damage(out) == [] if (tmp_path / f"killed{n}" / "zarr.json").exists() else True
    encode(str(tmp_path / "s"), "t", saes_in(folder), out)
    assert tree_of(out) == tree_of(tmp_path / "whole")
    return True


@pytest.mark.parametrize("step", [29, pytest.param(some(5, of=1), marks=pytest.mark.slow)])
def test_killed_at_any_write_the_same_call_ends_in_the_same_bytes(
    states: States, folder: Path, tmp_path: Path, step: int
) -> None:
    states.head(BLOCK + 9).write(str(tmp_path / "s"))
    encode(str(tmp_path / "s"), "t", saes_in(folder), str(tmp_path / "whole"))
    n = 0
    while killed_at(n, states, folder, tmp_path):
        n += step
    assert n > 50


def test_a_task_in_the_source_s_own_store(states: States, folder: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "s")
    states.write(url)
    source = {name: data for name, data in files(url).items() if name.startswith("t/")}
    encode(url, "t", saes_in(folder), url, out_task="latents")
    assert done("verify", url) == "intact\n"
    both = files(url)
    assert {name: data for name, data in both.items() if name.startswith("t/")} == source
    group = zarr.open_group(url, path="latents", mode="r")
    np.testing.assert_array_equal(group["mean"][:], zarr.open_group(str(folder / "l"), path="t", mode="r")["mean"][:])


@pytest.mark.slow
def test_on_an_object_store_it_is_the_same(states: States, folder: Path, s3: ObjectServer) -> None:
    url, out = (f"s3://{BUCKET}/{folder.name}/{name}" for name in "sl")
    states.write(url)
    encode(url, "t", saes_in(folder), out)
    assert stored(out, s3) == tree_of(folder / "l")
    with pytest.raises(ValueError, match="lies within the store"):
        encode(url, "t", saes_in(folder), f"{url}/l")
    with pytest.raises(ValueError, match="to that task itself"):
        encode(url, "t", saes_in(folder), f"{url}/")


@pytest.mark.parametrize("embedding", [True, False])
def test_without_embeddings_or_prompts(folder: Path, tmp_path: Path, embedding: bool) -> None:
    few = make_states(40, embedding=embedding, prompts=False)
    few.write(str(tmp_path / "s"))
    encode(str(tmp_path / "s"), "t", saes_in(folder), str(tmp_path / "l"))
    group = zarr.open_group(str(tmp_path / "l"), path="t", mode="r")
    assert ("embedding" in group) == embedding
    assert "prompt" not in group
    assert list(verify(str(tmp_path / "l"))) == []


def test_labels_are_carried_over_once(states: States, folder: Path, tmp_path: Path) -> None:
    """Later ones by `label`; of clips that are appended those of the columns that there are."""
    url, out = str(tmp_path / "s"), str(tmp_path / "l")
    states.head(40).write(url)
    encode(url, "t", saes_in(folder), out)
    (tmp_path / "own.csv").write_text("clip,own\nclip 0 é,x\n", encoding="utf-8")
    done("label", out, "--task", "t", tmp_path / "own.csv")
    add_labels(url, "t", {"late": ["y"] * 40, "kind": ["q"] * 40}, overwrite=True)
    before = files(out)
    result = call(
        "sae", "encode", url, "--task", "t", "--sae", folder / "topk", "--sae", folder / "threshold", "-o", out
    )
    assert result.exit_code == 0
    assert "note: kind, late of " in result.stderr
    assert f"`otoscope label {out} --task t TABLE --replace`" in result.stderr
    assert files(out) == before


def test_clips_whose_audio_is_another_by_now_are_encoded_again(states: States, folder: Path, tmp_path: Path) -> None:
    """A block of the source was put back and extracted from other files, or files that are gone."""
    url, out = str(tmp_path / "s"), str(tmp_path / "l")
    states.write(url)
    encode(url, "t", saes_in(folder), out)
    block = list(blocks("t", N_CLIPS, BLOCK))[1]
    other = replace(states, hidden=states.hidden + 1, status=np.where(np.arange(N_CLIPS) == BLOCK, 2, states.status))
    values = other.values(block)
    values["audio_digest"][5] += 1
    reset_block(url, block)
    write_block(url, block, values, other.status[block.clips], "code 1")
    assert encode(url, "t", saes_in(folder), out).n_encoded == BLOCK
    assert encode(url, "t", saes_in(folder), out).n_encoded == 0
    encode(url, "t", saes_in(folder), str(tmp_path / "anew"))
    assert files(out) == files(tmp_path / "anew")


def test_states_that_an_encoder_gave_are_encoded(states: States, finished: Finished, tmp_path: Path) -> None:
    """From audio to latents; audio is compared as ever, and the encoder itself is refused where latents are."""
    dictionary = states.dictionary("wide", 2, 24, k=5)
    cut = {name: values[..., :10] for name, values in dictionary.weights.items() if values.shape[-1] == 12}
    write_dictionary(replace(dictionary, **cut, base=""), tmp_path / "wide")
    out = str(tmp_path / "l")
    assert encode(finished.url, "t", [tmp_path / "wide"], out).n_ok == 37
    assert done("verify", out, "--audio", finished.manifest.parent) == "intact\n"
    assert done("status", out) == "t: 37 clips, 37 ok, 0 failed, 0 pending; 10 of 10 blocks committed\n"
    assert '"derived_from"' in done("info", out)
    given = ("--corpus", finished.manifest, "--task", "t", "--threads", 1)
    message = r'another identity \(encoder: "module", not "latents"\); expected the same encoder'
    refused(message, "extract", out, "--encoder", CLOSED_FORM, *given, watched=tmp_path)
    with pytest.raises(ValueError, match=r'another identity .*encoder: "closed-form", not "latents"'):
        otoscope.capture(closed_form(), str(finished.manifest), out, task="t", threads=1)
    reset_block(out, next(blocks("t", 37, 4)))
    with pytest.raises(ValueError, match=r'encoder: "closed-form", not "latents"'):
        otoscope.capture(closed_form(), str(finished.manifest), out, task="t", threads=1)
    message = r"is not finished, 4 clips are pending; .*`otoscope sae encode` \(or `extract`\) again"
    refused(message, "neurons", out, "--task", "t:kind", watched=tmp_path)


def test_a_planted_latent_is_found(folder: Path, tmp_path: Path) -> None:
    """One latent of 70 fires for category "b" alone; tests against shuffled labels select it and nothing else."""
    done("neurons", folder / "l", "--task", "t:kind", "-o", tmp_path / "n.csv")
    found = pd.read_csv(tmp_path / "n.csv")
    assert found[["category", "layer", "site", "neuron"]].values.tolist()[0] == [
        "b", 0, "saes.0_of_state_1.codes", PLANTED,
    ]  # fmt: skip
    assert len(found) == 1
    done("neurons", folder / "l", "--task", "t:kind", "--rule", "lape", "--percentile", 2, "--threshold", "q80",
         "-o", tmp_path / "lape.csv")  # fmt: skip
    assert pd.read_csv(tmp_path / "lape.csv")[["category", "layer", "neuron"]].values.tolist() == [["b", 0, PLANTED]]


KIND, TENTH, FEW = ("--task", "t:kind"), ("--percentile", 10), ("--permutations", 50)
ASKED: list[tuple[object, ...]] = [
    *(("neurons", "L", *KIND, *how) for how in (
        ("--rule", "lape", *TENTH), ("--rule", "paper", *TENTH), ("--rule", "contrast", "--threshold", "median", *FEW),
        ("--rule", "lape", *TENTH, "--threshold", "q80"), ("--rule", "lape", *TENTH, "--threshold", 2.5),
        ("--rule", "lape", *TENTH, "--threshold", "q80", "--bootstrap", 40),
        ("--rule", "lape", *TENTH, "--threshold", "q80", "--confirm", "singer=s1", "--where", "singer!=s2"),
    )),
    *(("table", kind, "L", *(() if kind in ("paper", "stats", "thresholds") else KIND),
       *(() if kind in ("probability", "aape", "neuron-thresholds") else TENTH), "--threshold", "q80")
      for kind in TABLES),
    *(("figure", kind, "L", *KIND, *TENTH, "-o", "F.svg") for kind in ("overlap", "depth", "selectivity")),
    ("figure", "overlap", "L", *KIND, *TENTH, *FEW, "-o", "F.pdf"),
    *(("null", "L", *KIND, *TENTH, *FEW, "--rows", rows) for rows in NULL_ROWS),
    ("selectors", "L", *KIND, *TENTH),
    ("exemplars", "L", "--task", "t", "--neuron", "1,29", "-k", 3),
    ("exemplars", "L", "--task", "t", "--neuron", f"0,{PLANTED}", "--lowest"),
    *(("compare", "L", *(("S",) if by == "labelling" else ()), *(() if by == "neuron" else KIND), *TENTH, "--by", by)
      for by in COMPARISONS),
]  # fmt: skip


SLOW = ("paper", "F.pdf", "median", "thresholds", "categories", "--lowest", "depth")  # much like others


@pytest.mark.parametrize(
    "asked",
    [pytest.param(asked, marks=[pytest.mark.slow] * bool({*SLOW} & {*asked})) for asked in ASKED],
    ids=lambda asked: " ".join(map(str, asked)),
)
def test_every_question_is_answered(folder: Path, tmp_path: Path, asked: tuple[object, ...]) -> None:
    if "S" in asked and not (folder / "single").exists():
        encode(str(folder / "s"), "t", [folder / "topk"], str(folder / "single"))
    stands = {"L": folder / "l", "S": folder / "single", "F.svg": tmp_path / "F.svg", "F.pdf": tmp_path / "F.pdf"}
    output = done(*(stands.get(str(part), part) for part in asked))
    assert output.strip()
    assert "nan" not in output.lower().split()


def test_silent_latents_are_latents(folder: Path) -> None:
    """Not the neurons that fill a narrower layer up."""
    output = done("compare", folder / "l", *KIND, *TENTH, "--by", "layer")
    silent = [int(row.split("|")[4]) for row in output.splitlines()[2:]]
    mean = zarr.open_group(str(folder / "l"), path="t", mode="r")["mean"][:]
    assert silent == [int((np.nanmax(mean[i, :, :n], axis=0) == 0).sum()) for i, n in enumerate((40, 30))]


@pytest.mark.parametrize("reading", ["frame", "any"])
def test_a_reading_of_frames_is_refused(folder: Path, reading: str) -> None:
    message = f"keeps no 'positive_frames', expected for the reading '{reading}': latents of whole clips have one value"
    refused(message, "neurons", folder / "l", *KIND, "--reading", reading, watched=folder)


def without(**changes: Any) -> Callable[[States, Path], None]:
    """A source that is otherwise."""

    def make(states: States, folder: Path) -> None:
        made = make_states(40, **{"hidden": True, **changes})
        made.write(str(folder / "s"))

    return make


def sound(states: States, folder: Path) -> None:
    states.write(str(folder / "s"))


def pending(states: States, folder: Path) -> None:
    states.write(str(folder / "s"), [0, 2])


def damaged(states: States, folder: Path) -> None:
    states.write(str(folder / "s"))
    shard = folder / "s" / "t" / "hidden" / "c" / "0" / "1" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


def sae(name: str, **changes: Any) -> Callable[[States, Path], None]:
    """An SAE that is otherwise."""

    def make(states: States, folder: Path) -> None:
        states.write(str(folder / "s"))
        state = changes.pop("state", 1)
        dictionary = states.dictionary(name, state, 20, k=3)
        write_dictionary(replace(dictionary, **changes), folder / name)

    return make


def narrow(states: States, folder: Path) -> None:
    states.write(str(folder / "s"))
    dictionary = states.dictionary("narrow", 1, 20, k=3)
    cut = {name: values[..., :10] for name, values in dictionary.weights.items() if values.shape[-1] == 12}
    write_dictionary(replace(dictionary, **cut), folder / "narrow")


def other_there(states: States, folder: Path) -> None:
    """Latents of one SAE are there."""
    states.write(str(folder / "s"))
    encode(str(folder / "s"), "t", [folder / "topk"], str(folder / "o"))


def other_source(states: States, folder: Path) -> None:
    """Latents of another corpus's clips, and of another encoder's states, are there."""
    states.write(str(folder / "s"))
    clips = replace(states.clips, path=["x", *states.clips.path[1:]])
    other = replace(states, clips=clips, plan=replace(states.plan, **clips.digests))
    other.write(str(folder / "s2"))
    encode(str(folder / "s2"), "t", saes_in(folder), str(folder / "o"))


BOTH = ("topk", "threshold")
REFUSED: dict[str, tuple[Callable[[States, Path], None], tuple[str, ...], tuple[object, ...], str]] = {
    "no hidden": (without(hidden=False), BOTH, (), r"keeps no hidden states; expected .*--keep hidden"),
    "pending": (pending, BOTH, (), r"not finished, 42 of 106 clips are pending; .*finish its extraction first"),
    "damaged": (damaged, BOTH, (), r"t/hidden in .* is damaged \(.*1/0: the checksum .*`otoscope verify`"),
    "no such SAE": (sound, ("nope",), (), r"no sae.json in .*nope"),
    "another identity": (sae("x", base="ab" * 32), ("x",), (), r"SAE x was trained on states of another identity"),
    "another width": (narrow, ("narrow",), (), r"SAE narrow is of state 1, 10 wide; expected one of the 3 states"),
    "another state": (sae("x", state=3), ("x",), (), r"SAE x is of state 3"),
    "frames": (sae("x", rows="frame"), ("x",), (), r"SAE x is of single frames.*--encoder latents:SAE@SPEC"),
    "twice": (sound, ("topk", "topk"), (), r"SAE topk was given twice"),
    "itself": (sound, BOTH, ("-o", "s"), r"were to be written to that task itself; .*--as"),
    "within": (sound, BOTH, ("-o", "s/t/l"), r"s/t/l lies within the store .*s; expected"),
    "no task": (sound, BOTH, ("--task", "u"), r"no task 'u' in .*; it holds t"),
    "no name": (sound, BOTH, ("--as", "a/b"), r"'a/b' cannot name a task"),
    "an encoder's": (sound, BOTH, ("--task", "t", "-o", "s2"), r"activations of encoder fake, not latents"),
    "other SAEs": (other_there, BOTH, (), r"latents of other SAEs \(\w{8}\), not of SAE topk \(\w{8}\), SAE t"),
    "another plan": (other_there, BOTH[:1], ("--mean-dtype", "float16"), r"planned otherwise \(mean_dtype: .float16"),
    "other clips": (other_source, BOTH, (), r"latents of 106 clips that are not the first of the 106 of .*/s"),
}  # fmt: skip


@pytest.mark.parametrize("case", quick_sample(REFUSED, 6))
def test_bad_input_is_one_line_and_changes_nothing(states: States, tmp_path: Path, case: str) -> None:
    make, saes, more, message = REFUSED[case]
    write_dictionaries(states, tmp_path)
    make(states, tmp_path)
    if case == "an encoder's":
        states.head(5).write(str(tmp_path / "s2"))
    at = [tmp_path / str(part) if i and more[i - 1] == "-o" else part for i, part in enumerate(more)]
    if case == "damaged":  # which is found where it is read: what is committed before stays
        result = call(*command(tmp_path, tmp_path / "o", *at, saes=saes))
        assert result.exit_code == 2
        assert [block.index for block in pending_blocks(str(tmp_path / "o"), "t")] == [1, 2, 3]
        assert re.search(message, result.stderr.splitlines()[-1])
        return
    refused(message, *command(tmp_path, tmp_path / "o", *at, saes=saes), watched=tmp_path)


def test_no_sae_at_all(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no SAE was given"):
        encode(str(folder / "s"), "t", [], str(tmp_path / "l"))
    assert call("sae", "encode", folder / "s", "--task", "t", "-o", tmp_path / "l").exit_code == 2
    assert list(tmp_path.iterdir()) == []

"""The commands of ablation, as they are typed."""

import json
import re

import pandas as pd
import pytest
import yaml

from otoscope.analysis.probe.probe import load_probe

from ..support import planted_encoder as planted
from ..support.commands import done, refused
from ..support.planted_corpus import write_sounds

ENCODER = f"module:{planted.__file__}:planted"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    manifest = write_sounds(folder, 24)
    done("extract", folder / "s.zarr", "--encoder", ENCODER, "--corpus", manifest, "--task", "t", "--threads", 1)
    return folder


def arguments(here, *more, named=("--percentile", 4, "--set", "only(d)")):
    named = ("--task", "t:letter", *named)
    return ("ablate", "run", here / "s.zarr", "--encoder", ENCODER, "--corpus", here / "sounds.csv", *named, *more)


def test_a_run_its_table_and_its_figure(here, tmp_path):
    output = tmp_path / "r.parquet"
    output_text = done(*arguments(here, "--controls", 40, "--clip-table", tmp_path / "clips.csv", "-o", output))
    assert re.search(r"accuracy\n\| category +\| +n_clips ", output_text)
    assert re.search(r"\| d +\| +8 \| +8 \| +1 \| +0 \| +-1 \| .*\| +0.02439 \| +0.02439 \|", output_text)  # 1/41
    *_, note, selected, last = output_text.splitlines()
    assert selected == ("neurons selected on 64 clips of t:letter (train and valid of split), tested on 32 others")
    assert last == str(output)
    frame = pd.read_parquet(output)
    assert set(frame["measure"]) == {"accuracy", "margin", "log_loss"}
    n_changed = frame[frame["measure"] == "margin"].set_index("category")["n_changed"]
    assert n_changed.to_dict() == {"a": 0, "b": 0, "c": 0, "d": 8, "": 8}
    assert re.fullmatch(r"8 clips changed of 32 tested, by controls \d+ to 32", note)
    clips = pd.read_csv(tmp_path / "clips.csv")
    assert len(clips) == 32
    assert (clips[clips["category"] == "d"]["predicted_after"] != "d").all()
    assert (clips["accuracy_after"] == (clips["predicted_after"] == clips["category"])).all()
    assert done("ablate", "table", output, "-o", tmp_path / "t.csv") == f"{tmp_path / 't.csv'}\n"
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == len(frame)
    assert done("figure", "ablation", output, "-o", tmp_path / "f.png") == f"{tmp_path / 'f.png'}\n"
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_the_same_request_is_answered_from_the_file(here, tmp_path):
    output = tmp_path / "r.parquet"
    done(*arguments(here, "--controls", 2, "-o", output))
    before = output.stat().st_mtime_ns
    assert "holds the result of this request already" in done(*arguments(here, "--controls", 2, "-o", output))
    assert output.stat().st_mtime_ns == before
    done(*arguments(here, "--controls", 3, "-o", output))
    assert output.stat().st_mtime_ns > before


def test_a_probe_is_kept_and_used_again(here, tmp_path):
    done(*arguments(here, "--controls", 1, "--probe", tmp_path / "p", "-o", tmp_path / "a.parquet"))
    assert load_probe(tmp_path / "p").labelling == "t:letter"
    done(*arguments(here, "--controls", 1, "--probe", tmp_path / "p", "-o", tmp_path / "b.parquet"))
    done(*arguments(here, "--controls", 1, "-o", tmp_path / "c.parquet"))
    for name in ("b", "c"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_sets_are_listed_and_written(here, tmp_path):
    def named(*more):
        return ("ablate", "set", here / "s.zarr", "--task", "t:letter", "--percentile", 4, "--set", "only(d)", *more)

    assert re.search(r"\| +layer \| +neuron \|\n", done(*named()))
    for ending in ("json", "csv", "yaml"):
        done(*named("-o", tmp_path / f"n.{ending}"))
    pairs = [list(pair) for pair in planted.PLANTED]
    assert json.loads((tmp_path / "n.json").read_text())["pairs"] == pairs
    assert yaml.safe_load((tmp_path / "n.yaml").read_text()) == {"int_gain": 0.0, "int_neurons": pairs}
    outputs = []
    by_hand = (("--set", f"@{tmp_path / name}") for name in ("n.yaml", "n.csv"))
    for words in (*by_hand, ("--percentile", 4, "--set", "only(d)")):
        output = tmp_path / f"r{len(outputs)}.parquet"
        done(*arguments(here, "--controls", 1, "-o", output, named=words))
        outputs.append(pd.read_parquet(output))
    for frame in outputs[1:]:
        pd.testing.assert_frame_equal(frame, outputs[0])


def test_mistakes_are_one_line(here, tmp_path):
    output = tmp_path / "r.parquet"
    given = arguments(here, "-o", output)
    refused(r"no category 'e' in t:letter; those that exist: a, b, c, d", *given, "--set", "only(e)", watched=tmp_path)
    refused(r"no neuron set is called 'dog'; expected shared", *given, "--set", "dog", watched=tmp_path)
    refused(r"the labelling is 't'; expected TASK:LABEL", *given, "--task", "t", watched=tmp_path)
    refused(r"expected a category for category-mean and transplant", *given, "--mode", "transplant", watched=tmp_path)
    refused(r"match is .*'size'.*; expected one of rate, mean", *given, "--match", "size", watched=tmp_path)
    refused(r"--actors given with --executor serial", *given, "--actors", 2, watched=tmp_path)
    refused(r"the encoder is not the store's", *given, "--encoder", "tiny-ssl", watched=tmp_path)
    absent = arguments(here, "-o", output, named=("--set", "@absent.csv"))
    refused(r"no file .*absent.csv", *absent, watched=tmp_path)
    refused(r"expected a name ending in \.parquet", *given, "-o", tmp_path / "r.csv", watched=tmp_path)
    refused(
        r"to 'c\.txt'; expected a name ending in \.csv", *given, "--clip-table", tmp_path / "c.txt", watched=tmp_path
    )
    (tmp_path / "p.json").write_text("{}")
    refused(r"no probe at .*p; expected p\.safetensors", *given, "--probe", tmp_path / "p", watched=tmp_path)
    refused(r"no file .*x\.parquet; expected the result", "ablate", "table", tmp_path / "x.parquet", watched=tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "o.parquet")
    refused(r"is not a valid result of an ablation", *arguments(here, "-o", tmp_path / "o.parquet"), watched=tmp_path)

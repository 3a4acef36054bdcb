"""`otoscope ablate swap` and its figure, as they are typed, and `ablate run` by the model's own answers."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from otoscope.ablate.result import read_result
from otoscope.ablate.swap.request import Swap
from otoscope.ablate.swap.result import COLUMNS, pair_table, read_swaps, write_swaps
from otoscope.ablate.swap.study import look_up_swaps, run_swaps
from otoscope.ablate.swap.worker import SwapWorker
from otoscope.analysis.selection.selection import Selection

from ...support.commands import done, refused
from ...support.crossed import columns_of, responses, write_crossed
from ...support.planted_grounding import ANSWERS, FRAMES, LABELS, embeddings, extracted, write_corpus

ANSWERED = [part for name, text in ANSWERS.items() for part in ("--answer", f"{name}={text}")]


def swap(here, output, *more, answers=ANSWERED, task="emotion", which="(1,0)", controls=39):
    return (
        "ablate", "swap", here.url, "--task", task, "--set", which, "--encoder", here.spec, "--corpus", here.manifest,
        "--controls", controls, *answers, "-o", output, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("swap") / "swap.parquet"
    return path, done(*swap(small, path))


def test_the_file_is_what_the_notebook_gives(small, result):
    path, output = result
    request = Swap(task="emotion", set="(1,0)", answers=ANSWERS, controls=39)
    expected = run_swaps(look_up_swaps(request, small.url), small.spec, small.corpus)
    found = read_swaps(path)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert found.attrs == expected.attrs
    assert found.attrs["method"] == ["replay"]
    assert output.splitlines()[-1] == str(path)
    assert "choose on other clips, and speakers" in output
    assert "sufficiency" in output
    assert pd.read_parquet(path)["gc_causal"][0] == found["gc_causal"][0] > 0.9
    pairs = pair_table(found, "E_A")
    assert (list(pairs.index), list(pairs.columns)) == (list(LABELS), list(LABELS))
    assert found.loc[found["part"] == "overall", "E_A"].item() == pytest.approx(np.nanmean(pairs))


def test_the_same_request_is_not_run_again(small, result, monkeypatch):
    def fail(*_):
        raise AssertionError("run again")

    monkeypatch.setattr(SwapWorker, "__call__", fail)
    assert "holds the result of this request already" in done(*swap(small, result[0]))


def test_a_figure_shows_both_tables(result, tmp_path):
    done("figure", "swap", result[0], "-o", tmp_path / "swap.svg")
    drawn = " ".join((tmp_path / "swap.svg").read_text().split())
    assert "sound swapped, E_A" in drawn
    assert "text swapped, E_T" in drawn
    table = read_swaps(result[0])
    assert f"GC_causal {table['gc_causal'][0]:.2f}" in drawn
    assert f"{float(pair_table(table, 'E_A').to_numpy()[0, 1]):.2g}" in drawn
    assert "GC_causal" not in done("figure", "swap", result[0], "-o", tmp_path / "bare.svg", "--caption", "none")
    assert "GC_causal" not in (tmp_path / "bare.svg").read_text()


def test_neurons_are_chosen_on_training_clips_and_swapped_in_test_clips(small):
    request = Swap(
        task="emotion",
        set="all(emotion:audio_class:ANG)",
        answers=ANSWERS,
        controls=0,
        selection=Selection(permutations=200),
    )
    study = look_up_swaps(request, small.url)
    assert set(small.corpus.labels["split"].iloc[study.clips]) == {"test"}
    assert study.neurons.why["selected_on"].startswith("36 clips of emotion:audio_class (train and valid of split)")
    assert not any("inflated" in note or "speakers" in note for note in study.notes)
    again = replace(request, selection=replace(request.selection, clips="all"))
    notes = look_up_swaps(again, small.url).notes
    assert "neurons were selected on 36 of the 36 clips that are swapped: effects are inflated" in notes


def test_options_reach_the_study(small, tmp_path):
    path = tmp_path / "kept.parquet"
    done(*swap(small, path, "--keep", "--seed", 3, controls=0))
    request = Swap(task="emotion", set="(1,0)", answers=ANSWERS, controls=0, keep=True, seed=3)
    expected = run_swaps(look_up_swaps(request, small.url), small.spec, small.corpus)
    pd.testing.assert_frame_equal(read_swaps(path), expected, check_dtype=False)
    assert set(expected["state"]) == {"untested"}


REFUSED = [
    (dict(answers=ANSWERED[2:]), "no answer for 'ANG'; expected one for each of 'ANG', 'HAP', 'SAD'"),
    (dict(answers=[*ANSWERED, "--answer", "FEA=afraid"]), "an answer for 'FEA'; expected one for each of"),
    (dict(answers=["--answer", "ANG=sad", *ANSWERED[2:]]), "begin with the same token"),
    (dict(answers=["--answer", "ANG"]), "--answer 'ANG' is given without a category and a text"),
    (dict(answers=[*ANSWERED, "--answer", "ANG=x"]), "is given twice for one category"),
    (dict(controls=20), "found 20 controls; expected 39"),
    (dict(task="nothing"), "nothing"),
    (dict(which="(1,9000)"), "do not exist"),
    (dict(more=("--replicate", "none")), "none"),
    (dict(more=("--audio-class", "speaker")), "is one of sounds alone; expected the same categories of"),
    (dict(more=("--splits", "none")), "none"),
    (dict(more=("--percentile", "3")), "expected a set by categories"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "message"), REFUSED)
def test_what_cannot_be_is_a_line(small, tmp_path, how, message):
    more = how.get("more", ())
    rest = {name: value for name, value in how.items() if name != "more"}
    refused(re.escape(message), *swap(small, tmp_path / "x.parquet", *more, **rest), watched=tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_tokens_are_swapped_only_where_all_prompts_have_one_layout(small, tmp_path):
    done(*swap(small, tmp_path / "all.parquet", "--at", "all", controls=0))
    assert read_swaps(tmp_path / "all.parquet")["E_A"][0] > 1
    manifest = write_corpus(tmp_path, 4, FRAMES[2:])  # partners have one layout, and these wordings two
    url = extracted(manifest, small.encoder, str(tmp_path / "uneven.zarr"))
    other = replace(small, manifest=manifest, url=url)
    asked = swap(other, tmp_path / "x.parquet", "--at", "all", controls=0)
    message = "prompts '{audio} What is mad?' and '{audio} heard mad?' have tokens of other layouts; expected one"
    refused(re.escape(message), *asked, watched=tmp_path)
    done(*swap(other, tmp_path / "last.parquet", controls=0))


def test_all_tokens_are_swapped_only_where_partners_have_sounds_of_one_length(small, tmp_path):
    manifest = write_corpus(tmp_path, 4, FRAMES[:2], samples={"SAD": 5_000})
    url = extracted(manifest, small.encoder, str(tmp_path / "uneven.zarr"))
    other = replace(small, manifest=manifest, url=url)
    asked = swap(other, tmp_path / "x.parquet", "--at", "all", controls=0)
    refused("have tokens of other layouts; expected sounds of one length", *asked, watched=tmp_path)
    done(*swap(other, tmp_path / "last.parquet", controls=0))


def test_a_store_without_prompts_and_a_changed_manifest_are_refused(small, tmp_path):
    url = str(tmp_path / "plain.zarr")
    write_crossed(url, responses((3, 2, 3, 2), 4)[None], columns_of((3, 2, 3, 2)))
    other = replace(small, url=url)
    refused("keeps no 'prompt', expected for swaps", *swap(other, tmp_path / "x.parquet"), watched=tmp_path)
    changed = small.folder / "changed.csv"
    text = small.manifest.read_text().replace("he sounds mad", "he sounds very mad", 1)
    changed.write_text(text)
    other = replace(small, manifest=changed)
    refused("other names, paths or prompts", *swap(other, tmp_path / "x.parquet"), watched=tmp_path)
    changed.unlink()


def test_results_that_are_damaged_are_refused_by_the_figure(result, tmp_path):
    table = read_swaps(result[0])

    def drawn(name, message="is not a valid result of swaps"):
        refused(message, "figure", "swap", tmp_path / name, "-o", tmp_path / "f.png", watched=tmp_path)

    for name, damaged in (
        ("rows", table.iloc[1:]), ("state", table.assign(state="x")), ("order", table.iloc[::-1]),
        ("columns", table[list(COLUMNS)[:-1]]),
    ):  # fmt: skip
        damaged.attrs = table.attrs
        write_swaps(damaged, tmp_path / f"{name}.parquet")
        drawn(f"{name}.parquet")
    (tmp_path / "cut.parquet").write_bytes(result[0].read_bytes()[:-100])
    drawn("cut.parquet")
    drawn("absent.parquet", "no file")


def test_deactivation_and_gain_by_the_model_s_own_answers(small, tmp_path):
    """Without the sound neuron, the logits are the model's own with that neuron held at 0: by plain hooks."""
    path, clips = tmp_path / "off.parquet", tmp_path / "clips.csv"
    asked = ("ablate", "run", small.url, "--task", "emotion:audio_class", "--set", "(1,0)", "--controls", 5, "--corpus",
             small.manifest, "--encoder", small.spec)  # fmt: skip
    done(*asked, *ANSWERED, "--clip-table", clips, "-o", path)
    found, shown = read_result(path), pd.read_csv(clips)
    assert found.attrs["request"]["probe"] == "own head"
    assert found.attrs["probe"]["kind"] == "the model's own"
    head = small.encoder.answers(ANSWERS, small.corpus.clips.table["prompt"]).astype(float)
    part = small.encoder.module.language_model.layers[1].mlp.down_proj.neurons
    tested = np.flatnonzero(small.corpus.labels["split"] == "test")
    assert len(shown) == len(tested) == 36

    def silence(_module, _inputs, output):
        changed = output.clone()
        changed[..., 0] = 0
        return changed

    before = embeddings(small.encoder, small.corpus, tested[:8]) @ head.T
    hook = part.register_forward_hook(silence)
    after = embeddings(small.encoder, small.corpus, tested[:8]) @ head.T
    hook.remove()
    for logits, when in ((before, "before"), (after, "after")):
        truth = [LABELS.index(name) for name in small.corpus.labels["audio_class"].iloc[tested[:8]]]
        own = logits[np.arange(8), truth]
        others = np.where(np.eye(3, dtype=bool)[truth], -np.inf, logits).max(axis=1)
        np.testing.assert_allclose(shown[f"margin_{when}"][:8], own - others, atol=1e-4)
    gained = tmp_path / "gain.parquet"
    done(*asked, *ANSWERED, "--mode", "gain", "--gain", "2", "-o", gained)
    change = read_result(gained)["change"].sel(measure="margin", category="ANG")
    assert change > 0 > found["change"].sel(measure="margin", category="ANG")
    done("figure", "ablation", path, "-o", tmp_path / "off.svg")
    assert "the model's own head, accuracy" in " ".join((tmp_path / "off.svg").read_text().split())
    for more, message in (
        (ANSWERED[2:], "no answer for 'ANG'"), ([*ANSWERED, "--probe", "published"], "--probe"),
        (["--answer", "=x"], "without a category"),
    ):  # fmt: skip
        refused(message, *asked, *more, "-o", tmp_path / "x.parquet", watched=tmp_path)


def test_an_encoder_without_a_head_is_told(small):
    from otoscope.ablate.own_head import own_head

    with pytest.raises(ValueError, match="has no head that answers; expected an audio language model"):
        own_head(replace(small.encoder, answers=None), ANSWERS, [], identity="", labelling="")

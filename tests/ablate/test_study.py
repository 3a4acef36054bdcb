"""Whole studies on an encoder built by hand, in which a known set of neurons carries one category."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import otoscope
from otoscope.ablate.request import Request
from otoscope.ablate.result import read_result, write_result
from otoscope.ablate.study import (
    OpenStore,
    draw_donors,
    find_neurons,
    look_up,
    run_study,
    select_on,
    selecting_clips,
)
from otoscope.analysis.published.neuron_lists import write_published_list
from otoscope.analysis.selection.selection import Selection
from otoscope.cluster.executor import SerialExecutor
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.store.changes.tasks import add_labels
from otoscope.store.neurons import NeuronSet, write_neuron_set

from ..support.counting import ONCE, count_calls
from ..support.planted_corpus import write_sounds
from ..support.planted_encoder import CATEGORIES, NEURONS, PLANTED, RATE, planted

SMALLEST_P = 1 / 201  # the least p that 200 controls can give
ASKED = {"task": "t", "label": "letter", "set": "only(d)"}


def request(clips="all", **more):
    return Request(**{**ASKED, "selection": Selection(percentile=4.0, clips=clips), **more})


@dataclasses.dataclass
class PlantedTask:
    url: str
    corpus: object
    manifest: object
    encoder: Encoder

    def run(self, executor=None, **more):
        return run_study(look_up(request(**more), self.url), self.encoder, self.corpus, executor=executor)


def planted_task(folder, per_category=45, **how):
    manifest, encoder, url = write_sounds(folder, per_category, **how), planted(), str(folder / "s.zarr")
    capture(encoder, manifest, url, task="t", threads=1, batch=16)
    return PlantedTask(url=url, corpus=read_manifest(manifest), manifest=manifest, encoder=encoder)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return planted_task(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def removed(here):
    return here.run()


def row(result, measure, category):
    return {
        str(k): v.item() for k, v in result.sel(measure=measure, category=category).data_vars.items() if v.ndim == 0
    }


def test_the_planted_neurons_are_what_the_selection_finds(here):
    study = look_up(request(), here.url)
    assert study.neurons.pairs == PLANTED
    assert study.neurons.why["task"] == "t"
    assert study.neurons.why["identity"] == study.probe.identity
    for control in study.controls:
        assert control.counts == study.neurons.counts
        assert not len(control & study.neurons)
    assert len(study.controls) == 200


def test_what_speaks_against_the_selection_is_noted_once_without_the_store_s_url(here, monkeypatch, caplog):
    monkeypatch.setattr("otoscope.analysis.selection.labellings.cautions_on", lambda *_: ("not selective",))
    assert look_up(request(set="only(d)"), here.url).notes.count("t:letter: not selective") == 1
    caplog.clear()
    find_neurons(request(set="all(d)"), here.url)
    assert caplog.messages == ["t:letter: not selective"]
    assert look_up(request(set="(0,1)"), here.url).notes == ()


def test_their_removal_ruins_that_category_alone(removed):
    """All of d is lost, no other clip moves at all, and no control of 200 does the like: p is the least there is."""
    for measure in ("accuracy", "margin", "log_loss"):
        ruined = row(removed, measure, "d")
        assert ruined["p_rank"] == ruined["p_corrected"] == SMALLEST_P
        assert ruined["p_paired"] < 0.001
        for other in "abc":
            spared = row(removed, measure, other)
            assert spared["change"] == 0
            assert spared["p_corrected"] > 0.2
    assert row(removed, "accuracy", "d")["before"] == 1
    assert row(removed, "accuracy", "d")["after"] == 0
    assert removed["predicted_after"].sel(category="d", predicted="c") >= 11  # what a d is without its mark
    assert int(removed["lost"].sel(category="d")) == removed["n_clips"].sel(category="d") == 15
    assert removed["control_change"].sel(measure="accuracy", category="d").min() > -0.3


@pytest.mark.slow
def test_they_suffice_to_make_a_clip_one_of_that_category(here):
    result = here.run(mode="transplant", category="d", controls=60)
    for other in "abc":
        became = row(result, "predicted", other)
        assert became["before"] == 0
        assert became["after"] >= 0.6
        assert became["p_rank"] == became["p_corrected"] == 1 / 61
        assert row(result, "target_margin", other)["p_corrected"] == 1 / 61
    assert row(result, "predicted", "c")["after"] == 1  # c and the mark is d, by the making of the sounds
    assert row(result, "predicted", "d")["after"] == 1
    assert float(result["control_change"].sel(measure="predicted").max()) < 0.2


@pytest.mark.slow
def test_alone_they_keep_that_category_and_random_neurons_do_not(here):
    for mode, controls in (("keep", 200), ("keep-mean", 30)):
        result = here.run(mode=mode, controls=controls)
        assert result.attrs["side"] == "help"
        kept = row(result, "accuracy", "d")
        assert kept["after"] >= 0.8
        assert kept["p_rank"] == kept["p_corrected"] == 1 / (1 + controls)
        assert float(result["control_change"].sel(measure="accuracy", category="d").max()) == -1


@pytest.mark.parametrize(("more", "after"), [({"mode": "gain", "gain": 1.0}, 1), ({"mode": "gain", "gain": 0.05}, 0)])
def test_gains_between(here, more, after):
    assert row(here.run(**more, controls=0), "accuracy", "d")["after"] == after


def test_means_of_a_category_make_it_predicted(here):
    """At the mean of c, in which they are silent, d becomes c; at the mean of d, c becomes d."""
    silent = here.run(mode="category-mean", category="c", controls=3)
    assert row(silent, "accuracy", "d")["after"] == 0
    assert row(silent, "predicted", "d")["after"] >= 0.7
    loud = here.run(mode="category-mean", category="d", controls=3)
    assert row(loud, "predicted", "c")["after"] == 1
    assert row(here.run(mode="mean", controls=3), "margin", "d")["change"] < -1


def test_the_scores_by_hand(here, removed):
    """Plain torch with a hook, plain softmax: the same clips, the same numbers."""
    study = look_up(request(), here.url)
    module, (layers, neurons) = here.encoder.module, np.array(PLANTED).T
    ds = otoscope.open(here.url)["t"].to_dataset()
    sounds = [here.corpus.clips.clip(int(i)) for i in study.clips]
    assert [clip.name for clip in sounds] == list(removed["clip"].values)
    from otoscope.extract.audio.decoding import read_clip

    waveforms = torch.from_numpy(np.stack([read_clip(here.corpus.clips.root, clip, RATE).samples for clip in sounds]))
    hooks = []
    for layer, block in enumerate(module.blocks):
        mask = torch.ones(NEURONS)
        mask[neurons[layers == layer]] = 0
        hooks.append(block.act.register_forward_hook(lambda _m, _i, output, mask=mask: output * mask))
    with torch.no_grad():
        silenced = here.encoder(waveforms).numpy()
    for hook in hooks:
        hook.remove()
    truth = ds.otoscope.codes("letter").values[study.clips]
    probe = study.probe
    for name, embedding in (("before", ds["embedding"].values[study.clips]), ("after", silenced)):
        logits = (embedding - probe.mean[0]) / probe.scale[0] @ probe.weight[0].T + probe.bias[0]
        own = logits[np.arange(60), truth]
        others = np.where(np.eye(4, dtype=bool)[truth], -np.inf, logits).max(axis=1)
        np.testing.assert_allclose(removed[f"clip_{name}"].sel(measure="margin"), own - others, atol=1e-4)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(60), truth])
        np.testing.assert_allclose(removed[f"clip_{name}"].sel(measure="log_loss"), loss, atol=1e-4)
        assert removed[f"clip_predicted_{name}"].values.tolist() == [CATEGORIES[i] for i in logits.argmax(axis=1)]
    assert removed["truth"].values.tolist() == [CATEGORIES[i] for i in truth]


class Backwards(SerialExecutor):
    """Pieces in the reverse order, by two workers in turn."""

    def run(self, make_worker, pieces):
        for i, piece in enumerate(reversed(list(pieces))):
            yield from super().run(make_worker, [piece] if i % 2 else (piece,))


def test_any_executor_gives_the_same_result(here, removed):
    xr.testing.assert_identical(here.run(executor=Backwards()), removed)


def test_the_same_request_has_the_same_digest(here, removed, tmp_path):
    digest = look_up(request(), here.url).digest
    assert removed.attrs["digest"] == digest
    write_neuron_set(NeuronSet(pairs=PLANTED), tmp_path / "set.json")
    assert look_up(request(set=f"@{tmp_path / 'set.json'}"), here.url).digest == digest  # it is the neurons that count
    for more in ({"controls": 199}, {"seed": 1}, {"set": "(0,1)"}, {"mode": "mean"}, {"probe": "published"}):
        assert look_up(request(**more), here.url).digest != digest


def test_results_do_not_say_where_files_lie(here, removed, tmp_path):
    write_published_list(NeuronSet(pairs=PLANTED), 0.5, tmp_path / "list.yaml")
    result = here.run(set=f"@{tmp_path / 'list.yaml'}", control="published")
    write_result(result, tmp_path / "r.parquet")
    assert str(tmp_path).encode() not in (tmp_path / "r.parquet").read_bytes()
    back = read_result(tmp_path / "r.parquet")
    assert back.attrs["request"]["set"] == "list.yaml"
    assert back.attrs["gain"] == 0.5
    assert removed.attrs["gain"] == 0
    assert back.sizes["control"] == 1
    neighbours = sorted([layer, (neuron + 1) % NEURONS] for layer, neuron in PLANTED)
    assert back.attrs["controls"] == [neighbours]
    assert row(removed, "margin", "d")["change"] < row(back, "margin", "d")["change"] < -1  # half of it, as it says


@pytest.mark.slow
def test_folds_and_clips_of_unequal_length(tmp_path):
    """Every clip is tested, by the probe of its fold; transplants between clips of unequal length take means."""
    there = planted_task(tmp_path, 24, lengths=(8, 5, 13), fold=True)
    result = there.run(controls=20)
    assert result.sizes["clip"] == 96
    assert row(result, "accuracy", "d")["after"] == 0
    assert row(result, "margin", "d")["p_corrected"] == 1 / 21
    assert row(result, "margin", "a")["change"] == 0
    study = look_up(request(controls=20), there.url)
    logits = study.probe.logits(study.embedding, study.heads)
    own = logits[np.arange(96), study.truth]
    others = np.where(np.eye(4, dtype=bool)[study.truth], -np.inf, logits).max(axis=1)
    np.testing.assert_allclose(result["clip_before"].sel(measure="margin"), own - others, atol=1e-4)
    moved = there.run(mode="transplant", category="d", controls=2)
    assert row(moved, "predicted", "c")["after"] >= 0.9
    with pytest.raises(ValueError, match=r"each of 3 folds is tested; expected a split train, valid, test"):
        look_up(request(clips="train"), there.url)
    assert study.selected == (
        "neurons selected on 96 clips of t:letter, tested on 96, all of them among those, as each of 3 folds is"
    )
    assert look_up(request(clips="auto"), there.url).neurons == study.neurons


def selected_from(ds):
    """Neurons of d alone, by these clips."""
    member = ds.otoscope.class_specific("letter", percentile=4.0)["member"].transpose("layer", "neuron", "category")
    chosen = member.sel(category="d") & (member.sum("category") == 1)
    return tuple(map(tuple, np.argwhere(chosen.values).tolist()))


@pytest.mark.parametrize("clips", ["auto", "train"])
def test_the_selection_is_kept_from_the_test_clips(here, clips):
    study = look_up(request(clips=clips), here.url)
    ds = otoscope.open(here.url)["t"].to_dataset()
    train = ds.isel(clip=np.flatnonzero(ds.otoscope.label("split").values == "train"))
    assert study.neurons.pairs == selected_from(train)
    assert study.neurons.why["selection"]["clips"] == "train"
    assert study.selected == (
        "neurons selected on 120 clips of t:letter (train and valid of split), tested on 60 others"
    )
    assert study.selected in study.summary()
    assert find_neurons(request(clips=clips), here.url).pairs == study.neurons.pairs
    result = run_study(look_up(request(clips=clips, controls=0), here.url), here.encoder, here.corpus)
    assert result.attrs["notes"][1] == study.selected


def test_where_says_which_clips_select_and_leaves_those_that_are_tested(here, tmp_path):
    url = str(tmp_path / "s.zarr")
    shutil.copytree(here.url, url)
    ds = otoscope.open(url)["t"].to_dataset()
    take = [str(i // 4 % 3) for i in range(180)]
    add_labels(url, "t", {"take": take})
    whole = look_up(request(), url)
    for clips, kept in (("auto", ds["split"].values == "train"), ("all", np.ones(180, bool))):
        selection = Selection(percentile=4.0, clips=clips, where="take!=1")
        study = look_up(Request(**ASKED, selection=selection), url)
        kept = kept & (np.array(take) != "1")
        assert study.neurons.pairs == selected_from(ds.isel(clip=kept))
        marked = " (train and valid of split)" if clips == "auto" else ""
        assert f"selected on {kept.sum()} clips of t:letter{marked} with take!=1, tested on 60" in study.selected
        among = int((kept & (ds["split"].values == "test")).sum())
        leaves = f", {among} of them among those: --clips train leaves them out"
        assert study.selected.endswith(leaves if among else " others")
        assert study.probe.digest == whole.probe.digest
        np.testing.assert_array_equal(study.clips, whole.clips)
    by_training = selected_from(ds.isel(clip=ds["split"].values == "train"))
    for where in ("split!=test", ("split=train", "split=test")):  # training clips lack a value
        selection = Selection(percentile=4.0, where=where)
        assert find_neurons(Request(**ASKED, selection=selection), url).pairs == by_training
    with pytest.raises(ValueError, match=r"no training clip has split=test; expected some: .* unless --clips all"):
        look_up(Request(**ASKED, selection=Selection(where="split=test")), url)
    for where, message in (
        ("take=7", "s.zarr task t: no clip has take '7'"),
        ("colour=red", "no label column 'colour'"),
    ):
        with pytest.raises(LookupError, match=message):
            look_up(Request(**ASKED, selection=Selection(where=where)), url)


def test_clips_that_confirm_may_be_those_that_are_tested(here):
    """They select nothing, so that the set is as without them."""
    how = {"rule": "lape", "percentile": 4.0, "permutations": 99}
    plain = find_neurons(Request(**ASKED, selection=Selection(**how)), here.url)
    confirmed = find_neurons(Request(**ASKED, selection=Selection(**how, confirm=("split=test",))), here.url)
    assert confirmed.pairs == plain.pairs
    assert confirmed.why["selected_on"] == plain.why["selected_on"]
    labelling = OpenStore(here.url).labelling("t", "letter")
    _, clips = selecting_clips("auto", labelling.ds, "letter")
    found, counted = select_on(labelling, Selection(**how, confirm=("split=test",)), clips)
    assert found.selection.attrs["hold_up_clips"] == 60
    np.testing.assert_array_equal(counted, labelling.ds["split"].values == "train")
    with pytest.raises(LookupError, match="no clip has split 'tset'; expected one of 'test', 'train'"):
        select_on(labelling, Selection(**how, confirm=("split=tset",)), clips)


def test_where_nothing_is_selected_nothing_is_said_of_it(here):
    study = look_up(request(set="(0,1) (2,3)", clips="auto"), here.url)
    assert study.selected == ""
    assert "selected" not in study.summary()


def test_progress_is_reported_and_a_probe_may_be_given(here, removed):
    study = look_up(request(), here.url, look_up(request(), here.url).probe)
    reported = []
    run_study(study, here.encoder, here.corpus, progress=lambda done, n: reported.append((done, n)))
    assert reported == [(16, 60), (32, 60), (48, 60), (60, 60)]
    assert study.digest == removed.attrs["digest"]


def test_a_batch_that_does_not_fit_is_halved(here, removed):
    """The real exception above 5 clips: the same scores up to rounding, from smaller passes."""

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = here.encoder.module.blocks

        def forward(self, frames):
            if len(frames) > max_clips:
                raise torch.OutOfMemoryError("not enough")
            return here.encoder.module(frames)

    small = dataclasses.replace(here.encoder, module=Small())
    max_clips = 5
    result = run_study(look_up(request(controls=5), here.url), small, here.corpus)
    np.testing.assert_allclose(result["after"], removed["after"], atol=1e-4)
    max_clips = 1
    study = look_up(request(controls=0), here.url)
    run_study(study, small, here.corpus)
    max_clips = 0
    with pytest.raises(ValueError, match=r"failed on"):
        run_study(study, small, here.corpus)


def test_donors_are_of_the_category_and_never_the_clip_itself(here):
    study = look_up(request(mode="transplant", category="d", controls=0), here.url)
    codes = otoscope.open(here.url)["t"].to_dataset().otoscope.codes("letter").values
    assert (codes[study.donors] == 3).all()
    assert (study.donors != study.clips).all()
    assert len(set(study.donors.tolist())) > 20  # drawn, not one for all
    names = [here.corpus.clips.clip(i).name for i in range(180)]
    for seed in range(40):
        more = request(mode="transplant", category="d", seed=seed)
        again = draw_donors(more, codes, CATEGORIES, names, study.clips)
        assert (again != study.donors).any() == (seed > 0)
        assert (again != study.clips).all()


def test_a_request_opens_the_store_reads_its_set_and_hashes_the_weights_once(here, monkeypatch):
    calls = count_calls(monkeypatch, *ONCE)
    here.run(controls=1)
    assert calls == {"open_root": 1, "open_store": 1, "parse_set": 1, "weights_digest": 1}

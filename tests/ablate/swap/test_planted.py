"""Swaps in a tiny Qwen2-Audio whose last layer has planted neurons: what they carry is what is found."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

import otoscope
from otoscope.ablate.controls import different_controls
from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.ablate.swap.effects import LEVEL, pooled, ranks
from otoscope.ablate.swap.request import Swap
from otoscope.ablate.swap.result import pair_table, table_of_margins
from otoscope.ablate.swap.study import look_up_swaps, run_swaps
from otoscope.ablate.swap.worker import SwapWorker
from otoscope.ablate.worker import load_clips
from otoscope.store.neurons import NeuronSet

from ...support.planted_grounding import ANSWERS, LABELS, PLANTED

ALL = NeuronSet(pairs=tuple(PLANTED))
SETS = {name: NeuronSet(pairs=(pair,)) for name, pair in zip(("sound", "text", "half", "silent"), PLANTED, strict=True)}
SETS["all"] = ALL


def asked(which="all", **more):
    name = " ".join(f"({layer},{neuron})" for layer, neuron in SETS[which])
    return Swap(**{"task": "emotion", "set": name, "answers": ANSWERS, "controls": 0, **more})


def patches(sets, **how):
    return [Intervention(neurons=each, mode="patch", **{"tokens": "last", **how}) for each in sets]


def worker(here, study, interventions):
    head = here.encoder.answers(study.answers, study.prompts)
    return SwapWorker(replace(study, interventions=tuple(interventions)), head, here.encoder, None, here.corpus)


@pytest.fixture(scope="session")
def study(planted):
    return look_up_swaps(asked(), planted.url)


@pytest.fixture(scope="session")
def margins(planted, study):
    """(1 + set, swap), sets in the order of SETS, and the worker that gave them."""
    made = worker(planted, study, patches(SETS.values()))
    return made(range(len(study.swaps.clip))).margins, made


@pytest.fixture(scope="session")
def tables(study, margins):
    return {
        name: table_of_margins(margins[0][[0, 1 + i]], study.swaps, study.categories) for i, name in enumerate(SETS)
    }


def causal(table):
    """GC_causal without a gate."""
    found = []
    for modality in "AT":
        found.append(np.sqrt(np.maximum(table[f"E_{modality}"] ** 2 - table[f"se_{modality}"] ** 2, 0)).to_numpy())
    with np.errstate(invalid="ignore"):
        return found[0] / (found[0] + found[1])


@pytest.mark.slow
def test_test_clips_alone_are_swapped_and_by_hand_made_sets_are_warned_of(study, planted):
    labels = planted.corpus.labels
    assert set(labels["split"].iloc[study.clips]) == {"test"}
    assert len(study.swaps.clip) == 3 * 4 * 3 * 4 * 4
    assert study.notes[0].endswith("choose on other clips, and speakers, than those that are swapped")


@pytest.mark.slow
def test_gc_of_planted_neurons(planted):
    found = otoscope.open(planted.url)["emotion"].to_dataset().otoscope.grounding(where=["split=test"])
    sound, text, half, silent = found["gc"].values[PLANTED[0][0], :4]
    assert sound > 0.9
    assert text < 0.1
    assert 0.3 < half < 0.7
    assert silent > 0.9


def test_gc_causal_of_planted_neurons(tables):
    of = {name: causal(table)[0] for name, table in tables.items()}
    assert of["sound"] > 0.9
    assert of["text"] < 0.2
    assert 0.3 < of["half"] < 0.8
    silent = tables["silent"]
    assert (silent[["E_A", "E_T", "se_A", "se_T"]] == 0).all(axis=None)
    assert silent["gc_causal"].isna().all()


def test_all_planted_neurons_carry_what_whole_inputs_do(tables):
    whole = tables["all"].iloc[0]
    assert 0.9 <= whole["share_A"] <= 1.1
    assert 0.9 <= whole["share_T"] <= 1.1


def test_kept_alone_each_neuron_holds_what_it_reads_and_writes(planted, study):
    """With the values of all others from the partner, what differs from a clip whose every neuron is the partner's."""
    own = [*SETS.values(), NeuronSet(pairs=())]
    made = worker(planted, study, patches(own, keep=True))
    found = made(range(len(study.swaps.clip))).margins
    kept = {
        name: table_of_margins(found[[0, 1 + i, -1]], study.swaps, study.categories, keep=True)
        for i, name in enumerate(SETS)
    }
    of = {name: causal(table)[0] for name, table in kept.items()}
    assert of["sound"] > 0.9
    assert of["text"] < 0.2
    assert 0.3 < of["half"] < 0.8
    assert (kept["silent"][["E_A", "E_T", "se_A", "se_T"]] == 0).all(axis=None)
    assert kept["silent"]["gc_causal"].isna().all()
    for name, modality, category in (("sound", "A", "ANG"), ("text", "T", "HAP"), ("half", "A", "SAD")):
        rows = kept[name][kept[name]["part"] == "necessity"].set_index("category")[f"E_{modality}"]
        assert rows.idxmax() == category
    assert 0.9 <= kept["all"]["E_A"][0] / kept["all"]["TE_A"][0] <= 1.1  # nothing else holds an answer
    assert 0.9 <= kept["all"]["E_T"][0] / kept["all"]["TE_T"][0] <= 1.1
    swaps, some = study.swaps, [3, 100, 571]
    for i, neurons in enumerate(own):
        margins = [margin_by_hooks(made, run, neurons) for run in some]
        np.testing.assert_allclose(found[1 + i, some], margins, rtol=0, atol=1e-6)  # embeddings are float32
    assert len({*swaps.modality[some].tolist()}) == 2


@torch.inference_mode()
def margin_by_hooks(made, run, neurons):
    """The margin of one swap, where at the last token all neurons of all layers but these are the partner's."""
    study, swaps, encoder = made.study, made.study.swaps, made.encoder
    both = [swaps.donor[run], swaps.clip[run]]
    donor, clip = load_clips(made.loader, made.corpus, study.clips[both], study.audio[both])
    parts = [layer.mlp.down_proj.neurons for layer in encoder.module.language_model.layers]
    theirs = []
    hooks = [part.register_forward_hook(lambda _m, _i, output: theirs.append(output[:, -1].clone())) for part in parts]
    encoder.run(made.forward.prepare([donor]))
    for hook in hooks:
        hook.remove()

    def put(layer, output):
        changed, kept = output.clone(), list(neurons.by_layer.get(layer, []))
        changed[:, -1] = theirs[layer]
        changed[:, -1, kept] = output[:, -1, kept]
        return changed

    hooks = [part.register_forward_hook(lambda _m, _i, out, i=i: put(i, out)) for i, part in enumerate(parts)]
    logits = encoder.run(made.forward.prepare([clip]))[0].double().numpy() @ made.head.T
    for hook in hooks:
        hook.remove()
    return logits[swaps.own[run]] - logits[swaps.other[run]]


def test_necessity_and_sufficiency_are_largest_for_the_category_that_is_written(tables):
    for name, modality, category in (("sound", "A", "ANG"), ("text", "T", "HAP"), ("half", "A", "SAD")):
        for part in ("necessity", "sufficiency"):
            rows = tables[name][tables[name]["part"] == part].set_index("category")[f"E_{modality}"]
            assert rows.idxmax() == category
            assert (rows > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "modality"), [("sound", 0), ("half", 1)])
def test_denoising_by_its_own_runs_is_the_column(planted, study, tables, name, modality):
    """For c: in clips of c', one at a time, whose values come from c, how much the margin of c over c' gains."""
    swaps, table, c, d = study.swaps, pair_table(tables[name], f"E_{'AT'[modality]}"), 1, 0
    made = worker(planted, study, patches([SETS[name]]))
    again = Rerunner(planted.encoder, made.interventions, replay=False)
    gains = []
    for run in np.flatnonzero((swaps.modality == modality) & (swaps.own == d) & (swaps.other == c)):
        both = [swaps.clip[run], swaps.donor[run]]
        corrupted, clean = load_clips(made.loader, planted.corpus, study.clips[both], study.audio[both])
        given, batch = (
            Batch(inputs=made.forward.prepare([one]), n_samples=len(one.samples), prompt=one.prompt)
            for one in (clean, corrupted)
        )
        logits = again(replace(batch, donors=given))[:, 0].astype(float) @ made.head.T
        over = logits[:, c] - logits[:, d]
        gains.append(over[1] - over[0])
    assert len(gains) == 48
    assert table.loc[LABELS[d], LABELS[c]] == pytest.approx(np.mean(gains), abs=1e-9)


def test_a_set_patched_from_its_own_clip_changes_no_bit(planted, study):
    made = worker(planted, study, patches([ALL, *SETS.values()]) + patches([ALL], tokens="all"))
    clips = load_clips(made.loader, planted.corpus, study.clips[:12], study.audio[:12])
    clips = [clip for clip in clips if made.loader.layout(clip) == made.loader.layout(clips[0])]
    clips = [replace(clip, index=i) for i, clip in enumerate(clips)]
    assert len(clips) > 2
    ((_, found),) = made.rerun(clips, clips)
    assert made.rerunner.method == "replay"
    for changed in found[1:]:
        np.testing.assert_array_equal(changed, found[0])
    ((_, others),) = made.rerun(clips, clips[::-1])
    assert (others[1] != others[0]).any()


def test_replay_gives_what_whole_passes_give(planted, study, margins):
    made = worker(planted, study, patches(SETS.values()))
    made.rerunner = Rerunner(planted.encoder, made.interventions, replay=False)
    some = range(40, 60)
    np.testing.assert_allclose(made(some).margins, margins[0][:, some.start : some.stop], rtol=0, atol=1e-5)
    assert margins[1].rerunner.method == "replay"


@pytest.mark.slow
def test_random_sets_pass_the_gate_no_more_often_than_by_chance(planted, study):
    """200 controls of each planted neuron and of all of them, and as many of another seed, in one pass of swaps."""
    widths = [width for _, width in study.identity.sites]
    single = different_controls(SETS["silent"], widths, 200)
    first, second = (different_controls(ALL, widths, 200, seed=seed) for seed in (0, 1))
    made = worker(planted, study, patches([*SETS.values(), *single, *first, *second]))
    parts = [made(range(start, start + 192)).margins for start in range(0, 576, 192)]
    found = np.concatenate(parts, axis=1)
    n = len(SETS)
    gates = {}
    for i, name in enumerate(SETS):
        rows = [0, 1 + i, *range(1 + n, 201 + n)] if name != "all" else [0, 1 + i, *range(201 + n, 401 + n)]
        gates[name] = table_of_margins(found[rows], study.swaps, study.categories).iloc[0]
    assert gates["sound"]["gc_causal"] > 0.9
    assert gates["text"]["gc_causal"] < 0.2
    assert 0.3 < gates["half"]["gc_causal"] < 0.8
    assert [gates[name]["state"] for name in ("sound", "text", "silent")] == ["audio", "text", "none"]
    assert np.isnan(gates["silent"]["gc_causal"])
    assert gates["all"]["p_rank_A"] == gates["all"]["p_rank_T"] == 1 / 201
    passed = np.zeros(200, bool)
    effects = found[0] - found[1:]
    for modality in range(2):
        means = pooled(study.swaps.table(effects, modality)).mean(axis=(-3, -2, -1))[:, :1]
        of_first, of_second = means[200 + n : 400 + n], means[400 + n : 600 + n]
        for i, one in enumerate(of_second):
            passed[i] |= ranks(one, of_first, ["overall"])[0][0] <= LEVEL
    assert passed.sum() <= binom.ppf(0.975, 200, 2 * LEVEL)


@pytest.mark.slow
def test_workers_in_actors_give_the_serial_table(planted):
    from otoscope.cluster.ray import RayExecutor
    from otoscope.extract.models.registry import load_encoder

    from ...support.planted_grounding import extracted

    url = extracted(planted.manifest, load_encoder(planted.spec), str(planted.folder / "float32.zarr"), batch=16)
    found = look_up_swaps(asked("sound", controls=39), url)
    serial = run_swaps(found, planted.spec, planted.corpus)
    with RayExecutor(actors=2, cpus_per_actor=0.5) as executor:
        by_actors = run_swaps(found, planted.spec, planted.corpus, executor=executor)
    assert serial.attrs == by_actors.attrs
    pd.testing.assert_frame_equal(serial, by_actors, check_exact=True)

"""Conditions on clips against a plain statement of them; to ask with them is to ask of the clips chosen by hand."""

import inspect
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from otoscope.analysis.accessor import OtoscopeAccessor
from otoscope.analysis.asked import comparison, labellings_table
from otoscope.analysis.conditions import clips_where
from otoscope.analysis.exemplars import exemplars_table
from otoscope.analysis.kinds import COMPARISONS, NULL_ROWS, TABLES
from otoscope.analysis.null.overlaps import against_null
from otoscope.analysis.selection.check import NothingSelected
from otoscope.analysis.selection.labellings import Labelling, select_neurons
from otoscope.analysis.selection.other_selectors import selector_agreement
from otoscope.analysis.selection.selection import Selection, Selections, condition_of
from otoscope.analysis.tables import neurons_table, null_table

VALUES = ["x y", "a=b", "é,1", "!z", " 7", "7", '"q"', "="]
ODD = 'odd="name"!'  # as the name of a column


@pytest.fixture(scope="module")
def task():
    from .conftest import make_task

    ds, rng = make_task(seed=3, n_clips=160, chunk=None), np.random.default_rng(3)
    for name in ("url", ODD):
        ds = ds.assign_coords({name: ("clip", rng.choice(np.array([*VALUES, "", np.nan], object), 160))})
    return ds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("split=train", ("split", True, "train")),
        ("split!=train", ("split", False, "train")),
        ("url=a=b", ("url", True, "a=b")),
        ("url==", ("url", True, "=")),
        ("url!=!=", ("url", False, "!=")),
        ("url=!z", ("url", True, "!z")),
        ("a b = x, y ", ("a b ", True, " x, y ")),
        ("naïve=ünï\ncode", ("naïve", True, "ünï\ncode")),
        ("a!b=c", ("a!b", True, "c")),
        ('"a=b"=c', ("a=b", True, "c")),
        ('"a!"=c', ("a!", True, "c")),
        ('"a"!="c"', ("a", False, '"c"')),
        ('"say ""a=b"""=c', ('say "a=b"', True, "c")),
        ('5" disc=c', ('5" disc', True, "c")),
    ],
)
def test_how_conditions_are_written(text, expected):
    assert condition_of(text) == expected


@pytest.mark.parametrize("text", ["", "split", "split=", "split!=", "=train", "!=train", '""=c', '"a=c', '"a"b=c'])
def test_what_is_no_condition(text):
    for field in ("where", "confirm"):
        with pytest.raises(ValueError, match=r"the condition is .*; expected COLUMN=VALUE or COLUMN!=VALUE"):
            Selection(**{field: ("split=train", text)})


def written(column, wanted, value):
    quoted = '"' + column.replace('"', '""') + '"'
    return f"{quoted if '=' in column else column}{'=' if wanted else '!='}{value}"


def drawn(ds, seed, others=("animal", "size", "url", ODD)):
    """Some conditions: of one column, of several, wanted, excluded, or both."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rng.integers(1, 5)):
        column = others[rng.integers(len(others))]
        values = sorted({v for v in ds[column].values if isinstance(v, str) and v})
        found.append((column, bool(rng.random() < 0.5), values[rng.integers(len(values))]))
    return found


def plainly(ds, conditions):
    """Positions of the clips that satisfy conditions, one clip and one column after the other."""
    found = []
    for i in range(ds.sizes["clip"]):
        good = ds["status"].values[i] == 1
        for column in {column for column, _, _ in conditions}:
            value = ds[column].values[i]
            wanted = [v for c, sign, v in conditions if c == column and sign]
            excluded = [v for c, sign, v in conditions if c == column and not sign]
            good = good and isinstance(value, str) and value != "" and value not in excluded
            good = good and (not wanted or value in wanted)
        if good:
            found.append(i)
    return found


def asked(ds, seed, others=("animal", "size", "url", ODD)):
    """Conditions as they are written, and the clips that satisfy them, chosen by hand."""
    conditions = drawn(ds, seed, others)
    return tuple(written(*each) for each in conditions), ds.isel(clip=plainly(ds, conditions))


@pytest.mark.parametrize("seed", range(60))
def test_clips_are_those_of_the_plain_statement(task, seed):
    conditions = drawn(task, seed)
    texts = [written(*each) for each in conditions]
    if expected := plainly(task, conditions):
        assert np.flatnonzero(clips_where(task, texts)).tolist() == expected
        assert np.flatnonzero(clips_where(task, [*texts[::-1], *texts])).tolist() == expected
    else:
        with pytest.raises(LookupError, match=r"no clip has .*; expected some: leave a condition out"):
            clips_where(task, texts)


def test_excluding_alone_leaves_out_the_unlabelled_too(task):
    labelled = [isinstance(v, str) and v != "" for v in task["url"].values]
    left = clips_where(task, ["url!=7"])
    assert (left == (task.otoscope.counted.values & labelled & (task["url"].values != "7"))).all()
    assert 0 < left.sum() < (task.otoscope.counted.values & (task["url"].values != "7")).sum()


HOW = {"percentile": 20.0}
ASK: dict[str, Any] = {
    "categories": lambda o, **how: o.categories("animal", Selection(**how)),
    "codes": lambda o, **how: o.codes("animal", Selection(**how)).attrs,
    "probability": lambda o, **how: o.probability("animal", **how),
    "probability, threshold": lambda o, **how: o.probability("animal", threshold=0.1, **how),
    "probability, of its own": lambda o, **how: o.probability("animal", threshold="q60", **how),
    "probability, z": lambda o, **how: o.probability("animal", threshold="z0.5", **how),
    "probability, any": lambda o, **how: o.probability("animal", reading="any", **how),
    "probability, frame": lambda o, **how: o.probability("animal", reading="frame", **how),
    "aape": lambda o, **how: o.aape("animal", normalised=True, **how),
    "class_specific": lambda o, **how: o.class_specific("animal", **HOW, **how),
    "class_specific, paper": lambda o, **how: o.class_specific("animal", rule="paper", **HOW, **how),
    "class_specific, contrast": lambda o, **how: o.class_specific("animal", permutations=19, **how),
    "tests": lambda o, **how: o.tests("animal", permutations=19, sign="both", **how),
    "cards": lambda o, **how: np.nan_to_num(o.cards("animal", **HOW, **how).p).tolist(),
    "card": lambda o, **how: o.card("animal", 1, 3, permutations=19, **how).frame.fillna(-1).to_dict("list"),
    "neuron_thresholds": lambda o, **how: o.neuron_thresholds("animal", threshold="q60", **how),
    "common_neuron_ratio": lambda o, **how: o.common_neuron_ratio("animal", "size", **HOW, **how),
    "category_mean": lambda o, **how: o.category_mean("animal", **how),
    "exemplars": lambda o, where=(): o.exemplars([0, 2], [0, 5, 7], k=4, where=where),
    "exemplars, lowest": lambda o, where=(): o.exemplars(1, 3, k=200, lowest=True, where=where).isel(rank=slice(3)),
    "sample": lambda o, **how: vars_of(o.sample("animal", group="url", **HOW, **how)),
    "sample, within": lambda o, **how: vars_of(o.sample("animal", within=("size", "url"), balanced=True, **HOW, **how)),
    "sample, frame": lambda o, **how: vars_of(o.sample("animal", reading="frame", **HOW, **how)),
    "sample, contrast": lambda o, **how: vars_of(o.sample("animal", permutations=19, **how).ranked),
    "serving": lambda o, **how: o.serving("animal", "size", **HOW, **how),
}  # fmt: skip


def vars_of(sample):
    """All but where the clips are among others."""
    values = {
        field.name: getattr(sample, field.name) for field in fields(sample) if field.name not in ("clips", "ranked")
    }
    return {
        name: [tile.tolist() for tile in value] if name == "tiles" else np.asarray(value).tolist()
        for name, value in values.items()
    }


def without(where, message):
    """A message about clips chosen by conditions as it is of those chosen by hand."""
    for more in (f" of the clips with {', '.join(where)}", ", or other clips"):
        message = message.replace(more, "")
    return message


def outcome(ask):
    """What is answered, or what is said instead."""
    try:
        found = ask()
    except (ValueError, LookupError) as error:
        return str(error)
    return found.compute() if isinstance(found, xr.DataArray | xr.Dataset) else found


def test_every_method_that_counts_clips_is_asked():
    counting = {
        name for name, method in inspect.getmembers(OtoscopeAccessor, inspect.isfunction)
        if not name.startswith("_") and {"selection", "where"} & {*inspect.signature(method).parameters}
    }  # fmt: skip
    crossed = {"grounding", "crossed_layout"}  # of crossed corpora: `crossed/test_aape.py` asks them with conditions
    assert counting - crossed == {name.partition(",")[0] for name in ASK}


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))])
def test_to_ask_with_conditions_is_to_ask_of_the_clips_chosen_by_hand(task, seed):
    where, by_hand = asked(task, seed)
    if not by_hand.sizes["clip"]:
        return
    answered = 0
    for name, ask in ASK.items():
        found, expected = outcome(lambda ask=ask: ask(task.otoscope, where=where)), outcome(
            lambda ask=ask: ask(by_hand.otoscope)
        )  # fmt: skip
        if isinstance(expected, xr.DataArray | xr.Dataset):
            xr.testing.assert_identical(found, expected)
        else:
            found, expected = (without(where, x) if isinstance(x, str) else x for x in (found, expected))
            assert found == expected, name
        answered += not isinstance(expected, str)
    assert answered


def tables(ds, how):
    """Every kind of table of a data set, by name, each as a function."""
    one, other = (Labelling(store="s", task="t", label=label, ds=ds) for label in ("animal", "size"))
    twin, selections = replace(one, store="z"), Selections(selection=how)
    for kind in TABLES:
        yield kind, lambda kind=kind: labellings_table(kind, [one], selections, ["s"])[0]
    yield "stats of two", lambda: labellings_table("stats", [one, other], selections, ["s"])[0]
    for by in COMPARISONS:
        pair = [one, other] if by == "neuron" else [one, twin]
        yield f"by {by}", lambda by=by, pair=pair: comparison(by, pair, selections)[0]
    yield "neurons", lambda: neurons_table(select_neurons(one, how).selection)
    for rows in NULL_ROWS:
        few = replace(how, permutations=3, within=("size",))
        yield f"null {rows}", lambda rows=rows, few=few: null_table(against_null(select_neurons(one, few), None), rows)
    yield "selectors", lambda: selector_agreement(ds, "animal", select_neurons(one, how).selection["member"], how)
    yield "exemplars", lambda: exemplars_table(ds, [(0, 1), (2, 3)], 3, where=how.where)


@pytest.mark.parametrize("seed", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8))])
def test_every_kind_of_table_is_that_of_the_clips_chosen_by_hand(task, seed):
    where, by_hand = asked(task, seed, ("url", ODD))
    assert len(by_hand.otoscope.categories("animal")) > 1  # else the next test but one
    how = Selection(percentile=20, reading="frame")
    mine = dict(tables(task, replace(how, where=where)))
    for name, ask in tables(by_hand, how):
        found, expected = outcome(mine[name]), outcome(ask)
        if isinstance(expected, str):
            assert isinstance(found, str), name
            assert without(where, found) == expected
        else:
            pd.testing.assert_frame_equal(found, expected, obj=name)


def test_what_cannot_be_asked(task):
    for where, message in (
        ("colour=red", r"no label column 'colour' in this task; those that exist: animal, size, url"),
        ("size=m", r"no clip has size 'm'; expected one of 's', 'xl'"),
        ("size!=m", r"no clip has size 'm'"),
        ("size= s", r"no clip has size ' s'"),
        ("url=e\N{COMBINING ACUTE ACCENT},1", r"no clip has url"),
    ):
        for ask in (task.otoscope.probability, task.otoscope.sample, task.otoscope.category_mean):
            with pytest.raises(LookupError, match=message):
                ask("animal", where=where)
        with pytest.raises(LookupError, match=message):
            task.otoscope.exemplars(0, 0, where=where)
    with pytest.raises(LookupError, match=r"no clip has size=s, size!=s; expected some: leave a condition out"):
        task.otoscope.codes("animal", Selection(where=("size=s", "size!=s")))


def test_what_is_left_of_a_labelling_is_said(task):
    one = Labelling(store="s", task="t", label="animal", ds=task)
    for where, found in (
        (("animal=dog",), r"1 category .*'dog'"),
        (("animal!=dog", "animal!=cat"), r"1 category .*'hen'"),
    ):
        how = Selection(where=where, percentile=20)
        with pytest.raises(NothingSelected, match=rf"s t:animal of the clips with {', '.join(where)} has {found}"):
            select_neurons(one, how)
        for kind in ("probability", "aape"):
            with pytest.raises(NothingSelected, match="has 1 category; expected at least 2: leave a condition out"):
                labellings_table(kind, [one], Selections(selection=how), ["s"])
    with pytest.raises(NothingSelected, match=r"of the clips with size=s: no neuron is selected"):
        select_neurons(one, Selection(where="size=s", percentile=0.01, reading="frame"))
    for threshold in (None, "q80", "z1"):  # there are such clips, and none of them has a label of the question
        unlabelled = task.assign_coords(animal=("clip", np.where(task["size"] == "s", "", task["animal"].values)))
        with pytest.raises(NothingSelected, match=r"of the clips with size=s has no category with clips"):
            select_neurons(replace(one, ds=unlabelled), Selection(where="size=s", threshold=threshold))


def test_a_labelling_whose_task_lacks_the_column_is_no_labelling_left_out(task):
    one = Labelling(store="s", task="t", label="animal", ds=task)
    other = Labelling(store="s", task="u", label="animal", ds=task.drop_vars("size"))
    asked = Selections(selection=Selection(where="size=s", percentile=20, reading="frame"))
    with pytest.raises(LookupError, match="s task u: no label column 'size' in this task"):
        labellings_table("stats", [one, other], asked, ["s"])


def test_probabilities_made_elsewhere_have_no_clips_to_choose(p):
    given = p.rename("probability").to_dataset()
    for where in ("class=7", "split=train"):
        for ask in (given.otoscope.probability, given.otoscope.class_specific, given.otoscope.aape):
            with pytest.raises(LookupError, match=r"made elsewhere have no clips to choose by .*; expected a store"):
                ask("class", where=where)
        with pytest.raises(LookupError, match="s task t: probabilities made elsewhere have no clips to choose"):
            select_neurons(Labelling(store="s", task="t", label="class", ds=given), Selection(where=where))

"""Tables and comparisons of labellings, by kind: what the commands `table` and `compare` show.

Conventions: labellings and selections as in `selection.labellings`, kinds as in `kinds`. These functions compute.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from . import compare
from .conditions import listed
from .null.overlaps import overlaps
from .published.paper import paper_table
from .selection.check import NothingSelected
from .selection.labellings import (
    Labelling,
    check_one_encoder,
    check_where,
    notes_on,
    only,
    select_against,
    select_each,
    select_neurons,
)
from .selection.rules import depth_histogram
from .selection.selection import Selections
from .selection.selectivity import aape
from .tables import aape_table, overlap_table, probability_table, stats_table, thresholds_table
from .threshold_files import neuron_thresholds_table


def labellings_table(
    kind: str,
    asked: Sequence[Labelling],
    selections: Selections,
    stores: Sequence[str],
    against: str | None = None,
    incomplete: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Table of a kind, and notes on it: stats, thresholds and paper of all labellings, the others of one.

    stores, against, incomplete: as for `select_against`. A note says why a labelling is left out of the first kinds, or
    what speaks against a selection.
    Raises ValueError for several labellings where one is expected, NothingSelected where nothing is left.
    """
    if kind == "thresholds" and selections.selection.rule == "contrast":
        raise ValueError(
            "the rule contrast has no thresholds of probabilities; expected lape or paper for the table thresholds: "
            "give --rule"
        )
    if kind in ("stats", "thresholds", "paper"):
        each, left_out = select_each(asked, selections)
        found = {(x.store, x.name): x.selection for x in each}
        table = thresholds_table(found) if kind == "thresholds" else stats_table(found)
        return paper_table(table) if kind == "paper" else table, [*reasons(left_out), *notes_on(each)]
    one = only(asked)
    if kind in ("probability", "aape"):  # of every neuron, so that nothing needs to be selected
        how = selections.selection
        check_where(one, how.where)
        n = len(one.ds.otoscope.categories(one.label, how))
        if how.where and n < 2:
            which = f"of the clips with {listed(how.where)} has {n or 'no'} categor{'y' if n == 1 else 'ies'}"
            raise NothingSelected(f"{one.store} {one.name} {which}; expected at least 2: leave a condition out")
        if not n:
            raise NothingSelected(f"{one.store} {one.name} has no category with clips; expected one: use another label")
        p = one.ds.otoscope.probability(one.label, how).compute()
        return probability_table(p) if kind == "probability" else aape_table(aape(p)), []
    if kind == "neuron-thresholds":
        thresholds = one.ds.otoscope.neuron_thresholds(one.label, selections.selection)
        return neuron_thresholds_table(thresholds, one.ds), []
    found_one = select_neurons(one, selections.of(one.task))
    if kind == "overlap":
        others = select_against([found_one], stores, against, selections, incomplete)
        ((_, ratio),) = overlaps([found_one], others)
        return overlap_table(ratio), notes_on([found_one, *others.values()])
    depth = depth_histogram(found_one.selection["member"], by_category=True).transpose("layer", "category")
    return pd.DataFrame(depth.to_pandas()).reset_index(), notes_on([found_one])


def reasons(left_out: Sequence[NothingSelected]) -> list[str]:
    """A line for each labelling that is left out."""
    return [f"left out: {reason}" for reason in left_out]


def comparison(by: str, asked: Sequence[Labelling], selections: Selections) -> tuple[pd.DataFrame, list[str]]:
    """Stores side by side, or what each neuron of one store serves, and notes on it.

    by: "labelling" of two stores; "layer" or "category" of one labelling of each store; "neuron" of one store.
    Raises ValueError for other numbers of stores or labellings, NothingSelected where what is left cannot be compared.
    """
    stores = list(dict.fromkeys(x.store for x in asked))
    if by in ("layer", "category"):
        asked = [only([x for x in asked if x.store == store]) for store in stores]
    if by == "neuron" and len(stores) != 1:
        raise ValueError(f"found {len(stores)} stores; expected one: neurons of one encoder serve its tasks")
    found, left_out = select_each(asked, selections)
    names = [{x.name for x in found if x.store == store} for store in stores]
    if left_out and not (set.intersection(*names) if by == "labelling" else all(names)):
        raise left_out[0]
    notes = [*reasons(left_out), *notes_on(found)]
    if by == "labelling":
        stats = stats_table({(x.store, x.name): x.selection for x in found})
        return compare.labellings_side_by_side(stats), notes
    if by == "neuron":
        check_one_encoder(*found)
        return compare.serving_table(compare.serving({x.name: x.selection["member"] for x in found})), notes
    if by == "layer":
        return compare.layers_side_by_side({x.store: x.selection for x in found}), notes
    members = {x.store: x.selection["member"] for x in found}
    agreement: Any = compare.count_agreement(*members.values()) if len(members) == 2 else None
    if agreement is not None:
        none = "none, for fewer than 3 categories are in common, or a store has as many neurons in each"
        notes.append(f"rank correlation of the counts: {none if math.isnan(agreement) else f'{agreement:.3f}'}")
    return compare.categories_side_by_side(members), notes

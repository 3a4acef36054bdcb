"""How what a figure shows was selected and made, in words, for the line below it.

Goal: a figure can be cited as it is.
Conventions: parts are divided by semicolons, as `layout.write_below` takes them. Nothing is computed here but numbers
of clips.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ..crossed.coefficient import LEVEL
from ..selection.labellings import SelectedLabelling
from ..selection.selection import PERCENTILE, Selection

MAX_SET = 60  # letters of a set's name


def caption_of(selections: Sequence[Selection], n_clips: Iterable[int] = ()) -> str:
    """Rule, threshold, reading and conditions of selections that differ in their percentiles only, and the clips.

    n_clips: of each labelling that is shown; none where probabilities were made elsewhere.
    """
    how, counts = selections[0], sorted(set(n_clips))
    if how.rule == "contrast":
        sides = {"positive": "", "negative": ", silent neurons", "both": ", either sign"}
        correction = {"bh": "q", "max": "family-wise p"}[how.correct]
        rule = f"rule contrast, {correction} at most {how.level:g}, AUC at least {how.min_effect:g}{sides[how.sign]}"
        rule += f", groups by {how.group}" * bool(how.group) + f", within {', '.join(how.within)}" * bool(how.within)
    else:
        shares = " or ".join(f"{share:g}" for share in sorted({each.percentile or PERCENTILE for each in selections}))
        rule = f"rule {how.rule}, {shares} % of neurons"
    parts = [rule, f"reading {how.reading}" + (f", {threshold_words(how)}" if how.reading == "clip" else "")]
    parts += [f"where {', '.join(how.where)}"] * bool(how.where)
    parts += [f"without {', '.join(how.confirm)}"] * bool(how.confirm)
    parts += ["selected on training clips"] * (how.clips == "train")
    if counts:
        parts.append(f"{counts[0]:,} clips" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} clips")
    return "; ".join(parts)


def threshold_words(how: Selection) -> str:
    """The threshold of a selection by the reading clip, in words."""
    line = how.line
    if isinstance(line, xr.DataArray):
        return "a threshold of each neuron's own"
    if not isinstance(line, str):
        return f"threshold {line or 0:g}"
    number = f"{line[1:]}"
    return f"threshold each neuron's {f'quantile {number} %' if line[0] == 'q' else f'mean plus {number} sd'}"


def caption_of_labellings(found: Sequence[SelectedLabelling], others: Sequence[Selection] = ()) -> str:
    """The same of labellings whose neurons are selected; others: by which those beside them are."""
    of_clips = [one for one in found if "probability" not in one.ds]
    counts = [int((one.ds.otoscope.codes(one.label, one.how).values >= 0).sum()) for one in of_clips]
    return caption_of([*(one.how for one in found), *others], counts)


def ablation_caption(result: xr.Dataset) -> str:
    """Set, mode, controls, probe accuracy and selection of an ablation's result, as far as its attributes say.

    Raises ValueError for a request that is damaged.
    """
    attrs, request = result.attrs, result.attrs.get("request", {})
    parts = []
    if "set" in request:
        name, neurons = str(request["set"]), attrs.get("neurons")
        pairs = neurons.get("pairs") if isinstance(neurons, dict) else None
        short = name if len(name) <= MAX_SET else f"{name[:MAX_SET]}…"
        parts.append(f"set {short}" + (f", {len(pairs):,} neurons" if isinstance(pairs, list) else ""))
    if "mode" in request:
        gain = f" {attrs.get('gain', '')}" if request["mode"] == "gain" else ""
        category = f" {request['category']}" if request.get("category") else ""
        parts.append(f"mode {request['mode']}{gain}{category}")
    accuracy = float(result["overall_before"].sel(measure="accuracy"))
    if np.isfinite(accuracy):
        kind = str(request.get("probe", ""))
        kind = f"the model's {kind}" if kind == "own head" else f"{kind} probe".lstrip()
        parts.append(f"{kind}, accuracy {accuracy:.3g} on {int(result['n_clips'].sum()):,} test clips")
    if "selection" in request:
        parts.append(caption_of([Selection.from_json(request["selection"])]))
    return "; ".join(parts)


def swaps_caption(table: pd.DataFrame) -> str:
    """Set, GC_causal with its interval or why there is none, and how much of the whole inputs' effects it is.

    table: of `ablate.swap.result`, whose first row is over all pairs of categories.
    """
    whole, request = table.iloc[0], table.attrs.get("request", {})
    name = str(request.get("set", ""))
    parts = [f"set {name if len(name) <= MAX_SET else f'{name[:MAX_SET]}…'}"] if name else []
    parts += ["all other neurons swapped"] * (request.get("keep") is True)
    found = f"GC_causal {whole['gc_causal']:.2f} ({whole['gc_low']:.2f} to {whole['gc_high']:.2f}), "
    parts.append(f"{found if np.isfinite(whole['gc_causal']) else ''}state {whole['state']}")
    for modality, what in (("A", "sound"), ("T", "text")):
        parts.append(f"{what}: E {whole[f'E_{modality}']:.3g} of {whole[f'TE_{modality}']:.3g}")
    parts += ["effects of opposite signs"] * bool(whole["opposite"])
    return "; ".join(parts)


def grounding_caption(table: pd.DataFrame) -> str:
    """Layout, gate and numbers of neurons of a table of grounding."""
    K, J, L, M = (f"{table[name].iloc[0]:.0f}" for name in "KJLM")
    found = int((~table["state"].isin(["none", "construction"])).sum())
    return (
        f"{K} sound categories of {J} sounds x {L} text categories of {M} wordings; an effect has q at most {LEVEL:g} "
        f"in {found:,} of {len(table):,} neurons"
    )

"""The table and the picture of docs/uncertainty.md, made of what `python -m benchmarks.selection` recorded."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from otoscope.analysis.figures.save import save_figure

from .harness import RESULTS, ROOT, recorded
from .selection import CATEGORIES, PERCENTILE, RULES, SHARES, STRENGTHS

PICTURE = ROOT / "docs" / "selection.png"
HEAD = ("precision", "recall", "coverage", "false")
MARKERS = {
    "lape, 0": ("o", "none"), "lape, q80": ("o", "full"), "paper, 0": ("s", "none"), "paper, q80": ("s", "full"),
    "contrast": ("D", "full"), "LAP": ("v", "none"), "MAD": ("^", "full"), "CAS": ("x", "full"),
}  # fmt: skip
COLOURS = {
    "lape": "#0072B2",
    "pape": "#56B4E9",
    "cont": "#000000",
    "LAP": "#999999",
    "MAD": "#D55E00",
    "CAS": "#009E73",
}
"""Of Okabe and Ito, by the first letters; markers say the same."""


def selection_table(results: Path = RESULTS) -> str:
    """Markdown: a row per rule; means over all conditions with the worst in brackets, and two strengths."""
    raw = recorded("selection", results)["raw"]
    n_categories = " and ".join(map(str, CATEGORIES))
    strengths = [f"{inside:g} against {outside:g}" for inside, outside in STRENGTHS]
    names = ("precision", "recall", "coverage", "false discoveries", *strengths)
    lines = [f"| rule, threshold | {' | '.join(names)} |", f"|{'---|' * (1 + len(names))}"]
    for rule in RULES:
        cells = []
        for score in HEAD:
            values = [found[rule][score] for found in raw["mixed"].values()]
            worst = max(values) if score == "false" else min(values)
            cells.append(f"{statistics.mean(values):.2f} ({worst:.2f})")
        for strength in strengths:
            found = [raw["strengths"][f"{n} categories, {strength}"][rule] for n in CATEGORIES]
            cells.append("; ".join(f"{each['precision']:.2f}, {each['recall']:.2f}" for each in found))
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    note = (
        f"Means over {len(raw['mixed'])} conditions, the worst in brackets; where nothing is selected, precision is 0 "
        f"and nothing false. Last columns: precision, recall at {n_categories} categories, where {PERCENTILE:g} % of "
        "neurons are on more often in one category, at these rates."
    )
    return "\n".join([*lines, "", note])


def selection_figure(mixed: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Precision against recall: a panel per number of categories and share planted, a point per rule and condition."""
    figure = Figure(figsize=(3.5, 5), layout="constrained")
    axes = figure.subplots(len(SHARES), len(CATEGORIES), sharex=True, sharey=True, squeeze=False)
    for row, share in enumerate(SHARES):
        for column, n in enumerate(CATEGORIES):
            ax = axes[row, column]
            there = [found for name, found in mixed.items() if name.startswith(f"{n} categories, {share:g} %,")]
            for rule in RULES:
                marker, fill = MARKERS[rule]
                ax.plot(
                    [found[rule]["recall"] for found in there],
                    [found[rule]["precision"] for found in there],
                    linestyle="", marker=marker, fillstyle=fill, color=COLOURS[rule[:4]], markersize=4,
                    label=rule, clip_on=False,
                )  # fmt: skip
            ax.set_title(f"{n} categories, {share:g} % planted", fontsize=7)
            ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            ax.tick_params(labelsize=6)
            ax.grid(color="0.9", linewidth=0.5)
            ax.set_axisbelow(True)
    for ax in axes[-1]:
        ax.set_xlabel("recall", fontsize=7)
    for ax in axes[:, 0]:
        ax.set_ylabel("precision", fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=6.5, frameon=False)
    return figure


def draw() -> Path:
    save_figure(selection_figure(recorded("selection")["raw"]["mixed"]), PICTURE)
    return PICTURE

"""How well, and by how few codes, factors are predicted: the published arithmetic on the left, ours on the right.

Goal: the three published pictures (informativeness and completeness by sparsity, families, completeness against
entropy), each beside what holds on groups that are held out, and controls in both.
Conventions: tables are those of `sae.sae_disentangle`, a row per factor and units. A factor is predicted where its R2
on held-out groups exceeds 0 by two standard errors. On the left numbers are of clips that were learnt from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .layout import FONT, PAGE_INCHES, grid_of, parts_of, wrapped, write_below
from .letters import Letters, letters_of
from .unit_kinds import LATENTS, STATE, UNITS, Kinds, by_sparsity, parts_by_units, plain, with_units

COLUMNS = (
    "of", "state", "digest", "sparsity", "control", "family", "factor", "r2", "predicted", "codes_until",
    "published_r2", "published_completeness", "entropy", "histogram_entropy",
)  # fmt: skip
TOP = 10  # factors that the published pictures show, of each units the highest
SPARSITY = 0.95  # of the published picture of entropies
UNIT = ["state", UNITS, "sparsity", "digest"]
NO_SAE: dict[str, Any] = {"sparsity": -1.0, "digest": ""}
BINS = 5
LABEL_INCHES = 1.1


def disentanglement_figure(table: pd.DataFrame, caption: str = "") -> Figure:
    """Informativeness above, completeness below, by sparsity: as published, and on held-out groups.

    As published, each dot is the mean of the ten factors of one SAE that are highest in what is shown: R2 on clips that
    were learnt from, and 1 - H / ln N. On held-out groups it is that of the factors that any of what is shown of the
    state predicts, the same for all of one state: R2, and codes until 90 % of it, of those that it predicts itself.
    """
    table = with_units(table, "of")
    kinds = Kinds.of(table)
    predicted = _predicted_by_any(table)
    panels: list[tuple[str, str, pd.DataFrame]] = [
        ("R2, as published", "published_r2", _highest(table, "published_r2")),
        ("R2, held out", "r2", predicted),
        ("completeness, as published", "published_completeness", _highest(table, "published_completeness")),
        ("codes until 90 % of R2", "codes_until", predicted),
    ]
    numbers = predicted.groupby("state")["factor"].nunique()
    count = ", ".join(f"{n} of state {state}" for state, n in numbers.items()) or "none"
    about = f"left: means of the {TOP} highest factors; right: of those that anything shown here predicts, {count}"
    figure, grid, letters = _figure([*kinds.controls], [caption, about], 4)
    for ax, (label, value, rows) in zip(grid, panels, strict=True):
        by_sparsity(ax, rows.groupby(UNIT, dropna=False)[value].mean().reset_index(), value, kinds)
        ax.set_ylabel(wrapped(label, LABEL_INCHES), fontsize=FONT)
        if value == "codes_until" and rows[value].gt(0).any():
            ax.set_yscale("log")
    return _finished(figure, grid, letters, kinds, [caption, about])


def families_figure(table: pd.DataFrame, caption: str = "") -> Figure:
    """Factors by family: of the ten of highest published R2, and of those predicted on held-out groups.

    Bars are means over the SAEs of a state, with their standard deviation; dashed and thin lines across a bar are its
    controls and the state itself.
    """
    table = with_units(table, "of")
    kinds = Kinds.of(table)
    table = table.assign(family=table["family"].replace("", None)).fillna({"family": "others"} | NO_SAE)
    sizes = table.groupby("family", sort=False)["factor"].nunique()
    highest = _highest(table, "published_r2").assign(counted=1.0)
    panels = [
        (f"of the {TOP} of highest R2, as published", highest),
        ("predicted on held-out groups", table.assign(counted=table["predicted"].astype(float))),
    ]
    figure, grid, letters = _figure([*kinds.controls, *sizes.index], [caption], 2, height=1.9)
    width = 0.8 / max(1, len(kinds.states))
    for ax, (label, rows) in zip(grid, panels, strict=True):
        counts = rows.pivot_table(index=UNIT, columns="family", values="counted", aggfunc="sum", fill_value=0)
        counts = counts.reindex(columns=sizes.index, fill_value=0).reset_index()
        for i, state in enumerate(kinds.states):
            at = np.arange(len(sizes)) + (i - (len(kinds.states) - 1) / 2) * width
            for units in (LATENTS, STATE, *kinds.controls):
                own = counts.loc[(counts["state"] == state) & (counts[UNITS] == units), sizes.index]
                if own.empty:
                    continue
                mean, spread = own.mean().to_numpy(), own.std(ddof=0).to_numpy()
                if units == LATENTS:
                    ax.bar(
                        at, mean, width, yerr=spread if len(own) > 1 else None, color=kinds.look(state)["color"],
                        alpha=0.55, edgecolor="black", linewidth=0.3, error_kw={"elinewidth": 0.6},
                    )  # fmt: skip
                    continue
                line: dict[str, Any] = {"lw": 0.6} if units == STATE else {"lw": 1, "ls": kinds.dash(units)}
                ax.hlines(mean, at - width / 2, at + width / 2, color="black", **line)
        names = [f"{letters(str(name))} ({n})" for name, n in sizes.items()]
        ax.set_xticks(range(len(sizes)), names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
        ax.set_ylabel(wrapped(f"factors {label}", LABEL_INCHES), fontsize=FONT)
        ax.set_ylim(bottom=0)
    return _finished(figure, grid, letters, kinds, [caption])


def entropy_figure(table: pd.DataFrame, caption: str = "") -> Figure:
    """Each factor by its entropy and its completeness: as published, and by codes that it takes on held-out groups.

    Dots are factors, of those SAEs of a state whose sparsity is nearest to the published one. Lines are medians in
    fifths of the factors by entropy: dashed of controls, thin of the state itself. On the right are factors that are
    predicted, and whose entropy is defined.
    """
    table = with_units(table, "of")
    kinds = Kinds.of(table)
    apart = (table["sparsity"] - SPARSITY).abs()
    nearest = apart.groupby([table["state"], table[UNITS]]).transform("min")
    table = table[apart.isna() | np.isclose(apart, nearest)]
    shown = table["sparsity"].dropna()
    about = f"sparsity {', '.join(f'{each:.3g}' for each in sorted({*shown.round(3)}))}" if len(shown) else ""
    panels = [
        ("published_completeness", "histogram_entropy", "entropy of 10 bins (bits)", "completeness, as published"),
        ("codes_until", "entropy", "entropy by nearest neighbours (bits)", "codes until 90 % of R2"),
    ]
    figure, grid, letters = _figure([*kinds.controls], [caption, about], 2, height=2.2)
    for ax, (value, entropy, xlabel, ylabel) in zip(grid, panels, strict=True):
        known = table[table[value].notna() & table[entropy].notna() & table["state"].isin(kinds.states)]
        for state, units, own in parts_by_units(known):
            look = kinds.look(state)
            if units == LATENTS:
                ax.plot(own[entropy], own[value], linestyle="none", markersize=2.5, alpha=0.7, **look)
                continue
            line: dict[str, Any] = {"lw": 0.6} if units == STATE else {"lw": 0.9, "ls": kinds.dash(units)}
            ax.plot(*_medians(own[entropy], own[value]), color=look["color"], marker="_", markersize=3, **line)
        ax.set_xlabel(xlabel, fontsize=FONT)
        ax.set_ylabel(wrapped(ylabel, LABEL_INCHES), fontsize=FONT)
        if value == "codes_until" and len(known):
            ax.set_yscale("log")
    return _finished(figure, grid, letters, kinds, [caption, about])


def _highest(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Of each units the ten factors that are highest."""
    ordered = table[table[value].notna()].sort_values(value, ascending=False, kind="stable")
    return ordered.groupby(UNIT, dropna=False, sort=False).head(TOP)


def _predicted_by_any(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of factors that anything of their state predicts."""
    predicted = table["predicted"].astype(float).groupby([table["state"], table["factor"]]).transform("max")
    return table[predicted > 0]


def _medians(x: pd.Series, y: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Medians of either in parts of equal number along x."""
    order = np.argsort(x.to_numpy(), kind="stable")
    parts = [part for part in np.array_split(order, min(BINS, len(order))) if len(part)]
    return tuple(np.array([np.median(of.to_numpy()[part]) for part in parts]) for of in (x, y))  # type: ignore[return-value]


def _figure(
    names: Sequence[str], lines: Sequence[str], n: int, height: float = 1.6
) -> tuple[Figure, list[Axes], Letters]:
    letters = letters_of([*names, *(part for line in lines for part in parts_of(line))])
    figure, grid = grid_of(n, 2, (PAGE_INCHES * 1.1, height * (n // 2)))
    return figure, grid, letters


def _finished(figure: Figure, grid: Sequence[Axes], letters: Letters, kinds: Kinds, lines: Sequence[str]) -> Figure:
    for ax in grid:
        plain(ax)
    kinds.legend(figure, letters)
    caption, *more = lines
    write_below(figure, letters, "; ".join(filter(None, [caption, *more])) if caption else "")
    return letters.applied(figure)

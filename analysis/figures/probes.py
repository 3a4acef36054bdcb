"""What linear probes read off hidden states, and off latents of them by their sparsity."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .layout import FONT, PAGE_INCHES, grid_of, parts_of, write_below
from .letters import letters_of
from .save import COLOURS

HEIGHT_INCHES = 2.1
TRAINED = ("", "none")  # what is in the column control of SAEs that are none
MARKERS = "osD^v"
DASHES: tuple[Any, ...] = ("--", ":", "-.")  # of controls


def probes_figure(table: pd.DataFrame, caption: str = "") -> Figure:
    """Accuracy by hidden state, and beside it, where there are latents, theirs by sparsity.

    table: a row per probe, with kind ("state" or "latents"), state, accuracy, low and high, chance, for latents
    sparsity, and control where it is known. Bars are intervals, the dashed line on the left is chance. On the right a
    colour is a state: the line is the mean of its SAEs of a sparsity, dots are each, dashed lines are controls, and the
    thin line across is what the state itself gives.
    caption: stands below.
    """
    states, latents = (table[table["kind"] == kind] for kind in ("state", "latents"))
    control = latents["control"].fillna("") if "control" in latents else pd.Series("", index=latents.index)
    controls = [str(name) for name in control.unique() if name not in TRAINED]
    letters = letters_of([*controls, *parts_of(caption)])
    panels = 2 if len(latents) else 1
    grid, figure = _panels(panels)
    _by_state(grid[0], states)
    keys: list[Line2D] = []
    if panels == 2:
        shown = sorted(latents["state"].unique().tolist())
        colours = mpl.colormaps[COLOURS](np.linspace(0.0, 0.85, max(2, len(shown))))
        for i, state in enumerate(shown):
            look: dict[str, Any] = {"color": colours[i], "marker": MARKERS[i % len(MARKERS)]}
            own = latents[latents["state"] == state]
            for name in ("", *controls):
                chosen = own[control[own.index].isin(TRAINED) if not name else control[own.index] == name]
                dashes = DASHES[controls.index(name) % len(DASHES)] if name else "-"
                _by_sparsity(grid[1], chosen, dashes, look)
            for value in states.loc[states["state"] == state, "accuracy"]:
                grid[1].axhline(value, color=colours[i], linewidth=0.5)
            keys.append(Line2D([], [], markersize=3, linewidth=1, label=f"state {state}", **look))
        for i, name in enumerate(controls):
            keys.append(Line2D([], [], color="black", linestyle=DASHES[i % len(DASHES)], linewidth=1, label=name))
        grid[1].set_xlabel("sparsity", fontsize=FONT)
    for ax in grid:
        ax.tick_params(labelsize=FONT, length=2)
        ax.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("accuracy", fontsize=FONT)
    if keys:
        legend = figure.legend(
            handles=keys, loc="outside upper center", ncols=min(4, len(keys)), frameon=False, fontsize=FONT
        )
        for text, key in zip(legend.get_texts(), keys, strict=True):
            text.set(text=letters.title(str(key.get_label())), parse_math=False)
    write_below(figure, letters, caption)
    return letters.applied(figure)


def _panels(n: int) -> tuple[list[Axes], Figure]:
    figure, axes = grid_of(n, n, (PAGE_INCHES * (0.6 if n == 1 else 1), HEIGHT_INCHES), sharey=True)
    return axes, figure


def _by_state(ax: Axes, states: pd.DataFrame) -> None:
    value = states["accuracy"].to_numpy()
    ends = np.stack([value - states["low"].to_numpy(), states["high"].to_numpy() - value])
    ink = mpl.colormaps[COLOURS](0.0)
    ax.errorbar(states["state"], value, ends, color=ink, marker="o", markersize=3, linewidth=1, elinewidth=0.7)
    ax.axhline(float(states["chance"].mean()), color="black", linewidth=0.6, linestyle="--")
    ax.set_xlabel("hidden state", fontsize=FONT)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _by_sparsity(ax: Axes, chosen: pd.DataFrame, dashes: str, look: dict[str, Any]) -> None:
    if chosen.empty:
        return
    mean = chosen.groupby(chosen["sparsity"].round(4))["accuracy"].mean()
    ax.plot(mean.index, mean.to_numpy(), color=look["color"], linestyle=dashes, linewidth=1)
    hollow: dict[str, Any] = {} if dashes == "-" else {"markerfacecolor": "white"}
    ax.plot(chosen["sparsity"], chosen["accuracy"], linestyle="none", markersize=3, **look, **hollow)

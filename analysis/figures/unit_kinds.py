"""How figures of hidden states, latents of them and their controls show which is which.

Goal: no number of a trained SAE without those of its controls in the same picture.
Conventions: a colour is a hidden state, with a marker of its own. Trained SAEs are solid lines and filled dots. The
state itself is a thin line. Controls are dashed, each by a dash of its own: other SAEs, by the name in the column
`control`, and kinds of units that need no SAE.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from .layout import FONT
from .letters import Letters
from .save import COLOURS

STATE, LATENTS = "state", "latents"
UNITS = "units"  # the column of these two, and of controls by their names
TRAINED = ("", "none")  # what is in the column control of SAEs that are none
MARKERS = "osD^v"
DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1)), (0, (6, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
IN_A_ROW = 4  # entries of a legend


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Which states and controls a figure shows."""

    states: list[int]
    controls: list[str]

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Kinds":
        """Of a table by `with_units`."""
        latents = table.loc[table[UNITS] != STATE, "state"]
        found = table[UNITS].unique().tolist()
        return cls(
            states=sorted(latents.unique().tolist()), controls=[str(n) for n in found if n not in (STATE, LATENTS)]
        )

    def look(self, state: int) -> dict[str, Any]:
        """Colour and marker of a state."""
        i = self.states.index(state)
        colours = mpl.colormaps[COLOURS](np.linspace(0.0, 0.85, max(2, len(self.states))))
        return {"color": colours[i], "marker": MARKERS[i % len(MARKERS)]}

    def dash(self, control: str) -> Any:
        """The line of a control."""
        return DASHES[self.controls.index(control) % len(DASHES)]

    def keys(self) -> list[Line2D]:
        """Entries of a legend."""
        states = [Line2D([], [], ms=3, lw=1, label=f"SAEs of state {each}", **self.look(each)) for each in self.states]
        others = [Line2D([], [], color="black", lw=0.5, label="the state itself")] * bool(self.states)
        for name in self.controls:
            others.append(Line2D([], [], color="black", ls=self.dash(name), lw=1, label=name))
        return [*states, *others]

    def legend(self, figure: Figure, letters: Letters) -> None:
        """Above all panels; the figure becomes as much higher."""
        keys = self.keys()
        if not keys:
            return
        figure.set_figheight(figure.get_figheight() + 0.14 * -(-len(keys) // IN_A_ROW))
        legend = figure.legend(
            handles=keys, loc="outside upper center", ncols=min(IN_A_ROW, len(keys)), frameon=False, fontsize=FONT
        )
        for text, key in zip(legend.get_texts(), keys, strict=True):
            text.set(text=letters.title(str(key.get_label())), parse_math=False)


def with_units(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The table with a column `units`: "state", "latents" of trained SAEs, or a control by its name.

    kind: the column that says of what a row is.
    """
    control = table["control"].fillna("").astype(str)
    is_control = (table[kind] == LATENTS) & ~control.isin(TRAINED)
    return table.assign(**{UNITS: table[kind].astype(str).mask(is_control, control)})


def by_sparsity(ax: Axes, rows: pd.DataFrame, value: str, kinds: Kinds) -> None:
    """A value by sparsity: of SAEs dots, and a line through the means of those of one sparsity; of others lines across.

    rows: of one state and one value each, with units, state, sparsity.
    """
    for state, units, own in parts_by_units(rows[rows["state"].isin(kinds.states) & rows[value].notna()]):
        look = kinds.look(state)
        if own["sparsity"].isna().all():
            line = {"lw": 0.5} if units == STATE else {"lw": 0.8, "ls": kinds.dash(units)}
            for each in own[value]:
                ax.axhline(each, color=look["color"], **line)
            continue
        dashes = "-" if units == LATENTS else kinds.dash(units)
        mean = own.groupby(own["sparsity"].round(4))[value].mean()
        ax.plot(mean.index, mean.to_numpy(), color=look["color"], linestyle=dashes, linewidth=1)
        hollow: dict[str, Any] = {} if units == LATENTS else {"markerfacecolor": "white", "markeredgewidth": 0.6}
        ax.plot(own["sparsity"], own[value], linestyle="none", markersize=3, **look, **hollow)
    ax.set_xlabel("sparsity", fontsize=FONT)


def parts_by_units(rows: pd.DataFrame) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """State, units, and the rows of these."""
    for state, units in rows[["state", UNITS]].drop_duplicates().itertuples(index=False, name=None):
        yield int(state), str(units), rows[(rows["state"] == state) & (rows[UNITS] == units)]


def plain(ax: Axes) -> None:
    """What all panels have in common; an empty one says so."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "log":
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(which="both", labelsize=FONT, length=2)
    if not ax.has_data():
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "no factor is predicted", ha="center", va="center", fontsize=FONT, transform=ax.transAxes)

"""What all figures share: colours, names that fit, and the files that they are written to.

Goal: figures that can go into a paper as they are, in colour, in grey and for colour-blind eyes.
Conventions: labels come from the attributes (long_name, units) of what is drawn. Figures are made without pyplot, so
nothing global changes and no display is needed. This folder alone imports matplotlib.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from ...files import whole_file

COLOURS = "cividis"  # made for colour-blind eyes; its lightness rises evenly, so it reads in grey
FORMATS: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".png": {}, ".svg": {"Date": None}}
"""By ending, the metadata without which equal figures are equal bytes."""
MAX_LETTERS = 28  # of a category's name, the rest is cut


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PDF, PNG (200 dots per inch) or SVG by the ending of the name.

    The same figure gives the same bytes; the file appears whole or not at all.
    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    with (
        whole_file(path, FORMATS) as partial,
        mpl.rc_context({"svg.hashsalt": "otoscope", "pdf.fonttype": 42, "hatch.linewidth": 0.4}),
        warnings.catch_warnings(),
    ):
        # Names in scripts that the font lacks are drawn as boxes: no reason to fail, or to print a line each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        ending = Path(path).suffix.lower()
        # Cropped to what is drawn: with many names the layout alone leaves some of them cut at the edge.
        figure.savefig(
            partial, format=ending[1:], dpi=200, metadata=FORMATS[ending], bbox_inches="tight", pad_inches=0.05
        )


def short_name(name: str) -> str:
    """A category's name, cut where it is long."""
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def label_of(values: xr.DataArray) -> str:
    """Name and unit of an axis, from the attributes."""
    long_name, units = str(values.attrs.get("long_name", values.name)), str(values.attrs.get("units", "1"))
    return long_name if units in ("1", "neurons") else f"{long_name} ({units})"

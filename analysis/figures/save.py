"""What all figures share: colours, labels of axes, and the files that they are written to.

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
DIVERGING = "PuOr_r"  # around a middle, for colour-blind eyes; in grey its lower end is the darker one
FORMATS: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".png": {}, ".svg": {"Date": None}}
"""By ending, the metadata without which equal figures are equal bytes."""
DOTS_PER_INCH = 200
MAX_PIXELS = 25_000  # of a side of a PNG, and 5,000 by 25,000 in all: a larger figure has fewer dots per inch


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> str:
    """Write a figure as PDF, PNG (200 dots per inch where that is not too large) or SVG by the ending of the name.

    The same figure gives the same bytes, in SVG and PDF text stays text; the file appears whole or not at all. Gives
    the figure's label: which names it shows by numbers, "" where by none.
    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    width, height = figure.get_size_inches()
    dots = min(DOTS_PER_INCH, MAX_PIXELS / max(width, height), (MAX_PIXELS * 5_000 / (width * height)) ** 0.5)
    with (
        whole_file(path, FORMATS) as partial,
        mpl.rc_context(
            {"svg.hashsalt": "otoscope", "pdf.fonttype": 42, "svg.fonttype": "none", "hatch.linewidth": 0.4}
        ),
        warnings.catch_warnings(),
    ):
        # Fonts that have all letters may still lack what shaping adds to them: no reason to fail, or to print a line.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        ending = Path(path).suffix.lower()
        # Cropped to what is drawn: with many names the layout alone leaves some of them cut at the edge.
        figure.savefig(
            partial, format=ending[1:], dpi=dots, metadata=FORMATS[ending], bbox_inches="tight", pad_inches=0.05
        )
    return str(figure.get_label())


def label_of(values: xr.DataArray) -> str:
    """Name and unit of an axis, from the attributes."""
    long_name, units = str(values.attrs.get("long_name", values.name)), str(values.attrs.get("units", "1"))
    return long_name if units in ("1", "neurons") else f"{long_name} ({units})"

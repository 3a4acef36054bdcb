"""Pages: views to HTML. Pure: the same view, the same page.

Goal: one door to the templates, in which every name of a store is text: autoescaped, never put into a script or a
style; isolated with <bdi>, so that no name turns the line around it.
"""

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..messages import visible
from .views import TAB_NAMES

NONE = "–"


def render(template: str, **shown: Any) -> str:
    """A page of `templates/`."""
    return _environment().get_template(template).render(**shown)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("otoscope.serve"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "num": number, "p": share, "name": name, "clock": clock, "si": whole, "pvalue": p_value, "tenth": tenth,
    }  # fmt: skip
    environment.globals |= {"TAB_NAMES": TAB_NAMES, "term_of": term_of}
    return environment


def number(value: float | None) -> str:
    """Four digits: "0.6089", "1.234e-05"; a dash for none."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.4g}".replace("-", "−") if "e" not in f"{value:.4g}" else f"{value:.3g}".replace("-", "−")


def share(value: float | None) -> str:
    """A number of 0 to 1 with three decimals; a dash for none."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """A p or q; small ones as "< 0.001"."""
    if value is None or math.isnan(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def whole(value: int) -> str:
    """A count: "36,864"."""
    return f"{value:,}"


def clock(seconds: float) -> str:
    """Seconds with two decimals."""
    return f"{seconds:.2f} s"


def tenth(value: float, largest: float) -> int:
    """A value in steps of a tenth of the largest, 0 to 10, rounded up, so that 0 alone has none."""
    return 0 if not value or not largest else max(1, min(10, math.ceil(10 * value / largest)))


def term_of(category: str) -> str:
    """The search for a category's neurons."""
    plain = category and not set(category) & set(' ,:()"<>=\t\n')
    return f"category:{category}" if plain else 'category:"' + category.replace('"', '""') + '"'


def name(text: str) -> Markup:
    """A name from a store or a manifest: without control characters, in a <bdi>."""
    return Markup("<bdi>%s</bdi>") % escape(visible(str(text)))

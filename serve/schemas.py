"""What goes over the wire: requests and answers as the service documents them. The one file that knows pydantic.

Conventions: unknown fields are refused, numbers are not read from text. Times are in seconds since 1970.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ..ablate.request import Request
from ..analysis.selection.selection import Selection
from .jobs import Job

SEED = {"ge": 0, "lt": 2**48}
BOUNDS: Mapping[str, Mapping[str, Any]] = {
    "set": {"min_length": 1, "max_length": 20_000, "examples": ["shared(4,5)", "only(dog)", "(9,347) (10,393)"]},
    "gain": {"ge": -1e6, "le": 1e6, "allow_inf_nan": False},
    "controls": {"ge": 0, "le": 10_000},
    "match": {"max_length": 2},
    "seed": SEED,
    "probe_seed": SEED,
    "threshold": {"union_mode": "left_to_right"},  # in a query a number is text
    "permutations": {"ge": 1, "le": 10_000},
    "percentile": {"gt": 0, "le": 100, "allow_inf_nan": False},
}
"""Of the fields of requests and selections, beside what the records check; bodies and URLs are bounded as such."""
THRESHOLD = Annotated[float, Field(allow_inf_nan=False)] | str | None


def model_of(record: type[Any], *, strict: bool) -> type[BaseModel]:
    """The fields of a record as pydantic's, with `BOUNDS`. Refused are other fields and, if strict, numbers in text."""
    made: dict[str, Any] = {}
    for each in fields(record):
        kind, choices = THRESHOLD if each.name == "threshold" else each.type, each.metadata.get("choices")
        about = {"description": each.metadata.get("help"), **BOUNDS.get(each.name, {})}
        if each.default_factory is not MISSING:  # a record in the record
            about["default_factory"] = kind = model_of(each.default_factory, strict=strict)  # type: ignore[arg-type]
        else:
            about["default"] = ... if each.default is MISSING else each.default
        if isinstance(each.default, tuple):
            kind, about["default"] = list[Literal[choices] if choices else str], list(each.default)  # type: ignore[misc]
        elif choices:
            kind = Literal[(each.default, *choices)]
        made[each.name] = kind, Field(**about)
    config = ConfigDict(extra="forbid", strict=strict)
    return create_model(record.__name__, __config__=config, __doc__=(record.__doc__ or "").partition("\n")[0], **made)


class Ask(model_of(Request, strict=True)):  # type: ignore[misc]
    """An ablation to be done. Equal requests are one job."""


_FIELDS_OF_SELECTION = model_of(Selection, strict=False)


def selection_fields(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a selection among the names and values of a URL's query; others are left out.

    Raises ValueError for a value that is none.
    """
    many = {each.name for each in fields(Selection) if isinstance(each.default, tuple)}
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in _FIELDS_OF_SELECTION.model_fields:
            given[name] = [*given.get(name, []), value] if name in many else value
    try:
        found = _FIELDS_OF_SELECTION.model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
        raise ValueError("; ".join(wrong)) from error
    return found


class SelectionQuery(model_of(Selection, strict=False)):  # type: ignore[misc]
    """Whose neurons, and how they are selected: as for an ablation of the same labelling."""

    task: str = Field(description="Task of a store.")
    label: str = Field(description="Label column.")


class Problem(BaseModel):
    """Why a request was not answered: one line."""

    error: str


class JobList(BaseModel):
    """Jobs, those first whose state changed last."""

    jobs: list[Job]


class ResultView(BaseModel):
    """A result: one row per measure and category, those over all clips last; numbers that are not finite are null."""

    id: str
    notes: list[str] = Field(description="How many clips changed, and what speaks against the probe, a line each.")
    rows: list[dict[str, Any]]
    about: dict[str, Any] = Field(
        description="Request, neurons, controls, probe, digests, counts by category and prediction."
    )


class TaskView(BaseModel):
    """A task of a store."""

    task: str
    clips: int
    labels: list[str]
    pending: int = Field(description="Clips that are not extracted yet.")
    rerun: bool = Field(description="Whether its audio is here.")


class Health(BaseModel):
    """Whether the process answers, and whether it takes jobs."""

    live: bool
    ready: bool

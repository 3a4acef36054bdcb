"""What goes over the wire: requests and answers as the service documents them. The one file that knows pydantic.

Conventions: unknown fields are refused, numbers are not read from text. Times are ISO 8601 in UTC.
Contents: `Ask`, `JobView`, `JobList`, `ResultView`, `TaskView`, `LabelView`, `CategoryView`, `SetView`, `ProbeView`,
`Health`, `Problem`.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..ablate.request import Request
from .jobs import Job, State

MOST_CONTROLS = 10_000
NAME = 200  # characters
Name = Annotated[str, Field(min_length=1, max_length=NAME)]
Seed = Annotated[int, Field(ge=0, lt=2**48)]
Percentile = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Rule = Literal["lape", "paper"]
Reading = Literal["clip", "frame", "any"]


class Ask(BaseModel):
    """An ablation to be done. Equal requests are one job."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: Name = Field(description="Task of the store.")
    label: Name = Field(description="Label column whose categories the probe tells apart.")
    set: str = Field(
        min_length=1, max_length=20_000, examples=["shared(4,5)", "only(dog)", "(9,347) (10,393)"],
        description="Neurons: shared(A,B), only(A), all(A) of the selection, or (layer,neuron) ... by hand.",
    )  # fmt: skip
    mode: Literal["remove", "gain", "mean", "category-mean", "transplant", "keep", "keep-mean"] = "remove"
    gain: float = Field(0.0, allow_inf_nan=False, ge=-1e6, le=1e6, description="Factor of the mode gain.")
    category: str = Field("", max_length=NAME, description="Category of the modes category-mean and transplant.")
    controls: int = Field(200, ge=0, le=MOST_CONTROLS, description="Matched random sets to compare with.")
    control: Literal["matched", "published"] = "matched"
    match: list[Literal["rate", "mean"]] = Field([], max_length=2, description="What else controls are matched in.")
    seed: Seed = 0
    side: Literal["", "harm", "help", "either"] = Field("", description="Change that counts as evidence.")
    percentile: Percentile = Field(1.0, description="Of the selection, in percent.")
    selected_on: Literal["all", "train"] = Field("all", description="Clips that the selection is made from.")
    rule: Rule = "lape"
    reading: Reading = "clip"
    probe: Literal["logistic", "published"] = "logistic"
    probe_seed: Seed = 42
    division: str = Field("", max_length=NAME, description="Label column that divides the clips; empty: split or fold.")

    def request(self) -> Request:
        """As the study takes it. Raises ValueError for values that do not fit together."""
        return Request(**{**self.model_dump(), "match": tuple(self.match)})


class Problem(BaseModel):
    """Why a request was not answered: one line."""

    error: str


class Progress(BaseModel):
    """Clips that are done, of how many; 0 of 0 where that is not known."""

    done: int
    total: int


class JobView(BaseModel):
    """A job as it stands."""

    id: str = Field(pattern="^[0-9a-f]{64}$")
    state: State
    submitted: datetime
    changed: datetime
    progress: Progress
    error: str = Field(description="One line, of a job that failed.")
    request: dict[str, Any]


class JobList(BaseModel):
    """Jobs, those first whose state changed last."""

    jobs: list[JobView]


class ResultView(BaseModel):
    """A result: one row per measure and category, those over all clips last; numbers that are not finite are null."""

    id: str
    rows: list[dict[str, Any]]
    about: dict[str, Any] = Field(description="Request, neurons, controls, probe, digests, counts by category named.")


class TaskView(BaseModel):
    """A task of the store."""

    task: str
    clips: int
    labels: list[str]
    pending: int = Field(description="Clips that are not extracted yet.")
    rerun: bool = Field(description="Whether its audio is here.")


class LabelView(BaseModel):
    """A label column of a task."""

    label: str
    categories: int
    divides: bool = Field(description="It divides clips into those for training and for test.")


class CategoryView(BaseModel):
    """A category, and its clips that were extracted."""

    category: str
    clips: int


class SetView(BaseModel):
    """A set of neurons that a selection offers, as a request names it."""

    set: str
    neurons: int


class ProbeView(BaseModel):
    """A probe that was fitted for a job."""

    probe: str
    labelling: str
    categories: int
    heads: list[str]
    recipe: dict[str, Any]
    valid_accuracy: list[float | None]


class Health(BaseModel):
    """Whether the process answers, and whether it takes jobs."""

    live: bool
    ready: bool


def job_view(job: Job, request: dict[str, Any], progress: tuple[int, int]) -> JobView:
    """A job for the wire."""
    return JobView(
        id=job.id, state=job.state, submitted=datetime.fromtimestamp(job.submitted, UTC),
        changed=datetime.fromtimestamp(job.at, UTC), error=job.error, request=request,
        progress=Progress(done=progress[0], total=progress[1]),
    )  # fmt: skip

"""The service's HTTP: routes over a worker loop and a catalogue, and what they answer.

Goal: thin handlers; every error is one line of JSON, {"error": ...}, that shows nothing of the inside.
Conventions: ids of jobs are digests, so that every request may be repeated safely. Results are JSON, or Arrow where the
client accepts it.
"""

import io
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from ..ablate.request import Request as AblationRequest
from ..ablate.result import KEY
from ..analysis.selection.selection import Selection
from ..messages import one_line
from .catalogue import Catalogue
from .jobs import Job, State
from .metrics import metrics_text
from .schemas import (
    MAX_NAME,
    Ask,
    CategoryView,
    Health,
    JobList,
    JobView,
    LabelView,
    ProbeView,
    Problem,
    Progress,
    ResultView,
    SelectionQuery,
    SetView,
    TaskView,
)
from .security import Limits, SecurityMiddleware
from .worker_loop import QueueFull, WorkerLoop

ARROW = "application/vnd.apache.arrow.stream"
MAX_LISTED = 1000
JobId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Id of a job.")]
TaskName = Annotated[str, Path(max_length=MAX_NAME, description="Task of the store.")]
LabelName = Annotated[str, Query(max_length=MAX_NAME, description="Label column.")]

PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}  # where answers are not JSON
Answers = dict[int | str, dict[str, Any]]
ERRORS = {
    400: "The host is unknown, or the body is not JSON.",
    401: "The token is missing or wrong.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "The job is not in a state for this.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The request names what does not exist, or does not fit together.",
    429: "The queue is full: ask again after Retry-After seconds.",
    503: "The state of the service cannot be read or written now.",
}


def errors(*codes: int) -> Answers:
    """Documentation of errors, the ones that every route has included."""
    found: Answers = {
        code: {"model": Problem, "description": ERRORS[code]} for code in (400, 401, 408, 413, *codes, 503)
    }
    if 429 in found:
        found[429]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "In seconds."}}
    return found


def make_app(loop: WorkerLoop, catalogue: Catalogue, limits: Limits) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and stops the worker loop."""
    answered: Counter[tuple[str, int]] = Counter()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loop.start()
        yield
        loop.stop()

    # Documents what the middleware demands.
    bearer = Depends(HTTPBearer(auto_error=False, description="The service's token."))
    app = FastAPI(
        title="otoscope ablation",
        version="1",
        description="Switches neurons of an audio encoder off and says what breaks, beside matched random controls.",
        dependencies=[bearer] if limits.token else [],
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(SecurityMiddleware, limits=limits, answered=answered)
    _add_error_handlers(app, catalogue.redact)
    _add_job_routes(app, loop, catalogue)
    _add_store_routes(app, catalogue)
    _add_service_routes(app, loop, answered)
    return app


def _add_job_routes(app: FastAPI, loop: WorkerLoop, catalogue: Catalogue) -> None:
    folder = loop.folder

    def found(job: str) -> Job:
        state = folder.get(job)
        if state is None:
            raise HTTPException(404, f"no job {job}; expected an id that POST /ablations gave")
        return state

    def view(job: Job) -> JobView:
        done, total = folder.progress(job)
        return JobView(
            id=job.id, state=job.state, submitted=datetime.fromtimestamp(job.submitted, UTC),
            changed=datetime.fromtimestamp(job.at, UTC), error=job.error, request=folder.request(job.id),
            progress=Progress(done=done, total=total),
        )  # fmt: skip

    @app.post(
        "/ablations", status_code=202, response_model=JobView, responses={
            200: {"model": JobView, "description": "The same was asked before: its job as it stands."},
            **errors(415, 422, 429),
        },
    )  # fmt: skip
    def submit(ask: Ask, response: Response) -> JobView:
        """Queue an ablation. The same request is the same job; one that failed or was cancelled is tried again."""
        request = AblationRequest.from_json(ask.model_dump())
        job, new = loop.submit(catalogue.check(request), request.to_json())
        response.status_code = 202 if new else 200
        response.headers["Location"] = f"/ablations/{job.id}"
        return view(job)

    @app.get("/ablations", response_model=JobList, responses=errors(422))
    def jobs(
        state: Annotated[State | None, Query()] = None, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100
    ) -> JobList:
        """Jobs, those first whose state changed last."""
        return JobList(jobs=[view(job) for job in folder.latest(limit, state)])

    @app.get("/ablations/{job}", response_model=JobView, responses=errors(404, 422))
    def job(job: JobId) -> JobView:
        """State and progress of a job."""
        return view(found(job))

    @app.get(
        "/ablations/{job}/result", response_model=ResultView, responses={
            200: {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}}, **errors(404, 409, 422),
        },
    )  # fmt: skip
    def result(job: JobId, accept: Annotated[str, Header()] = "application/json") -> Response:
        """Result of a job that is done: JSON, or an Arrow stream where that is accepted."""
        state = found(job)
        if state.state != "done":
            why = f"{state.state}: {state.error}" if state.error else state.state
            raise HTTPException(409, f"the job is {why}; expected one that is done")
        if ARROW in accept:
            return Response(arrow_stream(folder.result(state)), media_type=ARROW)
        return Response(result_json(job, folder.result(state)), media_type="application/json")

    @app.delete("/ablations/{job}", response_model=JobView, responses=errors(404, 409, 422))
    def cancel(job: JobId) -> JobView:
        """Cancel a job that is queued or running. What one that is done found is kept."""
        state = loop.cancel(found(job))
        if state.state == "done":
            raise HTTPException(409, "the job is done; expected one that is queued or running")
        return view(state)


def _add_store_routes(app: FastAPI, catalogue: Catalogue) -> None:
    @app.get("/tasks", response_model=list[TaskView], responses=errors())
    def tasks() -> list[dict[str, Any]]:
        """Tasks of the store."""
        return catalogue.tasks()

    @app.get("/tasks/{task}/labels", response_model=list[LabelView], responses=errors(404, 422))
    def labels(task: TaskName) -> list[dict[str, Any]]:
        """Label columns of a task."""
        return list(_or_404(lambda: catalogue.labels(task)))

    @app.get("/tasks/{task}/categories", response_model=list[CategoryView], responses=errors(404, 422))
    def categories(task: TaskName, label: LabelName) -> list[dict[str, Any]]:
        """Categories of a label column, with their clips."""
        counts = _or_404(lambda: catalogue.now.categories(task, label))
        return [{"category": category, "clips": clips} for category, clips in counts.items()]

    @app.get("/selections", response_model=list[SetView], responses=errors(404, 422))
    def selections(query: Annotated[SelectionQuery, Query()]) -> list[dict[str, Any]]:
        """Sets of neurons that the selection of a labelling offers, as requests name them."""
        how = query.model_dump()
        task, label = how.pop("task"), how.pop("label")
        _or_404(lambda: catalogue.now.labelling(task, label))
        return catalogue.now.sets(task, label, Selection(**how))

    @app.get("/probes", response_model=list[ProbeView], responses=errors())
    def probes() -> list[dict[str, Any]]:
        """Probes that were fitted for jobs."""
        return catalogue.probes()


def _add_service_routes(app: FastAPI, loop: WorkerLoop, answered: "Counter[tuple[str, int]]") -> None:
    @app.get("/health/live", response_model=Health, responses=errors())
    def live() -> Health:
        """Whether the process answers. Needs no token."""
        return Health(live=True, ready=loop.alive)

    @app.get("/health/ready", response_model=Health, responses=errors())
    def ready() -> Health:
        """Whether jobs are taken; 503 where they are not. Needs no token."""
        if not loop.alive:
            raise HTTPException(503, "no jobs are taken; expected a service that runs: see its log")
        return Health(live=True, ready=True)

    @app.get(
        "/metrics", response_class=PlainTextResponse, responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."},
            **{code: {"description": ERRORS[int(code)], "content": PROBLEM} for code in errors()},
        },
    )  # fmt: skip
    def metrics() -> PlainTextResponse:
        """Counts of jobs and answers of this replica, and the length of the queue, for Prometheus."""
        return PlainTextResponse(metrics_text(loop, answered), media_type="text/plain; version=0.0.4")


def _or_404(look_up: Callable[[], Any]) -> Any:
    try:
        return look_up()
    except LookupError as error:
        raise HTTPException(404, one_line(error, whole=True)) from error


def _add_error_handlers(app: FastAPI, redact: Callable[[str], str]) -> None:
    """What each exception becomes outside; others are 500, with their traceback in the log alone."""

    def answer(status: int, text: str, **headers: str) -> JSONResponse:
        line = " ".join(redact(text).encode("utf-8", "replace").decode().split())
        return JSONResponse({"error": line}, status, headers)

    @app.exception_handler(HTTPException)
    def plain(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail), **(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}".removeprefix(": ") for one in error.errors()[:5]]
        return answer(422, "; ".join(found))

    @app.exception_handler(QueueFull)
    def full(_: Request, error: QueueFull) -> JSONResponse:
        return answer(429, str(error), **{"Retry-After": str(error.retry_after)})

    for kind in (ValueError, LookupError):
        app.add_exception_handler(kind, lambda _, error: answer(422, one_line(error, whole=True)))
    app.add_exception_handler(OSError, lambda _, error: answer(503, "the state of the service cannot be used now"))
    app.add_exception_handler(Exception, lambda _, error: answer(500, "a fault of the service; see its log"))


def arrow_stream(path: FilePath) -> bytes:
    """A result as an Arrow stream; its schema's metadata hold all that is no row."""
    table = pq.read_table(path)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def result_json(job: str, path: FilePath) -> bytes:
    """A result as JSON, numbers that are not finite as null."""
    table = pq.read_table(path)
    about = json.loads((table.schema.metadata or {})[KEY])
    found = _finite({"id": job, "notes": about["attrs"]["notes"], "rows": table.to_pylist(), "about": about})
    return json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value

"""The server's HTTP: routes over a worker loop and a catalogue, and what they answer.

Goal: thin handlers; every error is one line of JSON, {"error": ...}, that shows nothing of the inside.
Conventions: ids of jobs are digests, so that every request may be repeated safely. Results are JSON, or Arrow where the
client accepts it.
"""

import io
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ..ablate.request import Request as AblationRequest
from ..analysis.selection.selection import Selection
from ..documents import parse_json
from ..messages import one_line, visible
from .catalogue import Catalogue
from .jobs import Job, State
from .results import about_of
from .schemas import MAX_NAME, Ask, Health, JobList, ProbeView, Problem, ResultView, SelectionQuery, TaskView
from .security import Guard
from .settings import Settings
from .worker_loop import QueueFull, WorkerLoop

ARROW = "application/vnd.apache.arrow.stream"
MAX_LISTED = 1000
JobId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Id of a job.")]
TaskName = Annotated[str, Path(max_length=MAX_NAME, description="Task of a store.")]
LabelName = Annotated[str, Query(max_length=MAX_NAME, description="Label column.")]

Answers = dict[int | str, dict[str, Any]]
ERRORS = {
    400: "The host is unknown, or the body cannot be read.",
    401: "The token is missing or wrong.",
    404: "There is no such thing.",
    405: "There is no such method here; those that there are, are in Allow.",
    409: "The job is not in a state for this.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The request names what does not exist, or does not fit together.",
    429: "The queue is full: ask again after Retry-After seconds.",
    503: "The state of the server cannot be read or written now, or too much is asked at a time.",
}
TEXT = {"text/plain": {"schema": {"type": "string"}}}
EVERYWHERE = (400, 401, 405, 413, 503)


def errors(*codes: int) -> Answers:
    """Documentation of errors."""
    return {code: {"model": Problem, "description": ERRORS[code]} for code in codes}


def make_routes(loop: WorkerLoop, catalogue: Catalogue, settings: Settings) -> FastAPI:
    """The server as an ASGI application, whose `state.loop` its lifespan starts and stops."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loop.start()
        yield
        loop.stop()

    app = FastAPI(
        title="otoscope",
        version="1",
        description="Switches neurons of an audio encoder off and says what breaks, beside matched random controls.",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.loop = loop
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.limits.max_bytes)
    app.add_middleware(Guard, limits=settings.limits, metrics=loop.metrics)
    _add_error_handlers(app, settings.redact)
    bearer = [Depends(HTTPBearer(auto_error=False))] if settings.limits.token else []  # documents what `Guard` demands
    api = APIRouter(prefix="/api", responses=errors(*EVERYWHERE), dependencies=bearer)
    _add_job_routes(api, loop, catalogue)
    _add_store_routes(api, catalogue)
    _add_server_routes(app, api, loop)
    app.include_router(api)
    return app


async def _strict_json(request: Request) -> None:
    """Refuses what parsers read in more than one way: keys given twice, NaN, integers of more than 64 bits."""
    try:
        parse_json(await request.body(), finite=True)
    except ValueError as error:
        raise HTTPException(422, one_line(error, whole=True)) from error


def _add_job_routes(api: APIRouter, loop: WorkerLoop, catalogue: Catalogue) -> None:
    def found(job: str) -> Job:
        state = loop.job(job)
        if state is None:
            raise HTTPException(404, f"no job {job}; expected an id that POST /api/ablations gave")
        return state

    @api.post(
        "/ablations", status_code=202, response_model=Job, dependencies=[Depends(_strict_json)], responses={
            200: {"model": Job, "description": "The same was asked before: its job as it stands."},
            **errors(415, 422, 429),
        },
    )  # fmt: skip
    def submit(ask: Ask, response: Response) -> Job:
        """Queue an ablation. The same request is the same job; one that failed or was cancelled is tried again."""
        request = AblationRequest.from_json(ask.model_dump())
        job, new = loop.submit(catalogue.check(request), request.to_json())
        response.status_code = 202 if new else 200
        response.headers["Location"] = f"/api/ablations/{job.id}"
        return job

    @api.get("/ablations", response_model=JobList, responses=errors(422))
    def jobs(
        state: Annotated[State | None, Query()] = None, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100
    ) -> JobList:
        """Jobs, those first whose state changed last."""
        return JobList(jobs=[loop.shown(job) for job in loop.table.latest(limit, state)])

    @api.get("/ablations/{job}", response_model=Job, responses=errors(404, 422))
    def job(job: JobId) -> Job:
        """State and progress of a job."""
        return found(job)

    @api.get(
        "/ablations/{job}/result", response_model=ResultView, responses={
            200: {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}}, **errors(404, 409, 422),
        },
    )  # fmt: skip
    def result(job: JobId, accept: Annotated[str, Header()] = "application/json") -> Response:
        """Result of a job that is done: JSON, or an Arrow stream where that is accepted."""
        state, table = found(job), loop.results.read(job)
        if state.state == "done" and table is None:
            state = loop.put(state, "failed", "its result on disk was damaged or deleted: ask again")
        if state.state != "done" or table is None:
            why = f"{state.state}: {state.error}" if state.error else state.state
            raise HTTPException(409, f"the job is {why}; expected one that is done")
        if ARROW in accept:
            return Response(arrow_stream(table), media_type=ARROW)
        return Response(result_json(job, table), media_type="application/json")

    @api.delete("/ablations/{job}", response_model=Job, responses=errors(404, 409, 422))
    def cancel(job: JobId) -> Job:
        """Cancel a job that is queued or running. What one that is done found is kept."""
        state = loop.cancel(found(job))
        if state.state == "done":
            raise HTTPException(409, "the job is done; expected one that is queued or running")
        return state


def _add_store_routes(api: APIRouter, catalogue: Catalogue) -> None:
    @api.get("/tasks", response_model=list[TaskView])
    def tasks() -> list[dict[str, Any]]:
        """Tasks of the stores."""
        return catalogue.tasks()

    @api.get("/tasks/{task}/categories", responses=errors(404, 422))
    def categories(task: TaskName, label: LabelName) -> dict[str, int]:
        """Categories of a label column, and how many clips each has."""
        return catalogue.now.categories(task, label)

    @api.get("/selections", responses=errors(404, 422))
    def selections(query: Annotated[SelectionQuery, Query()]) -> dict[str, int]:
        """Sets of neurons that the selection of a labelling offers, as requests name them, and how many each has."""
        how = query.model_dump()
        return catalogue.now.sets(how.pop("task"), how.pop("label"), Selection(**how))

    @api.get("/probes", response_model=list[ProbeView])
    def probes() -> list[dict[str, Any]]:
        """Probes that were fitted for jobs."""
        return catalogue.probes()


def _add_server_routes(app: FastAPI, api: APIRouter, loop: WorkerLoop) -> None:
    @app.get("/api/health/live", response_model=Health, responses=errors(400, 405))
    async def live() -> Health:
        """Whether the process answers. Needs no token."""
        return Health(live=True, ready=not loop.problem)

    @app.get("/api/health/ready", response_model=Health, responses=errors(400, 405, 503))
    async def ready() -> Health:
        """Whether jobs are taken; 503 where they are not. Needs no token."""
        if loop.problem:
            raise HTTPException(503, "no jobs are taken; expected a server that runs: see its log")
        return Health(live=True, ready=True)

    @api.get("/metrics", response_class=Response, responses={200: {"content": TEXT}})
    def metrics() -> Response:
        """Counts of jobs and answers, and the length of the queue, for Prometheus."""
        found, unfinished = loop.metrics, [job.state for job in loop.table.unfinished()]
        for state in ("queued", "running"):
            found.unfinished.labels(state).set(unfinished.count(state))
        found.ready.set(not loop.problem)
        return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)

    @api.get("/openapi.json", include_in_schema=False)
    def description() -> dict[str, Any]:
        """This description."""
        return app.openapi()

    @app.get("/", include_in_schema=False)
    def index() -> dict[str, str]:
        """Where the printed link leads."""
        return {"api": "/api", "description": "/api/openapi.json", "tasks": "/api/tasks", "health": "/api/health/ready"}


def _add_error_handlers(app: FastAPI, redact: Callable[[str], str]) -> None:
    """What each exception becomes outside; others are 500, with their traceback in the log alone."""

    def answer(status: int, text: str, **headers: str) -> JSONResponse:
        line = visible(" ".join(text.encode("utf-8", "replace").decode().split()))
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

    @app.exception_handler(ValueError)
    def unfit(_: Request, error: ValueError) -> JSONResponse:
        return answer(422, redact(one_line(error, whole=True)))

    @app.exception_handler(LookupError)
    def unknown(request: Request, error: LookupError) -> JSONResponse:
        return answer(422 if request.method == "POST" else 404, redact(one_line(error, whole=True)))

    app.add_exception_handler(OSError, lambda _, error: answer(503, "the state of the server cannot be used now"))
    app.add_exception_handler(Exception, lambda _, error: answer(500, "a fault of the server; see its log"))


def arrow_stream(table: pa.Table) -> bytes:
    """A result as an Arrow stream; its schema's metadata hold all that is no row."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def result_json(job: str, table: pa.Table) -> bytes:
    """A result as JSON, numbers that are not finite as null."""
    about = about_of(table)
    found = _finite({"id": job, "notes": about["attrs"]["notes"], "rows": table.to_pylist(), "about": about})
    return json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value

"""The server's HTTP: routes over a worker loop and a catalogue, and what they answer.

Goal: thin handlers; every error is one line of JSON, {"error": ...}, that shows nothing of the inside.
Conventions: ids of jobs are digests, so that every request may be repeated safely. Results are JSON, or Arrow where the
client accepts it.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ..ablate.jobs.process import JobProcess
from ..ablate.jobs.results import ARROW, about_of, arrow_stream
from ..ablate.request import Request as AblationRequest
from ..analysis.selection.selection import Selection
from ..documents import parse_json
from ..messages import one_line, visible
from .catalogue import Catalogue
from .explorer import Explorer
from .jobs import Job, State
from .media import NoSound
from .page_routes import add_pages, problem_page
from .schemas import Ask, Health, JobList, Problem, ResultView, SelectionQuery, TaskView
from .security import MAX_BYTES, Guard
from .settings import Settings
from .worker_loop import QueueFull, WorkerLoop

JobId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Id of a job.")]
TEXT = {"text/plain": {"schema": {"type": "string"}}}


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of refusals; each says in its `error` what was found and what is expected."""
    return {code: {"model": Problem} for code in codes}


def make_app(settings: Settings, process: JobProcess | None = None) -> FastAPI:
    """The server as an ASGI application; its worker loop starts and stops with its lifespan.

    process: does the jobs [a `JobProcess`, started with the first of them].
    Raises what opening stores or state folder raises. The folder is to be locked.
    """
    catalogue = Catalogue(settings)
    loop = WorkerLoop(settings, process or JobProcess(settings), catalogue.open_again)

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
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BYTES)
    app.add_middleware(Guard, settings=settings, metrics=loop.metrics)
    _add_error_handlers(app, settings.redact)
    bearer = [Depends(HTTPBearer(auto_error=False))] if settings.token else []  # documents what `Guard` demands
    api = APIRouter(prefix="/api", responses=errors(400, 401, 405, 413, 503), dependencies=bearer)
    _add_job_routes(api, loop, catalogue)
    _add_store_routes(api, catalogue)
    _add_server_routes(app, api, loop)
    app.include_router(api)
    add_pages(app, Explorer(settings, catalogue))
    return app


async def _strict_json(request: Request) -> None:
    """Refuses what parsers read in more than one way: keys given twice, NaN, integers of more than 64 bits."""
    try:
        parse_json(await request.body(), finite=True)
    except ValueError as error:
        raise HTTPException(422, one_line(error, whole=True)) from error


def _add_job_routes(api: APIRouter, loop: WorkerLoop, catalogue: Catalogue) -> None:
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
        state: Annotated[State | None, Query()] = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> JobList:
        """Jobs, those first whose state changed last."""
        return JobList(jobs=[loop.shown(job) for job in loop.table.latest(limit, state)])

    @api.get("/ablations/{job}", response_model=Job, responses=errors(404, 422))
    def job(job: JobId) -> Job:
        """State and progress of a job."""
        return loop.job(job)

    @api.get(
        "/ablations/{job}/result", response_model=ResultView, responses={
            200: {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}}, **errors(404, 409, 422),
        },
    )  # fmt: skip
    def result(job: JobId, accept: Annotated[str, Header()] = "application/json") -> Any:
        """Result of a job that is done: JSON, or an Arrow stream where that is accepted."""
        found, table = loop.result(job)
        if table is None:
            why = f"{found.state}: {found.error}" if found.error else found.state
            raise HTTPException(409, f"the job is {why}; expected one that is done")
        if ARROW in accept:
            return Response(arrow_stream(table), media_type=ARROW)
        about = about_of(table)
        return ResultView(id=job, notes=about["attrs"]["notes"], rows=table.to_pylist(), about=about)

    @api.delete("/ablations/{job}", response_model=Job, responses=errors(404, 409, 422))
    def cancel(job: JobId) -> Job:
        """Cancel a job that is queued or running. What one that is done found is kept."""
        found = loop.cancel(job)
        if found.state == "done":
            raise HTTPException(409, "the job is done; expected one that is queued or running")
        return found


def _add_store_routes(api: APIRouter, catalogue: Catalogue) -> None:
    @api.get("/tasks", response_model=list[TaskView])
    def tasks() -> list[dict[str, Any]]:
        """Tasks of the stores."""
        return catalogue.tasks()

    @api.get("/tasks/{task}/categories", responses=errors(404, 422))
    def categories(task: str, label: str) -> dict[str, int]:
        """Categories of a label column, and how many clips each has."""
        return catalogue.now.categories(task, label)

    @api.get("/selections", responses=errors(404, 422))
    def selections(query: Annotated[SelectionQuery, Query()]) -> dict[str, int]:
        """Sets of neurons that the selection of a labelling offers, as requests name them, and how many each has."""
        how = query.model_dump()
        return catalogue.now.sets(how.pop("task"), how.pop("label"), Selection(**how))

    @api.get("/probes")
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


def _add_error_handlers(app: FastAPI, redact: Callable[[str], str]) -> None:
    """What each exception becomes outside; others are 500, with their traceback in the log alone."""

    def answer(request: Request, status: int, text: str, **headers: str) -> Response:
        line = visible(" ".join(text.encode("utf-8", "replace").decode().split()))
        if request.url.path.startswith(("/api", "/m/", "/static/")):
            return JSONResponse({"error": line}, status, headers)
        return problem_page(status, line)

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, str(error.detail), **(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}".removeprefix(": ") for one in error.errors()[:5]]
        return answer(request, 422, "; ".join(found))

    @app.exception_handler(QueueFull)
    def full(request: Request, error: QueueFull) -> Response:
        return answer(request, 429, str(error), **{"Retry-After": str(error.retry_after)})

    @app.exception_handler(NoSound)
    def not_played(request: Request, error: NoSound) -> Response:
        return answer(request, 409, str(error))

    @app.exception_handler(ValueError)
    @app.exception_handler(LookupError)
    def unfit(request: Request, error: ValueError | LookupError) -> Response:
        absent = isinstance(error, LookupError) and request.method != "POST"
        return answer(request, 404 if absent else 422, redact(one_line(error, whole=True)))

    @app.exception_handler(OSError)
    def unusable(request: Request, error: OSError) -> Response:
        logging.getLogger(__name__).error("answered 503: %s", one_line(error))
        text = "a store or the state of the server cannot be used now; ask again later, or see its log"
        return answer(request, 503, text)

    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> Response:
        return answer(request, 500, "a fault of the server; see its log")

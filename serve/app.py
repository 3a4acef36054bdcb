"""Server: one process per state folder, from settings to something that answers."""

import fcntl
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ..messages import one_line
from .catalogue import Catalogue
from .connections import bounded
from .job_process import JobProcess
from .jobs import JobTable
from .metrics import Metrics
from .results import Results
from .routes import make_routes
from .security import bracketed
from .settings import Settings
from .worker_loop import WorkerLoop


def make_app(settings: Settings, process: JobProcess | None = None) -> FastAPI:
    """The application; its worker loop starts with it, and is its `state.loop`.

    process: does the jobs [a `JobProcess`, started with the first of them].
    Raises what opening stores or state folder raises. The folder is to be locked.
    """
    (settings.state / "probes").mkdir(exist_ok=True)
    catalogue, results, metrics = Catalogue(settings), Results(settings.state / "results"), Metrics()
    results.clear()
    loop = WorkerLoop(
        JobTable(settings.state / "jobs.sqlite", results.jobs), results, process or JobProcess(settings), metrics,
        settings.max_queued, catalogue.open_again, settings.redact,
    )  # fmt: skip
    return make_routes(loop, catalogue, settings)


def run_server(settings: Settings, host: str, port: int, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM; the job under way is then put back into the queue.

    ready: called with the URL once it answers; port 0 is any free one.
    Raises OSError for an address that cannot be bound and a folder that is in use, and as `JobProcess.start`.
    """
    with locked(settings.state), _listening(host, port) as listening:
        process = JobProcess(settings)
        if settings.corpora:
            process.start()  # what is wrong with them is known before anything is served
        app = make_app(settings, process)
        ready(f"http://{bracketed(host)}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            app, http=bounded(), log_config=None, access_log=False, server_header=False, proxy_headers=False,
            lifespan="on", timeout_graceful_shutdown=5, ws="none", h11_max_incomplete_event_size=16_384,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A state folder, made where there is none, that no other process uses meanwhile."""
    lock = folder / "lock"
    if folder.is_dir() and any(folder.iterdir()) and not lock.is_file():
        raise OSError(
            f"{folder} holds other files; expected a new folder, or the state of a server: give another --state"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(
                f"{folder} cannot be locked ({one_line(error)}); expected a folder on a local disk that no other "
                "server uses: give another --state"
            ) from error
        yield


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(
            f"cannot listen at {host} port {port} ({one_line(error)}); expected an address of this machine and a free "
            "port: give another --port"
        ) from error

"""Server: one process per state folder, from settings to something that answers."""

import fcntl
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from ..ablate.jobs.process import JobProcess
from ..messages import one_line
from .connections import BoundedProtocol
from .routes import make_app
from .security import bracketed
from .settings import Settings


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
            app, http=BoundedProtocol, log_config=None, access_log=False, server_header=False, proxy_headers=False,
            lifespan="on", timeout_graceful_shutdown=5, ws="none", h11_max_incomplete_event_size=16_384,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A state folder, made where there is none, that no other process uses meanwhile."""
    lock = folder / "lock"
    if folder.is_dir() and any(folder.iterdir()) and not lock.is_file():
        raise OSError(f"{folder} holds other files; expected a new folder, or a server's: give another --state")
    folder.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
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

"""Service: ablations over HTTP, in one plain process or in replicas on Ray Serve.

Goal: from settings, which are plain values that can be sent to another machine, to something that answers.
Conventions: who starts the service chooses store, encoder, audio and state; requests choose among them by name. The
token is kept as its SHA-256. Replicas share the state folder, and nothing else.
"""

import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from ..extract.audio.manifest import read_manifest
from ..extract.models.registry import load_encoder
from ..extract.plan import to_device
from ..messages import one_line
from .catalogue import Catalogue
from .jobs import JobFolder
from .routes import make_app
from .security import Limits
from .worker_loop import LEASE_SECONDS, MAX_QUEUED, WorkerLoop

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
STOP_SECONDS = 30  # to end in
OBJECT_STORE_BYTES = 100 * 2**20  # nothing large goes through it
APPLICATION = "otoscope-ablation"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a replica needs."""

    store: str
    encoder: str
    """As in `load_encoder`."""
    corpora: Mapping[str, tuple[str, str | None]]
    """By task: manifest and audio root."""
    state: str
    """Folder of jobs and probes, shared by the replicas."""
    device: str | None = None
    limits: Limits = field(default_factory=Limits)
    max_queued: int = MAX_QUEUED
    lease: float = LEASE_SECONDS


def build(settings: Settings) -> FastAPI:
    """The application, everything loaded and checked; its worker loop starts with it.

    Raises what opening store, encoder, manifests or state folder raises.
    """
    folder = JobFolder(settings.state)
    encoder = to_device(load_encoder(settings.encoder), settings.device)
    corpora = {task: read_manifest(*given) for task, given in settings.corpora.items()}
    catalogue = Catalogue(
        settings.store, encoder, corpora, probes=Path(settings.state) / "probes", device=settings.device
    )
    loop = WorkerLoop(
        folder, catalogue.run, max_queued=settings.max_queued, lease=settings.lease, redact=catalogue.redact
    )
    app = make_app(loop, catalogue, settings.limits)
    app.state.loop = loop
    return app


def run_process(settings: Settings, host: str, port: int, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve in this process until SIGINT or SIGTERM; the job under way is then put back into the queue.

    ready: called with the URL once the port is bound; port 0 is any free one.
    Raises OSError for an address that cannot be bound.
    """
    app = build(settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="on",
            limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=5, ws="none",
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])


def run_on_ray(
    settings: Settings, host: str, port: int, *, replicas: int = 1, cpus: float = 1.0, gpus: float = 0.0,
    address: str | None = None, ready: Callable[[str], None] = lambda url: None, until: threading.Event | None = None,
) -> None:  # fmt: skip
    """Serve in replicas on Ray Serve, each pinned to its CPUs and GPUs, until the event or KeyboardInterrupt.

    address: of a running cluster, whose machines must have this package and see all the paths in the settings; None for
    one on this machine.
    Raises OSError where there is no such cluster.
    """
    if address is None and "ray" not in sys.modules:  # it reads these when it is imported
        # Ray opens ports on all interfaces: whoever does not know this token can do nothing there.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    from ray import serve

    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            options["num_cpus"] = max(1, math.ceil(replicas * cpus))
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray has replaced it by its own
        except (OSError, RuntimeError, ValueError) as error:
            raise OSError(
                f"no Ray cluster {address or 'on this machine'} ({one_line(error)}); expected one that runs: see `ray "
                "status`"
            ) from error
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        deployment = serve.deployment(
            name="ablation", num_replicas=replicas, health_check_period_s=5, graceful_shutdown_timeout_s=STOP_SECONDS,
            ray_actor_options={"num_cpus": cpus, "num_gpus": gpus}, logging_config={"enable_access_log": False},
        )(serve.ingress()(Replica))  # fmt: skip
        serve.run(deployment.bind(settings), name=APPLICATION, route_prefix="/")
        ready(f"http://{host}:{port}")
        (until or threading.Event()).wait()
    finally:
        if address is None:
            serve.shutdown()
        else:  # others may serve there too
            serve.delete(APPLICATION)
        if ours:
            ray.shutdown()


class Replica:
    """One replica on Ray Serve."""

    def __init__(self, settings: Settings) -> None:
        self._app = build(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    def check_health(self) -> None:
        """Raises where jobs are no longer taken: Serve then replaces the replica."""
        if not self._app.state.loop.alive:
            raise RuntimeError("no jobs are taken")

"""Ray: workers in actors, on one machine or many, any of which may die at any moment.

Goal: every piece ends exactly once as an event, whatever happens to actors and nodes, as long as some can be had.
Conventions: an actor that is lost is replaced here, never restarted by Ray, and what it may still do or answer counts
for nothing; pieces must therefore bear to be run twice. Resources are Ray's own: CPUs and GPUs, fractions allowed; they
decide where actors fit, and which GPU one sees. Two private interfaces of Ray are used, in `_connect` and below it;
`pyproject.toml` therefore bounds its version.
"""

import importlib
import itertools
import logging
import math
import os
import pickle
import platform
import socket
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import ray
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from ..messages import one_line
from .executor import IN_FLIGHT, Event, Piece, Result, WorkerState, close, timed
from .pool import POLL_SECONDS, Lost, Pool, Raised
from .ray_token import make_token
from .resources import this_machine

LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, ObjectLostError, RuntimeEnvSetupError)
OBJECT_STORE_BYTES = 256 * 2**20  # on a machine of our own: it holds what makes a worker, and little else
CONNECT_SECONDS = 5.0  # that the head of a cluster has to accept a connection
RAY_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}


class WorkerHost:
    """An actor's process, which hosts one worker. `work` may be called by several threads once `make` returned None.

    A worker's exceptions become answers, so that whatever else the pool sees means that the process is gone.
    """

    def __init__(self) -> None:
        self.worker: Callable[[Any], Any] | None = None

    def locate(self) -> tuple[str, int]:
        """Machine and process: answered as soon as there is one."""
        return platform.node(), os.getpid()

    def make(self, make_worker: Callable[[], Callable[[Any], Any]]) -> Raised | None:
        """Make the worker."""
        try:
            self.worker = make_worker()
        except Exception as error:
            return Raised.of(error)
        return None

    def work(self, piece: Any) -> tuple[Any, float] | Raised:
        """The result of a piece and the seconds it took, or what it raised."""
        assert self.worker is not None
        try:
            return timed(self.worker, piece)
        except Exception as error:
            return Raised.of(error)

    def end(self) -> None:
        """Let the worker close."""
        close(self.worker)


class RayExecutor:
    """Workers in Ray actors, replaced as they die.

    with RayExecutor(address="auto", gpus_per_actor=1) as executor:
        for event in executor.run(make_worker, pieces): ...

    address: None for a cluster of this machine alone, that lives as long as the executor; "auto" for the one that this
        machine is part of, or its HOST:PORT. There the package is sent along, so that nodes need not have it.
    actors: how many at most, or None for as many as fit; a cluster that grows on demand should be told how many.
    cpus_per_actor, gpus_per_actor: what each takes up; below one GPU, several share it.
    retries: so many workers lost under a piece, and it is given up.
    node_timeout: seconds to wait for a node that has what an actor needs.
    stuck_after: seconds without an answer after which an actor at work is taken for lost; None for never.
    Where Ray is initialised already, that is used as it is, and left running.
    """

    name, remote = "ray", True

    def __init__(
        self,
        address: str | None = None,
        actors: int | None = None,
        cpus_per_actor: float = 1.0,
        gpus_per_actor: float = 0.0,
        retries: int = 3,
        node_timeout: float = 300.0,
        stuck_after: float | None = None,
    ):
        if actors is not None and actors < 1:
            raise ValueError(f"{actors} actors were asked for; expected at least 1, or no number for as many as fit")
        if cpus_per_actor < 0 or gpus_per_actor < 0 or not cpus_per_actor + gpus_per_actor:
            raise ValueError(
                f"an actor is to take {cpus_per_actor:g} CPUs and {gpus_per_actor:g} GPUs; expected something of one "
                "of them, or the cluster would have room for any number"
            )
        if gpus_per_actor > 1 and gpus_per_actor != int(gpus_per_actor):
            raise ValueError(f"an actor is to take {gpus_per_actor:g} GPUs; expected a fraction of one, or whole ones")
        if stuck_after is not None and stuck_after <= 0:
            raise ValueError(f"workers are to be stuck after {stuck_after:g} s; expected more than 0, or no limit")
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                f"{address} is for clients outside of a cluster; expected HOST:PORT, or auto on one of its nodes: run "
                "the command there, or send it there with `ray job submit`"
            )
        self.address, self.actors, self.retries, self.node_timeout = address, actors, retries, node_timeout
        self.stuck_after = math.inf if stuck_after is None else stuck_after
        self.needs = {"CPU": float(cpus_per_actor), "GPU": float(gpus_per_actor)}
        self.cpus_per_worker: float | None = self.needs["CPU"]
        self._ours = False
        self._states: dict[str, WorkerState] = {}

    def run(
        self, make_worker: Callable[[], Callable[[Piece], Result]], pieces: Iterable[Piece]
    ) -> Generator[Event[Piece, Result]]:
        """One event per piece, as they end. `make_worker` and pieces are pickled, by value where they are no module's.

        Raises OSError where no worker can be had, what `make_worker` raises where it is a ValueError or LookupError,
        again and again, and ValueError where it cannot be sent.
        """
        waiting = iter(pieces)
        for first in waiting:
            self._connect()
            try:
                sent = ray.put(make_worker)
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                raise ValueError(
                    f"what makes a worker cannot be sent to where it runs ({one_line(error, whole=True)}); "
                    "expected plain values, functions and names: leave out open files, locks and the like"
                ) from error
            todo = itertools.chain([first], waiting)
            pool = Pool[Piece, Result](
                _RayActors(self), sent, todo, self.retries, self._states, stuck_after=self.stuck_after
            )
            try:
                yield from pool.events()
            except RayError as error:
                raise OSError(
                    f"the Ray cluster is gone ({one_line(error, whole=True)}); expected its head to last as "
                    "long as the run: start it again, and run the same command again"
                ) from error

    def workers(self) -> tuple[WorkerState, ...]:
        """Every actor so far."""
        return tuple(self._states.values())

    @property
    def on_this_machine(self) -> bool:
        """Whether the cluster is this machine alone; not known of one that somebody else started."""
        return self.address is None and (self._ours or not ray.is_initialized())

    def max_workers(self) -> int:
        """As many as were asked for, else as the nodes have room for; before there is a run, as this machine has."""
        return self.actors or self.capacity()

    def capacity(self) -> int:
        """How many actors the nodes have room for."""
        nodes = _nodes() if ray.is_initialized() else [{"CPU": float(this_machine(None).cores)}]
        return sum(_fit(self.needs, node) for node in nodes)

    def close(self) -> None:
        """Leave the cluster, or end the one of our own."""
        if self._ours:
            self._ours = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        for name, value in RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self.address is None:
            make_token()
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            options["num_cpus"] = max(this_machine(None).cores, math.ceil((self.actors or 0) * self.needs["CPU"]))
        else:
            options |= {"address": self.address, "runtime_env": _package()}
            _check_listening(self.address)
        try:
            with _own_sigterm_handler():
                ray.init(**options)
        except Exception as error:  # plain ones among them, as where it does not start in time
            where = "on this machine" if self.address is None else f"at {self.address}"
            raise OSError(
                f"no Ray cluster {where} ({one_line(error, whole=True)}); expected one that runs the same versions "
                "of Python and Ray: see `ray status` there, or leave --address out to use this machine alone"
            ) from error
        self._ours = True
        # Ray prints a paragraph on standard output for each actor that dies; what became of it is in our events.
        ray._private.worker._worker_logs_enabled = False


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep our handler of SIGTERM while Ray starts: its own ends the process with another status and no message."""
    name = "set_sigterm_handler"
    rays = getattr(ray._private.utils, name)
    setattr(ray._private.utils, name, lambda _: None)
    try:
        yield
    finally:
        setattr(ray._private.utils, name, rays)


def _check_listening(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would try for more than a minute."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise OSError(
            f"nothing answers at {address} ({one_line(error, whole=True)}); expected the head of a Ray cluster: "
            "see `ray status` there, or leave --address out to use this machine alone"
        ) from error


def _package() -> dict[str, Any]:
    """The runtime environment that brings this package to nodes which lack it, links followed."""
    top = importlib.import_module(__name__.partition(".")[0])
    return {"py_modules": [top.__path__[0]], "excludes": ["__pycache__"]}


class _RayActors:
    """Actors of Ray, as a `Pool` sees them."""

    def __init__(self, executor: RayExecutor):
        self.executor, self.looked, needs = executor, -math.inf, executor.needs
        self.host = ray.remote(WorkerHost).options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_restarts=0, max_task_retries=0, max_concurrency=IN_FLIGHT
        )

    def ask(self) -> Any:
        return self.host.remote()

    def call(self, actor: Any, method: str, *given: Any) -> Hashable:
        answer: Hashable = getattr(actor, method).remote(*given)
        return answer

    def ready(self, answers: list[Any], seconds: float, every: bool = False) -> list[Any]:
        done: list[Any] = ray.wait(answers, num_returns=len(answers) if every else 1, timeout=seconds)[0]
        return done

    def value(self, answer: Any) -> Any:
        try:
            return ray.get(answer)
        except LOST as error:
            if getattr(error, "actor_init_failed", False):  # not a death: the node lacks what it takes
                return Raised.of(OSError(str(error).strip().splitlines()[-1].strip()))
            raise Lost(_how(error)) from error
        except RayTaskError as error:
            return Raised.of(error.cause if isinstance(error.cause, Exception) else error)
        except Exception as error:  # an answer that cannot be brought here
            return Raised.of(error)

    def end(self, actor: Any) -> None:
        if ray.is_initialized():  # or it is gone already
            with suppress(Exception):
                ray.kill(actor, no_restart=True)

    def room(self, n_actors: int, n_not_located: int) -> int:
        """A given number at once: Ray lets them wait, and a cluster that grows on demand sees them. Else what fits."""
        if self.executor.actors is not None:
            return self.executor.actors - n_actors
        if time.monotonic() - self.looked < POLL_SECONDS:
            return 0
        self.looked, needs = time.monotonic(), self.executor.needs
        beside_ours = self.executor.capacity() - n_actors
        free = _fit(needs, ray.available_resources()) - n_not_located
        return max(min(beside_ours, free), not n_actors)

    def shortage(self, seconds: float) -> str:
        """Raises OSError where no node has what an actor takes."""
        asked = _listed(self.executor.needs)
        has = _listed(ray.cluster_resources())
        if any(_fit(self.executor.needs, node) for node in _nodes()):
            return f"waiting for room for an actor of {asked}: the cluster has {has}, but others use it"
        if self.executor.on_this_machine or seconds > self.executor.node_timeout:
            raise OSError(
                f"no node has room for an actor of {asked}: all of them together have {has}; expected one that has: "
                "ask for less by --cpus-per-actor and --gpus-per-actor, or add nodes"
            )
        return f"waiting for a node with room for an actor of {asked}: the cluster has {has}"


def _nodes() -> list[dict[str, float]]:
    """What each node has that is alive."""
    nodes = ray.nodes()
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fit(needs: dict[str, float], has: dict[str, float]) -> int:
    """How many actors fit; a fraction of a GPU is always one of the same GPU."""
    fits = []
    for name, need in needs.items():
        there = has.get(name, 0.0)
        if need:
            fits.append(
                there * (1 / need + 1e-9) // 1 if name == "CPU" or need >= 1 else there * ((1 / need + 1e-9) // 1)
            )
    return int(min(fits))


def _listed(resources: dict[str, float]) -> str:
    """CPUs and GPUs for a person to read."""
    parts = [f"{resources.get(name, 0.0):g} {name}{'s' * (resources.get(name, 0.0) != 1)}" for name in ("CPU", "GPU")]
    return " and ".join(parts)


def _how(error: RayError) -> str:
    """What became of a worker, in few words."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "due to the node running low on memory" in text:
        return "its node ran out of memory"
    if isinstance(error, RuntimeEnvSetupError):
        return f"its environment could not be set up: {one_line(error, whole=True)}"
    return "its node was lost" if "node has died" in text or "node was" in text else "its process died"

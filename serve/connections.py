"""Connections: how many there may be, and for how long without a request. The one file that knows uvicorn's inside.

Goal: whoever opens connections and says nothing, drips, or does not read, takes no place from those who ask.
Conventions: a subclass of uvicorn's protocol on h11, by attributes that are not public: `pyproject.toml` bounds its
version, and tests/serve/test_connections.py tells whether they are still there.
"""

import asyncio
import math
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
REQUEST_SECONDS = 10.0  # for a whole request to arrive, body included, from the connection or the last answer on
READ_SECONDS = 60.0  # for a client to read what it is sent, once that is more than is sent ahead


class BoundedProtocol(H11Protocol):
    """A connection that is closed unless a whole request arrives in time, and is read.

    Where there are too many, the one that has been without a request for longest is closed.
    """

    waiting_since = math.inf
    """By the loop's clock; infinite while there is a whole request."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request; end another connection where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait()
        if len(self.connections) > MAX_CONNECTIONS:
            oldest = min(cast("set[BoundedProtocol]", self.connections), key=lambda each: each.waiting_since)
            self.connections.discard(oldest)
            oldest._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._end_wait()

    def handle_events(self) -> None:
        """Wait no longer once a request is there whole."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self._end_wait()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._arm(READ_SECONDS)

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        self._arm(REQUEST_SECONDS if self.waiting_since < math.inf else None)

    def _wait(self) -> None:
        self.waiting_since = self.loop.time()
        self._arm(READ_SECONDS if self.flow.write_paused else REQUEST_SECONDS)

    def _end_wait(self) -> None:
        self.waiting_since = math.inf
        self._arm(READ_SECONDS if self.flow.write_paused else None)

    def _arm(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._abort)

    def _abort(self) -> None:
        self._end_wait()
        self.transport.abort()

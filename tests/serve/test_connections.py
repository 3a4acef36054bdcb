"""Connections: those who say nothing, drip or do not read keep nobody else from being answered."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from otoscope.serve import connections, security
from otoscope.serve.client import Client
from otoscope.serve.routes import make_app
from otoscope.serve.security import token_digest

from ..support.running_service import ServedStore, listening

TOKEN = "correct-horse-battery-staple"
DRIPS: tuple[bytes, ...] = (b"", b"G", b"GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nX: ")
BODY = b"POST /api/ablations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
DRIPS += (BODY + b"\r\n{", BODY + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n{")


@pytest.fixture
def url(stored: ServedStore, tmp_path: Path) -> Iterator[str]:
    with listening(make_app(stored.settings(tmp_path / "s", token=token_digest(TOKEN), corpora={}))) as url:
        yield url


def connected(url: str, sent: bytes = b"") -> socket.socket:
    parts = urlsplit(url)
    made = socket.create_connection((parts.hostname, parts.port), timeout=60)
    made.sendall(sent)
    return made


def closed(connection: socket.socket) -> bool:
    """Wait for its end; whether it came before the socket's own timeout."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def check_crowd(url: str, n: int) -> None:
    """So many connections that say nothing, or not all; each goes on dripping while others are answered."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(url, DRIPS[i % len(DRIPS)])) for i in range(n)]
        for _ in range(3):
            with connected(url, b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n") as health:
                assert health.recv(100).startswith(b"HTTP/1.1 200")
            assert Client(url, TOKEN).tasks()
            for connection in crowd:
                with suppress(OSError):  # it was closed
                    connection.sendall(b"x")
        with pytest.raises(PermissionError):
            Client(url, "").tasks()
        crowd[0].settimeout(5.0)
        assert closed(crowd[0])  # it said nothing, for longest


def test_a_crowd_that_says_nothing_keeps_nobody_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1000.0)
    check_crowd(url, connections.MAX_CONNECTIONS + 20)


@pytest.mark.slow
def test_a_thousand(url: str) -> None:
    check_crowd(url, 1000)


def test_a_request_that_does_not_arrive_whole_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    for drip in DRIPS:
        with connected(url, drip) as connection:
            assert closed(connection)
    with connected(url, b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:  # then nothing
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert closed(connection)


def test_a_client_that_does_not_read_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking again and again, reading nothing."""
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    ask = f"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()

    def ask_on(connection: socket.socket) -> None:
        while True:
            with suppress(TimeoutError):  # it takes no more: its answers are not read
                connection.sendall(ask * 100)

    with connected(url) as connection:
        connection.settimeout(0.5)
        with pytest.raises(ConnectionError):
            ask_on(connection)


def test_a_server_that_is_busy_refuses_all_but_health(
    stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(stored.settings(tmp_path / "s", corpora={}))
    assert security.MAX_ANSWERING < connections.MAX_CONNECTIONS  # or there is no connection left for health
    monkeypatch.setattr(security, "MAX_ANSWERING", 1)
    began, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> dict[str, int]:
        began.set()
        go_on.wait(60)
        return {}

    monkeypatch.setattr("otoscope.ablate.offer.Offer.sets", slow)
    request: Callable[[str], bytes] = lambda path: f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()  # noqa: E731
    with listening(app) as url, connected(url, request("/api/selections?task=t&label=letter")) as first:
        assert began.wait(60)
        for path, status in (("/api/tasks", b"503"), ("/api/health/live", b"200"), ("/api/health/ready", b"200")):
            with connected(url, request(path)) as other:
                assert other.recv(100).split()[1] == status
        go_on.set()
        assert first.recv(100).split()[1] == b"200"


def test_what_is_used_of_uvicorn_is_there() -> None:
    """The methods and attributes that are overridden or read, which are not public."""
    assert issubclass(connections.BoundedProtocol, H11Protocol)
    for name in ("connection_made", "connection_lost", "handle_events", "on_response_complete", "pause_writing"):
        assert callable(getattr(H11Protocol, name))

"""The client, against a service over a real socket, and against servers that misbehave."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from otoscope.ablate.result import read_result, write_result
from otoscope.ablate.study import look_up, run_study
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.registry import load_encoder
from otoscope.serve.client import Client
from otoscope.serve.routes import make_app
from otoscope.serve.security import token_digest

from ..support.running_service import ENCODER, NOBODY, SELECTION, HereProcess, ServedStore, asked, listening

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def url(stored: ServedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that knows a token."""
    settings = stored.settings(tmp_path_factory.mktemp("service") / "s", token=token_digest(TOKEN))
    with listening(make_app(settings, HereProcess(settings))) as url:
        yield url


@pytest.fixture(scope="module")
def service(url: str) -> Client:
    return Client(url, TOKEN)


def test_a_result_comes_back_as_the_study_gives_it(service: Client, stored: ServedStore, tmp_path: Path) -> None:
    whole = run_study(look_up(asked(), stored.url), load_encoder(ENCODER), read_manifest(stored.manifest))
    write_result(whole, tmp_path / "r.parquet")
    xr.testing.assert_identical(service.run(asked(), timeout=300), read_result(tmp_path / "r.parquet"))


def test_everything_can_be_listed(service: Client) -> None:
    job = service.submit(asked())
    service.wait(job)
    assert [task["task"] for task in service.tasks()] == ["t"]
    assert service.categories("t", "letter") == dict.fromkeys("abcd", 15)
    assert service.sets("t", "letter", SELECTION)["only(d)"] == 7
    confirmed, rest = (
        service.sets("t", "letter", Selection(clips="all", **{field: condition}))
        for field, condition in (("confirm", "split=test"), ("where", "split!=test"))
    )
    assert confirmed == rest
    assert job in [found["id"] for found in service.jobs("done")]
    assert service.probes()[0]["labelling"] == "t:letter"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda c: c.job(NOBODY), LookupError, "no job 0000"),
        (lambda c: c.job("../tasks"), LookupError, "."),
        (lambda c: c.categories("t/../t", "letter"), LookupError, "."),
        (lambda c: c.submit(asked(set="only(z)")), ValueError, "no category 'z'"),
        (lambda c: c.cancel(c.submit(asked())), ValueError, "the job is done"),
        (lambda c: Client(c.url, "another-token-altogether").tasks(), PermissionError, "no valid token"),
        (lambda c: Client(c.url, "").tasks(), PermissionError, "no valid token"),
    ],
)
def test_refusals_are_errors_of_one_line(
    service: Client, call: Callable[[Client], object], kind: type[Exception], message: str
) -> None:
    service.wait(service.submit(asked()))
    with pytest.raises(kind, match=message) as raised:
        call(service)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    for job in service.jobs("running"):
        service.cancel(job["id"])


def test_a_job_that_failed_says_why(service: Client) -> None:
    with pytest.raises(ValueError, match=r"failed: .*only\(c\) has no neurons"):
        service.run(asked(set="only(c)", selection=Selection(percentile=0.6, clips="all")), timeout=300)


URLS = ["ftp://x", "localhost:80", "http://me:secret@host", "http://h/?key=secret", "http://h:99999", "http://[::1"]


@pytest.mark.parametrize(
    ("url", "token"), [*((url, None) for url in URLS), ("http://h", "se\ncret"), ("http://h", "sé")]
)
def test_urls_without_secrets_and_tokens_of_letters_only(url: str, token: str | None) -> None:
    with pytest.raises(ValueError, match=r"expected http://HOST:PORT|expected letters|range|Invalid") as raised:
        Client(url, token)
    assert "cret" not in str(raised.value)


def test_the_link_that_was_printed_may_be_given(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTOSCOPE_TOKEN", "of-another-server")
    client = Client(f"{url}/?token={TOKEN}")
    assert client.tasks()
    assert client.url == url


def test_the_environment_may_hold_the_token(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTOSCOPE_TOKEN", TOKEN)
    assert Client(url).tasks()


@contextmanager
def scripted(*answers: tuple[int, dict[str, str], Any]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that gives these answers in turn, the last one for ever; the headers that it was sent."""
    left, received = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(dict(self.headers))
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            if not status:  # hang up without a word
                self.close_connection = True
                return
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def test_what_passes_is_tried_again() -> None:
    busy = (429, {"Retry-After": "0"}, {"error": "2 jobs are waiting"})
    with scripted((0, {}, None), (503, {}, {}), (500, {}, "?"), busy, (200, {}, [])) as (url, received):
        assert Client(url, "").tasks() == []
        assert len(received) == 5


@dataclass
class Clock:
    """Time that passes in sleep alone, however busy the machine is."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_cannot_be_unpacked_is_no_answer() -> None:
    with (
        scripted((200, {"Content-Encoding": "gzip"}, [])) as (url, _),
        pytest.raises(OSError, match="no answer from http"),
    ):
        Client(url, "", timeout=0).tasks()


def test_waiting_ends_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("otoscope.serve.client.time", clock)
    with scripted((429, {"Retry-After": "600"}, {"error": "2 jobs are waiting"})) as (url, received):
        with pytest.raises(OSError, match="2 jobs are waiting"):
            Client(url, "", timeout=30).tasks()
        assert (len(received), clock.now) == (2, 30)
    with pytest.raises(OSError, match=r"no answer from http://127\.0\.0\.1:.*refused"):
        Client(url, "", timeout=30).tasks()
    assert clock.now == 60
    with scripted((200, {}, {"state": "running"})) as (url, received):
        with pytest.raises(TimeoutError, match=r"job 0{12} is running after 5 s; expected it to have ended"):
            Client(url, "").wait("0" * 64, timeout=5)
        assert len(received) > 3


def test_the_token_goes_nowhere_else() -> None:
    with scripted((200, {}, [])) as (other, stolen):
        with (
            scripted((302, {"Location": f"{other}/tasks"}, {})) as (url, received),
            pytest.raises(OSError, match="answer 302"),
        ):
            Client(url, TOKEN).tasks()
        assert {name.lower(): value for name, value in received[0].items()}["authorization"] == f"Bearer {TOKEN}"
        assert not stolen

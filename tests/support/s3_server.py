"""A local S3 server (moto) that counts requests and, when asked, fails or delays them."""

import http.client
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

BUCKET = "sounds"
SECRET = "canary-Zf3q9-secret"
Fault = Callable[[str, str], int | float | None]


@dataclass(kw_only=True)
class ObjectServer:
    """Where it is and what was asked of it."""

    port: int
    log: list[tuple[str, str]] = field(default_factory=list)
    """(method, key) of every request, the bucket left out, "?..." for listings."""
    fault: Fault | None = None
    """What to do to a request: answer it with a status (int), or wait so many seconds first (float)."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "canary-key-id",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
        }

    def asked(self, method: str, path: str, query: str) -> int | float | None:
        """Note a request, and say what is to be done to it."""
        key = path.removeprefix(f"/{BUCKET}").lstrip("/") + (f"?{query}" if query else "")
        self.log.append((method, key))
        return self.fault(method, key) if self.fault else None

    def count(self) -> Counter[str]:
        """Requests by method, listings as LIST."""
        return Counter("LIST" if key.startswith("?") else method for method, key in self.log)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix, by its key relative to it."""
        import obstore
        from obstore.store import S3Store

        store = S3Store(
            BUCKET, prefix=prefix, endpoint=f"http://127.0.0.1:{self.port}", access_key_id="x", secret_access_key="y",
            region="us-east-1", client_options={"allow_http": True},
        )  # fmt: skip
        keys = [found["path"] for batch in obstore.list(store) for found in batch]
        return {key: obstore.get(store, key).bytes().to_bytes() for key in sorted(keys)}


@contextmanager
def serving() -> Iterator[ObjectServer]:
    """An S3 server on a free port of the loopback with an empty bucket."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Silent(MotoRequestHandler):  # type: ignore[misc]
        protocol_version = "HTTP/1.1"  # connections are kept, as a real server does

        def log(self, *_: Any) -> None:
            pass

    conditional = threading.Lock()  # a real server looks and writes at once
    behind = DomainDispatcherApplication(create_backend_app)
    state = ObjectServer(port=0)

    def front(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        what = state.asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        if isinstance(what, float):
            time.sleep(what)
        if not isinstance(what, int):
            with conditional if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
                return cast(Iterable[bytes], behind(environ, start_response))
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        answer = b"<Error><Code>SlowDown</Code><Message>Please wait</Message></Error>"
        start_response(f"{what} {HTTPStatus(what).phrase}", [("Content-Length", str(len(answer)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer]

    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Silent)
    server.daemon_threads = True  # type: ignore[attr-defined]
    server.block_on_close = False  # type: ignore[attr-defined]
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        for method, path in (("POST", "/moto-api/reset"), ("PUT", f"/{BUCKET}")):
            connection = http.client.HTTPConnection("127.0.0.1", state.port)
            connection.request(method, path, headers={"Connection": "close"})
            assert connection.getresponse().status == 200
            connection.close()
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    """Serve until standard input ends; the port is the first line of standard output.

    The first argument: seconds that every request waits.
    """
    latency = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    with serving() as server:
        server.fault = (lambda method, key: latency) if latency else None
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()

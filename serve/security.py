"""Security: what stands before the routes, and lets pass only what may.

Goal: unknown hosts (a page in a browser that had its own name point here), missing tokens and forms sent by other pages
are answered before anything looks at them.
Conventions: an ASGI middleware. Answers are JSON, {"error": one line}. The token is known by its SHA-256 alone.
"""

import hashlib
import hmac
import os
import re
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..files import whole_file
from .connections import MAX_CONNECTIONS
from .metrics import Metrics
from .settings import TOKEN, Settings

HEALTH = ("/api/health/live", "/api/health/ready")
MIN_TOKEN = 16  # characters
MAX_BYTES = 65_536  # of a request's body
MAX_ANSWERING = MAX_CONNECTIONS // 2  # requests at a time; health is answered beyond that
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(:\d{1,5})?")


class Guard:
    """Passes requests within the limits on to an application, and counts all by method and status."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics, self.answering = app, settings, metrics, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        refused = self._refusal(scope, Headers(scope=scope))
        self.answering += 1
        try:
            await (refused or self.app)(scope, receive, counted)
        finally:
            self.answering -= 1
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
            self.metrics.answers.labels(method, status).inc()

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        path, length = scope["path"], headers.get("content-length", "0")
        if not (host := host_of(headers.get("host", ""))) or host not in self.settings.hosts:
            return _problem(400, "unknown host; expected a name that the server was started for: see --allow-host")
        if path in HEALTH:
            return None
        given = token_digest(_token_in(scope, headers))
        if self.settings.token and not hmac.compare_digest(given, self.settings.token):
            error = "no valid token; expected the header Authorization: Bearer TOKEN"
            return _problem(401, error, {"WWW-Authenticate": "Bearer"})
        if self.answering >= MAX_ANSWERING:
            return _problem(503, "too many requests at a time; expected fewer: ask again", {"Retry-After": "1"})
        if not length.isdecimal() or len(length) > 18 or int(length) > MAX_BYTES:
            return _problem(413, f"the body is too large; expected at most {MAX_BYTES} bytes")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return _problem(415, "expected a body of Content-Type application/json")
        return None


def _token_in(scope: Scope, headers: Headers) -> str:
    """The token of a request: a bearer's, or of the link that was printed."""
    sent = headers.getlist("authorization")
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    if scheme.lower() == "bearer":
        return token.strip()
    return QueryParams(scope["query_string"]).get("token", "") if scope["path"] == "/" and not sent else ""


def _problem(status: int, error: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": error}, status, headers)


def read_token(path: str | None) -> str:
    """The token of a file or of the environment, "" for none. Raises ValueError for one that is too short."""
    if path is None:
        token, where = os.environ.get(TOKEN, ""), TOKEN
    else:
        token, where = Path(path).read_text(encoding="utf-8").strip(), path
    if (token or path) and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError(
            f"the token in {where} is short or has odd characters; expected at least {MIN_TOKEN} letters and digits: "
            "make one with `openssl rand -hex 32`"
        )
    return token


def write_secret(token: str, path: str) -> None:
    """Write a token to a file that its owner alone can read. Raises as `whole_file`."""
    with whole_file(path) as partial:
        partial.touch(0o600)
        partial.write_text(token + "\n")


def token_digest(token: str) -> str:
    """SHA-256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def bracketed(host: str) -> str:
    """An address as URLs have it: "::1" -> "[::1]"."""
    return f"[{host}]" if ":" in host else host


def host_of(header: str) -> str:
    """The name in a Host header or an address, in lower case and without port, "" for none: "[::1]:80" -> "[::1]"."""
    found = HOST.fullmatch(header.lower())
    return found[1] if found else ""

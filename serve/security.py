"""Security: what stands before the routes, and lets pass only what may.

Goal: unknown hosts (a page in a browser that had its own name point here), missing tokens and forms sent by other pages
are answered before anything looks at them.
Conventions: an ASGI middleware. Answers are JSON, {"error": one line}, below /api, else the line. The token is known by
its SHA-256 alone. A browser brings it once, in the printed link, and then as a cookie that no script can read and no
other page sends; cookies are shared by all ports of a host, so that its name holds ours.
"""

import hashlib
import hmac
import os
import re
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..files import whole_file
from .connections import MAX_CONNECTIONS
from .metrics import Metrics
from .settings import TOKEN, Settings

HEALTH = ("/api/health/live", "/api/health/ready")
MIN_TOKEN = 16  # characters
MAX_BYTES = 65_536  # of a request's body
MAX_ANSWERING = MAX_CONNECTIONS // 2  # requests at a time; health is answered beyond that
CSP = "; ".join(
    [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "media-src 'self'",
        "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
    ]
)  # fmt: skip
ALWAYS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer."""
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
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    sent[name] = value
                sent.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(scope, Headers(scope=scope))
        self.answering += 1
        try:
            await (refused or self.app)(scope, receive, counted)
        finally:
            self.answering -= 1
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
            self.metrics.answers.labels(method, status).inc()

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, length = scope["path"], headers.get("content-length", "0")

        def problem(status: int, error: str, more: dict[str, str] | None = None) -> Response:
            if path.startswith("/api") or path.startswith("/m/"):
                return JSONResponse({"error": error}, status, more)
            return PlainTextResponse(f"{error}\n", status, more)

        if not (host := host_of(headers.get("host", ""))) or host not in self.settings.hosts:
            return problem(400, "unknown host; expected a name that the server was started for: see --allow-host")
        if path in HEALTH:
            return None
        if (entering := self._entering(scope, headers)) is not None:
            return entering
        bearer, cookie = _bearer(headers), _cookies(headers).get(cookie_name(scope), "")
        if self.settings.token and not self._is_valid(cookie if bearer is None else bearer):
            error = (
                "no valid token; expected the header Authorization: Bearer TOKEN, or in a browser the link that "
                "`otoscope serve` printed: open it again"
            )
            return problem(401, error, {"WWW-Authenticate": "Bearer"})
        if self.answering >= MAX_ANSWERING:
            return problem(503, "too many requests at a time; expected fewer: ask again", {"Retry-After": "1"})
        if not length.isdecimal() or len(length) > 18 or int(length) > MAX_BYTES:
            return problem(413, f"the body is too large; expected at most {MAX_BYTES} bytes")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return problem(415, "expected a body of Content-Type application/json")
        if scope["method"] not in ("GET", "HEAD") and not _is_own_origin(headers, demanded=bearer is None and cookie):
            return problem(403, "the request comes from another page; expected one of this server's own")
        return None

    def _is_valid(self, token: str) -> bool:
        return hmac.compare_digest(token_digest(token), self.settings.token)

    def _entering(self, scope: Scope, headers: Headers) -> Response | None:
        """To the first page without the token of the printed link, which becomes a cookie; None for other requests."""
        query = QueryParams(scope["query_string"])
        asked = scope["path"] == "/" and scope["method"] == "GET" and "token" in query
        if not asked or not self.settings.token or "authorization" in headers:
            return None
        if not self._is_valid(query["token"]):
            error = "no valid token in this link; expected the one that `otoscope serve` printed when it last started\n"
            return PlainTextResponse(error, 401, {"WWW-Authenticate": "Bearer"})
        answer = RedirectResponse("/", 303)
        answer.set_cookie(cookie_name(scope), query["token"], httponly=True, samesite="strict", path="/")
        return answer


def cookie_name(scope: Scope) -> str:
    """Name of the cookie that holds the token: with the port at which the server listens."""
    server = scope.get("server") or ("", 0)
    return f"otoscope_{server[1]}"


def _cookies(headers: Headers) -> dict[str, str]:
    return cookie_parser("; ".join(headers.getlist("cookie")))


def _bearer(headers: Headers) -> str | None:
    """The token of a bearer, None where the request has no such header."""
    sent = headers.getlist("authorization")
    if not sent:
        return None
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_own_origin(headers: Headers, demanded: object) -> bool:
    """Whether a request that changes something comes from our own pages, or from no page.

    demanded: whether it must be said, as of requests that a browser makes with its cookie.
    """
    origin = headers.get("origin")
    if origin is None:
        return not demanded
    return origin.lower() in (f"{scheme}://{headers.get('host', '').lower()}" for scheme in ("http", "https"))


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

"""Security middleware: what stands before the service, and lets pass only what may.

Goal: unknown hosts (a page in a browser that had its own name point here), missing tokens, bodies that are too large
or too slow, and forms sent by other pages are answered before anything looks at them.
Conventions: an ASGI middleware. Answers are JSON, {"error": one line}. The token is known by its SHA-256 alone.
"""

import asyncio
import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
WITHOUT_TOKEN = ("/health/live", "/health/ready")
TOKEN = "OTOSCOPE_TOKEN"  # environment variable
MIN_TOKEN = 16  # characters
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What passes."""

    hosts: tuple[str, ...] = LOOPBACK
    """Names under which the service may be called, without port."""
    token: str = ""
    """SHA-256 of the token in hexadecimal digits; "" where none is needed."""
    max_bytes: int = 65_536
    """Of a request's body."""
    body_timeout: float = 10.0
    """Seconds for a whole body to arrive."""


class SecurityMiddleware:
    """Passes requests within the limits on to an application, and counts all by method and status."""

    def __init__(self, app: App, limits: Limits, answered: "Counter[tuple[str, int]]") -> None:
        self.app, self.limits, self.answered = app, limits, answered

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "other"
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = _headers(scope)
            refusal = self._refusal(scope, headers)
            body = b""
            if refusal is None:
                refusal, body = await self._body(headers, receive)
            if refusal is not None:
                await _answer(counted, *refusal)
                return
            await self.app(scope, _replay(body, receive), counted)
        finally:
            self.answered[method, status] += 1

    def _refusal(self, scope: MutableMapping[str, Any], headers: dict[str, list[str]]) -> tuple[int, str] | None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or host_of(hosts[0]) not in self.limits.hosts:
            return 400, "unknown host; expected a name that the service was started for: see --allow-host"
        if self.limits.token and scope["path"] not in WITHOUT_TOKEN and not self._has_token(headers):
            return 401, "no valid token; expected the header Authorization: Bearer TOKEN"
        if scope["method"] == "POST":
            kinds = headers.get("content-type", [""])
            if kinds[0].partition(";")[0].strip().lower() != "application/json":
                return 415, "expected a body of Content-Type application/json"
        return None

    def _has_token(self, headers: dict[str, list[str]]) -> bool:
        sent = headers.get("authorization", [""])
        scheme, _, token = sent[0].partition(" ")
        given = token_digest(token.strip()) if len(sent) == 1 and scheme.lower() == "bearer" else ""
        return hmac.compare_digest(given.encode(), self.limits.token.encode())

    async def _body(self, headers: dict[str, list[str]], receive: Receive) -> tuple[tuple[int, str] | None, bytes]:
        """The whole body, or why not: it is held here, so that nothing behind has to count bytes."""
        limit = self.limits.max_bytes
        too_large = 413, f"the body is too large; expected at most {limit} bytes"
        length = headers.get("content-length", ["0"])[0]
        if length.isdecimal() and (len(length) > 18 or int(length) > limit):
            return too_large, b""
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return (400, "the connection was closed"), b""
                    body += message.get("body", b"")
                    if len(body) > limit:
                        return too_large, b""
                    if not message.get("more_body", False):
                        return None, bytes(body)
        except TimeoutError:
            return (408, f"the body did not arrive; expected it within {self.limits.body_timeout:g} s"), b""


def read_token(path: str | None) -> str:
    """The token of a file or of the environment, "" for none. Raises ValueError for one that is too short."""
    if path is None:
        token, where = os.environ.get(TOKEN, ""), TOKEN
    else:
        token, where = Path(path).read_text(encoding="utf-8").strip(), path
        if not token:
            raise ValueError(f"{path} is empty; expected a token of at least {MIN_TOKEN} characters")
    if token and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError(
            f"the token in {where} is short or has odd characters; expected at least {MIN_TOKEN} letters and digits: "
            "make one with `openssl rand -hex 32`"
        )
    return token


def token_digest(token: str) -> str:
    """SHA-256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def host_of(header: str) -> str:
    """The name in a Host header or an address, in lower case and without port: "[::1]:80" -> "[::1]"."""
    name = header.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _headers(scope: MutableMapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _replay(body: bytes, receive: Receive) -> Receive:
    """A body as if it arrived now."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()  # that the client went away
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):  # the rest of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

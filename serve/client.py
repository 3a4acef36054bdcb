"""Client of the service: the same requests as in a notebook, done elsewhere.

Goal: submit, follow, fetch, cancel in one line each; whatever may be repeated is, while a service restarts.
Conventions: every request may be repeated, because ids are digests; so connections that break and answers 500 to 504
are tried again, and a full queue is waited for, for `timeout` seconds in all. Redirects are not followed, so that the
token goes nowhere else. Errors are one line: LookupError for what does not exist, ValueError for what was asked
wrongly, PermissionError for the token, TimeoutError for a job that lasts longer, else OSError.
"""

import json
import os
import time
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener
from urllib.request import Request as Call

import pyarrow as pa
import xarray as xr

from ..ablate.request import Request
from ..ablate.result import result_of_table
from ..analysis.selection.selection import Selection, selection_of
from ..documents import MAX_BYTES, check_size, parse_json

ARROW = "application/vnd.apache.arrow.stream"
TOKEN = "OTOSCOPE_TOKEN"  # environment variable
LOCAL = ("127.0.0.1", "localhost", "::1")
TRANSIENT = (500, 502, 503, 504)
MAX_ANSWER_BYTES, MAX_JSON_BYTES = 2**28, 2**26
MAX_POLL_SECONDS = 2.0
MIN_PAUSE_SECONDS = 0.05


class Client:
    """A service at a URL.

        client = Client("http://127.0.0.1:8765")
        result = client.run(Request(task="fm", label="octave", set="shared(4,5)"))

    token: by default the environment's OTOSCOPE_TOKEN, if there is one.
    timeout: seconds for which a request is tried, and a full queue waited for.
    """

    def __init__(self, url: str = "http://127.0.0.1:8765", token: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("not a valid URL of a service; expected http://HOST:PORT, the token apart from it")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._token = os.environ.get(TOKEN) if token is None else token
        proxies = [ProxyHandler({})] if parts.hostname in LOCAL else []
        self._opener: OpenerDirector = build_opener(_NoRedirect, *proxies)

    def submit(self, request: Request) -> str:
        """Queue a request, or find that it was asked before: the id of its job."""
        return str(self._json("POST", "/ablations", request.to_json())["id"])

    def job(self, job: str) -> dict[str, Any]:
        """A job as it stands: state, progress, error, request."""
        return dict(self._json("GET", f"/ablations/{quote(job, safe='')}"))

    def jobs(self, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Jobs, those first whose state changed last."""
        query = urlencode({"limit": limit} | ({} if state is None else {"state": state}))
        return list(self._json("GET", f"/ablations?{query}")["jobs"])

    def wait(self, job: str, timeout: float | None = None) -> dict[str, Any]:
        """The job once it ended, done, failed or cancelled. Raises TimeoutError where it lasts longer (seconds)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while (found := self.job(job))["state"] in ("queued", "running"):
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {job[:12]} is {found['state']} after {timeout:g} s; expected it to have ended")
            time.sleep(pause)
            pause = min(1.5 * pause, MAX_POLL_SECONDS)
        return found

    def result(self, job: str) -> xr.Dataset:
        """Result of a job that is done, as `otoscope.ablate.result.read_result` gives it."""
        body = self._call("GET", f"/ablations/{quote(job, safe='')}/result", accept=ARROW)
        with pa.ipc.open_stream(body) as stream:
            return result_of_table(stream.read_all())

    def run(self, request: Request, timeout: float | None = None) -> xr.Dataset:
        """Submit, wait, fetch. Raises ValueError for a job that failed or was cancelled, with its own error."""
        job = self.submit(request)
        ended = self.wait(job, timeout)
        if ended["state"] != "done":
            raise ValueError(f"job {job[:12]} {ended['state']}: {ended['error'] or 'by somebody'}; expected a result")
        return self.result(job)

    def cancel(self, job: str) -> dict[str, Any]:
        """Cancel a job that is queued or running. Raises ValueError for one that is done."""
        return dict(self._json("DELETE", f"/ablations/{quote(job, safe='')}"))

    def tasks(self) -> list[dict[str, Any]]:
        """Tasks of the store."""
        return list(self._json("GET", "/tasks"))

    def categories(self, task: str, label: str) -> dict[str, int]:
        """Clips of each category of a labelling."""
        found = self._json("GET", f"/tasks/{quote(task, safe='')}/categories?{urlencode({'label': label})}")
        return {each["category"]: each["clips"] for each in found}

    def sets(self, task: str, label: str, selection: Selection | None = None) -> dict[str, int]:
        """Names of the sets that a selection offers an ablation of its labelling, and how many neurons each has."""
        how = selection_of(selection)
        asked = {"task": task, "label": label, **how.to_json()}
        asked = {name: value for name, value in asked.items() if value is not None}
        return {
            each["set"]: each["neurons"] for each in self._json("GET", f"/selections?{urlencode(asked, doseq=True)}")
        }

    def probes(self) -> list[dict[str, Any]]:
        """Probes that were fitted there."""
        return list(self._json("GET", "/probes"))

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        return parse_json(self._call(method, path, body), MAX_JSON_BYTES)

    def _call(self, method: str, path: str, body: Any = None, accept: str = "application/json") -> bytes:
        """What is answered, tried until it is or the timeout is over."""
        headers = {"Accept": accept}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        deadline, pause = time.monotonic() + self.timeout, 0.1
        while True:
            call = Call(self.url + path, data, headers, method=method)
            try:
                with self._opener.open(call, timeout=max(1.0, self.timeout)) as answer:
                    data = bytes(answer.read(MAX_ANSWER_BYTES + 1))
                check_size(len(data), MAX_ANSWER_BYTES)
                return data
            except HTTPError as error:
                problem, wait = _problem(error), pause
                if error.code == 429:
                    wait = _seconds(error.headers.get("Retry-After"), pause)
                elif error.code not in TRANSIENT:
                    raise problem from None
            except (URLError, HTTPException, OSError) as error:
                reason = getattr(error, "reason", None) or error
                problem = OSError(f"no answer from {self.url} ({reason}); expected a service that runs there")
                wait = pause
            left = deadline - time.monotonic()
            if left <= 0:
                raise problem
            time.sleep(min(max(wait, MIN_PAUSE_SECONDS), left))
            pause = min(2 * pause, MAX_POLL_SECONDS)


class _NoRedirect(HTTPRedirectHandler):
    """An answer that sends elsewhere is an error: the token is for this service."""

    def redirect_request(self, req: Call, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        """Nowhere."""


def _problem(error: HTTPError) -> Exception:
    """What the service said, as the exception that a function of ours would raise."""
    kinds: dict[int, type[Exception]] = {401: PermissionError, 404: LookupError, 400: ValueError, 409: ValueError}
    kinds |= {413: ValueError, 422: ValueError}
    try:
        with error:
            reason = str(parse_json(error.read(MAX_BYTES + 1))["error"])
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        reason = f"answer {error.code} without a reason"
    return kinds.get(error.code, OSError)(reason)


def _seconds(text: str | None, default: float) -> float:
    return float(text) if text is not None and text.isdecimal() else default

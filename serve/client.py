"""Client of the service: the same requests as in a notebook, done elsewhere.

Goal: submit, follow, fetch, cancel in one line each; whatever may be repeated is, while a service restarts.
Conventions: every request may be repeated, because ids are digests; so connections that break and answers 500 to 504
are tried again, and a full queue is waited for, for `timeout` seconds in all. Redirects are not followed, so that the
token goes nowhere else. Errors are one line: LookupError for what does not exist, ValueError for what was asked
wrongly, PermissionError for the token, TimeoutError for a job that lasts longer, else OSError.
"""

import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import httpx
import pyarrow as pa
import xarray as xr

from ..ablate.jobs.results import ARROW
from ..ablate.request import Request
from ..ablate.result import result_of_table
from ..analysis.selection.selection import Selection, selection_of
from ..documents import parse_json
from ..messages import visible
from .settings import LOOPBACK, TOKEN

TRANSIENT = (429, 500, 502, 503, 504)
ERRORS: dict[int, type[Exception]] = {401: PermissionError, 404: LookupError}
ERRORS |= dict.fromkeys((400, 409, 413, 422), ValueError)
MAX_JSON_BYTES = 2**26
MAX_POLL_SECONDS = 2.0
MIN_PAUSE_SECONDS = 0.05


class Client:
    """A server at a URL, which may be the link that it printed.

        client = Client("http://127.0.0.1:8766")
        result = client.run(Request(task="fm", label="octave", set="shared(4,5)"))

    token: by default that of the link, or the environment's OTOSCOPE_TOKEN, if there is one.
    timeout: seconds for which a request is tried, and a full queue waited for.
    """

    def __init__(self, url: str = "http://127.0.0.1:8766", token: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        asked, _port = parse_qs(parts.query), parts.port  # ValueError for one that there cannot be
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or {*asked} - {"token"}:
            raise ValueError("not a valid URL of a server; expected http://HOST:PORT, or the link that it printed")
        self.url, self.timeout = urlunsplit((*parts[:2], parts.path.rstrip("/"), "", "")), timeout
        if token is None:
            token = asked["token"][0] if asked else os.environ.get(TOKEN, "")
        if not token.isascii() or not token.isprintable():
            raise ValueError("the token has odd characters; expected letters and digits, as the server wrote it")
        self._http = httpx.Client(
            base_url=f"{self.url}/api", headers={"Authorization": f"Bearer {token}"} if token else {},
            limits=httpx.Limits(max_keepalive_connections=0), timeout=max(1.0, timeout),
            trust_env=parts.hostname not in (*LOOPBACK, "::1"),  # or a proxy would be asked for them
        )  # fmt: skip

    def submit(self, request: Request) -> str:
        """Queue a request, or find that it was asked before: the id of its job."""
        return str(self._json("POST", "/ablations", body=request.to_json())["id"])

    def job(self, job: str) -> dict[str, Any]:
        """A job as it stands: state, progress, error, request."""
        return dict(self._json("GET", f"/ablations/{quote(job, safe='')}"))

    def jobs(self, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Jobs, those first whose state changed last."""
        query = {"limit": limit} | ({} if state is None else {"state": state})
        return list(self._json("GET", "/ablations", query)["jobs"])

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
        """Tasks of the stores."""
        return list(self._json("GET", "/tasks"))

    def categories(self, task: str, label: str) -> dict[str, int]:
        """Clips of each category of a labelling."""
        return dict(self._json("GET", f"/tasks/{quote(task, safe='')}/categories", {"label": label}))

    def sets(self, task: str, label: str, selection: Selection | None = None) -> dict[str, int]:
        """Names of the sets that a selection offers an ablation of its labelling, and how many neurons each has."""
        asked = {"task": task, "label": label, **selection_of(selection).to_json()}
        asked = {name: value for name, value in asked.items() if value is not None}
        return dict(self._json("GET", "/selections", asked))

    def probes(self) -> list[dict[str, Any]]:
        """Probes that were fitted there."""
        return list(self._json("GET", "/probes"))

    def _json(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        return parse_json(self._call(method, path, query, body), MAX_JSON_BYTES)

    def _call(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None,
        accept: str = "application/json",
    ) -> bytes:  # fmt: skip
        """What is answered, tried until it is or the timeout is over."""
        deadline, pause = time.monotonic() + self.timeout, 0.1
        while True:
            wait = pause
            try:
                answer = self._http.request(method, path, params=query, json=body, headers={"Accept": accept})
                if answer.is_success:
                    return answer.content
                problem = _problem(answer)
                if answer.status_code not in TRANSIENT:
                    raise problem from None
                after = answer.headers.get("Retry-After", "")
                wait = float(after) if after.isdecimal() else pause
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
                problem = OSError(f"no answer from {self.url} ({reason}); expected a server that runs there")
            left = deadline - time.monotonic()
            if left <= 0:
                raise problem
            time.sleep(min(max(wait, MIN_PAUSE_SECONDS), left))
            pause = min(2 * pause, MAX_POLL_SECONDS)


def _problem(answer: httpx.Response) -> Exception:
    """What the server said, as the exception that a function of ours would raise."""
    try:
        reason = visible(str(parse_json(answer.content)["error"]))
    except (ValueError, LookupError, TypeError):
        reason = f"answer {answer.status_code} without a reason"
    return ERRORS.get(answer.status_code, OSError)(reason)

"""Metrics in Prometheus' text format, version 0.0.4.

Conventions: counters are of this process since it started; the queue is that of all processes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from .worker_loop import WorkerLoop

EVENTS = {
    "submitted": "Requests that queued a job",
    "known": "Requests whose job existed",
    "refused": "Requests refused because the queue was full",
    "done": "Jobs done",
    "failed": "Jobs failed",
    "cancelled": "Jobs cancelled",
    "taken_over": "Jobs taken over from processes that were gone",
    "lost": "Jobs that were no longer ours when they ended",
}


def metrics_text(loop: WorkerLoop, answered: "Counter[tuple[str, int]]") -> str:
    """All metrics of a service, one sample per line."""
    lines: list[str] = []
    for event, about in EVENTS.items():
        lines += _metric(f"jobs_{event}_total", "counter", about, {"": loop.counts[event]})
    lines += _metric("job_seconds_total", "counter", "Seconds spent on jobs that are done", {"": loop.seconds})
    waiting = Counter(job.state for job in loop.folder.waiting())
    states = {f'state="{state}"': waiting[state] for state in ("queued", "running")}
    lines += _metric("jobs", "gauge", "Jobs that are not finished", states)
    lines += _metric("queue_limit", "gauge", "Jobs that may wait", {"": loop.max_queued})
    lines += _metric("ready", "gauge", "Whether jobs are taken", {"": int(loop.alive)})
    counts = {f'method="{method}",status="{status}"': n for (method, status), n in sorted(answered.items())}
    lines += _metric("http_requests_total", "counter", "Requests answered", counts)
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, about: str, samples: Mapping[str, float]) -> Iterator[str]:
    full = f"otoscope_{name}"
    yield f"# HELP {full} {about}."
    yield f"# TYPE {full} {kind}"
    for labels, value in samples.items():
        yield f"{full}{{{labels}}} {value:.15g}" if labels else f"{full} {value:.15g}"

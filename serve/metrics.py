"""Metrics for Prometheus; counters are of this process since it started."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.jobs = Counter(
            "otoscope_jobs", "Jobs: submitted, known (asked before), refused (queue full), done, failed, cancelled.",
            ["event"], registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "otoscope_job_seconds", "Of jobs that are done.", buckets=(1, 10, 60, 600, 3600), registry=registry
        )
        self.unfinished = Gauge("otoscope_unfinished_jobs", "Jobs by state.", ["state"], registry=registry)
        self.ready = Gauge("otoscope_ready", "Whether jobs are taken.", registry=registry)
        self.answers = Counter("otoscope_http_requests", "Requests answered.", ["method", "status"], registry=registry)

"""What a run did: for whoever called it, and as a file for machines.

Goal: a user sees which stage of the work delays the others, what failed and why, and what was lost and repeated.
Conventions: seconds; a share is of the time that workers had, per thread of the stage, in [0, 1]. docs/running.md
explains the file field by field.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import whole_file
from ..messages import clean, one_line
from ..store.blocks import Block
from .loader import DECODERS
from .pipeline import STAGES
from .preflight import Forecast
from .worker import CALLS, BlockReport

log = logging.getLogger(__name__)

THREADS = {"decode": DECODERS, "forward": 1, "copy": 1, "pack": CALLS, "write": 1}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did, and how its task stands now."""

    n_clips: int
    """Clips of the task."""
    n_ok: int
    n_failed: int
    n_extracted: int
    """Clips that this run committed, failed ones included."""
    failures: tuple[tuple[str, str], ...]
    """(clip name, reason) of the clips that failed in this run."""
    n_silent: int = 0
    """Clips of this run whose samples are all zero."""
    forecast: Forecast | None = None
    """What a dry run found out."""


@dataclass(kw_only=True)
class RunRecorder:
    """Counts what happens in a run, and writes it down."""

    path: Path | None
    """The report's file."""
    about: dict[str, Any]
    """What the report begins with: store, task, executor, code, sizes of the plan."""
    n_planned: int = 0
    """Clips that were to be extracted."""
    batch: int = 0
    """The plan's."""
    n_done: int = 0
    """Clips committed."""
    n_blocks: int = 0
    """Blocks committed."""
    n_silent: int = 0
    """Clips committed whose samples are all zero."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*STAGES, "waiting"), 0.0))
    failures: list[tuple[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    halved: list[dict[str, int]] = field(default_factory=list)
    killed: list[dict[str, Any]] = field(default_factory=list)
    _run: str = field(default_factory=lambda: uuid.uuid4().hex)
    _started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    _clock: float = field(default_factory=time.monotonic)

    def done(self, block: Block, report: BlockReport) -> None:
        """A block was committed."""
        self.n_done, self.n_blocks = self.n_done + len(block), self.n_blocks + 1
        self.n_silent += report.n_silent
        self.failures.extend(report.failures)
        for stage, seconds in report.seconds.items():
            self.seconds[stage] += seconds
        if report.batch < self.batch:
            self.halved.append({"block": block.index, "batch": report.batch, "planned": self.batch})

    def shares(self) -> dict[str, float]:
        """How much of the workers' time each stage was at work, per thread; "waiting": the device had nothing to do."""
        whole = self.seconds["forward"] + self.seconds["waiting"]
        threads = {**THREADS, "waiting": 1}
        # What is written after a worker's last batch falls into no time of its device's.
        return {stage: min(1.0, n / (whole * threads[stage])) if whole else 0.0 for stage, n in self.seconds.items()}

    def write(self, state: str, workers: Iterable[Any] = (), error: BaseException | None = None) -> None:
        """Write the report, where one was asked for. state: "running", "finished" or "stopped"; workers: their states.

        Raises OSError where it cannot be written at the beginning; later that is only logged, so that it hides no
        other error.
        """
        if self.path is None:
            return
        took, shares = time.monotonic() - self._clock, self.shares()
        states = [asdict(worker) for worker in workers]
        lost = [state for state in states if state["phase"] == "lost"]
        document = {
            "run": self._run, "state": state, "error": clean(f"{type(error).__name__}: {error}") if error else None,
            **self.about,
            "started": self._started, "seconds": round(took, 3),
            "clips": {
                "planned": self.n_planned, "committed": self.n_done, "failed": len(self.failures),
                "silent": self.n_silent,
            },
            "blocks": self.n_blocks, "clips_per_second": round(self.n_done / took, 3) if took else 0.0,
            "stages": {
                stage: {"seconds": round(n, 6), "share": round(shares[stage], 4), "threads": THREADS.get(stage, 1)}
                for stage, n in self.seconds.items()
            },
            "losses": len(lost), "retries": sum(state["in_flight"] for state in lost),
            "failures": [{"clip": name, "reason": reason} for name, reason in self.failures],
            "unreadable": self.unread, "halved": self.halved, "killed": self.killed, "workers": states,
        }  # fmt: skip
        try:
            with whole_file(self.path) as partial:
                partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as failed:
            text = (
                f"the report {self.path} could not be written ({one_line(failed)}); expected a path in a folder that "
                "exists and may be written: choose another --report"
            )
            if state == "running":
                raise OSError(text) from failed
            log.warning("%s", text)

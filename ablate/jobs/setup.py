"""Setup: what jobs are done with; plain values that can be sent to another process."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from ...cluster.executor import Executor


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Stores, encoder and audio, what jobs run on, and where their results go."""

    stores: tuple[str, ...]
    state: Path
    """Folder of results and probes."""
    workers: Callable[[], AbstractContextManager[Executor]]
    """Opens what jobs run on; called in their process."""
    encoder: str = ""
    """As in `load_encoder`; needed for corpora."""
    corpora: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """By task: manifest and audio root."""
    device: str | None = None
    prepare: Callable[[], object] = dict
    """Called first in the process of jobs, as to log there."""

"""Settings: what whoever starts a server chooses; plain values that can be sent to another process."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from ..cluster.executor import Executor

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_QUEUED = 64
PATH = re.compile(r"""(?P<quote>['"])/[^'"]+(?P=quote)|(?<![\w.:/)\]>])/[^\s'";,)]+""")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What passes."""

    hosts: tuple[str, ...] = LOOPBACK
    """Names under which the server may be called, without port."""
    token: str = ""
    """SHA-256 of the token in hexadecimal digits; "" where none is needed."""
    max_bytes: int = 65_536
    """Of a request's body."""
    max_answering: int = 256
    """Requests that are being answered at a time; health is answered beyond that."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a server and its process of jobs need."""

    stores: tuple[str, ...]
    state: Path
    """Folder of jobs, results and probes."""
    workers: Callable[[], AbstractContextManager[Executor]]
    """Opens what jobs run on; called in their process."""
    encoder: str = ""
    """As in `load_encoder`; needed for corpora."""
    corpora: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """By task: manifest and audio root."""
    device: str | None = None
    limits: Limits = field(default_factory=Limits)
    max_queued: int = MAX_QUEUED
    prepare: Callable[[], object] = dict
    """Called first in the process of jobs, as to log there."""

    def redact(self, text: str) -> str:
        """A message without locations on this machine, which requests cannot name."""
        given = [root for pair in self.corpora.values() for root in pair if root]
        known = {**dict.fromkeys(given, "the audio"), **dict.fromkeys(self.stores, "the store")}
        for location in sorted(known, key=len, reverse=True):
            text = text.replace(location, known[location])
        return PATH.sub("(a path of the server)", text)

"""Settings: what whoever starts a server chooses, beside what its jobs are done with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ablate.jobs.setup import Setup

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
TOKEN = "OTOSCOPE_TOKEN"  # environment variable
MAX_QUEUED = 64
PATH = re.compile(r"""(?P<quote>['"])/[^'"]+(?P=quote)|(?<![\w.:/)\]>])/[^\s'";,)]+""")


@dataclass(frozen=True, kw_only=True)
class Settings(Setup):
    """All that a server needs."""

    hosts: tuple[str, ...] = LOOPBACK
    """Names under which it may be called, without port."""
    token: str = ""
    """SHA-256 of the token in hexadecimal digits; "" where none is needed."""
    max_queued: int = MAX_QUEUED
    audio_roots: Mapping[str, str] = field(default_factory=dict)
    """By task: folder or URL of the audio that is played."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """By task: label column that clips share, as speaker; they move together in intervals and bands."""
    sound: bool = True
    """Whether sounds, pictures and traces are shown."""

    def redact(self, text: str) -> str:
        """A message without locations on this machine, which requests cannot name."""
        given = [root for pair in self.corpora.values() for root in pair if root] + [*self.audio_roots.values()]
        known = {**dict.fromkeys(given, "the audio"), **dict.fromkeys(self.stores, "the store")}
        for location in sorted(known, key=len, reverse=True):
            text = text.replace(location, known[location])
        return PATH.sub("(a path of the server)", text)

"""Settings: what whoever starts a server chooses, beside what its jobs are done with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ablate.jobs.setup import Setup

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
TOKEN = "OTOSCOPE_TOKEN"  # environment variable
MAX_QUEUED = 64
ROOT = r"(?:\w{2,16}://|[A-Za-z]:[\\/]|\\\\|~?/)"
LOCATION = re.compile(
    rf"""(?P<quote>['"]){ROOT}(?:\\.|(?!(?P=quote))[^\\])+(?:(?P=quote)|$)|(?<![\w./\\)\]>]){ROOT}[^\s'";,)]+"""
)
"""A path from a root on, of any system, or a URL: to the end of its quotes, or of its word."""


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
        audio = [
            each for manifest, root in self.corpora.values() for each in (root, manifest.rpartition("/")[0]) if each
        ] + [*self.audio_roots.values()]
        known = {**dict.fromkeys(audio, "the audio"), **dict.fromkeys(self.stores, "the store")}
        for location in sorted(known, key=len, reverse=True):
            text = re.sub(rf"(?<![\w./-]){re.escape(location)}(?![\w.-])", known[location], text)
        return LOCATION.sub("(a path of the server)", text)

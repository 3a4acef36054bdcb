"""Clip: one piece of audio."""

from dataclasses import dataclass

AUDIO = "{audio}"
"""Where the sound stands in a prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One piece of audio: a file, or the part of it from `start` to `stop`."""

    name: str
    """Unique in its corpus: the manifest's `id`, else the path plus `#start-stop`."""
    path: str
    """Relative to the audio root, "/" between folders."""
    start: float | None = None
    """Seconds; None is the beginning of the file."""
    stop: float | None = None
    """Seconds; None is the end of the file."""
    prompt: str | None = None
    """What a model is asked about it, where it is asked anything: a text with AUDIO in it."""

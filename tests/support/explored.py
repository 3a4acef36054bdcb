"""An explorer on the clips of `tones`: in this process, or on a port for a browser."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from otoscope.cli.options import executor_of
from otoscope.serve.routes import make_app
from otoscope.serve.security import token_digest
from otoscope.serve.settings import Settings

from .running_service import listening
from .tones import ENCODER, Tones

TOKEN = "tones-tones-tones-tones"
CARD = "/t/tones/height/n/0/1"


def app_of(tones: Tones, state: Path, **more: Any) -> FastAPI:
    """The server."""
    state.mkdir(parents=True, exist_ok=True)
    given = {"encoder": ENCODER, "audio_roots": {"tones": str(tones.root)}, "device": "cpu", **more}
    workers = partial(executor_of, "serial")
    hosts = ("testserver", "127.0.0.1")
    return make_app(Settings(stores=(tones.url,), state=state, workers=workers, hosts=hosts, **given))


@contextmanager
def exploring(tones: Tones, state: Path, **more: Any) -> Iterator[TestClient]:
    """A client of it, without a token."""
    with TestClient(app_of(tones, state, **more), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def link_of(tones: Tones, state: Path, **more: Any) -> Iterator[str]:
    """Its link on loopback, with the token."""
    with listening(app_of(tones, state, token=token_digest(TOKEN), **more)) as url:
        yield f"{url}/?token={TOKEN}"


def words(html: str) -> str:
    """What a page says, without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())

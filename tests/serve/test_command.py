"""The command `ablate serve`: what it refuses before it starts, and a real process that is told to end."""

import re
import shlex
import time
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from fastapi.testclient import TestClient

from otoscope.ablate.request import Request
from otoscope.cli.main import cli
from otoscope.cli.serve import serve
from otoscope.serve.client import Client
from otoscope.serve.schemas import Ask

from ..support.commands import done, refused
from ..support.running_service import ASKED, ENCODER, Served, ServedStore, asked, serving

TOKEN = "correct-horse-battery-staple"
LONG = asked(controls=10_000, set="(0,1)")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--host", "0.0.0.0"), "no token for a service at 0.0.0.0; expected one anywhere but on loopback"),
        (("--host", "::"), "no token for a service at ::; expected one"),
        (("--ray", "--address", "auto"), "no token for a service at auto"),
        (("--replicas", 2), "expected --ray"),
        (("--queue", 0), "expected at least 1"),
        (("--audio-root", "u=x"), "no folder u=x; expected"),
        (("--token-file", "absent"), "absent"),
    ],
)
def test_what_is_refused_before_it_starts(
    stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[object, ...], message: str
) -> None:
    monkeypatch.delenv("OTOSCOPE_TOKEN", raising=False)
    given = ("--encoder", ENCODER, "--corpus", stored.manifest, "--state", tmp_path / "state")
    refused(message, "ablate", "serve", stored.url, *given, *more, watched=tmp_path)


@pytest.mark.parametrize("token", ["Zq7x", "a" * 16 + " b", "", "ä" * 20])
def test_weak_tokens_are_refused_without_repeating_them(stored: ServedStore, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    given = ("--encoder", ENCODER, "--corpus", stored.manifest, "--state", tmp_path / "state")
    options = ("--token-file", tmp_path / "token")
    error = refused("expected", "ablate", "serve", stored.url, *given, *options, watched=tmp_path)
    assert not token or token not in error


def test_another_encoder_or_corpus_is_refused_at_the_start(stored: ServedStore, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    rows = stored.manifest.read_text().splitlines()
    other.write_text("\n".join(row.replace("audio/", f"{stored.manifest.parent}/audio/") for row in rows[:-1]) + "\n")
    state = ("--state", tmp_path / "state")
    for given, message in (
        (("--encoder", "tiny-ssl", "--corpus", stored.manifest), "the encoder is not the store's"),
        (("--encoder", ENCODER, "--corpus", other), "the corpus has other clips than task t"),
        (("--encoder", ENCODER, "--corpus", f"u={other}"), "u="),
    ):
        (tmp_path / "watched").mkdir(exist_ok=True)
        refused(message, "ablate", "serve", stored.url, *given, *state, watched=tmp_path / "watched")


def test_help_says_what_is_needed() -> None:
    assert "others than loopback need a token" in " ".join(done("ablate", "serve", "--help").split())


@pytest.mark.slow
def test_a_process_serves_and_ends_when_told(stored: ServedStore, tmp_path: Path) -> None:
    with Served(stored, tmp_path / "s", env={"OTOSCOPE_TOKEN": TOKEN}) as served:
        client = Client(served.url, TOKEN)
        assert client.run(asked(), timeout=300).attrs["request"]["set"] == "only(d)"
        long = client.submit(LONG)
        while client.job(long)["state"] == "queued":
            time.sleep(0.01)
        written = served.stop()
        assert served.process.returncode == 0
        assert written.splitlines()[-1] == "stopped; whatever is unfinished stays queued"
        assert TOKEN not in written
        assert "Traceback" not in written
    with serving(stored, tmp_path / "s") as again:  # without a token, on the same folder
        assert again.get(f"/ablations/{long}").json()["state"] in ("queued", "running")
        assert again.post("/ablations", json=ASKED).status_code == 200
        again.delete(f"/ablations/{long}")


def test_the_guide_is_true(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in docs/service.md parse, its routes exist, and what it posts is a request."""
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith(("otoscope ", "curl "))]
    commands = [words[3:] for words in lines if words[:3] == ["otoscope", "ablate", "serve"]]
    assert len(commands) == 3
    for words in commands:
        serve.make_context("serve", words, parent=click.Context(cli, **cli.context_settings))
    routes = client.get("/openapi.json").json()["paths"]
    for words in (words for words in lines if words[0] == "curl"):
        url = urlsplit(next(word for word in words if word.startswith("http:")))
        path = url.path.replace("$ID", "{job}").replace("/additive/", "/{task}/")
        method = "delete" if "DELETE" in words else "post" if "-d" in words else "get"
        assert method in routes[path]
        if "-d" in words:
            Request.from_json(Ask.model_validate_json(words[words.index("-d") + 1]).model_dump())
    named = {f"/{path}" for path in re.findall(r"`(?:GET|POST|DELETE) /([a-z./]+)", text)}
    assert named <= {path.split("/{")[0] for path in routes} | {"/openapi.json", "/ablations/"}, named

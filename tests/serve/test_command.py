"""The command `serve`: what it refuses before it starts, and a real process that is told to end."""

import re
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click
import httpx
import pytest
import xarray as xr
from fastapi.testclient import TestClient

from otoscope.ablate.jobs.runner import JobRunner
from otoscope.ablate.offer import Offer
from otoscope.ablate.request import Request
from otoscope.ablate.result import read_result, write_result
from otoscope.ablate.study import look_up, run_study
from otoscope.cli.main import cli
from otoscope.cli.serve import by_task, serve
from otoscope.cluster.executor import SerialExecutor
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.registry import load_encoder
from otoscope.serve.app import locked
from otoscope.serve.client import Client
from otoscope.serve.schemas import Ask
from otoscope.serve.security import read_token, token_digest
from otoscope.serve.settings import LOOPBACK, Settings

from ..support.commands import done, refused
from ..support.running_service import ENCODER, Served, ServedStore, asked

LONG = asked(controls=10_000, set="(0,1)")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--host", "0.0.0.0"), "no token for a server at 0.0.0.0; expected one except on loopback"),
        (("--host", "::"), "no token for a server at ::; expected one"),
        (("--host", "0.0.0.0", "--no-token"), "expected one of them alone, on loopback"),
        (("--host", "0.0.0.0", "--write-token", "t"), "expected one of them alone, on loopback"),
        (("--no-token", "--write-token", "t"), "expected one of them alone"),
        (("--queue", 0), "expected at least 1"),
        (("--allow-host", "http://gpu7.example.org"), "expected a name or an address alone"),
        (("--allow-host", ""), "expected a name or an address alone"),
        (("--write-token", "absent/token"), "no folder absent"),
        (("--audio-root", "u=x"), "no folder u=x; expected"),
        (("--group", "u=x"), "no label column 'u=x' in task t, which --group names; expected one of letter, split"),
        (("--token-file", "absent"), "absent"),
        (("--corpus", "u=x.csv"), "given twice"),
        (("--actors", 2), "expected --executor ray"),
    ],
)
def test_what_is_refused_before_it_starts(
    stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[object, ...], message: str
) -> None:
    monkeypatch.delenv("OTOSCOPE_TOKEN", raising=False)
    given = ("--encoder", ENCODER, "--corpus", stored.manifest, "--state", tmp_path / "state")
    refused(message, "serve", stored.url, *given, *more, watched=tmp_path)


def test_a_corpus_needs_its_encoder(stored: ServedStore, tmp_path: Path) -> None:
    alone = ("--corpus", stored.manifest)
    refused("without --encoder; expected both", "serve", stored.url, *alone, watched=tmp_path)


def test_what_is_said_of_all_tasks_and_of_one() -> None:
    tasks = ["a", "b"]
    assert by_task(["x"], tasks, "--audio-root", for_all=True) == {"a": "x", "b": "x"}
    assert by_task(["b=y", "x=1/z"], tasks, "--audio-root", for_all=True) == {"a": "x=1/z", "b": "y"}
    assert by_task([], tasks, "--audio-root", for_all=True) == {}
    with pytest.raises(ValueError, match="given twice without a task"):
        by_task(["x", "y"], tasks, "--audio-root", for_all=True)
    with pytest.raises(ValueError, match="names no task; expected one of a, b"):
        by_task(["x"], tasks, "--corpus")


def test_published_tables_are_no_store(stored: ServedStore, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("layer,neuron,a\n0,0,0.5\n")
    refused("expected", "serve", tmp_path / "table.csv", watched=tmp_path)


@pytest.mark.parametrize("token", ["Zq7x", "a" * 16 + " b", "", "ä" * 20])
def test_weak_tokens_are_refused_without_repeating_them(stored: ServedStore, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    given = ("--state", tmp_path / "state", "--token-file", tmp_path / "token")
    error = refused("expected", "serve", stored.url, *given, watched=tmp_path)
    assert not token or token not in error


def test_a_folder_has_one_server_and_an_address_too(stored: ServedStore, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "token").write_text("of the server that runs")
    with locked(tmp_path / "state"):
        given = ("--state", tmp_path / "state", "--write-token", tmp_path / "t" / "token")
        error = refused("cannot be locked", "serve", stored.url, *given, watched=tmp_path / "t")
        assert "give another --state" in error
    with locked(tmp_path / "state"), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused("give another --port", "serve", stored.url, "--port", port, watched=stored.manifest)
    (tmp_path / "file").touch()
    refused("holds other files", "serve", stored.url, "--state", tmp_path, watched=tmp_path)


def test_another_encoder_or_corpus_is_refused_at_the_start(stored: ServedStore, tmp_path: Path) -> None:
    """By what the process of jobs does first."""
    other = tmp_path / "other.csv"
    rows = stored.manifest.read_text().splitlines()
    other.write_text("\n".join(row.replace("audio/", f"{stored.manifest.parent}/audio/") for row in rows[:-1]) + "\n")
    for given, message in (
        ({"encoder": "tiny-ssl"}, "the encoder is not the store's"),
        ({"corpora": {"t": (str(other), None)}}, "the corpus has other clips than task t"),
    ):
        with pytest.raises(ValueError, match=message):
            JobRunner(stored.settings(tmp_path / "s", **given), SerialExecutor())


def test_what_a_server_is_started_with(stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locations from the root on, by which messages are searched, and a token that is drawn once it listens."""
    found: list[tuple[Settings, str]] = []

    def listening(settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
        assert not Path("token").exists()
        ready("http://127.0.0.1:1")
        found.append((settings, read_token("token")))

    monkeypatch.chdir(stored.manifest.parent.parent)
    monkeypatch.setattr("otoscope.serve.app.run_server", listening)
    here = stored.manifest.parent
    store, manifest, root = Path(stored.url).relative_to(Path.cwd()), here.name + "/" + stored.manifest.name, here.name
    given = ("serve", store, "--encoder", ENCODER, "--corpus", manifest, "--audio-root", root, "--write-token", "token")
    try:
        for names in ((), ("--allow-host", "GPU7:80")):
            link = done(*given, *names).split()[-1]
            assert link == f"http://127.0.0.1:1/?token={found[-1][1]}"
            assert Path("token").stat().st_mode & 0o777 == 0o600
            Path("token").unlink()
    finally:
        Path("token").unlink(missing_ok=True)
    (first, drawn), (second, another) = found
    assert drawn != another
    assert first.token == token_digest(drawn)
    assert first.stores == (stored.url,)
    assert first.corpora == {"t": (str(stored.manifest), str(here))}
    assert (first.hosts, second.hosts) == ((*LOOPBACK, "127.0.0.1"), (*LOOPBACK, "gpu7", "127.0.0.1"))


def test_two_stores_with_one_task_are_refused(stored: ServedStore) -> None:
    with pytest.raises(ValueError, match="two of the stores have a task t; expected other names"):
        Offer((stored.url, stored.url))


def test_help_says_what_is_needed() -> None:
    assert "others than loopback need a token" in " ".join(done("serve", "--help").split())


@pytest.mark.slow
def test_a_process_serves_and_ends_when_told(stored: ServedStore, tmp_path: Path) -> None:
    """Another goes on where it ended, by two actors of Ray: results are those of a study that is run here."""
    state = tmp_path / "s"
    with Served(stored, state, "--write-token", tmp_path / "token") as served:
        client = Client(served.link)
        assert client.run(asked(), timeout=300).attrs["request"]["set"] == "only(d)"
        with pytest.raises(PermissionError, match="no valid token"):
            Client(served.url, "").tasks()
        token = (tmp_path / "token").read_text().strip()
        assert Client(served.url, token).tasks()
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(served.link)
            assert "token" not in str(page.url)
            assert "What do these neurons listen to?" in page.text
        long = client.submit(LONG)
        while client.job(long)["state"] == "queued":
            time.sleep(0.01)
        written = served.stop()
        assert served.process.returncode == 0
        assert written.splitlines()[-1] == "stopped; whatever is unfinished stays queued"
        assert token not in written
        assert "Traceback" not in written
    with Served(stored, state, "--no-token", "--executor", "ray", "--actors", 2) as again:
        client = Client(again.url, "")
        assert client.job(long)["state"] in ("queued", "running")
        assert client.run(asked(), timeout=300).attrs["request"]["set"] == "only(d)"
        client.cancel(long)
        by_actors = client.run(asked(seed=1), timeout=300)
    assert again.process.returncode == 0
    study = look_up(asked(seed=1), stored.url)
    whole = run_study(study, load_encoder(ENCODER), read_manifest(stored.manifest), device="cpu")
    write_result(whole, tmp_path / "whole.parquet")
    xr.testing.assert_identical(by_actors, read_result(tmp_path / "whole.parquet"))


def test_the_guide_is_true(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in docs/service.md parse, its routes exist, and what it posts is a request."""
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith(("otoscope ", "curl "))]
    commands = [words[2:] for words in lines if words[:2] == ["otoscope", "serve"]]
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
    assert named <= {path.split("/{")[0] for path in routes} | {"/api/openapi.json", "/api/ablations/"}, named

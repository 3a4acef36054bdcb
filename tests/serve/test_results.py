"""Results on disk: what is served is what was computed, also when somebody flips a bit or cuts a file."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from otoscope.ablate.jobs.results import ARROW
from otoscope.serve.routes import make_app

from ..support.amounts import some
from ..support.running_service import ASKED, HereProcess, ServedStore, client_of, done
from .test_jobs import damaged


def check_damage(client: TestClient, state: Path, rounds: int, seed: int) -> None:
    """A damaged result is never served; it is done again when it is asked for; all else goes on being answered."""
    job, other = done(client, **ASKED), done(client, **{**ASKED, "seed": 1})
    arrow = {"Accept": ARROW}
    whole = {id_: client.get(f"/ablations/{id_}/result", headers=arrow).content for id_ in (job, other)}
    (path,) = (state / "results").glob(f"{job}.*")
    content, dice = path.read_bytes(), random.Random(seed)
    for i in range(rounds):
        path.write_bytes(damaged(content, dice))
        if i % 2:
            answer = client.get(f"/ablations/{job}/result", headers=arrow)
            assert answer.status_code == 409
            assert answer.json()["error"].startswith("the job is failed: its result on disk was damaged or deleted")
        if i % 10 == 0:
            assert client.post("/ablations", json=ASKED).status_code == 202
            assert done(client, **ASKED) == job
            assert client.get(f"/ablations/{job}/result", headers=arrow).content == whole[job]
        assert client.get(f"/ablations/{other}/result", headers=arrow).content == whole[other]


def test_a_damaged_result_is_done_again(stored: ServedStore, tmp_path: Path) -> None:
    settings = stored.settings(tmp_path / "s")
    with client_of(make_app(settings, HereProcess(settings))) as client:
        check_damage(client, settings.state, rounds=6, seed=0)


@pytest.mark.slow
def test_many_damaged_results(stored: ServedStore, tmp_path: Path) -> None:
    settings = stored.settings(tmp_path / "s")
    with client_of(make_app(settings, HereProcess(settings))) as client:
        check_damage(client, settings.state, rounds=some(50, of=150), seed=1)


def test_results_outlive_the_file_of_jobs(stored: ServedStore, tmp_path: Path) -> None:
    """A file of jobs that is nonsense is set aside; jobs whose results are on disk are still done."""
    settings = stored.settings(tmp_path / "s")
    with client_of(make_app(settings, HereProcess(settings))) as client:
        job = done(client, **ASKED)
        before = client.get(f"/ablations/{job}").json()
    (settings.state / "jobs.sqlite").write_bytes(b"nonsense" * 1000)
    with client_of(make_app(settings, HereProcess(settings))) as client:
        (found,) = client.get("/ablations").json()["jobs"]
        assert {**found, "submitted": 0, "changed": 0} == {**before, "submitted": 0, "changed": 0}
        assert client.post("/ablations", json=ASKED).status_code == 200
        with pa.ipc.open_stream(client.get(f"/ablations/{job}/result", headers={"Accept": ARROW}).content) as stream:
            assert stream.read_all().num_rows
        assert client.get("/health/ready").status_code == 200
    assert (settings.state / "jobs.sqlite.damaged-1").read_bytes() == b"nonsense" * 1000

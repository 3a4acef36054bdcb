"""Many clients at once, the server killed twice: nothing wrong, nothing lost, no error left over."""

import json
from pathlib import Path

import pytest
import xarray as xr
from benchmarks.service import kill_twice, load

from otoscope.ablate.request import Request
from otoscope.ablate.result import read_result, write_result
from otoscope.ablate.study import look_up, run_study
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.registry import load_encoder

from ..support.running_service import ENCODER, Served, ServedStore, asked, free_port

CLIENTS, SECONDS = 8, 12.0


@pytest.mark.slow
def test_many_clients_of_a_server_that_is_killed_twice(stored: ServedStore, tmp_path: Path) -> None:
    state = tmp_path / "s"
    with Served(stored, state, "--no-token", "--port", free_port()) as served:
        killer = kill_twice(served, SECONDS)
        try:
            found = load(served.url, asked(), clients=CLIENTS, seconds=SECONDS, seed=0)
        finally:
            killer.join()
    assert found.errors == []
    assert (found.wrong, found.lost) == (0, 0)
    assert found.results > 0
    key, result = next(iter(found.by_request.items()))
    study = look_up(Request.from_json(json.loads(key)), stored.url)
    whole = run_study(study, load_encoder(ENCODER), read_manifest(stored.manifest), device="cpu")
    write_result(whole, state / "whole.parquet")
    xr.testing.assert_identical(read_result(state / "whole.parquet"), result)


@pytest.mark.slow
def test_a_study_on_two_ray_actors_is_the_same(stored: ServedStore, tmp_path: Path) -> None:
    from otoscope.serve.client import Client

    whole = run_study(look_up(asked(), stored.url), load_encoder(ENCODER), read_manifest(stored.manifest), device="cpu")
    write_result(whole, tmp_path / "whole.parquet")
    with Served(stored, tmp_path / "s", "--no-token", "--executor", "ray", "--actors", 2) as served:
        client = Client(served.url, "")
        xr.testing.assert_identical(client.run(asked(), timeout=300), read_result(tmp_path / "whole.parquet"))
        long = client.submit(asked(controls=10_000))
        client.cancel(long)
        again = client.run(asked(seed=1), timeout=300)
        assert again.attrs["request"]["seed"] == 1
    assert served.process.returncode == 0

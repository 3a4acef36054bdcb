"""Whatever the OpenAPI description allows, or just does not, is answered as it says: no 5xx, no undocumented status."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from otoscope.serve.client import Client
from otoscope.serve.routes import make_app

from ..support.running_service import HereProcess, ServedStore, asked, listening

UNFIT = [positive_data_acceptance]  # names that a schema allows need not exist: 422
# A body that is too large is refused by that, whatever else is wrong with it.


@pytest.fixture(scope="module")
def service(stored: ServedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """The description of a service that runs, and the id of a job that is done."""
    settings = stored.settings(tmp_path_factory.mktemp("fuzzed") / "s")
    with listening(make_app(settings, HereProcess(settings))) as url:
        client = Client(url, token="")
        job = client.submit(asked())
        assert client.wait(job)["state"] == "done"
        yield schemathesis.openapi.from_url(f"{url}/api/openapi.json"), job


def fuzz(service: tuple[Any, str], examples: int, derandomize: bool = True) -> int:
    """Call every operation with so many cases of each kind, and check the answers; how many calls were made."""
    described, job = service
    n_calls = 0
    for operation in (found.ok() for found in described.get_all_operations()):
        for mode in GenerationMode:
            cases = operation.as_strategy(generation_mode=mode)
            if "{job}" in operation.path:  # one that exists, too
                cases = st.one_of(cases, operation.as_strategy(generation_mode=mode, path_parameters={"job": job}))

            @settings(
                max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None,
                phases=[Phase.generate], derandomize=derandomize,
            )  # fmt: skip
            @given(case=cases)
            def call(case: Any) -> None:
                nonlocal n_calls
                n_calls += 1
                response = case.call()
                large = [negative_data_rejection] if response.status_code == 413 else []
                case.validate_response(response, excluded_checks=[*UNFIT, *large])

            with suppress(Unsatisfiable):  # without parameters there is nothing to do wrong
                call()
    return n_calls


def test_every_answer_is_as_described(service: tuple[Any, str]) -> None:
    assert fuzz(service, 4) > 50


@pytest.mark.slow
def test_every_answer_is_as_described_at_length(service: tuple[Any, str]) -> None:
    """OTOSCOPE_FUZZ_SECONDS=300 goes on, with other cases each time, for that long."""
    deadline = time.monotonic() + float(os.environ.get("OTOSCOPE_FUZZ_SECONDS", "0"))
    assert fuzz(service, 30) > 400
    while time.monotonic() < deadline:
        fuzz(service, 30, derandomize=False)

"""Every question can be asked at small size; what comes out is no measurement."""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from . import QUESTIONS, cluster

LONG = ("memory", "service", "startup")  # half a minute each


def in_this_process(function: str, **arguments: Any) -> Any:
    """Instead of a fresh one, which would start a Ray of its own."""
    module, name = function.split(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)


@pytest.fixture
def one_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cluster, "fresh_process", in_this_process)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="CRITICAL",
    )
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # the library's own front end
@pytest.mark.parametrize("question", [pytest.param(q, marks=[pytest.mark.slow] * (q in LONG)) for q in QUESTIONS])
def test_question_can_be_measured(question: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if question == "cluster":
        request.getfixturevalue("one_ray")
    module = importlib.import_module(f"benchmarks.{question}")
    measured = module.measure(tmp_path, module.SMALL)
    assert measured.figures
    assert all(math.isfinite(figure.value) for figure in measured.figures)

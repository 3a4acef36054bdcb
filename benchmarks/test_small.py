"""Every question can be asked at small size; what comes out is no measurement."""

import importlib
import math
from pathlib import Path

import pytest

from . import QUESTIONS


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # the library's own front end
@pytest.mark.parametrize("question", QUESTIONS)
def test_question_can_be_measured(question: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"benchmarks.{question}")
    measured = module.measure(tmp_path, module.SMALL)
    assert measured.figures
    assert all(math.isfinite(figure.value) for figure in measured.figures)

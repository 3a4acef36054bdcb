"""Private parts of zarr are used in one file, and its version is bound to the series that the tests run with."""

import re
import tomllib
from pathlib import Path

import zarr

ROOT = Path(__file__).parents[2]


def test_one_file_imports_private_parts_of_zarr() -> None:
    private = re.compile(r"^\s*(from|import) zarr\.(core|_)", re.M)
    folders = ("store", "cluster", "extract", "analysis", "ablate", "serve", "src", "tests", "benchmarks")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if private.search(path.read_text("utf-8"))] == [ROOT / "store/objects.py"]


def test_zarr_is_bound_to_the_tested_series() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    (bound,) = [line for line in wanted if line.startswith("zarr")]
    major, minor = map(int, zarr.__version__.split(".")[:2])
    assert bound == f"zarr>={major}.{minor},<{major}.{minor + 1}"

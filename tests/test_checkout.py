"""A checkout whose links are not links: git without symbolic links leaves text files in their place."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .test_house import PACKAGE, ROOMS

ROOT = PACKAGE.parents[1]
SENTENCE = r"has no folder 'store'; expected a symbolic link .*: clone again by `git clone -c core\.symlinks=true`"


def ran(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": ""}, capture_output=True, text=True)


def checkout(folder: Path, kind: str) -> Path:
    """What a build reads, with links, or with text files or nothing in their place."""
    shutil.copytree(ROOT / "src", folder / "src", symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for room in ROOMS:
        (folder / room).mkdir()
        link = folder / "src" / "otoscope" / room
        if kind != "links":
            target = link.readlink()
            link.unlink()
        if kind == "text files":
            link.write_text(str(target))
    return folder


@pytest.mark.parametrize("kind", ["text files", "nothing", "links"])
def test_import_and_build_fail_at_once_with_a_sentence(tmp_path: Path, kind: str) -> None:
    here = checkout(tmp_path, kind)
    for code in (
        f"import sys; sys.path.insert(0, {str(here / 'src')!r}); import otoscope",
        "from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel('.')",
        "from setuptools import build_meta; build_meta.build_wheel('.')",
        "from setuptools import build_meta; build_meta.build_sdist('.')",
    )[: None if kind != "links" else 2]:
        result = ran(code, here)
        assert (result.returncode == 0) == (kind == "links"), result.stderr
        if kind != "links":
            assert re.search(SENTENCE, result.stderr.splitlines()[-1])
    assert not list(here.rglob("*.whl"))
    assert not list(here.rglob("*.tar.gz"))

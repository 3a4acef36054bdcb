"""`module:` encoders: the example, the two ways to name a factory, and what goes wrong."""

import hashlib
import os
import sys
from pathlib import Path

import pytest
import torch

from otoscope.extract.models.encoder import weights_digest
from otoscope.extract.models.module import load
from otoscope.extract.models.registry import load_encoder, source_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "module_encoder.py"

SOURCE = """
from dataclasses import dataclass
import torch
from otoscope.extract.models.encoder import Encoder

@dataclass
class Settings:
    sample_rate: int = 8000

class Network(torch.nn.Linear):
    pass

def build():
    rate = Settings().sample_rate
    module = Network(rate, 3)
    return Encoder(module=module, sample_rate=rate, sites=["*"], name="mine", front_end={"gain": 1.5})

def build_other():
    return build()

def nothing(): ...
def fails(): raise RuntimeError("no\\n weights")
def unwritable():
    return Encoder(module=torch.nn.Linear(1, 1), sample_rate=1, sites=["*"], front_end={"a": object()})
number = 3
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "my_model.py"
    file.write_text(SOURCE)
    return file


def test_the_example_runs() -> None:
    state = torch.random.get_rng_state()
    encoder = load_encoder(f"module:{EXAMPLE}:build")
    assert torch.equal(torch.random.get_rng_state(), state)
    anatomy = encoder.anatomy()
    assert [(site.name, site.width) for site in anatomy.sites] == [("act1", 48), ("act2", 96), ("act3", 160)]
    assert anatomy.embedding == 160
    assert weights_digest(encoder.module) == weights_digest(load(f"{EXAMPLE}:build").module)
    assert encoder.source == hashlib.sha256(b"build\0" + EXAMPLE.read_bytes()).hexdigest()
    assert encoder(0.1 * torch.randn(2, 4000)).shape == (2, 160)
    assert len(encoder.spans(4000)) == encoder.input_length(4000) == 26


def test_a_file_and_a_function(source: Path) -> None:
    encoder = load(f"{source}:build")
    assert encoder.name == "module"
    assert encoder.sample_rate == 8000
    assert encoder.front_end == {"gain": 1.5}
    assert encoder.source == source_of(f"module:{source}:build") == source_of(encoder)
    assert load(f"{source}:build_other").source not in ("", encoder.source)


def test_a_module_and_a_function(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = source.parent / "my_package"
    package.mkdir()
    source.rename(package / "my_model.py")
    monkeypatch.syspath_prepend(source.parent)
    encoder = load("my_package.my_model:build")
    assert encoder.source == hashlib.sha256(b"build\0" + SOURCE.encode()).hexdigest()
    assert source_of("module:my_package.my_model:build") == encoder.source
    for absent in ("my_package.none", "no_package.my_model"):
        with pytest.raises(ValueError, match=r"no source file|could not be imported"):
            source_of(f"module:{absent}:build")


def test_files_called_alike_stay_apart(source: Path) -> None:
    other = source.parent / "other" / source.name
    other.parent.mkdir()
    other.write_text(SOURCE.replace("8000", "4000"))
    encoders = [load(f"{file}:build") for file in (source, other, source)]
    assert [encoder.sample_rate for encoder in encoders] == [8000, 4000, 8000]
    homes = [sys.modules[type(encoder.module).__module__].__file__ for encoder in encoders]
    assert homes == [str(source), str(other), str(source)]


def test_the_source_runs_as_it_is_now(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    times = source.stat()
    assert load(f"{source}:build").sample_rate == 8000
    source.write_text(SOURCE.replace("8000", "4000"))
    os.utime(source, (times.st_atime, times.st_mtime))
    assert load(f"{source}:build").sample_rate == 4000
    assert [file.name for file in source.parent.iterdir()] == [source.name]


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("missing", "has no function 'missing'; found dataclass, Encoder, Settings, Network, build"),
        ("number", "has no function 'number'"),
        ("nothing", "returned NoneType; expected an Encoder"),
        ("fails", "raised RuntimeError: no weights; expected it to return an Encoder"),
        ("unwritable", "front_end is not JSON"),
    ],
)
def test_a_factory_that_does_not_do(source: Path, factory: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        load(f"{source}:{factory}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rest", ["my_model.py", "my_model.py:", ":build", "my_model.py:build()", "pkg:a.b"])
def test_a_name_without_a_factory(rest: str) -> None:
    with pytest.raises(ValueError, match=r"expected FILE\.py:factory or pkg\.mod:factory"):
        load(rest)


def test_files_and_modules_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.py"):
        load(f"{tmp_path / 'absent.py'}:build")
    with pytest.raises(ValueError, match=r"module 'absent\.module' could not be imported: ModuleNotFoundError"):
        load("absent.module:build")


def test_a_file_that_cannot_be_imported(source: Path) -> None:
    source.write_text("import otoscope\n1 / 0\n")
    with pytest.raises(ValueError, match=r"my_model\.py could not be imported: ZeroDivisionError: division by zero"):
        load(f"{source}:build")

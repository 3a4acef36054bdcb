"""Any torch model: an Encoder returned by the user's own function.

Goal: everything in this package works on a model it does not know.
Conventions: "FILE.py:factory" names a function in a file, "pkg.mod:factory" one in an importable module.
"""

import hashlib
import importlib
import importlib.util
import json
import sys
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from ...messages import one_line
from .encoder import Encoder


def load(path: str, family: str = "module") -> Encoder:
    """What the named factory returns, with its source: see `source_of`.

    Raises FileNotFoundError or ValueError for a file, module or function that is not there, for a factory
    that fails, and for anything returned that is not an Encoder.
    """
    source, factory = _parts(path)
    module = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    make = getattr(module, factory, None)
    if not callable(make):
        functions = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise ValueError(f"{source} has no function {factory!r}; found {', '.join(functions) or 'none'}")
    try:
        encoder = make()
    except Exception as error:
        raise ValueError(f"{path} raised {_in_one_line(error)}; expected it to return an Encoder") from error
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"{path} returned {type(encoder).__name__}; expected an Encoder (otoscope.extract.models.encoder), "
            "which pairs a module with its sites and front end"
        )
    try:
        json.dumps(dict(encoder.front_end), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: front_end is not JSON ({error}); expected plain values") from error
    return replace(encoder, name=family, source=source_of(path))


def source_of(path: str) -> str:
    """SHA-256 of a factory's name and of the file that defines it, then the others of its package; none is run.

    Neither the file's path nor the module's name is in it: the same source elsewhere is the same. Raises as `load`.
    """
    source, factory = _parts(path)
    others: list[Path] = []
    if source.endswith(".py"):
        file = Path(source)
    else:
        try:
            spec = importlib.util.find_spec(source)
        except ImportError as error:
            raise _not_imported(source, error) from error
        if spec is None or not spec.has_location or spec.origin is None:
            raise ValueError(f"module {source!r} has no source file; expected one whose content can be recorded")
        file = Path(spec.origin)
        depth = source.count(".") + bool(spec.submodule_search_locations)
        others = sorted({*file.parents[depth - 1].rglob("*.py")} - {file}) if depth else []
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; expected the Python file that defines the factory")
    digest = hashlib.sha256(f"{factory}\0".encode() + file.read_bytes())
    for other in others:
        digest.update(f"\0{other.relative_to(file.parents[depth - 1])}\0".encode() + other.read_bytes())
    return digest.hexdigest()


def _parts(path: str) -> tuple[str, str]:
    source, colon, factory = path.rpartition(":")
    if not (source and colon and factory.isidentifier()):
        raise ValueError(f"no factory in {path!r}; expected FILE.py:factory or pkg.mod:factory")
    return source, factory


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected the Python file that defines the factory")
    # Named by its path, so that two files called alike do not replace each other.
    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported; expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} could not be imported: {_in_one_line(error)}") from error
    return module


class _SourceLoader(SourceFileLoader):
    """Runs the source as it is now: bytecode beside it would be trusted by its size and whole seconds."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _not_imported(name, error) from error


def _not_imported(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"module {name!r} could not be imported: {_in_one_line(error)}; "
        "install it, set PYTHONPATH, or give the file as FILE.py:factory"
    )


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, whole=True)}"

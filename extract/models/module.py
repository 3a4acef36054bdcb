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
from pathlib import Path
from types import ModuleType

from ...messages import one_line
from .encoder import Encoder


def load(path: str, family: str = "module") -> Encoder:
    """What the named factory returns, with the SHA-256 of the file that defines it in its front end.

    Neither the file's path nor the module's name is recorded: the same source elsewhere is the same encoder.
    Raises FileNotFoundError or ValueError for a file, module or function that is not there, for a factory
    that fails, and for anything returned that is not an Encoder.
    """
    source, colon, factory = path.rpartition(":")
    if not (source and colon and factory.isidentifier()):
        raise ValueError(f"no factory in {path!r}; expected FILE.py:factory or pkg.mod:factory")
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
    if module.__file__ is None:
        raise ValueError(f"{module.__name__} has no source file; expected one whose content can be recorded")
    digest = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
    front_end = {**encoder.front_end, "source_sha256": digest, "factory": factory}
    try:
        json.dumps(front_end, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: front_end is not JSON ({error}); expected plain values") from error
    return replace(encoder, name=family, front_end=front_end)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected the Python file that defines the factory")
    # Named by its path, so that two files called alike do not replace each other.
    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
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


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"module {name!r} could not be imported: {_in_one_line(error)}; "
            "install it, set PYTHONPATH, or give the file as FILE.py:factory"
        ) from error


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, whole=True)}"

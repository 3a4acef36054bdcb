"""Documents that others wrote: JSON and YAML of bounded size, depth and numbers.

Goal: a document may be wrong in any way; it cannot take the memory, the time or the stack of whoever reads it.
Conventions: ValueErrors say what was found, and whoever asked says in which document. Values are those of JSON.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

MAX_BYTES = 16 * 2**20  # of JSON
MAX_VALUES = 2**21  # in a JSON document: one of two bytes takes seventy once it is parsed
MAX_YAML_BYTES = 2**20  # of YAML: parsing it takes a hundred times as long
MAX_DEPTH = 32  # of lists and objects in each other
MAX_INTEGER = 2**64
MAX_SCALAR = 10_000  # characters of one YAML scalar: those that look like times are numbers to the base 60


def read_document(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file. Raises ValueError for a larger one and for anything else, OSError as opening."""
    file = Path(path)
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is not a regular file; expected one")
    check_size(file.stat().st_size, max_bytes)
    return file.read_bytes()


def check_size(n_bytes: int, max_bytes: int) -> None:
    """Raise ValueError for more bytes than there may be."""
    if n_bytes > max_bytes:
        raise ValueError(f"it has {n_bytes} bytes; expected at most {max_bytes}")


def parse_json(data: bytes, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES, finite: bool = False) -> Any:
    """The value of a JSON document in UTF-8.

    max_values: lists, objects and what is in them, as far as commas and brackets tell.
    finite: whether NaN and infinities, which JSON does not have but Python writes, are refused.
    Raises ValueError for what is not JSON, is too large or too deep, holds an integer of more than 64 bits, text that
    UTF-8 cannot hold, or an object that names a key twice.
    """
    check_size(len(data), max_bytes)
    if (n_values := sum(map(data.count, (b",", b"[", b"{")))) > max_values:
        raise ValueError(f"it holds {n_values} values; expected at most {max_values}")
    try:
        value = json.loads(data.decode(), parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    _check(value, finite)
    return value


def parse_yaml(data: bytes, max_bytes: int = MAX_YAML_BYTES) -> Any:
    """The value of a YAML document of plain values. Raises ValueError as `parse_json`, and for aliases and tags."""
    import yaml

    check_size(len(data), max_bytes)
    text, loader, depth = data.decode(), getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0
    try:
        for event in yaml.parse(text, loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise ValueError("it has an alias, an anchor or a tag; expected plain values")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or len(getattr(event, "value", "")) > MAX_SCALAR:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep, or has a value of over {MAX_SCALAR} signs")
        value = yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    _check(value, finite=False)
    return value


def _integer(digits: str) -> int:
    if len(digits) > len(str(MAX_INTEGER)) + 1:
        raise ValueError(f"it holds an integer of {len(digits)} digits; expected at most 64 bits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a key twice in one object")
    return found


def _check(value: Any, finite: bool) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        below: list[Any] = []
        for each in level:
            match each:
                case dict():
                    below += [*each, *each.values()]
                case list():
                    below += each
                case str():
                    each.encode()
                case int() if abs(each) > MAX_INTEGER:
                    raise ValueError("it holds an integer of more than 64 bits")
                case float() if finite and not math.isfinite(each):
                    raise ValueError(f"it holds {each}; expected finite numbers")
        level, depth = below, depth + 1

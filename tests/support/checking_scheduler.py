"""A scheduler of Dask graphs that does every task twice, in any order the graph allows, and looks at what changed.

A task may be retried, duplicated and cached by any scheduler. So it must give the same values again, and neither what
it is given nor what another task gave may change, be it at once or by what comes later.
"""

import functools
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import dask
import numpy as np
import pandas as pd
from dask import threaded
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.base import named_schedulers
from dask.utils import ensure_dict

Get = Callable[..., Any]


@contextmanager
def every_task_twice(seed: int = 0, threads: bool = False) -> Iterator[Counter[str]]:
    """Within, every graph is run so, those that a task runs inside itself too; gives how often each kind of task was.

    threads: in those of Dask instead, in its order. Raises AssertionError naming the task that breaks the law.
    """
    done: Counter[str] = Counter()

    def get(graph: Any, keys: Any, **_: Any) -> Any:
        plain = ensure_dict(graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph)
        twice = {key: _twice(node, done) for key, node in convert_legacy_graph(plain).items()}
        if threads:
            return threaded.get(twice, keys, num_workers=2)
        return _nested(_shuffled(twice, random.Random(seed)), keys)

    before = dict(named_schedulers)
    named_schedulers.update(dict.fromkeys(named_schedulers, get))
    try:
        # Fused tasks would hide from each other what they do; those of `Blockwise` still are.
        with dask.config.set({"scheduler": get, "optimization.fuse.active": False}):
            yield done
    finally:
        named_schedulers.update(before)


def _twice(node: GraphNode, done: Counter[str]) -> GraphNode:
    needed = sorted(node.dependencies, key=str)
    return Task(node.key, functools.partial(_checked, node, needed, done), *map(TaskRef, needed))


def _checked(node: GraphNode, needed: list[Any], done: Counter[str], *given: Any) -> Any:
    inputs = dict(zip(needed, given, strict=True))
    before = fingerprint(given), fingerprint(node)
    first = node(inputs)
    seen = fingerprint(first)
    second = node(inputs)
    assert (fingerprint(given), fingerprint(node)) == before, f"{node!r} changed what it was given"
    assert fingerprint(second) == seen, f"{node!r} gave other values when it was done again"
    assert fingerprint(first) == seen, f"{node!r} changed what it had given before"
    done[str(node.key[0] if isinstance(node.key, tuple) else node.key).rpartition("-")[0]] += 1
    return second


def _shuffled(graph: dict[Any, GraphNode], rng: random.Random) -> dict[Any, Any]:
    """Results of all tasks, done in any order; those given early are as they were when all is done."""
    results: dict[Any, Any] = {}
    given: dict[Any, Any] = {}
    waiting = dict(graph)
    while waiting:
        ready = sorted((key for key, node in waiting.items() if node.dependencies <= results.keys()), key=str)
        key = rng.choice(ready)
        results[key] = waiting.pop(key)(results)
        given[key] = fingerprint(results[key])
    for key, value in results.items():
        assert fingerprint(value) == given[key], f"{graph[key]!r} gave what a later task changed"
    return results


def _nested(results: dict[Any, Any], keys: Any) -> Any:
    return [_nested(results, key) for key in keys] if isinstance(keys, list) else results[keys]


def fingerprint(value: Any) -> Any:
    """Equal for equal contents; of a function also what it holds. Other objects are known by their type alone."""
    if isinstance(value, np.ndarray) and not (value.dtype.hasobject or value.dtype.kind == "T"):
        return value.dtype.str, value.shape, hashlib.sha1(np.ascontiguousarray(value).view(np.uint8)).hexdigest()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, [fingerprint(each) for each in value.ravel().tolist()]
    if isinstance(value, pd.Index | pd.Series):
        return fingerprint(np.asarray(value, object))
    if isinstance(value, list | tuple):
        return type(value).__name__, [fingerprint(each) for each in value]
    if isinstance(value, dict):
        return "dict", [(repr(key), fingerprint(each)) for key, each in value.items()]
    if isinstance(value, functools.partial):
        return "partial", fingerprint((value.func, value.args, value.keywords))
    if isinstance(value, DataNode):
        return "data", fingerprint(value.value)
    if isinstance(value, Task):
        return "task", fingerprint((value.func, value.args, value.kwargs))
    if isinstance(value, Alias):
        return "alias", repr(value.target)
    if isinstance(value, FunctionType):
        return value.__qualname__, [fingerprint(cell.cell_contents) for cell in value.__closure__ or ()]
    if hasattr(value, "__self__") and isinstance(value.__self__, np.ndarray):
        return "method", value.__name__, fingerprint(value.__self__)
    if isinstance(value, np.generic | str | bytes | int | float | complex | bool | slice | None):
        return type(value).__name__, repr(value)
    return type(value).__qualname__

"""What a notebook does with files of others, as functions of paths: refusals end as those of commands do."""

import sys
from collections.abc import Callable
from functools import wraps

import numpy as np

import otoscope
from otoscope.analysis.probe.probe import load_probe as load_probe_at


def as_command(ask: Callable[[str], object]) -> Callable[[str], None]:
    @wraps(ask)
    def asked(path: str) -> None:
        try:
            sys.stdout.write(f"{ask(path)}\n")
        except (ValueError, LookupError, OSError, MemoryError) as error:
            sys.stderr.write(f"Error: {' '.join(str(error).split())}\n")
            raise SystemExit(2) from error

    return asked


@as_command
def probability(url: str) -> list[list[float]]:
    """P of each category, summed over neurons, of every task and label column."""
    found = []
    for node in otoscope.open(url).children.values():
        ds = node.to_dataset()
        for label in ds.otoscope.labels:
            p = ds.otoscope.probability(label)
            found.append(p.sum(["layer", "neuron"]).values.round(9).tolist())
    return found


@as_command
def everything(url: str) -> list[str]:
    """Every variable read, and the sum of those that are numbers."""
    found = []
    for node in otoscope.open(url, failed="keep").children.values():
        for name, variable in node.to_dataset().compute().variables.items():
            numeric = variable.dtype.kind in "fiub"
            found.append(f"{name} {float(np.nansum(variable.values.astype('f8'))):.9g}" if numeric else str(name))
    return found


@as_command
def probe(path: str) -> list[str]:
    return list(load_probe_at(path).categories)

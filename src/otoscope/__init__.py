"""otoscope: what the neurons of audio models listen to.

    otoscope.open(url)                          a store as a lazy xarray DataTree, one child per task
    otoscope.capture(encoder, corpus, url, task=...)    audio in, activations out, resumable
    otoscope.across(tree, function)             results with a real `task` dimension
    otoscope.Encoder                            what a `module:` factory returns
    otoscope.analysis                           the pure functions behind `ds.otoscope`

Names are imported when first used, so that `import otoscope` costs nothing.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from .analysis.across_tasks import across
    from .extract.capture import capture
    from .extract.models.encoder import Encoder

# Where each name is, looked up on first use.
HOMES = {"Encoder": "extract.models.encoder", "across": "analysis.across_tasks", "capture": "extract.capture"}

_FOLDER = os.path.dirname(__file__)
for _room in ("store", "cluster", "extract", "analysis", "ablate", "serve"):
    if not os.path.isdir(os.path.join(_FOLDER, _room)):
        raise ImportError(
            f"{_FOLDER} has no folder {_room!r}; expected a symbolic link to one, which git or a copy left out: clone "
            "again by `git clone -c core.symlinks=true`, on Windows in developer mode"
        )

__all__ = [*HOMES, "analysis", "open"]


def open(url: str) -> "xr.DataTree":
    """Store at a path or URL as a lazy DataTree, one child per task; registers the accessor `ds.otoscope`.

    Shows committed clips only, and computes nothing but names and status. Raises FileNotFoundError where nothing is,
    ValueError for what is not a store, is damaged, or has another major version of the format.
    """
    from .analysis import accessor  # registers ds.otoscope
    from .store.reader import open_store

    return open_store(str(url))


def __getattr__(name: str) -> Any:
    import importlib

    if name == "analysis":
        return importlib.import_module(".analysis", __name__)
    if name in HOMES:
        return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

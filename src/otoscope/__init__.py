"""otoscope: what the neurons of audio models listen to.

    otoscope.open(url)                          a store as a lazy xarray DataTree, one child per task
    otoscope.capture(encoder, corpus, url, task=...)    audio in, activations out, resumable
    otoscope.across(tree, function)             results with a real `task` dimension
    otoscope.Encoder                            what a `module:` factory returns
    otoscope.analysis                           the pure functions behind `ds.otoscope`
    otoscope.sae                                sparse dictionaries of stored hidden states

Names are imported when first used, so that `import otoscope` costs nothing.
"""

import os
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import xarray as xr

    from .analysis.across_tasks import across
    from .extract.capture import capture
    from .extract.models.encoder import Encoder

__getattr__, _, __all__ = lazy_loader.attach(
    __name__,
    ["analysis", "sae"],
    {"analysis.across_tasks": ["across"], "extract.capture": ["capture"], "extract.models.encoder": ["Encoder"]},
)
__all__ += ["open"]

_FOLDER = os.path.dirname(__file__)
for _room in ("store", "cluster", "extract", "analysis", "sae", "ablate", "serve"):
    if not os.path.isdir(os.path.join(_FOLDER, _room)):
        raise ImportError(
            f"{_FOLDER} has no folder {_room!r}; expected a symbolic link to one, which git or a copy left out: clone "
            "again by `git clone -c core.symlinks=true`, on Windows in developer mode"
        )


def open(url: str, failed: str = "hide") -> "xr.DataTree":
    """Store at a path or URL as a lazy DataTree, one child per task; registers the accessor `ds.otoscope`.

    Shows the clips that were extracted, each label column as a coordinate of `clip` under its own name, and `position`,
    a clip's place in the plan; computes nothing but names and status.
    failed: "hide" clips that failed, or "keep" them, with `status` and `reason` of every clip.
    Raises FileNotFoundError where nothing is, ValueError for what is not a store, is damaged, or has another major
    version of the format.
    """
    from .analysis import accessor  # registers ds.otoscope
    from .store.reader import open_store

    return open_store(str(url), failed)


def __dir__() -> list[str]:
    return list(__all__)

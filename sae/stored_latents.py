"""Stored latents: layers of a task of latents, found by its store, and held against the task that they are made of.

Conventions: one is named STORE, STORE:TASK, STORE@LAYER,... or STORE:TASK@LAYER,...; without a task, all of a store
that are latents of that task's states, without layers all of them. A layer is an SAE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from ..extract.models.dictionary import Dictionary, read_dictionary
from ..extract.models.latents import state_of_site
from ..store.group import open_root, open_task, task_names
from ..store.reader import open_store
from .labelled import Floats, Labelled
from .table import dictionary_folders


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentLayer:
    """The latents of one SAE, as a task has them."""

    name: str
    """Store, task and layer, in short."""
    where: str
    """Store and task, for messages."""
    ds: xr.Dataset
    layer: int
    """Its number, from 0."""
    state: int
    """The hidden state that the SAE is of."""
    digest: str
    """Of the SAE."""
    sae: Dictionary | None = field(default=None)
    """Itself, where its folder was given."""

    def codes(self, of: Labelled) -> Floats:
        """(clip, latent), mean codes of the labelled clips."""
        return of.activations(self.ds, self.layer, self.where)


def find_latents(texts: Sequence[str], of: Labelled, saes: Mapping[str, Dictionary] | None = None) -> list[LatentLayer]:
    """The layers that are named.

    saes: by digest, as of `read_saes`. Raises LookupError or FileNotFoundError for a store, task or layer that does not
    exist, ValueError for latents of another task's states, or of other clips.
    """
    found = []
    for text in texts:
        url, task, layers = _parts(text)
        root = open_root(url, mode="r")
        tree = open_store(url)
        records = {name: open_task(root, name)[1] for name in ([task] if task else task_names(root))}
        derived = {name: record.identity.derived_from or {} for name, record in records.items()}
        ours = [name for name, about in derived.items() if about.get("identity") == of.base]
        if not ours:
            what = "latents of the states of another task" if any(derived.values()) else "no latents"
            raise ValueError(
                f"{url}{f' task {task}' if task else ''} holds {what}; expected those of {of.where}: make them by "
                "`otoscope sae encode`"
            )
        for name in ours:
            ds, here = tree[name].to_dataset(), f"{url} task {name}"
            if not np.array_equal(ds["clip"].values.astype(str), of.ds["clip"].values.astype(str)):
                raise ValueError(
                    f"{here} has {ds.sizes['clip']} clips, not the same as the {of.ds.sizes['clip']} of {of.where}; "
                    "expected latents of all of them: run its `otoscope sae encode` again"
                )
            n_layers = ds.sizes["layer"]
            for layer in layers or range(n_layers):
                if layer >= n_layers:
                    raise LookupError(f"{here} has no layer {layer}; expected 0 to {n_layers - 1}")
                digest = derived[name]["dictionaries"][layer]
                found.append(
                    LatentLayer(
                        name=f"{Path(url.rstrip('/')).name}:{name}@{layer}", where=here, ds=ds, layer=layer,
                        state=state_of_site(str(ds["site"].values[layer])), digest=digest,
                        sae=(saes or {}).get(digest),
                    )
                )  # fmt: skip
    return found


def read_saes(folders: Sequence[str]) -> dict[str, Dictionary]:
    """The SAEs of folders, each one's own or a folder of such, by digest.

    Raises FileNotFoundError where there is none, ValueError for a damaged one.
    """
    found: dict[str, Dictionary] = {}
    for folder in folders:
        found |= {sae.digest: sae for sae in map(read_dictionary, dictionary_folders(folder))}
    return found


def _parts(text: str) -> tuple[str, str, list[int]]:
    """Store, task and layers of a name."""
    head, _, tail = text.rpartition("@")
    layers = []
    if head and all(part.strip().isdecimal() for part in tail.split(",")):
        layers, text = [int(part) for part in tail.split(",")], head
    url, _, task = text.rpartition(":")
    return (url, task, layers) if url and "/" not in task else (text, "", layers)

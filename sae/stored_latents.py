"""Stored latents: layers of a task of latents, found by its store, and held against the task that they are made of.

Conventions: one is named STORE, STORE:TASK, STORE@LAYER,... or STORE:TASK@LAYER,...; without a task, all of a store
that are latents of that task's states, without layers all of them. A layer is an SAE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..extract.models.dictionary import Dictionary, read_dictionary
from ..extract.models.latents import state_of_site
from ..store.group import open_root, task_names
from ..store.provenance import digest_of
from ..store.schema import OK
from ..store.stored_task import StoredTask
from .stored_values import Floats, Positions, finished_task, means_of
from .table import dictionary_folders


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentLayer:
    """The latents of one SAE, as a task has them."""

    name: str
    """Store, task and layer, in short."""
    task: StoredTask
    layer: int
    """Its number, from 0."""
    state: int
    """The hidden state that the SAE is of."""
    digest: str
    """Of the SAE."""
    sae: Dictionary | None = None
    """Itself, where its folder was given."""

    def codes(self, clips: Positions) -> Floats:
        """(clip, latent), codes of clips by their positions in the task's plan, which is the source's."""
        return means_of(self.task, [self.layer], clips)

    def known(self, codes: Floats) -> dict[str, Any]:
        """What is known of the SAE, codes (clip, latent) among it.

        l0, the mean number of latents that fire in a clip; sparsity, 1 - k / latents where the SAE is known and has a
        k, else 1 - l0 / latents; where it is known sae (its name), control and seed as its recipe says, and
        unexplained, what it leaves of the variance of the rows held out in its training: squared error over variance.
        """
        l0 = float((codes > 0).sum(axis=1).mean())
        if self.sae is None:
            return {"l0": l0, "sparsity": 1 - l0 / codes.shape[1]}
        recipe, measures = (self.sae.about.get(name) for name in ("config", "measures"))
        recipe = recipe if isinstance(recipe, dict) else {}  # of SAEs of other libraries there is none
        held_out = measures.get("held_out", {}) if isinstance(measures, dict) else {}
        return {
            "l0": l0, "sparsity": 1 - (self.sae.k or l0) / codes.shape[1], "sae": self.sae.name,
            "control": recipe.get("control", ""), "seed": recipe.get("seed"),
            "unexplained": 1 - held_out.get("fve", float("nan")),
        }  # fmt: skip


def find_latents(
    texts: Sequence[str], source: StoredTask, saes: Mapping[str, Dictionary] | None = None
) -> list[LatentLayer]:
    """The layers that are named, of latents of the states of `source`.

    saes: by digest, as of `read_saes`. Raises LookupError or FileNotFoundError for a store, task or layer that does not
    exist, ValueError for latents of another task's states, of other clips or other audio, and for a task that is not
    finished.
    """
    found: list[LatentLayer] = []
    again = f"make them by `otoscope sae encode {source.url} --task {source.task}`"
    base = digest_of(source.record.identity.to_json())
    for text in texts:
        url, name, layers = _parts(text)
        every = [StoredTask.at(url, each) for each in ([name] if name else task_names(open_root(url, mode="r")))]
        derived = {task.task: task.record.identity.derived_from or {} for task in every}
        ours = [task for task in every if derived[task.task].get("identity") == base]
        if not ours:
            what = "latents of the states of another task" if any(derived.values()) else "no latents"
            where = f"{url} task {name}" if name else url
            raise ValueError(f"{where} holds {what}; expected those of {source}: {again}")
        for task in ours:
            _check_clips(finished_task(task), source, again)
            sites = task.record.identity.sites
            for layer in layers or range(len(sites)):
                if layer >= len(sites):
                    raise LookupError(f"{task} has no layer {layer}; expected 0 to {len(sites) - 1}")
                digest = derived[task.task]["dictionaries"][layer]
                found.append(
                    LatentLayer(
                        name=f"{Path(url.rstrip('/')).name}:{task.task}@{layer}", task=task, layer=layer,
                        state=state_of_site(sites[layer][0]), digest=digest, sae=(saes or {}).get(digest),
                    )
                )  # fmt: skip
    return found


def _check_clips(task: StoredTask, source: StoredTask, again: str) -> None:
    """Raise ValueError for latents of other clips than the source's, or of other audio than these have by now."""
    if task.clips.name != source.clips.name or ((task.status == OK) != (source.status == OK)).any():
        n, wanted = (int((each.status == OK).sum()) for each in (task, source))
        raise ValueError(
            f"{task} has {n} clips, not the same as the {wanted} of {source}; expected latents of all of them: {again}"
        )
    if (task.values("audio_digest") != source.values("audio_digest")).any():
        raise ValueError(f"{task} holds latents of other audio than {source} has by now; expected the same: {again}")


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

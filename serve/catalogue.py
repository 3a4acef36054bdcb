"""Catalogue: what a server offers: its stores, and the audio of those of their tasks that can be rerun."""

from typing import Any

from ..ablate.jobs.runner import PROBES, probe_at
from ..ablate.offer import Offer
from ..ablate.request import Request
from .settings import Settings


class Catalogue:
    """Stores as they were when this was made, and again whenever a job finds them changed.

    Raises what opening the stores raises. That they have the tasks of the corpora is for the process of jobs to check.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.open_again()

    def open_again(self) -> None:
        """Show the stores as they are now."""
        self.now = Offer(self.settings.stores)

    def tasks(self) -> list[dict[str, Any]]:
        """Tasks of the stores, with their label columns, and whether they can be rerun here."""
        found = []
        for task, labels in self.now.labels.items():
            tree, rerun = self.now.task(task), task in self.settings.corpora
            pending = int(tree.attrs["n_pending"])
            found.append(dict(task=task, clips=tree.sizes["clip"], labels=labels, pending=pending, rerun=rerun))
        return found

    def probes(self) -> list[dict[str, Any]]:
        """Probes that were fitted for jobs: labelling, categories, heads, how."""
        found = []
        for path in sorted((self.settings.state / PROBES).glob("*.json")):
            if (probe := probe_at(path.with_suffix(""))) is not None:
                accuracy = [head.get("valid_accuracy") for head in probe.about.get("heads", [])]
                how = {"heads": list(probe.heads), "recipe": probe.about.get("recipe", {}), "valid_accuracy": accuracy}
                found.append({"probe": path.stem, "labelling": probe.labelling, **how})
        return found

    def check(self, request: Request) -> str:
        """The id of a request, its names looked up. Raises as `Offer.check`, LookupError where there is no audio."""
        self.now.categories(request.task, request.label)
        if request.task not in (reruns := self.settings.corpora):
            some = ", ".join(sorted(reruns)) or "none here"
            raise LookupError(f"task {request.task} has no audio here; expected one that has: {some}: see --corpus")
        self.now.check(request)
        return self.now.id_of(request)

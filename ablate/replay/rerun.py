"""Rerun: embeddings of clips under many interventions, each computed from where it first differs.

Goal: hundreds of interventions on an encoder for little more than what comes after their first edits.
Conventions: interventions are numbered from 1, number 0 is none. Embeddings are float32 (intervention, clip,
embedding), equal to those of whole passes with hooks at the sites within max |a - b| <= 1e-5 max |b|, in 16 bits
within `tolerance` of the precision, as what an edit changes there is added to numbers that were rounded.
Interventions that agree in their first layers share them: passes form a tree, walked depth first. In memory are, for
one batch, at most one record per layer (a few hidden states and the edited neurons' activations) and the results.
The first clips of the first batch are run both ways, in float32 too, where mistakes show that 16 bits would hide; a
model that does not agree with itself, or that names no `maps`, gets whole passes for everything, and that is logged.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...extract.models.encoder import Encoder
from ...extract.models.tap import tap
from ...messages import one_line
from ...store.provenance import tolerance
from ..intervention import Edit, Intervention, edit_output
from .donors import Donors, union
from .passes import Pass, branch_layers, plan_passes
from .replayer import Donated, Record, Replayer

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # in float32
CHECKED = 2
"""Clips of a batch that are run both ways."""
REPLAY, WHOLE = "replay", "whole passes"

Edits = tuple[Edit | None, ...]
"""Layer by layer."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of one length and layout, as the encoder's module takes them."""

    inputs: Tensor
    """`encoder.inputs(waveforms, prompts)`, clip first."""
    n_samples: int
    """Length of the waveforms, padding included."""
    seconds: NDArray[np.float64] | None = None
    """Each clip's own length, before padding; None for `n_samples`."""
    donors: "Batch | None" = None
    """For patches: one donor for each clip, in the same order."""
    prompt: str | None = None
    """Of one of the clips, where the encoder is prompted."""

    @staticmethod
    def of(
        encoder: Encoder, waveforms: Tensor, donors: Tensor | None = None, *, prompts: Sequence[str] | None = None
    ) -> "Batch":
        """Waveforms (clip, sample), and those of their donors, as a batch; of a prompted encoder with prompts (clip).

        Donors are asked what their clips are.
        """
        theirs = None if donors is None else Batch.of(encoder, donors, prompts=prompts)
        inputs, prompt = encoder.inputs(waveforms, prompts), prompts[0] if prompts else None
        return Batch(inputs=inputs, n_samples=waveforms.shape[1], donors=theirs, prompt=prompt)

    def first(self, n: int) -> "Batch":
        """Its first clips."""
        donors = None if self.donors is None else self.donors.first(n)
        seconds = None if self.seconds is None else self.seconds[:n]
        return replace(self, inputs=self.inputs[:n], seconds=seconds, donors=donors)

    def counted(self, encoder: Encoder, frames: str) -> AbstractContextManager[object]:
        """What passes over these clips are to run in: see `Encoder.counted`."""
        seconds = self.seconds
        if seconds is None:
            seconds = np.full(len(self.inputs), self.n_samples / encoder.sample_rate)
        return encoder.counted(self.n_samples, seconds, frames, self.prompt)


class Rerunner:
    """An encoder and what is to be done to it: `rerunner(batch)` gives embeddings under every intervention.

    encoder: in evaluation mode, on its device (`encoder.to(device)`).
    replay: False for whole passes in any case.
    frames: rule by which frames count, for encoders whose passes depend on it.
    While it runs, nothing else may run the encoder's module: modules are replaced for the length of a pass.
    Raises LookupError for neurons that the encoder does not have, ValueError for means or maps that do not fit it, and
    for edits of a site that cannot be edited.
    """

    method: str
    """"replay" or "whole passes"; the first batch may change it."""
    reason: str
    """Why whole passes; empty for replay."""

    def __init__(
        self, encoder: Encoder, interventions: Sequence[Intervention], *, replay: bool = True, frames: str = "audio"
    ) -> None:
        self.encoder, self.interventions, self.frames = encoder, tuple(interventions), frames
        anatomy = encoder.anatomy()
        self.sites = [site.name for site in anatomy.sites]
        widths = [site.width for site in anatomy.sites]
        device = encoder.device
        none: Edits = (None,) * len(widths)
        asked = [[edit and edit.to_device(device) for edit in one.edits(widths)] for one in self.interventions]
        self.edits: list[Edits] = [none, *map(tuple, asked)]
        for layer, site in enumerate(self.sites):
            if site in anatomy.uneditable and any(edits[layer] is not None for edits in self.edits):
                raise ValueError(f"layer {layer}, site {site}, cannot be edited: {anatomy.uneditable[site]}")
        self.root = plan_passes(self.edits, widths)
        self.layers = branch_layers(self.root)
        # Latents are float32 whatever the model computes in.
        self.precision = encoder.base.at(encoder.precision).anatomy().precision if encoder.base else anatomy.precision
        maps = encoder.ffn_maps(anatomy.sites)
        self.method, self.reason = REPLAY, ""
        self.replayer = Replayer(encoder, maps) if maps else None
        self._checked: set[int] = set()  # numbers of runs of a site in one pass for which replay has been checked
        if not replay:
            self.method, self.reason = WHOLE, "asked for"
        elif not maps:
            self._give_up("it names no `maps`, the linear maps behind its sites")

    @torch.inference_mode()
    def __call__(self, batch: Batch, each: Callable[[int], object] | None = None) -> NDArray[np.float32]:
        """Embeddings of a batch, float32 (1 + intervention, clip, embedding); number 0 without intervention.

        each: called with the number of interventions done so far, after every pass; what it raises ends the run.
        Raises ValueError for a patch without donors, or donors that are not one for each clip.
        """
        donated = self._donated(batch)
        with batch.counted(self.encoder, self.frames):
            if self.method == REPLAY:
                done = self._by_replay(batch, donated, each)
                if done is not None:
                    return done
            return self._by_whole_passes(batch, donated, each)

    def _by_whole_passes(
        self, batch: Batch, donated: Donated | None, each: Callable[[int], object] | None
    ) -> NDArray[np.float32]:
        known: dict[tuple[object, ...], NDArray[np.float32]] = {}
        results = []
        for number, edits in enumerate(self.edits):
            key = tuple(edit and edit.key for edit in edits)
            if key not in known:
                known[key] = whole_pass(self.encoder, self.sites, batch.inputs, edits, donated).float().cpu().numpy()
            results.append(known[key])
            if each is not None:
                each(number)
        return np.stack(results)

    def _by_replay(
        self, batch: Batch, donated: Donated | None, each: Callable[[int], object] | None
    ) -> NDArray[np.float32] | None:
        """None where the batch shows that replay does not do: `method` has then changed."""
        assert self.replayer is not None
        if self.layers and not self.replayer.before:
            self.check(batch)
        if self.method == WHOLE:
            return None
        run = partial(self.replayer.run, batch.inputs, donated=donated)
        base, records = run(self.edits[0], keep={branch.layer: branch.columns for branch in self.root.branches})
        n_runs = {len(record.mapped) for record in records.values()}
        if not n_runs <= self._checked:
            self.check(batch)
            self._checked |= n_runs
            return self._by_replay(batch, donated, each)
        results = np.empty((len(self.edits), *base.shape), np.float32)
        n_done = -1  # the base is no intervention

        def take(members: tuple[int, ...], embedding: Tensor) -> None:
            nonlocal n_done
            results[list(members)] = embedding.float().cpu().numpy()
            n_done += len(members)
            if each is not None:
                each(n_done)

        self._walk(self.root, base, records, run, take)
        return results

    def _walk(
        self, step: Pass, embedding: Tensor, records: dict[int, Record], run: Callable[..., Any],
        take: Callable[[tuple[int, ...], Tensor], None],
    ) -> None:  # fmt: skip
        """Take in a pass and all that branch off it. The deepest first: their records are then let go."""
        take(step.members, embedding)
        for branch in reversed(step.branches):
            record = records.pop(branch.layer)
            for further in branch.passes:
                keep = {deeper.layer: deeper.columns for deeper in further.branches}
                changed, deeper_records = run(self.edits[further.members[0]], start=record, keep=keep)
                self._walk(further, changed, deeper_records, run, take)
            del record

    @torch.inference_mode()
    def check(self, batch: Batch) -> None:
        """Run a batch's first clips both ways and let `method` say how to go on. Happens by itself when needed."""
        if self.replayer is None or self.method == WHOLE:
            return
        first = batch.first(CHECKED)
        try:
            with first.counted(self.encoder, self.frames):
                if not self.replayer.before:
                    self.replayer.study(first.inputs, self.layers)
                fault = self._fault(first)
                if fault and self.replayer.keep_everything():  # what a model computes without gradients looks unused
                    fault = self._fault(first)
        except Exception as error:  # whatever an unknown model raises: whole passes ask nothing of it
            fault = f"it cannot be started in the middle ({type(error).__name__}: {one_line(error, whole=True)[:200]})"
        if fault:
            self._give_up(fault)

    def _fault(self, batch: Batch) -> str:
        """How replaying these clips differs from whole passes, without edits and with some; empty where it does not."""
        assert self.replayer is not None
        fault = ""
        if self.encoder.precision != "float32":
            exact = Replayer(replace(self.encoder, precision="float32"), self.replayer.names)
            exact.before = self.replayer.before
            fault = self._fault_of(exact, batch, TOLERANCE)
        return fault or self._fault_of(self.replayer, batch, tolerance(self.precision, TOLERANCE))

    def _fault_of(self, replayer: Replayer, batch: Batch, max_off: float) -> str:
        donated, none = self._donated(batch), self.edits[0]
        run = partial(replayer.run, batch.inputs, donated=donated)
        records = run(none, keep=dict.fromkeys(self.layers))[1]
        for layer in reversed(self.layers):
            example = next(edits for edits in self.edits if edits[layer] is not None)
            # Neurons may be silent in these clips: that the map takes what the site gives, other values show.
            replaced = [replacement(records[layer]) if at == layer else None for at in range(len(none))]
            for edits in (none, (*none[:layer], *example[layer:]), replaced):
                whole = whole_pass(replayer.encoder, self.sites, batch.inputs, edits, donated).float()
                replayed = run(edits, start=records[layer])[0].float()
                off = float((replayed - whole).abs().max() / whole.abs().max().clamp(min=1e-30))
                if not off <= max_off:
                    return f"started at layer {layer} it differs from whole passes by {off:.2g} of the largest value"
            self._checked.add(len(records.pop(layer).mapped))
        return ""

    def _give_up(self, reason: str) -> None:
        self.method, self.reason = WHOLE, reason
        log.warning("encoder %s is rerun in whole passes: %s", self.encoder.name, reason)

    def _donated(self, batch: Batch) -> Donated | None:
        """Values for the patches among the interventions."""
        patches = {
            layer: [edit for edit in edits if edit is not None and edit.mode == "patch"]
            for layer, edits in enumerate(zip(*self.edits, strict=True))
        }
        patches = {layer: edits for layer, edits in patches.items() if edits}
        if not patches:
            return None
        if batch.donors is None or len(batch.donors.inputs) != len(batch.inputs):
            found = "none" if batch.donors is None else len(batch.donors.inputs)
            raise ValueError(
                f"patches for {len(batch.inputs)} clips with donors: {found}; expected a donor for each clip: "
                "give the batch `donors`"
            )
        with batch.donors.counted(self.encoder, self.frames):
            return Donors.record(
                self.encoder, batch.donors.inputs, self.encoder.spans(batch.donors.n_samples, batch.donors.prompt),
                spans_of_clips=self.encoder.spans(batch.n_samples, batch.prompt),
                sites={layer: self.sites[layer] for layer in patches},
                columns={layer: union(edits) for layer, edits in patches.items()},
            ).donated  # fmt: skip


def replacement(record: Record) -> Edit:
    """An edit of all neurons that a record keeps: each a random constant, as large as the layer's largest value."""
    values = record.activation[0]
    width = values.shape[-1]
    random = 2 * torch.rand(width, generator=torch.Generator().manual_seed(width)) - 1
    constants = (float(values.abs().max()) or 1.0) * random
    edit = Edit(neurons=torch.arange(width), mode="mean", constants=constants)
    return edit.to_device(values.device)


def whole_pass(
    encoder: Encoder, sites: Sequence[str], inputs: Tensor, edits: Sequence[Edit | None], donated: Donated | None = None
) -> Tensor:
    """Embedding (clip, embedding) of a pass from the start with edits at the sites: what replay must agree with."""
    touched = {name: layer for layer, name in enumerate(sites) if edits[layer] is not None}
    runs = {name: itertools.count() for name in touched}

    def change(site: str, output: Any) -> Tensor:
        layer = touched[site]
        edit, run = edits[layer], next(runs[site])
        assert edit is not None
        theirs = donated(layer, run, edit) if donated is not None and edit.mode == "patch" else None
        return edit_output(output, encoder.neurons, edit, theirs)

    with tap(encoder.module, list(touched), edit=change, read=lambda _site, _output: None):
        return encoder.run(inputs)

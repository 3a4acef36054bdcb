"""A finished task whose hidden states are known numbers, and SAEs of them that can be worked out by hand.

Conventions: states, weights and centre are small whole numbers, and biases multiples of 1/1024 that differ by latent,
so that every sum is exact in float32 whatever its order, no two pre-activations of a row are equal, and numpy's codes
can be compared bit for bit.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from otoscope.extract.models.dictionary import Dictionary, write_dictionary
from otoscope.store.blocks import Block, blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, digest_of, kept
from otoscope.store.writer import write_block

N_CLIPS, BLOCK, N_STATES, WIDTH, EMBEDDING = 3 * 32 + 10, 32, 3, 12, 5
FAILED_CLIPS = (3, 40, N_CLIPS - 1)
PLANTED = 7  # the latent of SAE "topk" that fires for category "b" alone
KINDS = "abc"


@dataclass(frozen=True, kw_only=True)
class States:
    """What a task is to hold, and how to write it."""

    identity: Identity
    plan: Plan
    clips: ClipTable
    hidden: np.ndarray  # (state, clip, width)
    status: np.ndarray

    @property
    def origin(self) -> Origin:
        check = np.linspace(-1, 1, self.identity.n_check, dtype="f4")
        return Origin(identity=self.identity, source="00", check=check)

    def values(self, block: Block) -> dict[str, np.ndarray]:
        at, ok = block.clips, self.status[block.clips] == 1
        numbers = np.arange(at.start, at.stop)
        every = {
            "active_bits": np.zeros((1, len(block), 1), "u1"),
            "frame_count": np.where(ok, 9, 0).astype("u2"),
            "embedding": np.where(ok[:, None], numbers[:, None] / 8, np.nan) * np.ones(EMBEDDING, "f4"),
            "hidden": np.where(ok[:, None], self.hidden[:, at], np.nan),
            "reason": np.array(["" if o else "schlecht, très mauvais" for o in ok], dtype=object),
            "audio_digest": numbers.astype("u8") + (1 << 63),
        }
        kinds = {"embedding": "f4", "hidden": "f4"}
        kept_ones = {*self.plan.variables, "reason", "audio_digest"}
        return {name: every[name].astype(kinds.get(name, every[name].dtype)) for name in every if name in kept_ones}

    def begin(self, url: str) -> None:
        create(url)
        add_task(url, "t", self.origin, self.plan, self.clips)

    def write(self, url: str, wanted: list[int] | None = None) -> None:
        self.begin(url)
        for block in blocks("t", len(self.clips), BLOCK):
            if wanted is None or block.index in wanted:
                write_block(url, block, self.values(block), self.status[block.clips], "code 1")

    def head(self, n: int) -> "States":
        clips = self.clips.head(n)
        return replace(self, clips=clips, plan=replace(self.plan, n_clips=n, **clips.digests))

    def dictionary(
        self, name: str, state: int, n: int, *, k: int = 0, seed: int = 0, planted: bool = False
    ) -> Dictionary:
        """An SAE of these states. With k TopK, else by a threshold, of which latent 0 always gives 2^-26."""
        rng = np.random.default_rng(seed)
        weights = {
            "encoder": rng.integers(-3, 4, (n, WIDTH)), "bias": rng.permutation(n) / 1024 - 0.25,
            "decoder": rng.integers(-3, 4, (n, WIDTH)), "centre": rng.integers(-2, 3, WIDTH),
        }  # fmt: skip
        if planted:  # the last dimension says that a clip is of category "b"
            weights["encoder"][:, -1] = 0
            weights["encoder"][PLANTED] = [0] * (WIDTH - 1) + [40]
            weights["centre"][-1] = 0
        threshold = None
        if not k:
            weights["encoder"][0], weights["bias"][0] = 0, 2.0**-26
            threshold = torch.tensor([0.0] + [2.0] * (n - 1))
        tensors = {name: torch.tensor(values, dtype=torch.float32) for name, values in weights.items()}
        digest = digest_of(self.identity.to_json())
        return Dictionary(**tensors, k=k, threshold=threshold, state=state, base=digest, name=name)


def codes_in_numpy(dictionary: Dictionary, states: np.ndarray) -> np.ndarray:
    """Codes (clip, latent) of states (clip, width), by the definition, a row at a time."""
    weights = {name: values.numpy().astype("f8") for name, values in dictionary.weights.items()}
    codes = np.zeros((len(states), dictionary.n_latents))
    for row, state in zip(codes, states.astype("f8"), strict=True):
        pre = weights["encoder"] @ (state - weights["centre"]) + weights["bias"]
        fires = pre > 0
        if dictionary.k:
            fires &= np.isin(np.arange(len(pre)), np.argsort(-pre)[: dictionary.k])
        else:
            fires &= pre > weights["threshold"]
        row[fires] = pre[fires]
    return codes.astype("f4")


def make_states(n: int = N_CLIPS, *, embedding: bool = True, hidden: bool = True, prompts: bool = True) -> States:
    rng = np.random.default_rng(0)
    states = rng.integers(-8, 9, (N_STATES, n, WIDTH)).astype("f4")
    kind = np.arange(n) % len(KINDS)
    states[:, :, -1] = kind == 1
    status = np.ones(n, "u1")
    status[[i for i in FAILED_CLIPS if i < n]] = 2
    clips = ClipTable(
        name=[f"clip {i} é" for i in range(n)],
        path=[f"sub/{i // 2}.wav" for i in range(n)],
        start=np.where(np.arange(n) % 2, 1.5, np.nan),
        stop=np.full(n, np.nan),
        prompt=[f"what is {i % 4}?" for i in range(n)] if prompts else None,
        labels={
            "kind": [KINDS[i] for i in kind],
            "half, or none": [("low", "high", "")[i // 2 % 3] for i in range(n)],
            "singer": [f"s{i // 3 % 8}" for i in range(n)],
        },
    )
    identity = Identity(
        encoder="fake", weights="00", front_end={"sample_rate": 16_000}, sites=(("a", 8),), embedding=EMBEDDING,
        hidden=(N_STATES, WIDTH), frames="audio",
    )  # fmt: skip
    variables = kept(("embedding",) * embedding + ("hidden",) * hidden)
    plan = Plan(
        n_clips=n, **clips.digests, block=BLOCK, batch=4, threads=1, unit_sec=None, variables=variables,
        mean_dtype="float32",
    )  # fmt: skip
    return States(identity=identity, plan=plan, clips=clips, hidden=states, status=status)


def write_dictionaries(states: States, folder: Path) -> list[str]:
    """Folders of SAEs "topk" and "threshold", of states 1 and 2, of unequal numbers of latents."""
    made = [states.dictionary("topk", 1, 40, k=6, planted=True), states.dictionary("threshold", 2, 30, seed=1)]
    for dictionary in made:
        write_dictionary(dictionary, folder / dictionary.name)
    return [str(folder / dictionary.name) for dictionary in made]

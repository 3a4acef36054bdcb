"""A small store with known contents: 2 layers of 300 and 20 neurons, 9 blocks of 32 clips, the last one ragged."""

from dataclasses import dataclass, replace

import numpy as np

from otoscope.store.blocks import Block, blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.writer import write_block

N_CLIPS, BLOCK, WIDTHS = 8 * 32 + 5, 32, (300, 20)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the store is to hold, in plain arrays of (clip, ...), and how to write it."""

    identity: Identity
    plan: Plan
    clips: ClipTable
    mean: np.ndarray  # (layer, clip, neuron), NaN beyond a layer's width
    positive: np.ndarray
    status: np.ndarray

    @property
    def origin(self) -> Origin:
        return Origin(identity=self.identity, source="00", check=np.linspace(-1, 1, self.identity.n_check, dtype="f4"))

    def values(self, block: Block) -> dict[str, np.ndarray]:
        at = block.clips
        mean = self.mean[:, at]
        return {
            "active_bits": np.packbits(np.nan_to_num(mean) > 0, axis=-1, bitorder="little"),
            "mean": mean.astype("f2"),
            "positive_frames": self.positive[:, at],
            "frame_count": np.arange(at.start, at.stop).astype("u2"),
            "embedding": np.full((len(block), 5), block.index, "f4"),
            "hidden": np.full((3, len(block), 7), block.index, "f4"),
            "reason": np.array(["" if s == 1 else "schlecht, très mauvais" for s in self.status[at]], dtype=object),
            "audio_digest": np.arange(at.start, at.stop).astype("u8") + (1 << 63),
        }

    def blocks(self) -> list[Block]:
        return list(blocks("t", len(self.clips), BLOCK))

    def begin(self, url: str) -> None:
        create(url)
        add_task(url, "t", self.origin, self.plan, self.clips)

    def write(self, url: str, wanted: list[Block] | None = None) -> None:
        for block in self.blocks() if wanted is None else wanted:
            write_block(url, block, self.values(block), self.status[block.clips], "code 1")

    def head(self, n: int) -> "Known":
        clips = self.clips.head(n)
        return replace(self, clips=clips, plan=replace(self.plan, n_clips=n, **clips.digests))


def make_known(n: int = N_CLIPS) -> Known:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(2, n, max(WIDTHS))).astype("f4")
    mean[1, :, WIDTHS[1] :] = np.nan
    status = np.ones(n, "u1")
    status[[3, n - 1]] = 2
    clips = ClipTable(
        name=[f"clip {i} é" for i in range(n)],
        path=[f"sub/{i // 2}.wav" for i in range(n)],
        start=np.where(np.arange(n) % 2, 1.5, np.nan),
        stop=np.full(n, np.nan),
        labels={
            "digit": [str(i % 11) if i % 7 else "" for i in range(n)],
            "who, exactly": ["éva", "bo b"] * (n // 2) + ["z"] * (n % 2),
        },
    )
    identity = Identity(
        encoder="fake", weights="00", front_end={"sample_rate": 16_000}, sites=(("a", WIDTHS[0]), ("b", WIDTHS[1])),
        embedding=5, hidden=(3, 7), frames="audio",
    )  # fmt: skip
    plan = Plan(
        n_clips=n, **clips.digests, block=BLOCK, batch=4, threads=1, unit_sec=None,
        variables=kept(("mean", "positive_frames", "embedding", "hidden")),
    )  # fmt: skip
    positive = (np.nan_to_num(mean) > 0).astype("u2") * 3
    return Known(identity=identity, plan=plan, clips=clips, mean=mean, positive=positive, status=status)

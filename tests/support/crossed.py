"""A crossed corpus made up: responses of neurons to every sound with every text, and a store of them.

Conventions: sizes are K, J, L, M; pairs are in the order (audio class, sound, text class, wording), responses (pair,
neuron).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from otoscope.store.blocks import blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.writer import write_block

Sizes = tuple[int, int, int, int]
NUISANCE = {"sound": 0.5, "wording": 0.2, "sound_by_text": 0.2, "class_by_wording": 0.2, "rest": 0.3}
"""Standard deviations of what is no effect of a category."""
BLOCK = 64


def columns_of(sizes: Sizes) -> dict[str, list[str]]:
    """The label columns of a crossed corpus, by name (pair)."""
    a, j, t, m = np.indices(sizes).reshape(4, -1)
    return {
        "audio_class": [f"A{i}" for i in a],
        "text_class": [f"T{i}" for i in t],
        "audio": [f"sound {i}.{k}" for i, k in zip(a, j, strict=True)],
        "wording": [f"w{i}" for i in m],
        "replicate": [str(i + 1) for i in j],
    }


def noise(rng: np.random.Generator, shape: tuple[int, ...], kind: str = "normal") -> np.ndarray:
    """Of mean 0 and deviation 1: normal; skewed, an exponential's; spiky, 0 nine times in ten."""
    if kind == "skewed":
        return rng.exponential(size=shape) - 1
    if kind == "spiky":
        return rng.normal(size=shape) * (rng.random(shape) < 0.1) * 10**0.5
    return rng.normal(size=shape)


def effect(rng: np.random.Generator, n: int, n_neurons: int) -> np.ndarray:
    """Means of n categories (category, neuron) of variance 1, divided by n - 1, around 0."""
    means = rng.normal(size=(n, n_neurons))
    means -= means.mean(axis=0)
    return means / means.std(axis=0, ddof=1)


def responses(
    sizes: Sizes,
    n_neurons: int,
    *,
    seed: int = 0,
    d_audio: float | np.ndarray = 0.0,
    d_text: float | np.ndarray = 0.0,
    d_both: float | np.ndarray = 0.0,
    nuisance: Mapping[str, float] = NUISANCE,
    kind: str = "normal",
) -> np.ndarray:
    """(pair, neuron) of categories' effects of these sizes d, a number or one per neuron, and of noise of a kind."""
    rng, n, (K, J, L, M) = np.random.default_rng(seed), n_neurons, sizes

    def random(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return nuisance[name] * noise(rng, (*shape, n), kind)

    both = rng.normal(size=(K, 1, L, 1, n))
    both -= both.mean(axis=0, keepdims=True)
    both -= both.mean(axis=2, keepdims=True)
    both /= np.sqrt((both**2).sum(axis=(0, 2), keepdims=True) / ((K - 1) * (L - 1)))
    values = d_audio * effect(rng, K, n).reshape(K, 1, 1, 1, n) + d_text * effect(rng, L, n).reshape(1, 1, L, 1, n)
    values = values + d_both * both + random("sound", (K, J, 1, 1)) + random("wording", (1, 1, L, M))
    values = values + random("sound_by_text", (K, J, L, 1)) + random("class_by_wording", (K, 1, L, M))
    return (values + random("rest", (K, J, L, M))).reshape(-1, n)


def write_crossed(
    url: str, mean: np.ndarray, columns: Mapping[str, Sequence[str]], failed: Sequence[int] = (), task: str = "emotion"
) -> None:
    """A finished store of means (layer, clip, neuron), some of whose clips failed."""
    n_layers, n, width = mean.shape
    clips = ClipTable(
        name=[f"pair {i}" for i in range(n)],
        path=[f"{i}.wav" for i in range(n)],
        start=np.full(n, np.nan),
        stop=np.full(n, np.nan),
        labels={name: list(values) for name, values in columns.items()},
    )
    identity = Identity(
        encoder="made", weights="00", front_end={"sample_rate": 16_000},
        sites=tuple((f"layers.{i}", width) for i in range(n_layers)), embedding=1, hidden=(0, 0), frames="audio",
    )  # fmt: skip
    plan = Plan(
        n_clips=n, **clips.digests, block=BLOCK, batch=4, threads=1, unit_sec=None, variables=kept(("mean",)),
        mean_dtype="float32",
    )  # fmt: skip
    create(url)
    add_task(url, task, Origin(identity=identity, source="00", check=np.zeros(identity.n_check, "f4")), plan, clips)
    ok = ~np.isin(np.arange(n), failed)
    for block in blocks(task, n, BLOCK):
        own = ok[block.clips]
        values = np.where(own[:, None], mean[:, block.clips], np.nan).astype("f4")
        arrays = {
            "active_bits": np.packbits(np.nan_to_num(values) > 0, axis=-1, bitorder="little"),
            "mean": values,
            "frame_count": own.astype("u2"),
            "reason": np.where(own, "", "made up").astype(object),
            "audio_digest": np.zeros(len(own), "u8"),
        }
        write_block(url, block, arrays, np.where(own, 1, 2).astype("u1"), "code 1")

"""A crossed corpus through Qwen2-Audio: one store, byte for byte, whoever computes it and however often it stops."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from otoscope.cluster.executor import Executor
from otoscope.cluster.ray import RayExecutor
from otoscope.extract.audio.corpora.cross import cross
from otoscope.extract.capture import capture
from otoscope.extract.models import registry
from otoscope.store.verify import verify

from ..support.audio_language_models import RATE, sounds, write_folder
from ..support.interrupted_executor import After, interrupt
from ..support.local_ray import local_ray
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_wav_file

PROMPTS = {"sad": ["{audio} he sounds sad?", "is she sad? {audio}"], "mad": ["{audio} very mad?", "he is mad {audio}"]}
LENGTHS = [16_000, 7_345, 4_000, 9_999, 12_000, 4_100]


def write_pairs(folder: Path) -> Path:
    """Six sounds with four prompts."""
    for i, wave in enumerate(sounds(LENGTHS)):
        write_wav_file(folder / f"{i}.wav", wave, RATE)
    pd.DataFrame({"path": [f"{i}.wav" for i in range(6)], "kind": list("ababab")}).to_csv(folder / "m.csv", index=False)
    rows = [(prompt, kind) for kind, prompts in PROMPTS.items() for prompt in prompts]
    pd.DataFrame(rows, columns=["prompt", "text_class"]).to_csv(folder / "p.csv", index=False)
    cross(folder / "m.csv", folder / "p.csv", folder / "c.csv", label="kind", clips=3)
    return folder / "c.csv"


@pytest.mark.slow
def test_serial_is_ray_and_stopped_and_resumed_is_built_at_once(tmp_path: Path) -> None:
    corpus, spec = write_pairs(tmp_path), f"qwen2audio:{write_folder(tmp_path / 'model')}"

    def run(name: str, executor: Executor | None = None, **options: Any) -> dict[str, bytes]:
        registry._loaded.cache_clear()  # as in another process, with nothing kept
        url = str(tmp_path / name)
        keep = ("mean", "positive_frames", "embedding", "hidden")
        capture(
            spec, corpus, url, task="t", block=7, batch=3, threads=1, device="cpu", keep=keep, executor=executor,
            **options,
        )  # fmt: skip
        assert list(verify(url)) == []
        return tree_of(url)

    whole = run("whole")
    for n in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run("resumed", After(n, interrupt))
    assert run("resumed") == whole
    with local_ray():
        assert run("ray", RayExecutor(actors=1)) == whole

"""The walk of docs/sae.md, from recordings to an ablation: its own commands, on notes that the package makes itself."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import torch

import otoscope
from otoscope.ablate.result import read_result
from otoscope.extract.audio.corpora.synth import synthesise
from otoscope.extract.models.dictionary import read_dictionary
from otoscope.store.verify import verify

from ..support.commands import done

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
PAGE = Path(__file__).parents[2] / "docs" / "sae.md"


def commands() -> list[list[str]]:
    """The words of the commands in the first section, after `otoscope`."""
    (section,) = re.findall(r"^## From recordings to an ablation$(.*?)^## ", PAGE.read_text("utf-8"), re.M | re.S)
    block = "\n".join(line for line in section.splitlines() if line.startswith("    ")).replace("\\\n", " ")
    words = [shlex.split(line) for line in block.splitlines()]
    assert all(first == "otoscope" for first, *_ in words)
    return [rest for _, *rest in words]


def test_the_walk_ends_in_an_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = synthesise(tmp_path, notes_per_octave=40, events_per_category=0)["additive"]
    table = pd.read_csv(notes, dtype=str).rename(columns={"octave": "digit", "timbre": "speaker"})
    table[["path", "digit", "speaker", "split"]].to_csv(tmp_path / "digits.csv", index=False)
    monkeypatch.chdir(tmp_path)
    walk = commands()
    assert [words[0] for words in walk] == ["extract", *["sae"] * 4, "neurons", "table", "ablate", "figure"]
    for words in walk:
        done(*words)

    saes = pd.read_csv("saes.csv").set_index("name")
    names = [f"state{state}-s0.95-seed{seed}" for state in (2, 3) for seed in (0, 1)]
    assert sorted(saes.index) == sorted(names)
    assert (saes["held_out.fve"] > 0.5).all()
    controls = [read_dictionary(path) for path in sorted(Path("controls").iterdir())]
    assert {sae.about["config"]["control"] for sae in controls} == {"untrained"}
    assert max(sae.about["measures"]["held_out"]["fve"] for sae in controls) < saes["held_out.fve"].min()

    latents, states = (otoscope.open(f"{name}.zarr")["speech"].to_dataset() for name in ("latents", "digits"))
    assert [*verify("latents.zarr")] == []
    for layer, name in enumerate((names[0], names[2])):
        sae = read_dictionary(Path("saes") / name)
        codes = sae.encode(torch.from_numpy(states["hidden"].isel(state=sae.state).values))
        stored = latents["mean"].isel(layer=layer).transpose("clip", "neuron").values
        assert (latents["active"].isel(layer=layer).transpose("clip", "neuron").values == (codes > 0).numpy()).all()
        torch.testing.assert_close(torch.from_numpy(stored).float(), codes, rtol=2e-3, atol=1e-5)
    assert len(pd.read_csv("latents.csv"))

    result = read_result("seven.parquet")
    assert len(result.attrs["controls"]) == 200
    assert {len(pairs) for pairs in result.attrs["controls"]} == {len(result.attrs["neurons"]["pairs"])}
    seven = result.sel(measure="margin", category="7")
    assert float(seven["change"]) != 0
    as_low = (seven["control_change"] <= seven["change"]).sum()
    assert float(seven["p_rank"]) == pytest.approx((1 + int(as_low)) / 201)
    assert Path("seven.pdf").read_bytes().startswith(b"%PDF")

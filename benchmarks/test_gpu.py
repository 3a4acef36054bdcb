"""The script for a GPU goes through all of its stages on a processor; what comes out is no measurement."""

import json
import math
from pathlib import Path

import pytest
import torch

from . import gpu


@pytest.mark.slow
def test_every_stage_runs_on_a_processor_and_is_written_down(tmp_path: Path) -> None:
    gpu.main(["--small", "--cpu", "--json", str(tmp_path / "gpu.json"), "--scratch", str(tmp_path)])
    record = json.loads((tmp_path / "gpu.json").read_text())
    figures = {figure["name"]: figure for figure in record["figures"]}
    assert len(figures) == 6
    assert all(math.isfinite(figure["value"]) for figure in figures.values())
    assert figures["float32 means against the processor's"]["holds"]
    assert figures["bfloat16 means, difference from float32 over that of torch on the processor"]["holds"]
    assert record["raw"]["results"]["differences"]["bfloat16"] > 1e-4  # it was another precision
    assert record["raw"]["results"]["reduction"] in record["hardware"]
    assert set(record["raw"]["bfloat16 pass"]["seconds"]) == {"bare", "ours", "bare, all in 16 bits"}
    for precision in ("float32", "bfloat16"):
        stages = record["raw"][f"{precision} from files"]
        assert stages["limiting_stage"] in stages["clips_per_second_of_a_stage"]
        assert {"decode", "forward", "pack", "write"} <= set(stages["clips_per_second_of_a_stage"])
    assert any("aten::addmm" in line for line in record["raw"]["profile"]["table"])
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^no CUDA device; expected one: run where there is one, .* --small --cpu$"):
        gpu.main([])
    assert capsys.readouterr().out == ""


def test_what_was_measured_outlives_a_stage_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(gpu, "share_of_bare_pass", fails)
    with pytest.raises(RuntimeError, match="CUDA error"):
        gpu.main(["--small", "--cpu", "--json", str(tmp_path / "gpu.json")])
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert len(record["figures"]) == 2
    assert set(record["raw"]) == {"results", "seconds_of_stages"}

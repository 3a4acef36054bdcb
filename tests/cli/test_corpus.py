"""The commands `corpus build` and `corpus list`, through the command line."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from otoscope.cli.main import cli
from otoscope.extract.audio.corpora import DATA_SETS


def test_the_data_sets_that_there_are_are_listed() -> None:
    listed = CliRunner().invoke(cli, ["corpus", "list"])
    assert listed.exit_code == 0
    assert [line.split(":")[0] for line in listed.output.splitlines()[::2]] == list(DATA_SETS)


@pytest.mark.parametrize("name", [*DATA_SETS, "librispeech"])
def test_a_wrong_folder_or_name_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["corpus", "build", name, str(tmp_path), "-o", str(tmp_path / "M.csv")])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "expected" in result.stderr
    assert not list(tmp_path.iterdir())

"""Every number that a command takes, out of its range: refused before anything is opened, by its own name."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from otoscope.cli.main import COMMANDS, load

from ..support.commands import call

BAD = ("nan", "inf", "-inf", "-1", "0")
AS_TEXT = {"percentile", "unit_sec"}  # numbers, and a word beside
MEANT = {
    "0": {
        "seed", "probe_seed", "lowest", "max_failures", "gain", "threshold", "controls", "port", "cpus", "gpus",
        "draws", "min_rate", "cpus_per_actor", "gpus_per_actor", "order_seed", "state", "sae",
    },
    "-1": {"gain", "threshold"},
}  # fmt: skip
"""What means something: no controls, no bootstrap, any free port, a factor that turns activations round, ..."""
GIVEN = {
    "set": "all(a)", "output": "f.parquet", "kind": "overlap", "task": "t:kind", "tasks": "t:kind", "mode": "gain",
    "library": "published", "clips": "2",
}  # fmt: skip


def options() -> Iterator[tuple[str, str]]:
    for group in COMMANDS.values():
        for name in group:
            command = load(name)
            assert command is not None
            for param in command.params:
                number = isinstance(param.type, click.types.IntParamType | click.types.FloatParamType)
                if param.name == "actors":
                    continue  # counted where the executor opens: see `test_bad_choices_of_where_workers_run`
                if isinstance(param, click.Option) and (number or param.name in AS_TEXT):
                    yield name, str(param.name)


def asked(command: click.Command, option: str, value: str, corpus: Path) -> list[str]:
    """A command line with an option and whatever is required, of a store that does not exist."""
    words = []
    for param in command.params:
        name = str(param.name)
        given = value if name == option else None
        if given is None and (param.required or (name == "mode" and option == "gain")):
            given = str(corpus) if name in ("corpus", "manifests") else GIVEN.get(name, "/nowhere")
        if given is not None and isinstance(param, click.Option):
            words += [f"{param.opts[-1]}={given}"]
        elif given is not None:
            words += [given]
    return words


@pytest.mark.parametrize("value", BAD)
def test_numbers_out_of_range_are_refused_by_name(value: str, corpus: Path) -> None:
    found = list(options())
    assert len(found) > 45
    for name, option in found:
        command = load(name)
        assert command is not None
        words = asked(command, option, value, corpus)
        if option in MEANT.get(value, set()) or (value, name, option) == ("0", "figure", "permutations"):
            command.make_context(name, words)
            continue
        result = call(*name.split(), *words)
        error = result.stderr.splitlines()[-1]
        (flag,) = (param.opts[0].lstrip("-").split("-")[-1] for param in command.params if param.name == option)
        assert result.exit_code == 2, (name, option, value, result.output, result.exception)
        assert "/nowhere" not in error, (name, option, value, error)  # it is not the store that is wrong
        assert flag in error, (name, option, value, error)


@pytest.mark.parametrize("value", [str(10**400), "1e309"])
def test_a_number_that_no_machine_holds_is_a_line(value: str, corpus: Path) -> None:
    for name, option in options():
        command = load(name)
        assert command is not None
        result = call(*name.split(), *asked(command, option, value, corpus))
        assert result.exit_code == 2, (name, option, result.exception)
        assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("draws", [1, 2, 38])
def test_a_bootstrap_too_small_for_its_interval_is_refused(draws: int, original: str) -> None:
    result = call("null", original, "--task", "t:kind", "--percentile", 40, "--bootstrap", draws)
    assert result.exit_code == 2
    assert f"found {draws} draws of a bootstrap; expected 39 to" in result.stderr


@pytest.mark.parametrize("level", ["2", "nan", "0", "1", "-0.1", "inf"])
def test_a_level_is_a_share(level: str, original: str) -> None:
    for command in (("null", original), ("figure", "overlap", original, "--permutations", 20, "-o", "f.png")):
        result = call(*command, "--task", "t:kind", "--percentile", 40, "--level", level)
        assert result.exit_code == 2
        assert f"level is {float(level):g}; expected a number above 0 and below 1" in result.stderr

"""A command that is told to stop stops, also where Python or a library drops the exception."""

import subprocess
import sys

import click
import pytest

from otoscope.cli import main

from ..support.commands import call

PROGRAM = """
import signal, sys, time
from otoscope.cli.interrupts import catch_signals, stop_repeating

class Dropped:
    def __del__(self):  # an exception in here is only printed
        print("begun", flush=True)
        time.sleep(5)

def work():
    if sys.argv[1] == "dropped":
        Dropped()
    else:
        print("begun", flush=True)
        try:
            time.sleep(5)
        except KeyboardInterrupt:
            pass
    time.sleep(600)

catch_signals()
try:
    try:
        work()
    finally:
        time.sleep(1.5)  # an end in good order takes longer than it takes to raise again
        print("closed", flush=True)
except KeyboardInterrupt:
    stop_repeating()
    print("interrupted", flush=True)
    time.sleep(1.5)
    print("left alone", flush=True)
"""


@pytest.mark.parametrize("where", ["dropped", "swallowed"])
def test_an_interrupt_that_is_lost_is_raised_again_and_one_on_its_way_is_not(where: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.split("\n") == ["closed", "interrupted", "left alone", ""]


@pytest.mark.parametrize(
    ("command", "committed"),
    [
        ("extract", True),
        ("quickstart", True),
        ("figure", False),
        ("table", False),
        ("label", False),
        ("ablate run", False),
        ("sae train", True),
        ("sae encode", True),
        ("sae factors", False),
        ("sae table", False),
    ],
)
def test_only_commands_that_commit_blocks_speak_of_them(
    monkeypatch: pytest.MonkeyPatch, command: str, committed: bool
) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        main, "load", lambda name: interrupted if name == command else main.Commands(name, prefix=f"{name} ")
    )
    result = call(*command.split())
    assert result.exit_code == 130
    assert result.stderr.startswith("Error: interrupted; ")
    assert ("committed" in result.stderr) == committed
    assert len(result.stderr.splitlines()) == 1

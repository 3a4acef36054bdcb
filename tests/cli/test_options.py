"""Options that are made of the fields of a record."""

from dataclasses import dataclass, field

import click
import pytest
from click.testing import CliRunner

from otoscope.analysis.selection.selection import Selection, described
from otoscope.cli.options import gathered, options_of, record_of


@dataclass(frozen=True, kw_only=True)
class Order:
    name: str = field(metadata={"help": "What."})
    size: int = described(3, "How large.")
    side: str = described("", "Which side [any].", ("", "left", "right"))
    match: tuple[str, ...] = described((), "Alike in.", ("rate", "mean"))
    selection: Selection = field(default_factory=Selection)
    note: str = ""


@click.command()
@gathered("order", lambda **given: record_of(Order, given), **options_of(Order))
@click.option("--more", default=1)
def show(order: Order, more: int) -> None:
    click.echo(f"{order!r} {more}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", Order(name="a")),
        ("--size 4 --side left --match rate,mean", Order(name="a", size=4, side="left", match=("rate", "mean"))),
        ("--threshold 0.5 --rule paper", Order(name="a", selection=Selection(threshold=0.5, rule="paper"))),
    ],
)
def test_what_is_given_reaches_the_record_and_the_rest_is_its_default(given: str, expected: Order) -> None:
    result = CliRunner().invoke(show, ["--name", "a", *given.split()])
    assert result.output == f"{expected!r} 1\n"


def test_fields_without_a_line_of_help_are_no_options_and_choices_are_named() -> None:
    text = CliRunner().invoke(show, ["--help"]).output
    assert "--note" not in text
    assert "--side [left|right]" in text
    assert "--match rate,mean" in text
    assert "[default: 3]" in text
    assert CliRunner().invoke(show, []).exit_code == 2
    assert CliRunner().invoke(show, ["--name", "a", "--side", "up"]).exit_code == 2

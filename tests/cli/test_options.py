"""Options that are made of the fields of a record."""

from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from otoscope.analysis.selection.selection import Selection, described
from otoscope.cli.options import gathered, options_of, record_of

from ..support.commands import done, refused


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


LAPE = ("--task", "t:kind", "--percentile", "40")
TESTED = ("--task", "t:kind", "--permutations", "19")


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        *((("neurons", *LAPE), option) for option in ("level=0.1", "group=zahl", "within=zahl", "seed=1")),
        (("neurons", *LAPE), "permutations=20"),
        (("neurons", *LAPE, "--bootstrap", "39"), "permutations=20"),
        (("neurons", *LAPE, "--confirm", "split=test"), "level=0.1"),
        (("table", "paper", *LAPE), "level=0.1"),
        *((("table", "stats", *LAPE), option) for option in ("against=t:zahl", "seed=1")),
        *((("table", kind, *TESTED[:2]), "min-effect=0.8") for kind in ("probability", "aape", "neuron-thresholds")),
        (("table", "probability", *TESTED[:2]), "permutations=20"),
        *((("figure", "depth", *TESTED), option) for option in ("against=t:zahl", "arrange=x.csv", "side=above")),
        (("figure", "overlap", *TESTED[:2]), "show=ratio"),
        (("figure", "overlap", *LAPE), "seed=1"),
        *((("figure", "ablation"), option) for option in ("rule=lape", "against=t:zahl", "task=t:kind")),
        (("null", *TESTED), "caption=none"),
        *((("ablate", "set", *LAPE, "--set", "all(b)"), option) for option in ("group=zahl", "seed=1", "level=0.1")),
        *(
            (("ablate", "set", "--task", "t:kind", "--set", "(0,1)"), option)
            for option in ("rule=lape", "where=split=test", "clips=all", "splits=split", "seed=1")
        ),
    ],
)
def test_an_option_that_does_nothing_is_refused(
    original: str, words: tuple[str, ...], unused: str, tmp_path: Path
) -> None:
    name, _, value = unused.partition("=")
    at = 1 if words[0] in ("neurons", "null") else 2
    output = ("-o", tmp_path / ("f.png" if words[0] == "figure" else "t.csv"))
    call_of = (*words[:at], original, *words[at:], f"--{name}", value, *output)
    refused(f"--{name} was given .*: leave it out", *call_of, watched=tmp_path)


def test_options_of_shuffling_are_taken_where_something_uses_them(original: str, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "t.csv")
    done("neurons", original, *LAPE, "--bootstrap", 39, "--within", "split", "--seed", 1, *output)
    done("neurons", original, *LAPE, "--confirm", "split=test", "--permutations", 19, "--within", "split", *output)
    done("neurons", original, *TESTED, "--level", 0.1, *output)
    done("figure", "depth", original, *TESTED, "--level", 0.1, "-o", tmp_path / "f.png")
    done("ablate", "set", original, "--task", "t:kind", "--set", "(0,1)", *output)


def test_the_rule_contrast_has_no_table_of_thresholds(original: str, tmp_path: Path) -> None:
    refused("contrast has no thresholds .*give --rule", "table", "thresholds", original, *TESTED, watched=tmp_path)

"""The tables of figures in the documentation, made of the recorded results: `python -m benchmarks.report`.

Conventions: the table stands between the lines `<!-- figures -->` and `<!-- /figures -->`; a test compares it with
`results/*.json`, so that no number is ever typed. docs/performance.md has all of it, the README what most ask first,
docs/uncertainty.md the comparison of rules, beside a picture.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import QUESTIONS
from .against_hooks import ways_table
from .harness import RESULTS, ROOT, recorded
from .selection_report import draw, selection_table

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
ASKED_FIRST = ("quickstart", "throughput", "counting", "opening", "commands", "cluster", "object_store")


def figures_table(questions: Sequence[str] = QUESTIONS, results: Path = RESULTS) -> str:
    """Markdown: one row per figure, and a line on where and when they were measured.

    Raises FileNotFoundError where a question has no result yet.
    """
    records = [recorded(question, results) for question in questions]
    lines = ["| figure | measured | bound | how |", "|---|---|---|---|"]
    for record in records:
        for figure in record["figures"]:
            word = "at least" if figure["at_least"] else "under"
            missed = "" if figure["holds"] else " (missed)"
            bound = f"{word} {with_unit(figure['bound'], figure['unit'])}"
            measured = f"**{with_unit(figure['value'], figure['unit'])}**{missed}"
            lines.append(f"| {figure['name']} | {measured} | {bound} | {figure['how']} |")
    return "\n".join([*lines, "", measured_on(records)])


def with_unit(value: float, unit: str) -> str:
    """A number to four digits, so that a near miss does not look like the bound."""
    return f"{float(f'{value:.4g}'):g} {unit}".strip()


def measured_on(records: list[dict[str, Any]]) -> str:
    """One sentence on the machines, versions and dates."""
    machines = {
        f"{m['cores']} cores of {m['cpu']}, {m['memory_gb']:g} GB" for m in (record["machine"] for record in records)
    }
    versions = {
        ", ".join(f"{name} {version}" for name, version in record["versions"].items() if name != "otoscope")
        for record in records
    }
    dates = sorted({record["date"] for record in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {when} on {' and '.join(sorted(machines))}; {' and '.join(sorted(versions))}."


def with_table(text: str, table: str, name: str) -> str:
    """A document with its table replaced. Raises ValueError where it does not mark exactly one place."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{name} has no single place from {BEGIN} to {END}; expected these two lines: add them")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/performance.md": lambda: f"{figures_table()}\n\n## Against what people do\n\n{ways_table()}",
    "README.md": partial(figures_table, ASKED_FIRST),
    "docs/uncertainty.md": selection_table,
}


def main() -> None:
    for name, table in DOCUMENTS.items():
        path = ROOT / name
        path.write_text(with_table(path.read_text(), table(), name))
        print(path)
    print(draw())


if __name__ == "__main__":
    main()

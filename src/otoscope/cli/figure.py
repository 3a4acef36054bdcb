"""The command `figure`. Like `questions`: parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ask import LABELLINGS, asked_for, selecting, selections_of
from .null import exchanging

if TYPE_CHECKING:
    from ..analysis.null.overlaps import Exchange

FIGURES = ("overlap", "depth", "selectivity", "ablation")


@click.command()
@click.argument("kind", type=click.Choice(FIGURES))
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option("--task", "tasks", multiple=True, metavar="TASK[:LABEL]", help=LABELLINGS)
@click.option("--against", metavar="TASK:LABEL", help="overlap: the categories along the other side.")
@click.option(
    "--arrange", metavar="FILE",
    help="overlap: CSV without a header, a category per line in the order wanted, and its group after a comma.",
)  # fmt: skip
@exchanging(permutations=0, given="overlap: also shuffle labels N times, and strike out what does not exceed them.")
@selecting
@click.option("--official", is_flag=True, help="overlap: name the file as the paper's notebooks do; -o is its folder.")
@click.option("-o", "--output", required=True, metavar="FILE", help="PDF, PNG or SVG by its ending.")
def figure(
    kind: str,
    stores: tuple[str, ...],
    tasks: tuple[str, ...],
    against: str | None,
    arrange: str | None,
    official: bool,
    output: str,
    incomplete: bool,
    exchange: "Exchange",
    **how: Any,
) -> None:
    """Figures: overlap (common neuron ratios), depth (neurons per layer), selectivity (AAPE against probability).

    And ablation: what `ablate run` wrote, in the place of a STORE.
    """
    if kind == "ablation":
        from .ablate import draw_results

        return draw_results(stores, output)
    from ..analysis.figures.neurons import depth_figure, selectivity_figure
    from ..analysis.figures.overlap import overlap_figure
    from ..analysis.figures.save import save_figure
    from ..analysis.null.overlaps import overlaps
    from ..analysis.overlap import arranged, read_arrangement
    from ..analysis.published.paper import official_figure
    from ..analysis.selection.labellings import select_neurons
    from ..analysis.selection.rules import depth_histogram

    selections = selections_of(**how)
    shuffled = exchange.permutations > 0
    if (shuffled and kind != "overlap") or (not shuffled and (exchange.group or exchange.within or exchange.balanced)):
        raise ValueError(
            f"found options of shuffling with the figure {kind} and {exchange.permutations} permutations; expected "
            "them with overlap and --permutations N only: leave them out"
        )
    asked = asked_for(stores, tasks, selections, incomplete, against)
    if official:
        names = sorted({labelling.name for labelling in asked})
        if kind != "overlap" or len(names) != 1:
            raise ValueError(f"--official names the overlap of one labelling; found {kind} of {', '.join(names)}")
        output = str(Path(output) / official_figure(names[0], against))
    found = [select_neurons(x, selections.of(x.task)) for x in asked]
    titled = [(f"{x.store} {x.name}", x.selection) for x in found]
    if kind == "overlap":
        order, groups = read_arrangement(arrange) if arrange else ([], {})
        panels = overlaps(found, stores, against, selections, incomplete, exchange)
        drawn = overlap_figure([(title, arranged(ratio, order, groups)) for title, ratio in panels])
    elif kind == "depth":
        drawn = depth_figure([(title, depth_histogram(selection["member"])) for title, selection in titled])
    else:
        drawn = selectivity_figure(titled)
    save_figure(drawn, output)
    click.echo(output)

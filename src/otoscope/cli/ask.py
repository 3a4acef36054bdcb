"""The commands that ask a store: neurons, table, figure, null, selectors, exemplars, compare.

Conventions: labellings are named TASK:LABEL; a task that is not finished is refused unless --incomplete is given.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analysis.kinds import COMPARISONS, FIGURES, NULL_ROWS, OF_RESULTS, SHOWN, SIDES, TABLES
from ..analysis.selection.selection import Selection
from ..files import check_target
from ..messages import quoted
from .drawing import figure_of_result, put_figure
from .errors import Mistake
from .options import (
    TESTING,
    Asked,
    asking,
    balanced,
    by_the_paper,
    check_not_given,
    check_shuffling,
    given,
    options_of,
    output,
    within,
)
from .printing import echo

if TYPE_CHECKING:
    import pandas as pd

    from ..extract.audio.audio_root import AudioRoot


@click.command()
@asking(confirms=True)
@click.option(
    "--bootstrap", "draws", default=0, metavar="N",
    help="Also draw clips anew N times, at least 39: the share of draws in which the neuron is selected [0].",
)  # fmt: skip
@click.option("--find", metavar="TERMS", help="Instead one row per neuron, selected or not, of which all TERMS hold.")
@output
def neurons(asked: Asked, draws: int, find: str | None, output: str | None) -> None:
    """One row per category and neuron, largest effect first: AUC where the rule has it, else lift, P over overall rate.

    lape drops the neurons without a P above the 95th percentile a of all, and takes those of lowest AAPE, --percentile
    r of all N neurons: n of the round(r N / 100) lowest among max P(n) > a, in each c with P(n, c) > a. paper drops the
    5 % of neurons that fire least, takes r % of the rest by AAPE, and the highest 5 % of their P: max P(n) > b, AAPE(n)
    <= t, P(n, c) > h. contrast takes what a rank test of the means tells apart: q(n, c) <= --level, AUC(n, c) >=
    --min-effect.

    A line warns where the selected are not more selective than the rest; see docs/selection.md. With --confirm, each
    neuron is tested on those clips, which then select nothing.

    TERMS stand apart by blanks: category:dog (specific for it), top:"rain, heavy" (its highest P), layer:4-8,11,
    neuron:17; with < <= > >= = and a number aape, normalised (AAPE / ln C), rank (by AAPE), rate, categories (how many
    it is specific for), p(dog), and by the rule contrast auc(dog).
    """
    if find is not None:
        check_not_given(("draws", "confirm"), "with --find, whose table has no column for it")
        echo(put_found(asked, find, output))
        return
    from ..analysis.null.overlaps import check_draws, with_stability
    from ..analysis.selection.confirm import with_effects
    from ..analysis.tables import neurons_table, put_table

    check_draws(draws)
    one = asked.selected()
    found = with_effects(one.ds, one.label, one.how, one.selection)
    echo(put_table(neurons_table(with_stability(one, found, draws) if draws else found), output))


def put_found(asked: Asked, find: str, output: str | None) -> str:
    """The table of the neurons that a search finds, written or as text, with notes on the selection."""
    from ..analysis.cards.home import neurons_frame
    from ..analysis.cards.labelling_statistics import labelling_statistics
    from ..analysis.search import find_neurons, parse_search
    from ..analysis.selection.labellings import only
    from ..analysis.tables import put_table

    parse_search(find)  # before anything is computed
    one = only(asked.labellings())
    statistics = labelling_statistics(
        one.ds,
        one.label,
        asked.selections.of(one.task),
        task=one.task,
        store=one.store,
        incomplete=asked.incomplete,
    )
    report([f"{one.store} {note}" for note in ([statistics.nothing] if statistics.nothing else statistics.notes)])
    return put_table(neurons_frame(statistics, find_neurons(statistics, find)), output)


UNTESTED = ("probability", "aape", "neuron-thresholds")  # tables by which nothing is selected


@click.command()
@click.argument("kind", type=click.Choice(TABLES))
@asking(many=True, against=True, confirms=True)
@click.option(
    "--official", type=click.Choice(["ssl", "sl"]), is_eager=True,
    help="stats: name the file as the paper's notebooks do for such an encoder; -o is its folder.",
)  # fmt: skip
@output
def table(kind: str, asked: Asked, official: str | None, output: str | None) -> None:
    """Kinds: stats, thresholds and paper (Tables I and II) over all labellings; the others of one.

    Stats has the median AAPE / ln C of the selected neurons (aape_share_selected) and of all (aape_share_all); `neurons
    --help` has the rules. Neuron-thresholds, with --threshold q80 or its like, is what --threshold FILE reads.

    Paper puts the stores side by side, with the paper's labellings and percentiles unless --task or --percentile say
    otherwise. A STORE may be a table of probabilities (`otoscope import`) or a folder of published files.
    """
    from ..analysis.asked import labellings_table
    from ..analysis.published.paper import STATS_COLUMNS, official_table, paper_rows
    from ..analysis.tables import WRITERS, put_table

    if official is not None:
        if kind != "stats" or output is None or len(asked.stores) != 1:
            raise ValueError("--official names the table stats of one STORE in a folder; expected one STORE and -o DIR")
        output = str(check_target(Path(output) / official_table(official), WRITERS))
    check_not_given(
        TESTING * (kind in UNTESTED) + ("against",) * (kind != "overlap"),
        f"for the table {kind}, which does not use it",
    )
    if kind == "paper":
        asked = by_the_paper(asked)
    found = asked.labellings()
    if kind == "paper" and not asked.tasks:
        rows = paper_rows(x.name for x in found)
        if others := sorted({x.name for x in found} - set(rows)):
            echo(f"not in the paper's tables: {', '.join(others)}; --task takes them in", err=True)
        found = [x for x in found if x.name in rows]
    frame, notes = labellings_table(kind, found, asked.selections, asked.stores, asked.against, asked.incomplete)
    report(notes)
    echo(put_table(frame if official is None else frame[list(STATS_COLUMNS)], output))


def report(notes: list[str]) -> None:
    """Notes on a result, on standard error."""
    for note in notes:
        echo(note, err=True)


side = click.option(
    "--side", type=click.Choice(SIDES), default=SIDES[0], show_default=True,
    help="Overlaps that are evidence: those above shuffled labels, those below, or both by a two-sided test.",
)  # fmt: skip
caption = click.option(
    "--caption", type=click.Choice(["line", "none"]), default="line", show_default=True,
    help="Below a figure: how it was selected and made, in small type, or nothing.",
)  # fmt: skip


OVERLAP = ("balanced", "side", "show")  # options of overlaps against shuffled labels
OF_RESULT = {"kind", "stores", "caption", "output"}  # all that the figure of a result takes


@click.command()
@click.argument("kind", type=click.Choice(FIGURES))
@asking(many=True, against=True, shuffles=True)
@click.option(
    "--arrange", metavar="FILE",
    help="overlap: CSV without a header, a category per line in the order wanted, and its group after a comma.",
)  # fmt: skip
@balanced
@side
@click.option(
    "--show", type=click.Choice(SHOWN), default=SHOWN[0], show_default=True,
    help="overlap: ratios observed; over their mean over shuffled labels, or minus it, both with --permutations.",
)  # fmt: skip
@caption
@click.option("--official", is_flag=True, help="overlap: name the file as the paper's notebooks do; -o is its folder.")
@click.option("-o", "--output", required=True, metavar="FILE", help="PDF, PNG or SVG by its ending.")
def figure(
    kind: str,
    asked: Asked,
    arrange: str | None,
    balanced: bool,
    side: str,
    show: str,
    caption: str,
    official: bool,
    output: str,
) -> None:
    """Kinds: overlap (common neuron ratios), depth (neurons per layer), selectivity (AAPE against probability).

    And of what a command wrote, in the place of a STORE: ablation of `ablate run`; swap of `ablate swap`; `grounding`;
    probes of `sae probe`; disentanglement (R2, completeness), families and entropy of `sae disentangle`, with controls
    as dashed lines. With --permutations, overlap marks the cells that lie above shuffled labels and those that lie
    below, and strikes out those that do neither.
    """
    from ..analysis.asked import reasons
    from ..analysis.figures.captions import caption_of_labellings
    from ..analysis.figures.neurons import depth_figure, selectivity_figure
    from ..analysis.figures.overlap import overlap_figure
    from ..analysis.figures.save import FORMATS
    from ..analysis.null.overlaps import check_permutations, overlaps
    from ..analysis.overlap import arranged, read_arrangement
    from ..analysis.published.paper import official_figure
    from ..analysis.selection.labellings import notes_on, select_against, select_each
    from ..analysis.selection.rules import depth_histogram

    if kind in OF_RESULTS:
        if len(asked.stores) != 1:
            raise ValueError(f"found {len(asked.stores)} results; expected one, as its command writes it with -o")
        unused = {str(option.name) for option in click.get_current_context().command.params} - OF_RESULT
        check_not_given(unused, f"for the figure {kind}, which shows a result as it is")
        check_target(output, FORMATS)
        put_figure(figure_of_result(kind, asked.stores[0], caption == "line"), output)
        return
    if kind != "overlap":
        check_not_given((*OVERLAP, "against", "arrange"), f"for the figure {kind}; expected it for overlap")
    shuffled = kind == "overlap" and given("permutations")
    if not shuffled:
        check_not_given(OVERLAP, "without --permutations; expected both, or neither")
    check_shuffling(asked.selections.selection, shuffled)
    if shuffled:
        check_permutations(asked.selections.selection)
    found = asked.labellings()
    if official:
        names = sorted({labelling.name for labelling in found})
        if kind != "overlap" or len(names) != 1:
            raise ValueError(f"--official names the overlap of one labelling; found {kind} of {', '.join(names)}")
        output = str(Path(output) / official_figure(names[0], asked.against))
    check_target(output, FORMATS)
    selected, left_out = select_each(found, asked.selections)
    others = {}
    if kind == "overlap":
        others = select_against(selected, asked.stores, asked.against, asked.selections, asked.incomplete)
    report([*reasons(left_out), *notes_on([*selected, *others.values()])])
    titled = [((each.store, each.name), each.selection) for each in selected]
    held = [] if asked.against is None else [asked.selections.of(asked.against.partition(":")[0])]
    text = caption_of_labellings(selected, held) if caption == "line" else ""
    if kind == "overlap":
        order, groups = read_arrangement(arrange) if arrange else ([], {})
        panels = overlaps(selected, others, shuffled, balanced, side, show)
        drawn = overlap_figure([(title, arranged(ratio, order, groups)) for title, ratio in panels], text)
    elif kind == "depth":
        drawn = depth_figure([(title, depth_histogram(selection["member"])) for title, selection in titled], text)
    else:
        drawn = selectivity_figure(titled, text)
    put_figure(drawn, output)


@click.command()
@asking(against=True, shuffles=True)
@balanced
@click.option(
    "--bootstrap", "draws", default=0, metavar="N",
    help="Also draw clips anew N times, at least 39, for 95 % intervals [0].",
)  # fmt: skip
@side
@click.option(
    "--figure", metavar="FILE", help="Heat map: cells above the null and below are marked, others struck out."
)
@caption
@click.option(
    "--rows", type=click.Choice(list(NULL_ROWS)), default="cells", show_default=True,
    help="cells: overlaps of two categories; categories: their neurons; neurons: the class-specific ones, their AAPE.",
)  # fmt: skip
@output
def null(
    asked: Asked,
    balanced: bool,
    draws: int,
    side: str,
    figure: str | None,
    caption: str,
    rows: str,
    output: str | None,
) -> None:
    """A table, and a summary on standard error.

    Coverage, neurons per category and AAPE are tested one-sided, whatever --side. Of --against, labels stay as they
    are, and --group and --within do not apply.
    """
    from ..analysis.figures.captions import caption_of_labellings
    from ..analysis.figures.overlap import overlap_figure
    from ..analysis.figures.save import FORMATS
    from ..analysis.null.overlaps import against_null, check_draws, check_permutations, summary
    from ..analysis.null.permutation import with_null
    from ..analysis.overlap import labelled
    from ..analysis.selection.labellings import notes_on, select_against
    from ..analysis.tables import null_table, put_table

    if figure:
        check_target(figure, FORMATS)
    else:
        check_not_given(["caption"], "without --figure; expected both, or neither")
    check_draws(draws)
    check_permutations(asked.selections.selection)
    one = asked.selected()
    others = select_against([one], asked.stores, asked.against, asked.selections, asked.incomplete)
    report(notes_on(other for other in others.values() if other.name != one.name))
    other = others.get(one.store)
    result = against_null(one, other, balanced, draws, side)
    echo(summary(one.name, result), err=True)
    if figure:
        panel = labelled(with_null(result), one.name, (other or one).name)
        text = caption_of_labellings([one], [other.how] if other else []) if caption == "line" else ""
        put_figure(overlap_figure([(one.store, panel)], text), figure)
    echo(put_table(null_table(result, rows), output))


@click.command()
@asking()
@output
def selectors(asked: Asked, output: str | None) -> None:
    """Mean common neuron ratio, each selector picking as many neurons per category."""
    from ..analysis.selection.other_selectors import selector_agreement
    from ..analysis.tables import put_table

    found = asked.selected()
    echo(put_table(selector_agreement(found.ds, found.label, found.selection["member"], found.how), output))


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK")
@click.option("--neuron", "pairs", multiple=True, metavar="LAYER,NEURON", help="Such as 9,347; several times for more.")
@click.option("--neurons", "table", metavar="FILE", help="CSV or Parquet table, as of `otoscope neurons`.")
@click.option("-k", "--top", default=10, show_default=True, callback=within(1), metavar="N", help="Clips per neuron.")
@click.option("--lowest", is_flag=True, help="The clips of lowest mean activation.")
@click.option("--where", **options_of(Selection, "where")["where"])
@click.option("--audio-root", metavar="DIR", help="Folder or URL that paths start from: the table has whole paths.")
@click.option(
    "--copy", "folder", metavar="DIR",
    help="Copy the clips there, named by layer, neuron and rank; parts of files as WAV. Needs --audio-root.",
)  # fmt: skip
@output
def exemplars(
    store: str,
    task: str,
    pairs: tuple[str, ...],
    table: str | None,
    top: int,
    lowest: bool,
    where: tuple[str, ...],
    audio_root: str | None,
    folder: str | None,
    output: str | None,
) -> None:
    """One row per neuron and rank, by mean activation, with labels."""
    from ..analysis.exemplars import exemplars_table, whole_paths
    from ..analysis.selection.labellings import open_stores, task_of
    from ..analysis.tables import put_table
    from ..extract.audio.audio_root import root_at
    from ..extract.audio.copies import empty_folder
    from ..store.neurons import read_pairs

    if folder is not None and audio_root is None:
        raise ValueError(
            f"--copy {folder} without --audio-root; expected the folder or URL that the clips lie in: add it"
        )
    ((name, tree),) = open_stores((store,)).items()
    neurons = [neuron_of(pair) for pair in pairs] + (read_pairs(table) if table is not None else [])
    if not neurons:
        raise ValueError("no neuron was named; expected --neuron LAYER,NEURON or --neurons FILE")
    found = exemplars_table(task_of(tree, name, task), neurons, top, lowest, where)
    if audio_root is None:
        echo(put_table(found, output))
        return
    root = root_at(audio_root)
    with_paths, target = whole_paths(found, str(root)), None if folder is None else empty_folder(folder)
    echo(put_table(with_paths, output))
    if target is not None:
        copied(store, task, found, root, target)


def copied(store: str, task: str, table: "pd.DataFrame", root: "AudioRoot", folder: Path) -> None:
    """Copy the clips of a table of exemplars. Raises Mistake where some could not be copied, after the others."""
    from ..extract.audio.copies import copy_clips
    from ..extract.audio.corpus import Clips
    from ..store.status import task_status

    digits = {column: len(str(table[column].max())) for column in ("layer", "neuron", "rank")}
    beginnings = [
        "-".join(f"{n:0{width}d}" for n, width in zip(row, digits.values(), strict=True))
        for row in table[list(digits)].itertuples(index=False)
    ]
    clips = Clips(root=root, table=table[["clip", "path", "start", "stop"]].rename(columns={"clip": "name"}))
    rate = int(task_status(store, task).record.identity.front_end["sample_rate"])
    failed = copy_clips(root, ((beginning, clips.clip(i)) for i, beginning in enumerate(beginnings)), folder, rate)
    echo(f"{folder}: {len(table) - len(failed)} clips", err=True)
    for clip, reason in failed[:10]:
        echo(f"failed: {clip.name}: {reason}", err=True)
    if failed:
        raise Mistake(
            f"{len(failed)} of {len(table)} clips could not be copied, the first {quoted(failed[0][0].name)}; expected "
            f"all under {root}: see that it is the audio root of the task"
        )


def neuron_of(text: str) -> tuple[int, int]:
    """--neuron: "9,347" as (9, 347)."""
    try:
        layer, neuron = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"--neuron is {text!r}; expected LAYER,NEURON such as 9,347") from None
    return layer, neuron


@click.command()
@asking(many=True)
@click.option(
    "--by", type=click.Choice(COMPARISONS), default="labelling", show_default=True,
    help="labelling: two stores; layer, category: one labelling; neuron: which labellings of one store each serves.",
)  # fmt: skip
@output
def compare(asked: Asked, by: str, output: str | None) -> None:
    """One of the models may be the random initialisation of the other."""
    from ..analysis.asked import comparison
    from ..analysis.tables import put_table

    frame, notes = comparison(by, asked.labellings(), asked.selections)
    report(notes)
    echo(put_table(frame, output))

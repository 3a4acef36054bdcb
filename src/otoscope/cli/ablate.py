"""The commands of ablation: `ablate run`, `set`, `table`, `serve`. Like `cli`: parse, call, print.

Conventions: as in `questions`; a labelling is named TASK:LABEL, a set as `otoscope.analysis.selection.sets` has it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ask import put_table
from .extract import ENCODERS, on_workers, say_progress
from .serve import serve

if TYPE_CHECKING:
    from ..ablate.request import Request
    from .extract import Workers

SETS = 'shared(A,B) | only(A) | all(A) | "(9,347) (10,393)" | @FILE; A is a category, or TASK:LABEL:A'
MODES = ("remove", "gain", "mean", "category-mean", "transplant", "keep", "keep-mean")
SHOWN = ("category", "n_clips", "before", "after", "change", "control_mean", "p_paired", "p_rank", "p_corrected")


@click.group()
def ablate() -> None:
    """What breaks when neurons are silenced: rerun the encoder with some of them edited, and compare with chance."""


ablate.add_command(serve)


def naming(command: Any) -> Any:
    """The options that name a set of neurons."""
    for option in (
        click.option("--selected-on", type=click.Choice(["all", "train"]), default="all", show_default=True,
                     help="Clips that the selection is made from; train leaves out those that are tested."),
        click.option("--reading", type=click.Choice(["clip", "frame", "any"]), default="clip", show_default=True),
        click.option("--rule", type=click.Choice(["lape", "paper"]), default="lape", show_default=True),
        click.option("--percentile", default=1.0, show_default=True, metavar="P", help="Share of neurons selected."),
        click.option("--set", "named", required=True, metavar="SET", help="Listed below."),
        click.option("--task", "labelling", required=True, metavar="TASK:LABEL"),
    ):  # fmt: skip
        command = option(command)
    return command


@ablate.command(epilog=f"Sets: {SETS}. Encoders: {ENCODERS}")
@click.argument("store")
@naming
@click.option("--encoder", required=True, metavar="SPEC", help="The one that the store was made with.")
@click.option("--corpus", "manifest", required=True, metavar="MANIFEST", help="The one that the task was made from.")
@click.option("--audio-root", metavar="DIR", help="Folder that relative paths start from [the manifest's].")
@click.option(
    "--mode", type=click.Choice(MODES), default="remove", show_default=True,
    help="What is done to the set; keep: all other neurons are removed; transplant: as in a clip of --category.",
)  # fmt: skip
@click.option("--gain", default=0.0, metavar="G", help="With --mode gain: factor of the activations.")
@click.option("--category", default="", metavar="B", help="With --mode category-mean and transplant.")
@click.option(
    "--controls", default=200, show_default=True, metavar="N", help="Random sets matched in number per layer."
)
@click.option(
    "--control", type=click.Choice(["matched", "published"]), default="matched", show_default=True,
    help="published: the one set of the neurons with indices one higher.",
)  # fmt: skip
@click.option("--match", default="", metavar="rate,mean", help="Match the controls in these too [nothing].")
@click.option("--seed", default=0, show_default=True, metavar="N", help="Of controls, donors, and tests that draw.")
@click.option("--side", type=click.Choice(["harm", "help", "either"]), help="Evidence [harm; help for the keep modes].")
@click.option(
    "--probe", default="logistic", show_default=True, metavar="logistic|published|PATH",
    help="Fitted to the store's embeddings; PATH is one that was saved, or is to be saved.",
)  # fmt: skip
@click.option("--probe-seed", default=42, show_default=True, metavar="N")
@click.option("--splits", default="", metavar="COLUMN", help="Label column of splits or folds [split, else fold].")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one].")
@on_workers
@click.option("--clips", metavar="FILE", help="Also a table of every tested clip before and after.")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="Result, .parquet; see ablate table, figure ablation."
)
def run(
    store: str,
    encoder: str,
    manifest: str,
    audio_root: str | None,
    probe: str,
    device: str | None,
    clips: str | None,
    output: str,
    workers: "Workers",
    **asked: Any,
) -> None:
    """Rerun the test clips of a task without some neurons, and without random ones like them; what did that change?

    A FILE that holds the result of the same request is left as it is.
    """
    from ..ablate.request import PROBES
    from ..ablate.result import check_writable, clips_table, holds, result_table, write_result
    from ..ablate.study import look_up, look_up_with_probe, run_study
    from ..analysis.tables import WRITERS, markdown, write_table
    from ..cluster.progress import Progress
    from ..extract.audio.corpus import read_manifest

    say_progress()
    check_writable(output)
    if clips is not None:
        check_writable(clips, WRITERS)
    corpus = read_manifest(manifest, audio_root)
    request = request_of(probe=probe, **asked)
    study = look_up(request, store) if probe in PROBES else look_up_with_probe(request, store, Path(probe))
    click.echo(study.summary(), err=True)
    if clips is None and holds(output, study.digest):
        click.echo(f"{output} holds the result of this request already")
        return
    with workers() as executor, Progress(len(study.clips), unit="clips") as shown:
        result = run_study(
            study, encoder, corpus, executor=executor, device=device,
            progress=lambda done, _total: shown.advance(done - shown.done),
        )  # fmt: skip
    write_result(result, output)
    if clips is not None:
        write_table(clips_table(result), clips)
    table = result_table(result)
    table["category"] = table["category"].where(~table["overall"], "all clips")
    for measure in ("accuracy", "margin"):
        click.echo(f"{measure}\n{markdown(table.loc[table['measure'] == measure, list(SHOWN)])}\n")
    click.echo(output)


@ablate.command("set", epilog=f"Sets: {SETS}")
@click.argument("store")
@naming
@click.option("--gain", default=0.0, show_default=True, metavar="G", help="Of a published list.")
@click.option("--base", metavar="YAML", help="Of a published list: configuration with all other settings.")
@click.option("-o", "--output", metavar="FILE", help=".json, .csv, .parquet, or .yaml as a published list [print].")
def neuron_set(store: str, gain: float, base: str | None, output: str | None, **asked: Any) -> None:
    """Look up a set of neurons by its name and list it, or write it to a file."""
    from ..ablate.study import find_neurons
    from ..analysis.published.neuron_lists import LIST_ENDINGS, write_published_list
    from ..store.neurons import write_neuron_set

    neurons = find_neurons(request_of(**asked), store)
    if output is None:
        put_table(neurons.to_table(), None)
    elif Path(output).suffix.lower() in LIST_ENDINGS:
        write_published_list(neurons, gain, output, base)
    else:
        write_neuron_set(neurons, output)
    if output is not None:
        click.echo(output)


@ablate.command()
@click.argument("result")
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def table(result: str, output: str | None) -> None:
    """All numbers of a RESULT: a row per measure and category, and per measure over all clips."""
    from ..ablate.result import read_result, result_table

    put_table(result_table(read_result(result)), output)


def draw_results(results: tuple[str, ...], output: str) -> None:
    """`figure ablation`: what the RESULT in the place of a STORE holds."""
    from ..ablate.result import read_result
    from ..analysis.figures.ablation import ablation_figure
    from ..analysis.figures.selection import save_figure

    if len(results) != 1:
        raise ValueError(f"found {len(results)} results; expected one, as `otoscope ablate run -o` writes it")
    save_figure(ablation_figure(read_result(results[0])), output)
    click.echo(output)


def request_of(labelling: str, named: str, match: str = "", side: str | None = None, **asked: Any) -> "Request":
    """The options as the study takes them."""
    from ..ablate.request import PROBES, Request
    from ..analysis.selection.selection import Selection

    task, colon, label = labelling.partition(":")
    if not colon or not label:
        raise ValueError(f"--task is {labelling!r}; expected TASK:LABEL, since a probe tells the categories of a label")
    if asked.get("probe", PROBES[0]) not in PROBES:
        asked["probe"] = PROBES[0]  # of a file, or fitted for it
    features = tuple(name.strip() for name in match.split(",") if name.strip())
    selection = Selection(
        clips=asked.pop("selected_on"), **{x: asked.pop(x) for x in ("reading", "rule", "percentile")}
    )
    return Request(task=task, label=label, set=named, match=features, side=side or "", selection=selection, **asked)

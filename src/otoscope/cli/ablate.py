"""The commands of ablation: run, set, table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..ablate.request import PROBES, Request, labelling_parts
from ..analysis.selection.selection import Selection
from . import options
from .printing import echo, log_progress
from .swap import answers

if TYPE_CHECKING:
    from ..extract.audio.corpus import Corpus
    from ..extract.models.encoder import Encoder
    from .options import Workers

SETS = 'shared(A,B) | only(A) | all(A) | "(9,347) (10,393)" | @FILE; A is a category, or TASK:LABEL:A'
NAMING = ("set", "selection", "splits")
SHOWN = (
    "category",
    "n_clips",
    "n_changed",
    "before",
    "after",
    "change",
    "control_mean",
    "p_paired",
    "p_rank",
    "p_corrected",
)


def request_of(task: str, **given: Any) -> Request:
    """The options as the study takes them."""
    task, label = labelling_parts(task)
    request = options.record_of(Request, {**given, "task": task, "label": label})
    of_run = ("seed", "splits") if "controls" in given else ()  # what it uses whatever the set
    if not request.named_set.categories:
        unused = [name for name in (*Selection.__dataclass_fields__, "splits") if name not in of_run]
        options.check_not_given(
            unused, f"with the set {request.set}, for which nothing is selected; expected a set by categories"
        )
    options.check_shuffling(request.selection, used=of_run)
    return request


def requesting(*names: str) -> options.Decorator:
    """--task and options of a request's fields, of these names or all but the probe, as `request`."""
    offered = {
        name: o for name, o in options.options_of(Request, *names).items() if name not in ("task", "label", "probe")
    }
    offered["where"]["help"] = "Select by clips with this label only, as of `neurons`; which are tested stays as it is."
    offered["threshold"] |= {
        "metavar": "X|qN|median|zN",
        "help": "With the reading clip: on the mean; q80, median, z1.5: the neuron's own [0; by rule contrast q80].",
    }
    what = "Labelling whose categories the set is named by" + ("." if names else ", and that the probe tells apart.")
    task = {"required": True, "metavar": "TASK:LABEL", "help": what}
    return options.gathered("request", request_of, task=task, **offered)


@click.command(epilog=f"Sets: {SETS}. Encoders: {options.ENCODERS}")
@click.argument("store")
@requesting()
@click.option("--encoder", required=True, metavar="SPEC", help="The one that the store was made with.")
@options.of_corpus("The manifest that the task was made from.")
@click.option(
    "--probe", default=PROBES[0], show_default=True, metavar=f"{'|'.join(PROBES)}|PATH",
    help="Fitted to the store's embeddings; PATH is one that was saved, or is to be saved.",
)  # fmt: skip
@answers
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one].")
@options.on_workers
@click.option("--clip-table", metavar="FILE", help="Also a table of every tested clip before and after.")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="Result, .parquet; see ablate table, figure ablation."
)
def run(
    store: str,
    request: Request,
    encoder: str,
    corpus: "Corpus",
    probe: str,
    answers: Mapping[str, str],
    device: str | None,
    clip_table: str | None,
    output: str,
    workers: "Workers",
) -> None:
    """And without random ones like them: what did that change?

    A FILE that holds the result of the same request is left as it is.
    """
    from ..ablate.own_head import look_up_with_answers
    from ..ablate.result import check_writable, clips_table, holds, result_table, write_result
    from ..ablate.study import look_up, look_up_with_probe, run_study
    from ..analysis.tables import WRITERS, markdown, write_table
    from ..cluster.progress import Progress
    from ..extract.models.registry import load_encoder

    log_progress()
    check_writable(output)
    if clip_table is not None:
        check_writable(clip_table, WRITERS)
    model: Encoder | str = encoder
    if answers:
        options.check_not_given(("probe",), "with --answer, by which the model's own head is the probe")
        model = load_encoder(encoder)
        study = look_up_with_answers(request, store, model, answers)
    elif probe in PROBES:
        study = look_up(replace(request, probe=probe), store)
    else:
        study = look_up_with_probe(request, store, Path(probe))
    if clip_table is None and holds(output, study.digest):
        echo(study.summary(), err=True)
        echo(f"{output} holds the result of this request already")
        return
    with workers() as executor, Progress(len(study.clips), unit="clips") as shown:
        result = run_study(
            study, encoder if executor.remote else model, corpus, executor=executor, device=device,
            progress=lambda done, _total: shown.advance(done - shown.done),
        )  # fmt: skip
    write_result(result, output)
    if clip_table is not None:
        write_table(clips_table(result), clip_table)
    rows = result_table(result)
    rows["category"] = rows["category"].where(~rows["overall"], "all clips")
    for measure in ("accuracy", "margin"):
        echo(f"{measure}\n{markdown(rows.loc[rows['measure'] == measure, list(SHOWN)])}\n")
    for note in result.attrs["notes"]:
        echo(note)
    echo(output)


@click.command("set", epilog=f"Sets: {SETS}")
@click.argument("store")
@requesting(*NAMING)
@click.option(
    "--gain", default=0.0, show_default=True, callback=options.within(), metavar="G",
    help="Of a published list.",
)  # fmt: skip
@click.option("--base", metavar="YAML", help="Of a published list: configuration with all other settings.")
@click.option("-o", "--output", metavar="FILE", help=".json, .csv, .parquet, or .yaml as a published list [print].")
def neuron_set(store: str, request: Request, gain: float, base: str | None, output: str | None) -> None:
    """To .json, .csv or .parquet, or to .yaml as a published list."""
    from ..ablate.study import find_neurons
    from ..analysis.published.neuron_lists import LIST_ENDINGS, write_published_list
    from ..analysis.tables import markdown
    from ..store.neurons import write_neuron_set

    log_progress()
    neurons = find_neurons(request, store)
    if request.named_set.categories:
        echo(f"selected on {neurons.why['selected_on']}", err=True)
    if output is None:
        echo(markdown(neurons.to_table()))
        return
    if Path(output).suffix.lower() in LIST_ENDINGS:
        write_published_list(neurons, gain, output, base)
    else:
        write_neuron_set(neurons, output)
    echo(output)


@click.command()
@click.argument("result")
@options.output
def table(result: str, output: str | None) -> None:
    """A row per measure and category, and per measure over all clips."""
    from ..ablate.result import read_result, result_table
    from ..analysis.tables import put_table

    echo(put_table(result_table(read_result(result)), output))

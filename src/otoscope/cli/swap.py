"""The command that swaps neurons between clips of a crossed corpus: ablate swap."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..ablate.swap.request import Swap
from ..analysis.selection.selection import Selection
from ..messages import quoted
from . import options
from .printing import echo, log_progress

if TYPE_CHECKING:
    from ..extract.audio.corpus import Corpus
    from .options import Workers

OFFERED = options.options_of(Swap)


def answers_of(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> Mapping[str, str]:
    """The callback of --answer: texts by category."""
    found: dict[str, str] = {}
    for text in given:
        category, equals, answer = text.partition("=")
        if not equals or not category or not answer or category in found:
            again = "twice for one category" if category in found else "without a category and a text"
            raise ValueError(f"--answer {quoted(text)} is given {again}; expected CATEGORY=TEXT, once for each")
        found[category] = answer
    return found


answers = click.option(
    "--answer", "answers", multiple=True, callback=answers_of, metavar="CATEGORY=TEXT",
    help="What the model would say for a category; its own head scores the text's first token. Once for each.",
)  # fmt: skip


def swap_of(**given: Any) -> Swap:
    """The options as the study takes them."""
    request = options.record_of(Swap, given)
    if not request.of_set().named_set.categories:
        unused = [name for name in Selection.__dataclass_fields__ if name != "seed"]
        options.check_not_given(
            unused, f"with the set {request.set}, for which nothing is selected; expected a set by categories"
        )
    options.check_shuffling(request.selection, used=("seed",))
    return request


@click.command()
@click.argument("store")
@options.gathered(
    "request", swap_of, **OFFERED, answers=answers,
    keep={"is_flag": True, "help": "Swap all other neurons: what does the set hold alone?"},
)  # fmt: skip
@click.option("--encoder", required=True, metavar="SPEC", help="The one that the store was made with.")
@options.of_corpus("The manifest that the task was made from.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one].")
@options.on_workers
@click.option("-o", "--output", required=True, metavar="FILE", help="Result, .parquet; see figure swap.")
def swap(
    store: str, request: Swap, encoder: str, corpus: "Corpus", device: str | None, output: str, workers: "Workers"
) -> None:
    """Each clip is run with the set's values from its partners: another category's sound, or text, all else alike.

    GC_causal = |E_A| / (|E_A| + |E_T|), effects E on the answers of the sound's and of the text's swap, where random
    sets do not do as much. necessity: what is taken from clips of a category; sufficiency: what is given to others.
    See docs/grounding.md. A FILE that holds the result of the same request is left as it is.
    """
    from ..ablate.result import check_writable
    from ..ablate.swap.result import holds_swaps, shown, write_swaps
    from ..ablate.swap.study import look_up_swaps, run_swaps
    from ..analysis.tables import markdown
    from ..cluster.progress import Progress

    log_progress()
    check_writable(output)
    study = look_up_swaps(request, store)
    echo(study.summary(), err=True)
    if holds_swaps(output, study.digest):
        echo(f"{output} holds the result of this request already")
        return
    with workers() as executor, Progress(len(study.swaps.clip), unit="swaps") as progress:
        table = run_swaps(
            study, encoder, corpus, executor=executor, device=device,
            progress=lambda done, _total: progress.advance(done - progress.done),
        )  # fmt: skip
    write_swaps(table, output)
    echo(markdown(shown(table)))
    for note in table.attrs["notes"]:
        echo(note)
    echo(output)

"""Options that several commands share.

Goal: what a room's record holds (a selection, a request) is asked for by options that are made of its fields.
Conventions: an option is called like its field; options that belong together reach the command as one argument.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import partial, wraps
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click

from ..analysis.kinds import THRESHOLD_ENDINGS
from ..analysis.published.paper import PERCENTILES
from ..analysis.selection.selection import PERCENTILE, Selection, Selections, threshold_of
from ..files import check_target
from .imports import without_collection
from .printing import echo

if TYPE_CHECKING:
    from ..analysis.selection.labellings import Labelling, SelectedLabelling
    from ..cluster.executor import Executor
    from ..extract.audio.corpus import Corpus

    Workers = Callable[[], AbstractContextManager[Executor]]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
R = TypeVar("R")

ENCODERS = (
    "tiny-ssl | tiny-sl | m2d:PATH | ast:DIR | hubert:DIR | wavlm:DIR | wav2vec2:DIR | data2vec:DIR | mert:DIR | "
    "whisper:DIR | module:FILE.py:factory | module:pkg.mod:factory; DIR holds a model as transformers saves it; "
    "latents:SAE,SAE@ENCODER, folders of trained SAEs"
)


def _writable_table(ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """The callback of `output`: whether a table can be written there is known before anything is computed."""
    if path in (None, "-") or ctx.params.get("official"):  # then it is a folder
        return None if path == "-" else path
    from ..analysis.tables import WRITERS

    return str(check_target(path, WRITERS))


def _nameable(_ctx: click.Context, _param: click.Parameter, path: str) -> str:
    """The callback of `of_saes`."""
    from ..extract.models.dictionary import check_nameable

    check_nameable(path)
    return path


def of_saes(metavar: str, help: str) -> Decorator:
    """Where SAEs or their latents are written: no name by which they cannot be asked for afterwards."""
    return click.option("-o", "--output", required=True, metavar=metavar, callback=_nameable, help=help)


output = click.option(
    "-o", "--output", metavar="FILE", callback=_writable_table,
    help="CSV, Parquet, Markdown or LaTeX by its ending [standard output, as by -].",
)  # fmt: skip
incomplete = click.option(
    "--incomplete", is_flag=True, help="Go by the committed clips of tasks that are not finished."
)
known_saes = click.option(
    "--saes", multiple=True, metavar="DIR", help="Folder of the SAEs, for their names, k, seeds and controls."
)


# Options of records


def options_of(record: type, *names: str) -> dict[str, dict[str, Any]]:
    """The attributes of an option for each of a record's fields that has a line of help, also within its records.

    names: of the fields to take [all].
    """
    found: dict[str, dict[str, Any]] = {}
    for field in fields(record):
        if names and field.name not in names:
            continue
        if is_dataclass(field.type):
            found |= options_of(field.type)  # type: ignore[arg-type]
        elif "help" in field.metadata:
            found[field.name] = _option(field)
    return found


def _option(field: "Field[Any]") -> dict[str, Any]:
    choices = [choice for choice in field.metadata.get("choices", ()) if choice]
    option: dict[str, Any] = {"help": field.metadata["help"], "metavar": field.metadata.get("metavar")}
    if field.default is MISSING:
        option["required"] = True
    elif field.default not in (None, "", ()):
        option |= {"default": field.default, "show_default": True}
    if field.metadata.get("repeated"):
        return {**option, "multiple": True}
    if field.name == "threshold":
        return option | {"callback": _threshold}
    if get_origin(field.type) is tuple:
        return option | {"callback": several, "metavar": ",".join(choices)}
    kinds = [kind for kind in get_args(field.type) or (field.type,) if kind is not NoneType]
    return option | {"type": click.Choice(choices) if choices else kinds[0]}


def _threshold(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Any:
    """The callback of --threshold: a number, one of the neuron's own by name, or those of a file, one per neuron."""
    if text is None:
        return None
    if text.lower().endswith(THRESHOLD_ENDINGS):
        from ..analysis.threshold_files import read_thresholds

        return read_thresholds(text)
    try:
        return float(text)
    except ValueError:
        return threshold_of(text)


def several(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """The callback of an option "A,B": its parts; None where it was not given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def record_of(record: type[R], given: dict[str, Any]) -> R:
    """A record of options made by `options_of`; what was not given is the record's default."""
    parts = {}
    for field in fields(record):  # type: ignore[arg-type]
        if is_dataclass(field.type):
            parts[field.name] = record_of(field.type, given)  # type: ignore[arg-type]
        elif given.get(field.name) is not None:
            parts[field.name] = given[field.name]
    return record(**parts)


def within(low: float = -math.inf, high: float = math.inf) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """The callback of an option that is a finite number from `low` to `high`, if it was given.

    It raises ValueError for another one; click's own ranges let NaN pass.
    """

    def check(_ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is not None and not (low <= value <= high and abs(value) < math.inf):
            low_end = "a finite number" if low == -math.inf else f"at least {low:.16g}"
            high_end = f", at most {high:.16g}" if high < math.inf else ""
            raise ValueError(f"{param.opts[0]} is {value}; expected {low_end}{high_end}")
        return value

    return check


SEED = within(0, 2**48 - 1)


def alone(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    """The callback of what may be given once where others take several."""
    return (text,)


def gathered(argument: str, make: Callable[..., Any], **options: dict[str, Any] | Decorator) -> Decorator:
    """Give a command these options, by name, and hand it what `make` makes of them as one argument.

    options: the attributes of a `click.option`, or the decorator itself.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_options(**given: Any) -> Any:
            made = make(**{name: given.pop(name) for name in options})
            return command(**{argument: made}, **given)

        for name, option in reversed(options.items()):
            attach = click.option(f"--{name.replace('_', '-')}", name, **option) if isinstance(option, dict) else option
            attach(with_options)
        return with_options

    return decorate


# What is asked of stores


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which labellings of which stores a command is about, and how their neurons are selected."""

    stores: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    against: str | None = None
    selections: Selections
    incomplete: bool

    def labellings(self) -> "list[Labelling]":
        """As `open_labellings`, with a note on what is left out."""
        from ..analysis.selection.labellings import open_labellings

        found, skipped = open_labellings(self.stores, self.tasks, self.selections, self.incomplete, self.against)
        if skipped:
            echo(f"left out, since they say which clips belong together: {', '.join(skipped)}", err=True)
        return found

    def selected(self) -> "SelectedLabelling":
        """The one labelling that is meant, its neurons selected, with a note on what speaks against them."""
        from ..analysis.selection.labellings import notes_on, only, select_neurons

        labelling = only(self.labellings())
        found = select_neurons(labelling, self.selections.of(labelling.task))
        for note in notes_on([found]):
            echo(note, err=True)
        return found


TESTING = ("level", "min_effect", "sign", "correct", "group", "within", "permutations", "seed")
"""Fields of a selection by which neurons are tested; they change no probability."""
ASKED = tuple(name for name in Selection.__dataclass_fields__ if name not in ("percentile", "confirm", "clips"))
"""Fields of a selection that every asking command takes as they are."""


def asked_of(percentile: tuple[str, ...], shuffles: bool, **options: Any) -> Asked:
    """The options of `asking`, where those of the selection become one."""
    names = Selection.__dataclass_fields__
    how = {name: value for name, value in options.items() if name in names and value is not None}
    asked = {name: value for name, value in options.items() if name not in names}
    if not percentile and "rule" not in how:
        from ..analysis.published.given import is_given

        if any(map(is_given, options["stores"])):
            how["rule"] = "lape"  # probabilities made elsewhere have no clips to test
    selections = selections_of(percentile, **how)
    check_shuffling(selections.selection, shuffles)
    return Asked(selections=selections, **asked)


def selections_of(percentile: tuple[str, ...] = (), **how: Any) -> Selections:
    """The options of a selection as the analysis takes them; "paper" stands for the paper's percentiles."""
    general, of_task = None, dict(PERCENTILES) if "paper" in percentile else {}
    for text in percentile:
        task, _, number = text.rpartition("=")
        try:
            if task:
                of_task[task] = float(number)
            elif text != "paper":
                general = float(number)
        except ValueError:
            raise ValueError(
                f"--percentile is {text!r}; expected a number such as 1, a task's such as esc50=2, or paper"
            ) from None
    if of_task:
        general = PERCENTILE if general is None or "paper" in percentile else general
    return Selections(selection=Selection(percentile=general, **how), percentiles=of_task)


def given(name: str) -> bool:
    """Whether an option of the command that runs was given; not where it has none of this name."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def check_not_given(names: Iterable[str], why: str) -> None:
    """Raise ValueError for the first of these options that was given, by the names of their values."""
    for option in click.get_current_context().command.params:
        if option.name in names and given(option.name):
            raise ValueError(f"{option.opts[-1]} was given {why}: leave it out")


def by_the_paper(asked: Asked) -> Asked:
    """The same by the paper's rule and percentiles, unless the command line names others."""
    how = asked.selections.selection
    if not given("rule") and how.rule == "contrast":
        how = replace(how, rule="lape")
    own = given("percentile") or how.rule == "contrast"
    percentiles = asked.selections.percentiles if own else PERCENTILES
    return replace(asked, selections=replace(asked.selections, selection=how, percentiles=percentiles))


def check_shuffling(how: Selection, shuffles: bool = False, used: Sequence[str] = ()) -> None:
    """Raise ValueError for options of shuffling that neither a selection uses nor what is done with it.

    shuffles: whether this shuffles labels; used: options that it uses otherwise.
    """
    if shuffles or how.rule == "contrast":
        return
    drawn = ("group", "within", "seed")
    used = (*used, *(drawn * bool(click.get_current_context().params.get("draws"))))
    used = (*used, *((*drawn, "permutations") * bool(how.confirm)))
    check_not_given(
        [name for name in (*drawn, "permutations", "level") if name not in used],
        f"with --rule {how.rule}, which shuffles no labels; expected it with --rule contrast, or of `otoscope null`",
    )


def asking(*, many: bool = False, against: bool = False, shuffles: bool = False, confirms: bool = False) -> Decorator:
    """STORE, --task and the options by which neurons are selected, as `asked`.

    many: several stores, and any number of labellings. against: also --against. shuffles: the command shuffles labels
    itself. confirms: also --confirm.
    """
    groupings = "Labellings [all; columns that only group clips (speaker, source, ...) by name alone]."
    other = {"metavar": "TASK:LABEL", "help": "Overlaps with the categories of another labelling [its own]."}
    percentile = {
        "multiple": True, "metavar": "P|TASK=P|paper",
        "help": "Share of neurons selected, in percent [1]; paper: 2 for esc50 and gise51, else 1.",
    }  # fmt: skip
    if many:
        stores = click.argument("stores", nargs=-1, required=True, metavar="STORE...")
        tasks = click.option("--task", "tasks", multiple=True, metavar="TASK[:LABEL]", help=groupings)
    else:
        stores = click.argument("stores", metavar="STORE", callback=alone)
        tasks = click.option("--task", "tasks", required=True, metavar="TASK[:LABEL]", callback=alone)
    return gathered(
        "asked", partial(asked_of, shuffles=shuffles), stores=stores, tasks=tasks,
        **({"against": other} if against else {}),
        percentile=percentile, **options_of(Selection, *ASKED, *(["confirm"] if confirms else [])),
        incomplete=incomplete,
    )  # fmt: skip


balanced = click.option(
    "--balanced", is_flag=True, help="When shuffling, cut every category down to the size of the smallest."
)


# Audio and workers


def read_corpus(corpus: str, audio_root: str | None) -> "Corpus":
    """The manifest of --corpus, read."""
    with without_collection():
        from ..extract.audio.manifest import corpus_of

    return corpus_of(corpus, audio_root)


def of_corpus(help: str | None) -> Decorator:
    """--corpus and --audio-root, as `corpus`. help: of --corpus; None for an argument MANIFEST in its stead."""
    root = "Folder that relative paths start from [the manifest's]."
    argument = click.argument("corpus", metavar="MANIFEST")
    return gathered(
        "corpus", read_corpus,
        corpus={"required": True, "metavar": "MANIFEST", "help": help} if help else argument,
        audio_root={"metavar": "DIR", "help": root},
    )  # fmt: skip


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | str | None:
    """The callback of --unit-sec: a number, "native" or nothing."""
    if text is None or text == "native":
        return text
    try:
        length = float(text)
    except ValueError:
        raise ValueError(f"--unit-sec is {text!r}; expected seconds such as 2.5, or native") from None
    if not 0 < length < math.inf:
        raise ValueError(f"unit_sec is {length}; expected seconds above 0, or native")
    return length


def unit_sec(help: str) -> Decorator:
    """--unit-sec, as a number, "native" or None."""
    return click.option("--unit-sec", metavar="S|native", callback=_seconds, help=help)


max_file_mb = click.option(
    "--max-file-mb", default=512.0, show_default=True, metavar="MB", help="Largest audio file that is read."
)
max_clip_mb = click.option(
    "--max-clip-mb", default=256.0, show_default=True, metavar="MB",
    help="Most that is decoded for a clip, 4 bytes per sample; longer ones fail.",
)  # fmt: skip


@contextmanager
def executor_of(name: str, **cluster: Any) -> "Iterator[Executor]":
    """--executor and the options that only a cluster takes; those not given are left to it."""
    given = {option: value for option, value in cluster.items() if value is not None}
    if name == "serial":
        if given:
            options = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise ValueError(f"{options} given with --executor serial; expected --executor ray: add it")
        from ..cluster.executor import SerialExecutor

        yield SerialExecutor()
        return
    from ..cluster.ray import RayExecutor

    with RayExecutor(**given) as executor:
        yield executor


on_workers = gathered(
    "workers", lambda executor, **cluster: partial(executor_of, executor, **cluster),
    executor={"type": click.Choice(["serial", "ray"]), "default": "serial", "show_default": True,
              "help": "ray: workers in actors, on this machine or a cluster."},
    address={"metavar": "auto|HOST:PORT", "help": "Ray cluster [one of this machine alone]."},
    actors={"type": int, "metavar": "N", "help": "Most workers at a time [as many as fit]."},
    cpus_per_actor={"type": float, "callback": within(0), "metavar": "F", "help": "CPUs that each takes up [1]."},
    gpus_per_actor={"type": float, "callback": within(0), "metavar": "F",
                    "help": "GPUs that each takes up, also fractions [0]."},
    stuck_after={"type": float, "callback": within(1e-3), "metavar": "S",
                 "help": "Replace a worker that has answered nothing for S seconds [never]."},
)  # fmt: skip
"""Where workers run, as `workers`, which opens the executor."""

"""A model's own head as probe, for ablations and swaps of audio language models."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..analysis.probe.head import head_probe
from ..analysis.probe.probe import Probe
from ..extract.models.encoder import Encoder
from ..messages import quoted
from ..store.provenance import digest_of
from .request import OWN_HEAD, Request
from .study import OpenStore, look_up
from .worker import Study


def own_head(
    encoder: Encoder, answers: Mapping[str, str], prompts: Iterable[str], *, identity: str, labelling: str
) -> Probe:
    """A model's own head as a probe of answers, by category in their order, behind prompts.

    identity: digest of the store's. labelling: as in "emotion:audio_class".
    Raises ValueError for an encoder without a head, for fewer than two answers, and for answers that their first
    tokens do not tell apart, or that change the prompt's own tokens.
    """
    if encoder.answers is None:
        raise ValueError(
            f"encoder {encoder.name} has no head that answers; expected an audio language model: leave --answer out"
        )
    rows = encoder.answers(answers, dict.fromkeys(prompts))
    return head_probe(rows, tuple(answers), identity=identity, labelling=labelling)


def check_answers(answers: Mapping[str, str], categories: Iterable[str]) -> dict[str, str]:
    """The answers in the order of the categories. Raises ValueError where one is missing, or is nobody's."""
    categories = list(categories)
    unknown = [name for name in answers if name not in categories]
    missing = [name for name in categories if name not in answers]
    if unknown or missing:
        found = f"an answer for {quoted(unknown[0])}" if unknown else f"no answer for {quoted(missing[0])}"
        raise ValueError(f"{found}; expected one for each of {', '.join(map(quoted, categories))}: CATEGORY=TEXT")
    return {name: answers[name] for name in categories}


def look_up_with_answers(
    request: Request, store: OpenStore | str, encoder: Encoder, answers: Mapping[str, str]
) -> Study:
    """As `look_up`, by what the model itself answers: `answers` by category of the request's label.

    Raises as `own_head` and `check_answers` too, and LookupError for a task without prompts.
    """
    store = OpenStore(store) if isinstance(store, str) else store
    ds = store.labelling(request.task, request.label).ds
    if "prompt" not in ds:
        raise LookupError(f"task {request.task} keeps no 'prompt', expected for answers: extract clips with prompts")
    given = check_answers(answers, ds.otoscope.categories(request.label))
    identity = digest_of(store.record(request.task).identity.to_json())
    probe = own_head(encoder, given, map(str, ds["prompt"].values), identity=identity, labelling=request.labelling)
    return look_up(replace(request, probe=OWN_HEAD), store, probe)

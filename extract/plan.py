"""What an extraction is to do, settled before a byte is written: encoder and device, identity, clips, plan.

Goal: whatever does not fit together, or with the store, is refused while nothing has happened yet.
Conventions: options given, else those stored, else the defaults. An `Extraction` is pickled for workers elsewhere; if
its encoder is named by a string it stays small, and holds no open files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..messages import one_line
from ..store.blocks import default_block_size
from ..store.changes.staged import ClipTable, Origin
from ..store.changes.tasks import add_task, create
from ..store.group import check_task_name, nothing_at, open_root, read_record
from ..store.provenance import PRECISIONS, Identity, Plan, digest_of, kept
from ..store.schema import sizes
from ..store.status import TaskStatus, task_status
from .audio.clip import AUDIO
from .audio.corpus import Clips, Corpus
from .audio.decoding import DEFAULT_LIMITS, Limits
from .models.encoder import LOWER, Anatomy, Encoder, is_foreign, weights_digest
from .models.registry import load_encoder
from .models.tap import match_sites

DEFAULT_BATCH = 32
MAX_MOVED = 0.1  # of the largest value, by 16 bits; ten times less is usual, and wrong kernels and overflow move more
MAX_BATCH_SAMPLES = 1 << 27  # that go into a forward pass at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """An encoder, or the name by which each worker loads its own, and the device it goes to."""

    encoder: Encoder | str
    device: str | None = None
    """Default CUDA where the encoder is loaded, if there is one."""
    precision: str | None = None
    """One of PRECISIONS; None leaves it to the encoder."""

    def load(self) -> Encoder:
        """The encoder on its device. Raises as `load_encoder` and `to_device`."""
        encoder = load_encoder(self.encoder) if isinstance(self.encoder, str) else self.encoder
        return to_device(encoder, self.device).at(self.precision)


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """All that a worker needs for any block of a task."""

    url: str
    clips: Clips
    plan: Plan
    model: Model
    code: str = ""
    """Versions of what computes, recorded with each block."""
    origin: Origin | None = None
    """None until the encoder was loaded and asked for it."""
    allow_missing: bool = False
    """Whether absent files are recorded as failed."""
    limits: Limits = DEFAULT_LIMITS
    """What is read and decoded of one clip at most."""
    hardware: str = ""
    """Device and kernel that alone may extract (see `hardware_of`); "" allows all."""

    @property
    def identity(self) -> Identity:
        """That of the encoder, once it is known."""
        assert self.origin is not None
        return self.origin.identity


def to_device(encoder: Encoder, device: str | None) -> Encoder:
    """The encoder on a device, by default CUDA where there is one. Raises ValueError where that cannot be."""
    try:
        return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # torch's, for devices unknown, absent or full
        raise ValueError(
            f"encoder {encoder.name} cannot go to device {device!r} ({one_line(error)}); expected cpu, or a device "
            "that this torch and machine have"
        ) from error


def anatomy_of(encoder: Encoder) -> Anatomy:
    """What passes over a second or two of sound tell, mostly one.

    Raises ValueError for an encoder that fails, or whose weights are not numbers.
    """
    # A sum with NaN is NaN, and takes a fraction of the time; one of infinities may be, too.
    unfit = next(
        (
            name
            for name, part in encoder.module.named_parameters()
            if bool(torch.isnan(part.sum())) and bool(torch.isnan(part).any())
        ),
        None,
    )
    if unfit is not None:
        raise ValueError(
            f"encoder {encoder.name} has weights that are not numbers (NaN), the first in {unfit}; expected those of a "
            "model that was trained and saved whole: take another checkpoint"
        )
    with _explained(encoder):
        anatomy = encoder.anatomy()
        encoder.check_widths(anatomy)
    return anatomy


@contextmanager
def _explained(encoder: Encoder) -> Iterator[None]:
    """Raise ValueError where the model's own code fails on a second of sound in the `with` block."""
    try:
        yield
    except Exception as error:
        if not is_foreign(error):
            raise
        how, remedy = (
            (f" in {encoder.precision}", ", or leave --precision out") if encoder.precision in LOWER else ("", "")
        )
        raise ValueError(
            f"encoder {encoder.name} failed on a second of sound{how} ({type(error).__name__}: {one_line(error)}); "
            "expected a module that takes what its `prepare` gives, and an `embed` that takes what it returns: check "
            f"them{remedy} (otoscope --debug shows where)"
        ) from error


def origin_of(encoder: Encoder, frames: str, device: str | None = None, anatomy: Anatomy | None = None) -> Origin:
    """What the numbers come from that an encoder gives on its present device.

    device: kind of device that the identity is to name; default the present one. anatomy: of `anatomy_of`, where it is
    known.
    Raises ValueError as `anatomy_of`, for a precision that the encoder does not take, and for one that does not fit
    what it was made from.
    """
    anatomy = anatomy or anatomy_of(encoder)
    if encoder.base is not None and encoder.derive is not None:
        origin = encoder.derive(origin_of(encoder.base.at(encoder.precision), frames, device))
        found = [(site.name, site.width) for site in anatomy.sites]
        assert list(origin.identity.sites) == found, f"{origin.identity.sites} are not the sites {found}"
        return replace(origin, source=encoder.source)
    with _explained(encoder):
        spans = encoder.spans(max(encoder.sample_rate, encoder.min_samples))
    here, precision = encoder.device.type, anatomy.precision
    if encoder.precision in LOWER:
        if encoder.precision not in precision.split("+"):
            raise ValueError(
                f"encoder {encoder.name} gives {precision} at all of its sites when it is run in {encoder.precision}; "
                "expected sites behind linear maps or convolutions, which torch computes so: leave --precision out"
            )
        precision = encoder.precision
    tf32 = here == "cuda" and torch.backends.cuda.matmul.allow_tf32
    layers = match_sites(encoder.module, encoder.transformer_layers) if encoder.transformer_layers else ()
    # What the check of a fixed sound does not show: which clips are long enough, which frames count, which states these
    # are.
    microseconds = [None if np.isnan(t0) else round(1e6 * t0) for t0 in spans[:, 0].tolist()]
    unseen = {
        "min_samples": int(encoder.min_samples), "frame_times": digest_of(microseconds),
        "hidden_states": digest_of(layers) if layers else "none",
    }  # fmt: skip
    identity = Identity(
        encoder=encoder.name,
        weights=weights_digest(encoder.module),
        front_end={"sample_rate": int(encoder.sample_rate), **unseen, **encoder.front_end},
        sites=tuple((site.name, site.width) for site in anatomy.sites),
        embedding=anatomy.embedding,
        hidden=(len(layers) + 1, anatomy.hidden) if layers else (0, 0),
        frames=frames,
        precision="tf32" if tf32 and precision == "float32" else precision,
        device=device or here,
    )
    origin = Origin(identity=identity, source=encoder.source, check=anatomy.check)
    if encoder.precision in LOWER and (far := origin.moved(encoder.at("float32").anatomy().check, MAX_MOVED)):
        raise ValueError(
            f"encoder {encoder.name} cannot be run in {precision} on this {here}: compared with float32, {far}; "
            "expected less of 16 bits: leave --precision out, or take another"
        )
    return origin


def stored_task(url: str, task: str, replan: bool) -> TaskStatus | None:
    """What there is already of a task, and how it stands.

    replan: whether a plan of which nothing is committed counts as none; ValueError where something is.
    """
    check_task_name(task)
    if nothing_at(url):
        return None
    if read_record(open_root(url, mode="r"), task) is None:
        return None
    status = task_status(url, task)
    if replan and status.committed.any():
        raise ValueError(
            f"{url} task {task} has {len(status.blocks())} committed blocks; expected none for --replan: leave it out, "
            "or choose another task name"
        )
    return None if replan else status


def prepare_store(
    url: str, task: str, origin: Origin, plan: Plan, clips: ClipTable, replan: bool = False, command: str = ""
) -> None:
    """Make the store and the task, or check that they are there as planned. Raises OSError where neither can be.

    command: as for `add_task`.
    """
    try:
        create(url)
        add_task(url, task, origin, plan, clips, replan=replan, command=command)
    except OSError as error:
        raise OSError(
            f"{url} could not be written ({one_line(error)}); expected a writable location with free space: mend "
            "that and run the same command again, or choose another URL"
        ) from error


def clip_table(corpus: Corpus) -> ClipTable:
    """A corpus as the store records it: without the audio root, which may differ from machine to machine."""
    table = corpus.clips.table
    return ClipTable(
        name=table["name"].tolist(),
        path=table["path"].tolist(),
        start=table["start"].to_numpy(float),
        stop=table["stop"].to_numpy(float),
        prompt=table["prompt"].tolist() if "prompt" in table else None,
        labels={str(column): corpus.labels[column].tolist() for column in corpus.labels},
    )


def make_plan(stored: Plan | None, corpus: Corpus, clips: ClipTable, **given: Any) -> Plan:
    """The plan: options given, else those stored, else the defaults.

    Raises ValueError where the manifest states another unit_sec than the stored plan, and no option does.
    """
    if stored and given["unit_sec"] is None and corpus.unit_sec not in (None, stored.unit_sec):
        kept_unit = "native" if stored.unit_sec is None else f"{stored.unit_sec:g}"
        raise ValueError(
            f"the manifest's unit_sec is {corpus.unit_sec:g}, and the task was extracted with {kept_unit}; expected "
            f"the same: correct the manifest, or give --unit-sec {kept_unit}, or choose another task name"
        )
    defaults: dict[str, Any] = {
        "unit_sec": corpus.unit_sec or "native",
        "variables": kept(None),
        "mean_dtype": "float16",
        "block": default_block_size(len(clips)),
        "batch": DEFAULT_BATCH,
    }
    for name, default in defaults.items():
        if given[name] is None:
            given[name] = getattr(stored, name) if stored else default
    if given["unit_sec"] == "native":
        given["unit_sec"] = None
    return Plan(n_clips=len(clips), **clips.digests, **given)  # type: ignore[arg-type]


def describe(url: str, task: str, identity: Identity, plan: Plan) -> str:
    """One paragraph on what a plan stores and how large it is."""
    each = {name: n / plan.n_clips for name, n in sizes(identity, plan).items()}
    parts = ", ".join(f"{name} {in_bytes(n)}" for name, n in each.items())
    length = "native length" if plan.unit_sec is None else f"{plan.unit_sec:g} s"
    return (
        f"{url} task {task}: {plan.n_clips} clips of {length} in {-(-plan.n_clips // plan.block)} blocks "
        f"of {plan.block}; {len(identity.sites)} layers, {sum(width for _, width in identity.sites)} neurons; "
        f"{in_bytes(sum(each.values()) * plan.n_clips)} on disk, per clip {parts}"
    )


def in_bytes(n: float) -> str:
    """A number of bytes for a person to read: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def check_plan(encoder: Encoder, identity: Identity, plan: Plan, precision: str | None) -> None:
    """Raise ValueError for a plan, or a precision, that the encoder cannot carry out."""
    if precision is not None and precision != identity.precision:
        raise ValueError(
            f"encoder {encoder.name} computes in {identity.precision}, by its weights or torch's settings; expected "
            f"{precision}, as was asked for or is stored: change those, or leave --precision out of a new task"
        )
    if "hidden" in plan.variables and not encoder.transformer_layers:
        raise ValueError(
            f"encoder {encoder.name} names no transformer layers, so it has no hidden states to keep; expected "
            "`transformer_layers=` on the encoder: leave hidden out of --keep"
        )
    if "hidden" in plan.variables:
        widths = encoder.hidden_widths()
        if len(set(widths)) > 1:
            listed = ", ".join(map(str, widths[:8])) + (", ..." if len(widths) > 8 else "")
            raise ValueError(
                f"hidden states of encoder {encoder.name} are {listed} wide (the first layer's input, then "
                "each layer's output); expected one width: name layers of one width as `transformer_layers=`, or leave "
                "hidden out of --keep"
            )
    if plan.unit_sec is not None and plan.unit_sec * encoder.sample_rate < encoder.min_samples:
        raise ValueError(
            f"--unit-sec {plan.unit_sec:g} is {round(plan.unit_sec * encoder.sample_rate)} samples at "
            f"{encoder.sample_rate} Hz; encoder {encoder.name} needs at least {encoder.min_samples}: "
            "choose a longer unit"
        )
    if (
        plan.unit_sec is not None
        and encoder.max_samples is not None
        and plan.unit_sec * encoder.sample_rate > encoder.max_samples
    ):
        raise ValueError(
            f"--unit-sec {plan.unit_sec:g} is more than the {encoder.max_samples / encoder.sample_rate:g} s that "
            f"encoder {encoder.name} takes; expected at most that: choose a shorter unit"
        )
    if plan.unit_sec is not None and plan.batch * plan.unit_sec * encoder.sample_rate > MAX_BATCH_SAMPLES:
        raise ValueError(
            f"--batch {plan.batch} of --unit-sec {plan.unit_sec:g} is "
            f"{in_bytes(4 * plan.batch * plan.unit_sec * encoder.sample_rate)} of samples; expected at most "
            f"{in_bytes(4 * MAX_BATCH_SAMPLES)}: choose a smaller batch or a shorter unit"
        )


def check_prompts(encoder: Encoder, clips: Clips) -> None:
    """Raise ValueError for a prompted encoder and clips without prompts, or with one that it does not take."""
    if not encoder.prompted:
        return
    if "prompt" not in clips.table:
        raise ValueError(
            f"encoder {encoder.name} is asked something about each clip, and these have no prompts; expected a column "
            f"'prompt' in the manifest, with {AUDIO} where the sound stands: otoscope corpus cross makes one"
        )
    n_samples = max(encoder.sample_rate, encoder.min_samples)
    for prompt in clips.table["prompt"].unique().tolist():
        encoder.layout(n_samples, prompt)


def check_precision(precision: str | None) -> None:
    """Raise ValueError for a precision that is not one of PRECISIONS, or None."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}; expected one of {', '.join(PRECISIONS)}")


def check_options(
    identity: Identity, *, family: str, frames: str | None, device: str | None, precision: str | None
) -> None:
    """Raise ValueError where options cannot be those of a task's identity, as far as is known without the encoder.

    family: the encoder's name up to its first colon. device: "cpu", or another with its number.
    """
    different = []
    if family != identity.encoder:
        different.append(f'encoder: "{family}", not "{identity.encoder}"')
    if frames is not None and frames != identity.frames:
        different.append(f'frames: "{frames}", not "{identity.frames}"')
    if device is not None and device.partition(":")[0] != identity.device:
        different.append(f'device: "{device}", not "{identity.device}"')
    if precision is not None and precision != identity.precision:
        different.append(f'precision: "{precision}", not "{identity.precision}"')
    if different:
        raise ValueError(
            f"the task holds activations of another identity ({'; '.join(different)}); expected the same encoder and "
            "options: choose another task name"
        )


def check_files(clips: Clips, committed: np.ndarray | None) -> None:
    """Raise FileNotFoundError where files of clips are absent that are not yet committed (bool per stored clip)."""
    wanted = None if committed is None else [i for i in range(len(clips)) if i >= len(committed) or not committed[i]]
    absent = clips.absent(wanted)
    if absent:
        names = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise FileNotFoundError(
            f"{len(absent)} of {len(clips)} audio files are not under {clips.root} ({names}); expected every "
            "file of the manifest: give the folder that holds them as --audio-root, or --allow-missing to record them "
            "as failed"
        )

"""Explorer: what the pages read: stores, statistics of labellings, cards, sounds and traces, each computed once.

Goal: nothing in a request is opened; tasks and labels are looked up by name, clips and neurons by number, and all that
was read or computed lately is kept within bounds.
Conventions: the number of a clip is its place in the task's plan, as `position` of the reader; `at` is its place along
the data set. Long work runs in a thread of its own while the page says what it is at.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..ablate.offer import Offer
from ..ablate.running import check_encoder
from ..analysis.cards.card import Card, neuron_card
from ..analysis.cards.home import TaskOverview, task_overview
from ..analysis.cards.labelling_statistics import LabellingStatistics, labelling_statistics
from ..analysis.selection.selection import Selection
from ..extract.audio.audio_root import AudioRoot, root_at
from ..extract.audio.clip import Clip
from ..extract.audio.manifest import read_manifest
from ..extract.frame_trace import Trace, Tracer
from ..extract.loader import LoadedClip
from ..messages import one_line
from ..store.group import open_task, status_of
from ..store.provenance import TaskRecord
from ..store.reader import open_store
from ..store.schema import PENDING
from .caches import ByteCache
from .catalogue import Catalogue
from .media import NoSound, Sound, load_sound
from .settings import Settings

MAX_BYTES = {"statistics": 2**28, "cards": 2**26, "means": 2**25, "sounds": 2**26, "traces": 2**26}
WAIT_SECONDS = 4.0  # until a page is shown that says what is computed
MAX_WORK = 16  # computations that wait, or whose error nobody has seen
CHECK_SECONDS = 5.0  # between two looks whether a store has changed
BUNDLED = ("tiny-ssl", "tiny-sl")


class Working(Exception):
    """What was asked for is being computed; its text is a word on how far that is."""


@dataclass
class _Work:
    """A computation in a thread of its own."""

    message: str = "beginning"
    error: Exception | None = None
    value: Any = None
    ended: threading.Event = field(default_factory=threading.Event)


class Explorer:
    """What may be looked at on a server. Any thread may ask."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings, self.catalogue = settings, catalogue
        self._offer = catalogue.now
        self._caches: dict[str, ByteCache[Any]] = {name: ByteCache(n) for name, n in MAX_BYTES.items()}
        self._work, self._lock = dict[Hashable, _Work](), threading.Lock()
        self._one_computation, self._one_pass = threading.Lock(), threading.Lock()
        self._tracers = dict[str, Tracer | str]()
        self._overviews, self._records = dict[str, TaskOverview](), dict[str, TaskRecord]()
        self._checked = dict[str, tuple[float, bool]]()
        self._roots = dict[str, AudioRoot]()
        for task in self._offer.labels:
            self.record(task)

    @property
    def offer(self) -> Offer:
        """The stores as the server now shows them; what was kept of others is let go."""
        now = self.catalogue.now
        if now is not self._offer:
            with self._lock:
                self._offer = now
                for known in (self._overviews, self._records, self._checked):
                    known.clear()
                for cache in self._caches.values():
                    cache.clear()
        return now

    def dataset(self, task: str) -> xr.Dataset:
        """A task. Raises LookupError naming those that exist."""
        return self.offer.task(task).to_dataset()

    def record(self, task: str) -> TaskRecord:
        """What its store said of a task when the server first looked."""
        if task not in self._records:
            self._records[task] = self.offer.record(task)
        return self._records[task]

    def identity(self, task: str) -> str:
        """The first digits of the identity of a task."""
        return str(self.offer.task(task).attrs["identity"])[:8]

    def changed(self, task: str) -> bool:
        """Whether a task is no longer as it was when the server opened it; looked at every CHECK_SECONDS at most."""
        now, (when, known) = time.monotonic(), self._checked.get(task, (-math.inf, False))
        if now - when < CHECK_SECONDS:
            return known
        try:
            pending = self.offer.task(task).attrs["n_pending"]
            group, record = open_task(self.offer.store_of(task).root, task)
            found = record != self.record(task)
            if pending and not found:
                found = int((status_of(group, record.plan) == PENDING).sum()) != pending
        except (OSError, ValueError, LookupError):
            found = True
        self._checked[task] = now, found
        return found

    def overview(self, task: str) -> TaskOverview:
        """A task at a glance, with the reasons of clips that failed."""
        self.offer.task(task)
        if task not in self._overviews:
            tree = open_store(self.offer.store_of(task).url, failed="keep")
            self._overviews[task] = task_overview(tree.children[task].to_dataset(), task)
        return self._overviews[task]

    def selection(self, task: str, asked: dict[str, Any]) -> Selection:
        """The selection that a page's address asks for. Raises ValueError for what is none."""
        group = self.settings.groups.get(task, "")
        given = {"group": group, **asked} if group else asked
        return Selection(**given)

    def statistics(self, task: str, label: str, how: Selection) -> LabellingStatistics:
        """What the cards of a labelling have in common.

        Raises Working while that is computed, and as `labelling_statistics`.
        """
        offer = self.offer
        ds = offer.task(task).to_dataset()
        if label not in offer.labels[task]:
            raise LookupError(f"no label {label!r} in task {task}; expected one of {', '.join(offer.labels[task])}")

        def compute(progress: Callable[[str], None]) -> LabellingStatistics:
            return labelling_statistics(ds, label, how, task=task, progress=progress)

        key = (id(offer), task, label, _key_of(how))
        found: LabellingStatistics = self._awaited("statistics", key, compute)
        return found

    def known_statistics(self, task: str, label: str, how: Selection) -> LabellingStatistics | None:
        """The same if they are there already."""
        found: LabellingStatistics | None = self._caches["statistics"].get((id(self.offer), task, label, _key_of(how)))
        return found

    def card(self, statistics: LabellingStatistics, layer: int, neuron: int) -> Card:
        """The card of a neuron. Raises as `neuron_card`."""
        key = (statistics.task, statistics.label, _key_of(statistics.how), layer, neuron)
        found: Card = self._caches["cards"].made(key, lambda: neuron_card(statistics, layer, neuron))
        return found

    def at(self, task: str, number: int) -> int:
        """Where a clip is along the data set. Raises LookupError for one that is not shown."""
        positions: NDArray[np.int64] = self.dataset(task)["position"].values
        found = int(np.searchsorted(positions, number))
        if found >= len(positions) or positions[found] != number:
            raise LookupError(
                f"no clip {number} in task {task}; expected the number of one that was extracted, up to "
                f"{positions.max(initial=0)}"
            )
        return found

    def clip(self, task: str, at: int) -> tuple[Clip, int]:
        """A clip by its place along the data set, and the digest of its file."""
        ds = self.dataset(task)
        names = [name for name in ("path", "start", "stop", "prompt", "audio_digest") if name in ds]
        row: dict[str, Any] = {
            name: ds[name].variable.isel(clip=at).compute(scheduler="synchronous").values[()] for name in names
        }
        start, stop = (None if np.isnan(row[edge]) else float(row[edge]) for edge in ("start", "stop"))
        prompt = str(row["prompt"]) if "prompt" in row else None
        clip = Clip(name=str(ds["clip"].values[at]), path=str(row["path"]), start=start, stop=stop, prompt=prompt)
        return clip, int(row["audio_digest"])

    def root(self, task: str) -> AudioRoot | None:
        """Where the audio of a task lies, if that was said."""
        if task not in self._roots:
            if task in self.settings.audio_roots:
                self._roots[task] = root_at(self.settings.audio_roots[task])
            elif task in self.settings.corpora:
                self._roots[task] = read_manifest(*self.settings.corpora[task]).clips.root
        return self._roots.get(task)

    def sound(self, task: str, number: int) -> Sound:
        """What the encoder took of a clip. Raises NoSound where it cannot be played, LookupError for no clip."""
        at, record, root = self.at(task, number), self.record(task), self.root(task)
        if root is None or not self.settings.sound:
            raise NoSound(self.no_sound(task))
        rate = record.identity.front_end.get("sample_rate")

        def load() -> Sound:
            clip, digest = self.clip(task, at)
            return load_sound(root, clip, int(rate) if rate else None, record.plan.unit_sec, digest)

        found: Sound = self._caches["sounds"].made((id(self.offer), task, number), load)
        return found

    def unit_seconds(self, task: str) -> float | None:
        """What every clip of a task is cropped or filled up to."""
        return self.record(task).plan.unit_sec

    def mean(self, task: str, layer: int, neuron: int, at: int) -> float:
        """The stored mean of a neuron in a clip. layer: its number. Raises LookupError where no means were kept."""
        ds = self.dataset(task)
        if "mean" not in ds:
            raise LookupError(f"task {task} keeps no means; expected a store extracted with --keep mean")

        def load() -> NDArray[np.float32]:
            one = ds["mean"].variable[{"layer": self.layer_at(task, layer, neuron), "neuron": neuron}]
            return np.asarray(one.compute(scheduler="synchronous").values, np.float32)

        means: NDArray[np.float32] = self._caches["means"].made((id(self.offer), task, layer, neuron), load)
        return float(means[at])

    def layer_at(self, task: str, layer: int, neuron: int) -> int:
        """Where a layer is. Raises LookupError for a neuron that does not exist."""
        layers, sites = self.dataset(task)["layer"].values, self.record(task).identity.sites
        found = np.flatnonzero(layers == layer)
        if not len(found) or not 0 <= neuron < sites[int(found[0])][1]:
            raise LookupError(
                f"no neuron ({layer}, {neuron}) in task {task}; expected layer {layers.min()} to {layers.max()}, and a "
                "neuron of it"
            )
        return int(found[0])

    def no_sound(self, task: str) -> str:
        """Why clips of a task are not played, or ""."""
        if not self.settings.sound:
            return "sounds are not served; expected a server without --no-audio"
        if self.root(task) is None:
            return "the server does not know where the audio lies; expected --audio-root DIR when it starts"
        return ""

    def no_traces(self, task: str) -> str:
        """Why there are no traces of a task, as far as that is known before the encoder is loaded; or ""."""
        if reason := self.no_sound(task):
            return reason
        if not self.encoder_of(task):
            return (
                f"there are no traces: the encoder of this store ({self.record(task).identity.encoder}) is not here; "
                "expected --encoder SPEC when the server starts"
            )
        tracer = self._tracers.get(task)
        return tracer if isinstance(tracer, str) else ""

    def encoder_of(self, task: str) -> str:
        """The name of the encoder of a task: the one given, or one that comes with the package; "" for none."""
        own = self.record(task).identity.encoder
        return self.settings.encoder or (own if own in BUNDLED else "")

    def trace(self, task: str, number: int, layer: int, neuron: int) -> Trace:
        """What the neurons of a layer did in each frame of a clip, by one pass; passes run one at a time.

        Raises NoSound where there is no sound or no encoder of the store, LookupError for no clip or neuron.
        """
        at, layer_at = self.at(task, number), self.layer_at(task, layer, neuron)

        def make() -> Trace:
            if reason := self.no_traces(task):
                raise NoSound(reason)
            sound = self.sound(task, number)
            if sound.cut:
                raise NoSound(f"the clip is longer than {sound.seconds:g} s; expected a shorter one for a trace")
            prompt = self.clip(task, at)[0].prompt
            with self._one_pass:
                tracer = self._tracer(task)
                return tracer.trace(LoadedClip(index=0, samples=sound.samples, digest=0, prompt=prompt), layer_at)

        found: Trace = self._caches["traces"].made((id(self.offer), task, number, layer), make)
        return found

    def _tracer(self, task: str) -> Tracer:
        """Loads the encoder when it is first needed; why that cannot be is kept."""
        from ..extract.models.registry import load_encoder
        from ..extract.plan import origin_of, to_device

        if task not in self._tracers:
            record = self.record(task)
            stored = record.identity
            try:
                encoder = to_device(load_encoder(self.encoder_of(task)), self.settings.device).at(stored.precision)
                check_encoder(stored, origin_of(encoder, stored.frames, stored.device).identity)
                self._tracers[task] = Tracer(encoder, stored, record.plan)
            except (ValueError, LookupError, OSError, ImportError) as error:
                self._tracers[task] = f"there are no traces: {self.settings.redact(one_line(error, whole=True))}"
        found = self._tracers[task]
        if isinstance(found, str):
            raise NoSound(found)
        return found

    def _awaited(self, cache: str, key: Hashable, compute: Callable[[Callable[[str], None]], Any]) -> Any:
        """A value that is kept, or computed within WAIT_SECONDS; raises Working where it takes longer."""
        if (found := self._caches[cache].get(key)) is not None:
            return found
        with self._lock:
            work = self._work.get(key)
            if work is None and len(self._work) >= MAX_WORK:
                self._work = {key: each for key, each in self._work.items() if not each.ended.is_set()}
                if len(self._work) >= MAX_WORK:
                    raise Working("waiting until others are computed")
            if work is None:
                work = self._work[key] = _Work()
                threading.Thread(target=self._compute, args=(cache, key, work, compute), daemon=True).start()
        if not work.ended.wait(WAIT_SECONDS):
            raise Working(work.message)
        with self._lock:
            self._work.pop(key, None)
        if work.error is not None:
            raise work.error
        return work.value

    def _compute(self, cache: str, key: Hashable, work: _Work, compute: Callable[[Callable[[str], None]], Any]) -> None:
        def progress(message: str) -> None:
            work.message = message

        try:
            progress("waiting for another computation")
            with self._one_computation:
                progress("beginning")
                work.value = compute(progress)
                self._caches[cache].put(key, work.value)
        except Exception as error:
            work.error = error.with_traceback(None)  # which would hold all that was read
        finally:
            if work.error is None:  # it is kept within bounds elsewhere, also if nobody comes back for it
                with self._lock:
                    self._work.pop(key, None)
            work.ended.set()


def _key_of(how: Selection) -> Hashable:
    return tuple((each.name, getattr(how, each.name)) for each in fields(how))

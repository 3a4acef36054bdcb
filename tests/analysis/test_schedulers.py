"""Whatever scheduler runs a graph, and however often each of its tasks, the numbers are those of plain numpy.

The store is on disk, its tasks are small and many: totals are counted in several steps of several chains.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.base import compute, is_dask_collection
from dask.delayed import delayed
from scipy.stats import rankdata

import otoscope.analysis
from otoscope.analysis import across, exemplar_clips, totals
from otoscope.analysis.accessor import OtoscopeAccessor
from otoscope.analysis.selection import other_selectors
from otoscope.analysis.selection.selection import Selection
from otoscope.store.reader import open_store

from ..support.amounts import quick_sample
from ..support.checking_scheduler import every_task_twice
from ..support.known_store import WIDTHS, make_known

DIGITS = [str(i) for i in range(11)]
WHO = ["bo b", "éva"]
HOW = {"reading": "frame", "percentile": 20}


class Plain:
    """The known store in plain arrays, (layer, neuron, clip) of the clips that were extracted, and its statistics."""

    def __init__(self) -> None:
        known = make_known()
        ok = np.flatnonzero(known.status == 1)
        self.names = np.array(known.clips.name, object)[ok]
        self.position = ok
        self.mean = known.mean[:, ok].astype(np.float16).astype(np.float64).transpose(0, 2, 1)
        self.active = known.mean[:, ok].transpose(0, 2, 1) > 0
        self.positive = known.positive[:, ok].astype(np.int64).transpose(0, 2, 1)
        self.frames = ok  # as many as the clip's position says
        self.column = {name: np.array(values, object)[ok] for name, values in known.clips.labels.items()}
        self.exists = np.arange(max(WIDTHS)) < np.array(WIDTHS)[:, None]

    def per_category(self, function: Callable[[np.ndarray], np.ndarray], label: str) -> np.ndarray:
        """function(clips of the category) for each, (layer, neuron, category), NaN for neurons that do not exist."""
        found = [function(self.column[label] == name) for name in (DIGITS if label == "digit" else WHO)]
        return np.where(self.exists[..., None], np.stack(found, -1), np.nan)

    def share(self, active: np.ndarray, label: str = "digit") -> np.ndarray:
        return self.per_category(lambda clips: active[..., clips].mean(-1), label)

    def frame_share(self, label: str = "digit") -> np.ndarray:
        return self.per_category(lambda clips: self.positive[..., clips].sum(-1) / self.frames[clips].sum(), label)

    def category_mean(self) -> np.ndarray:
        return self.per_category(lambda clips: self.mean[..., clips].mean(-1), "digit")

    def entropy(self, p: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            q = p / p.sum(-1, keepdims=True)
            entropy = -np.where(q > 0, q * np.log(q), 0).sum(-1)
        return np.where(self.exists & (np.nan_to_num(p).sum(-1) > 0), entropy, np.nan)

    def member(self, label: str = "digit", percentile: float = 20) -> np.ndarray:
        """LAPE's selection by shares of frames, in loops; see `test_rules.py`."""
        p = self.frame_share(label)
        top = np.sort(p[self.exists], axis=None)[round(0.95 * p[self.exists].size) - 1]
        entropy = np.round(self.entropy(p), 10)
        every = [tuple(at) for at in np.argwhere(self.exists)]
        kept = sorted((entropy[at], at) for at in every if p[at].max() > top)[: round(len(every) * percentile / 100)]
        found = np.zeros(p.shape, bool)
        for _, at in kept:
            found[at] = p[at] > top
        return found

    def ratio(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pairs = [[(x & y).sum() / (x | y).sum() for y in np.moveaxis(b, -1, 0)] for x in np.moveaxis(a, -1, 0)]
        return np.array(pairs)

    def line(self, percent: int, label: str) -> np.ndarray:
        """Quantiles (layer, neuron) by the labelled clips."""
        ordered = np.sort(self.mean[..., self.column[label] != ""], axis=-1)
        return np.where(self.exists, ordered[..., percent * (ordered.shape[-1] - 1) // 100], np.nan)

    def rank_z(self) -> np.ndarray:
        """(layer, neuron, category), by the labelled clips."""
        labelled = self.column["digit"] != ""
        ranks = np.full(self.mean.shape, np.nan)
        ranks[..., labelled] = rankdata(np.nan_to_num(self.mean[..., labelled]), axis=-1)
        n, spread = labelled.sum(), ranks[..., labelled].var(axis=-1, ddof=1)

        def z(clips: np.ndarray) -> np.ndarray:
            n_in = clips.sum()
            excess = ranks[..., clips].sum(-1) - n_in * (n + 1) / 2
            return np.asarray(excess / np.sqrt(n_in * (n - n_in) / n * np.where(self.exists, spread, 1)))

        return self.per_category(z, "digit")

    def first(self, layer: int, neuron: int, k: int) -> np.ndarray:
        return np.argsort(-self.mean[layer, neuron], kind="stable")[:k]


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, known = str(tmp_path_factory.mktemp("known") / "s.zarr"), make_known()
    known.begin(path)
    known.write(path)
    return path


@pytest.fixture(autouse=True)
def many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CHAINS": 2, "STEP_BYTES": 1, "JOINED_BYTES": 1, "SMALL_BYTES": 1}.items():
        monkeypatch.setattr(totals, name, value)
    monkeypatch.setattr(totals, "_steps", lambda lengths, _enough: ([i] for i in range(len(lengths))))


LINES = np.linspace(-1, 1, 2 * max(WIDTHS)).reshape(2, -1)
METHODS: dict[str, list[tuple[Callable[[xr.Dataset], Any], Callable[[Plain], Any]]]] = {
    "labels": [(lambda ds: ds.otoscope.labels, lambda _: ["digit", "who, exactly"])],
    "counted": [(lambda ds: ds.otoscope.counted, lambda plain: np.ones(len(plain.names), bool))],
    "categories": [
        (lambda ds: ds.otoscope.categories("digit"), lambda _: DIGITS),
        (lambda ds: ds.otoscope.categories("who, exactly"), lambda _: WHO),
    ],
    "label": [(lambda ds: ds.otoscope.label("digit"), lambda plain: plain.column["digit"])],
    "codes": [
        (
            lambda ds: ds.otoscope.codes("digit"),
            lambda plain: [DIGITS.index(x) if x else -1 for x in plain.column["digit"]],
        )
    ],
    "probability": [
        (lambda ds: ds.otoscope.probability("digit"), lambda plain: plain.share(plain.active)),
        (lambda ds: ds.otoscope.probability("digit", reading="any"), lambda plain: plain.share(plain.positive > 0)),
        (lambda ds: ds.otoscope.probability("digit", reading="frame"), lambda plain: plain.frame_share()),
        (lambda ds: ds.otoscope.probability("digit", threshold=0.5), lambda plain: plain.share(plain.mean > 0.5)),
        (
            lambda ds: ds.otoscope.probability("digit", threshold=xr.DataArray(LINES, dims=("layer", "neuron"))),
            lambda plain: plain.share(plain.mean > LINES[..., None]),
        ),
        (
            lambda ds: ds.otoscope.probability("digit", threshold="q29"),
            lambda plain: plain.share(plain.mean > plain.line(29, "digit")[..., None]),
        ),
        (
            lambda ds: ds.isel(clip=slice(None, None, 3), neuron=[1, 5]).otoscope.probability("who, exactly"),
            lambda plain: np.stack(
                [plain.active[:, [1, 5], ::3][..., plain.column["who, exactly"][::3] == w].mean(-1) for w in WHO], -1
            ),
        ),
    ],
    "aape": [
        (lambda ds: ds.otoscope.aape("digit"), lambda plain: plain.entropy(plain.share(plain.active))),
        (
            lambda ds: ds.otoscope.aape("digit", reading="frame", normalised=True),
            lambda plain: plain.entropy(plain.frame_share()) / np.log(11),
        ),
    ],
    "class_specific": [(lambda ds: ds.otoscope.class_specific("digit", **HOW)["member"], lambda plain: plain.member())],
    "cards": [(lambda ds: ds.otoscope.cards("digit", **HOW).member, lambda plain: plain.member())],
    "card": [
        (
            lambda ds: ds.otoscope.card("digit", 0, 7, reading="frame", rule="lape").bars.p,
            lambda plain: plain.frame_share()[0, 7],
        ),
        (lambda ds: ds.otoscope.card("digit", 1, 9, rule="lape").bars.p, lambda plain: plain.share(plain.active)[1, 9]),
    ],
    "common_neuron_ratio": [
        (
            lambda ds: ds.otoscope.common_neuron_ratio("digit", **HOW),
            lambda plain: plain.ratio(plain.member(), plain.member()),
        ),
        (
            lambda ds: ds.otoscope.common_neuron_ratio("digit", "who, exactly", **HOW),
            lambda plain: plain.ratio(plain.member(), plain.member("who, exactly")),
        ),
    ],
    "category_mean": [(lambda ds: ds.otoscope.category_mean("digit"), lambda plain: plain.category_mean())],
    "exemplars": [
        (lambda ds: ds.otoscope.exemplars(0, 7)["clip"], lambda plain: plain.names[plain.first(0, 7, 10)]),
        (lambda ds: ds.otoscope.exemplars(0, 7)["position"], lambda plain: plain.position[plain.first(0, 7, 10)]),
        (
            lambda ds: ds.otoscope.exemplars([0, 1], [3, 9], k=4)["value"],
            lambda plain: [[plain.mean[i, j, plain.first(i, j, 4)] for j in (3, 9)] for i in (0, 1)],
        ),
    ],
    "neuron_thresholds": [
        (lambda ds: ds.otoscope.neuron_thresholds("digit", threshold="q29"), lambda plain: plain.line(29, "digit")),
        (
            lambda ds: ds.otoscope.neuron_thresholds("who, exactly", threshold="median").isel(neuron=slice(9)),
            lambda plain: plain.line(50, "who, exactly")[:, :9],
        ),
    ],
    "arrangement": [
        (
            lambda ds: ds.otoscope.arrangement("digit", Selection()).codes,
            lambda plain: [DIGITS.index(digit) for digit in plain.column["digit"] if digit],
        )
    ],
    "tests": [(lambda ds: ds.otoscope.tests("digit", permutations=19)["z"], Plain.rank_z)],
    "sample": [
        (
            lambda ds: (lambda s: s.counts(s.codes, 11)[0].T)(
                ds.otoscope.sample("digit", rule="lape", reading="frame")
            ),
            lambda plain: np.stack([plain.positive[..., plain.column["digit"] == d].sum(-1) for d in DIGITS], -1)[
                plain.exists
            ],
        ),
        (
            lambda ds: (lambda s: s.counts(s.codes, 11)[0].T)(ds.otoscope.sample("digit", rule="lape")),
            lambda plain: np.stack([plain.active[..., plain.column["digit"] == d].sum(-1) for d in DIGITS], -1)[
                plain.exists
            ],
        ),
    ],
    "serving": [
        (
            lambda ds: ds.otoscope.serving("digit", "who, exactly", **HOW)["n_tasks"],
            lambda plain: plain.member().any(-1).astype(int) + plain.member("who, exactly").any(-1),
        )
    ],
}
"""Every public method: questions, and their answers in plain numpy."""
CROSSED = ("grounding", "crossed_layout")
"""Of crossed corpora alone: each of their tasks runs twice in `crossed/test_coefficient.py`."""


def test_no_method_is_left_out() -> None:
    assert {*METHODS, *CROSSED} == {name for name in vars(OtoscopeAccessor) if not name.startswith("_")}


@pytest.mark.parametrize("threads", [False, True], ids=["shuffled", "threads"])
@pytest.mark.parametrize("method", quick_sample(METHODS, 6))
def test_methods(url: str, plain: Plain, method: str, threads: bool) -> None:
    for seed, (ask, answer) in enumerate(METHODS[method]):
        with every_task_twice(seed, threads) as done:
            asked = ask(open_store(url)["t"].to_dataset())
            found = asked.values if isinstance(asked, xr.DataArray) else np.asarray(asked)
        expected = np.asarray(answer(plain))
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        else:
            assert found.tolist() == expected.tolist()
        if method == "probability":
            assert done["_step"] + done["_stored_step"] > 8  # in chains of several


def lazy_functions(ds: xr.Dataset) -> dict[str, xr.DataArray | xr.Dataset]:
    """Every function of the room that takes what may be lazy, of this data set."""
    a, codes = otoscope.analysis, ds.otoscope.codes("digit")
    p = a.frame_probability(ds["positive_frames"], ds["frame_count"], codes).where(ds["neuron_valid"])
    selection = a.class_specific(p, percentile=20)
    member = selection["member"]
    scores = {score.__name__: score(ds["active_bits"], codes) for score in other_selectors.OF_BITS}
    scores["mutual_information"] = other_selectors.mutual_information(ds["active"], codes)
    scores |= {score.__name__: score(ds["mean"], codes) for score in other_selectors.OF_MEANS}
    chosen = {name: other_selectors.highest_scores(score, 4) for name, score in scores.items()}
    return {
        "aape": a.aape(p, normalised=True),
        "above": a.above(ds["mean"], 0.25),
        "across": across(
            xr.DataTree.from_dict({"a": ds, "b": ds.isel(clip=slice(90))}), lambda ds: ds["mean"].max("clip")
        ),
        "activation_counts": a.activation_counts(ds["active_bits"], codes),
        "activation_probability": a.activation_probability(ds["active"], codes),
        "category_mean": a.category_mean(ds["mean"], codes),
        "class_specific": selection,
        "common_neuron_ratio": a.common_neuron_ratio(member),
        "coverage_ratio": a.coverage_ratio(member),
        "depth_histogram": a.depth_histogram(member),
        "exemplar_clips": exemplar_clips(ds["positive_frames"] / ds["frame_count"].where(ds["frame_count"] > 0), k=3),
        "frame_probability": p,
        "neuron_thresholds": a.neuron_thresholds(ds["mean"], codes.values >= 0, "q80"),
        "mean_class_specific": a.mean_class_specific(member),
        "serving": a.serving({"a": member, "b": ~member}),
        "thresholds": a.thresholds(p, rule="paper"),
        **scores,
        "highest_scores": chosen["d_prime"],
        "agreement": other_selectors.agreement(chosen),
    }


def test_functions(url: str) -> None:
    """As of the same data set in memory, where there is no graph; `test_rates.py` and its likes state them in numpy."""
    some = {"clip": slice(130)}
    expected = lazy_functions(open_store(url)["t"].to_dataset().isel(some).load())
    at_once = {"Selection", "clips_where", "contrast_specific", "contrast_tests", "count_agreement", "hold_up"}
    assert set(expected) >= {*otoscope.analysis.__all__} - at_once - {*CROSSED}
    with every_task_twice(seed=1):
        lazy = lazy_functions(open_store(url)["t"].to_dataset().isel(some))
        assert all(is_dask_collection(each) for each in lazy.values())
        found = compute(lazy)[0]
    for name, each in found.items():
        xr.testing.assert_allclose(each, expected[name], rtol=1e-9, atol=1e-12)


def test_the_reader(url: str) -> None:
    plain, known = Plain(), make_known()
    with every_task_twice(seed=2) as done:
        ds = open_store(url)["t"].to_dataset().compute()
    assert done["mean"] > 8
    np.testing.assert_array_equal(ds["mean"], plain.mean)
    np.testing.assert_array_equal(ds["active"], plain.active)
    np.testing.assert_array_equal(ds["positive_frames"], plain.positive)
    np.testing.assert_array_equal(ds["path"], np.array(known.clips.path, object)[plain.position])
    np.testing.assert_array_equal(ds["embedding"][:, 0], plain.position // 32)


# The scheduler itself


def adds_in_place(total: np.ndarray) -> np.ndarray:
    total += 1
    return total


def one_more(values: Any) -> int:
    return int(next(values))


LATER: list[np.ndarray] = []


def changes_what_it_gave() -> np.ndarray:
    LATER.append(np.zeros(3))
    LATER[0][:] += len(LATER)
    return LATER[0]


def writes_to_a_list(values: list[int]) -> int:
    values.append(1)
    return 0


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (lambda: delayed(adds_in_place)(delayed(np.zeros)(3)), "changed what it was given"),
        (lambda: delayed(functools.partial(adds_in_place, np.zeros(3)))(), "changed what it was given"),
        (lambda: delayed(one_more)(iter(range(9))), "other values when it was done again"),
        (lambda: delayed(np.random.default_rng(0).random)(3), "other values when it was done again"),
        (lambda: delayed(changes_what_it_gave)(), "other values when it was done again|had given before"),
        (lambda: delayed(functools.partial(writes_to_a_list, []))(), "changed what it was given"),
    ],
)
@pytest.mark.parametrize("threads", [False, True])
def test_broken_tasks_are_found(broken: Callable[[], Any], law: str, threads: bool) -> None:
    LATER.clear()
    with every_task_twice(threads=threads), pytest.raises(AssertionError, match=law):
        compute(broken())

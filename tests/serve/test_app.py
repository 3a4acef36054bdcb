"""The service: what is asked is what the study gives, once; what may not pass does not; errors are one line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import otoscope
from otoscope.ablate.jobs.results import ARROW
from otoscope.ablate.offer import Offer
from otoscope.ablate.request import Request
from otoscope.ablate.result import result_of_table, write_result
from otoscope.ablate.study import look_up, run_study
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.registry import load_encoder
from otoscope.serve.catalogue import Catalogue
from otoscope.serve.jobs import JobTable
from otoscope.serve.routes import make_app
from otoscope.serve.schemas import Ask
from otoscope.store.changes.tasks import add_labels

from ..support.counting import ONCE, count_calls
from ..support.running_service import (
    ASKED,
    ENCODER,
    NOBODY,
    HereProcess,
    ServedStore,
    asked,
    client_of,
    done,
    ended,
    serving,
)


@pytest.fixture
def own(stored: ServedStore, tmp_path: Path) -> ServedStore:
    """A copy of the store that may be changed."""
    shutil.copytree(stored.url, tmp_path / "store.zarr")
    return ServedStore(url=str(tmp_path / "store.zarr"), manifest=stored.manifest)


def test_a_result_is_what_the_study_gives(client: TestClient, stored: ServedStore, tmp_path: Path) -> None:
    job = done(client, **ASKED)
    whole = run_study(look_up(asked(), stored.url), load_encoder(ENCODER), read_manifest(stored.manifest))
    write_result(whole, tmp_path / "r.parquet")
    table = pa.parquet.read_table(tmp_path / "r.parquet")
    answer = client.get(f"/ablations/{job}/result", headers={"Accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    with pa.ipc.open_stream(answer.content) as stream:
        assert stream.read_all().equals(table, check_metadata=True)
    assert result_of_table(table)["control_change"].sizes["control"] == 5
    as_json = client.get(f"/ablations/{job}/result").json()
    assert [row["category"] for row in as_json["rows"]] == table["category"].to_pylist()
    for row, expected in zip(as_json["rows"], table.to_pylist(), strict=True):
        for name, value in expected.items():
            values, theirs = (x if isinstance(x, list) else [x] for x in (value, row[name]))
            assert [None if x != x else x for x in values] == theirs  # NaN is null
    assert as_json["about"]["attrs"]["digest"] == whole.attrs["digest"]
    job_view = client.get(f"/ablations/{job}").json()
    assert job_view["done"] == job_view["total"] == whole.sizes["clip"]
    assert Request.from_json(job_view["request"]) == asked()


def test_the_same_request_is_answered_from_disk_after_a_restart(stored: ServedStore, tmp_path: Path) -> None:
    with serving(stored, tmp_path / "s") as client:
        assert client.post("/ablations", json=ASKED).status_code == 202
        job = done(client, **ASKED)
        first = client.get(f"/ablations/{job}/result", headers={"Accept": ARROW}).content
    with serving(stored, tmp_path / "s") as client:
        answer = client.post("/ablations", json={**ASKED, "side": "harm", "set": " only(d) "})  # says the same
        assert (answer.status_code, answer.json()["id"]) == (200, job)
        assert answer.headers["location"] == f"/api/ablations/{job}"
        assert client.get(f"/ablations/{job}/result", headers={"Accept": ARROW}).content == first
        assert 'event="done"' not in client.get("/metrics").text
        done(client, **ASKED, seed=1)
        assert len(client.get("/probes").json()) == 1  # fitted once
    for path in (tmp_path / "s").rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes()


def test_ids_depend_on_all_that_is_read(own: ServedStore, tmp_path: Path) -> None:
    """Changing any field, a label, or the splits changes the id; adding a column that is not read does not."""
    changes = [{}, {"set": "only(c)"}, {"mode": "keep"}, {"controls": 6}, {"seed": 1}, {"probe": "published"}]
    changes += [{"probe_seed": 1}, {"selection": Selection(percentile=5.0)}, {"match": ("rate",)}, {"side": "either"}]

    def ids() -> list[str]:
        catalogue = Catalogue(own.settings(tmp_path / "s"))
        return [catalogue.check(asked(**change)) for change in changes]

    before = ids()
    assert len(set(before)) == len(changes)
    names = 60 * ["x"]
    add_labels(own.url, "t", {"other": names}, overwrite=False)
    assert ids() == before
    changes.append({"selection": Selection(where=("other=x",))})
    (*rest, asked_of_it) = ids()
    assert rest == before
    add_labels(own.url, "t", {"other": 59 * ["x"] + ["y"]}, overwrite=True)
    assert ids()[:-1] == before
    assert ids()[-1] not in (asked_of_it, *before)
    add_labels(own.url, "t", {"split": 20 * ["test", "train", "train"]}, overwrite=True)
    assert not set(ids()) & set(before)


def test_a_store_that_changes_before_the_job_begins_is_noticed(own: ServedStore, tmp_path: Path) -> None:
    settings = own.settings(tmp_path / "s")
    process = HereProcess(settings)
    process.may_begin.clear()
    with client_of(make_app(settings, process)) as client:
        job = client.post("/ablations", json=ASKED).json()["id"]
        add_labels(own.url, "t", {"split": 20 * ["test", "train", "train"]}, overwrite=True)
        process.may_begin.set()
        found = ended(client, job)
        assert found["state"] == "failed"
        assert found["error"].endswith("when this was asked; expected no change: ask again")
        assert done(client, **ASKED) != job


def test_a_job_opens_the_store_once_and_hashes_no_weights(
    stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were hashed when the service began; a set's name is read when it is asked for, and when the job is done."""
    with serving(stored, tmp_path / "s") as client:
        calls = count_calls(monkeypatch, *ONCE)
        done(client, **ASKED)
        assert calls == {"open_root": 1, "open_store": 1, "parse_set": 2}


def test_a_name_that_is_given_thousands_of_times_is_looked_up_once(
    stored: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one request would keep the server from all others."""
    calls = count_calls(monkeypatch, "otoscope.ablate.offer.check_where")
    Offer((stored.url,)).check(asked(set=f"shared({'a,' * 5000}t:letter:b)"))
    assert calls["check_where"] <= 4  # of two spellings of one labelling, where and confirm


def test_what_there_is_can_be_listed(client: TestClient) -> None:
    assert client.get("/tasks").json() == [
        {"task": "t", "clips": 60, "labels": ["letter", "split"], "pending": 0, "rerun": True}
    ]
    categories = client.get("/tasks/t/categories", params={"label": "letter"}).json()
    assert categories == dict.fromkeys("abcd", 15)
    sets = client.get("/selections", params={"task": "t", "label": "letter", "percentile": 4, "clips": "all"}).json()
    assert sets["only(d)"] == 7
    ask: dict[str, Any] = {"task": "t", "label": "letter", "percentile": 20, "reading": "frame"}
    default, train, all_clips = (
        client.get("/selections", params={**ask, **more}).json() for more in ({}, {"clips": "train"}, {"clips": "all"})
    )
    assert default == train != all_clips
    left = client.get("/selections", params={**ask, "where": ["letter!=a", "letter!=b", "split=train"]}).json()
    assert set(left) <= {"all(c)", "all(d)", "only(c)", "only(d)", "shared(c,d)"}
    assert client.get("/probes").json()[0]["labelling"] == "t:letter"
    assert client.get("/ablations").json()["jobs"][-1]["request"]["set"] == "only(d)"
    assert client.get("/ablations", params={"state": "failed"}).json() == {"jobs": []}
    assert client.get("/health/ready").json() == {"live": True, "ready": True}


def test_metrics_are_in_the_format(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["otoscope_http_requests_total", "POST", "202"] == 1
    assert samples["otoscope_jobs_total", "done"] == samples["otoscope_job_seconds_count",] == 1
    assert samples["otoscope_unfinished_jobs", "running"] == 0
    assert samples["otoscope_ready",] == 1


def test_a_request_is_a_request() -> None:
    """The wire has the fields of `Request` and of its selection, with their defaults."""
    given = Ask(task="t", label="l", set="only(a)")
    assert Request.from_json(given.model_dump()) == Request(task="t", label="l", set="only(a)")
    assert list(Ask.model_fields) == list(Request.__dataclass_fields__)
    assert list(type(given.selection).model_fields) == list(Selection.__dataclass_fields__)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"task": "nope"}, "no task 'nope'; expected one of t"),
    ({"label": "nope"}, "no label 'nope' in task t; expected one of letter, split"),
    ({"set": "only(z)"}, "no category 'z' in t:letter; expected one of a, b, c, d"),
    ({"set": "shared(a, u:letter:b)"}, "no task 'u'"),
    ({"set": "everything"}, "no neuron set is called 'everything'; expected"),
    ({"set": "(9,347)"}, "expected layers 0 to 2 of 60 neurons"),
    ({"set": "@/etc/passwd"}, "no file is opened"),
    ({"set": "@../../x.csv"}, "no file is opened"),
    ({"set": "only(\ud800)"}, "no category|surrogates not allowed"),
    ({"mode": "transplant"}, "expected a category"),
    ({"mode": "transplant", "category": "z"}, "no category 'z'"),
    ({"splits": "nope"}, "no column 'nope'"),
    ({"selection": {"percentile": 0}}, "selection.percentile: Input should be greater than 0"),
    ({"selection": {"confirm": ["split=nope"]}}, "no clip has split 'nope'; expected one of 'test', 'train'"),
    ({"selection": {"where": ["split=nope"]}}, "no clip has split 'nope'; expected one of 'test', 'train'"),
    ({"selection": {"where": ["nope=1"]}}, "no label column 'nope'"),
    ({"selection": {"where": ["split="]}}, "expected COLUMN=VALUE or COLUMN!=VALUE"),
    ({"selection": {"permutations": 10_001}}, "selection.permutations: Input should be less than or equal to 10000"),
    ({"selection": {"rule": "best"}}, "selection.rule: Input should be '', 'lape', 'paper' or 'contrast'"),
    ({"selection": {"reading": "any", "threshold": 1.0}}, "expected reading 'clip' for it"),
    ({"selection": {"threshold": "q101"}}, "expected a percentile from q0 to q100"),
    ({"selection": {"threshold": "/etc/passwd"}}, "threshold is str .*; expected a number"),
    ({"selection": {"threshold": "x.csv"}}, "threshold is str 'x.csv'; expected a number"),
    ({"selection": {"share": 1.0}}, "selection.share: Extra inputs are not permitted"),
    ({"gain": 2.0}, "expected it with mode 'gain' only"),
    ({"controls": "5"}, "controls: Input should be a valid integer"),
    ({"controls": 10**7}, "controls: Input should be less than or equal to 10000"),
    ({"store": "/etc"}, "store: Extra inputs are not permitted"),
    ({"set": ""}, "set: String should have at least 1 character"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_does_not_fit_is_refused_in_one_line(client: TestClient, change: dict[str, Any], message: str) -> None:
    body = json.dumps({**ASKED, **change})
    answer = client.post("/ablations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert set(answer.json()) == {"error"}
    assert re.search(message, answer.json()["error"]), answer.text
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"task": "t", "task": "u"}', "names a key twice"),
        ('{"task": "t", "gain": NaN}', "holds nan"),
        ('{"task": "t", "gain": -Infinity}', "holds -inf"),
        ('{"task": "t", "seed": %s}' % (2**64 + 1), "more than 64 bits"),
        ('{"task": "t", "seed": %s}' % ("9" * 5000), "."),
        ("[" * 5000, "."),
        ("", "."),
    ],
)  # fmt: skip
def test_what_parsers_read_in_two_ways_is_refused(client: TestClient, body: str, message: str) -> None:
    body = body.replace('"task": "t"', json.dumps(ASKED)[1:-1], 1)
    answer = client.post("/ablations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert re.search(message, answer.json()["error"]), answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/ablations/{NOBODY}", 404),
        ("GET", f"/ablations/{NOBODY}/result", 404),
        ("DELETE", f"/ablations/{NOBODY}", 404),
        ("GET", "/ablations/..%2F..%2Fetc%2Fpasswd", 404),
        ("GET", "/ablations/%2e%2e", 422),
        ("GET", f"/ablations/{NOBODY}%0a", 422),
        ("GET", "/tasks/..%2f..%2fetc/categories?label=letter", 404),
        ("GET", "/tasks/nope/categories?label=letter", 404),
        ("GET", "/tasks/t/categories?label=nope", 404),
        ("GET", "/tasks/t/categories", 422),
        ("GET", "/selections?task=t&label=letter&percentile=0", 422),
        ("GET", "/selections?task=t&label=letter&percentile=nan", 422),
        ("GET", "/selections?task=t&label=letter&rule=best", 422),
        ("GET", "/selections?task=t&label=letter&threshold=x.csv", 422),
        ("GET", "/selections?task=t&label=letter&threshold=%2Fetc%2Fpasswd", 422),
        ("GET", "/selections?task=t&label=letter&percentil=5", 422),
        ("GET", "/selections?task=t&label=letter&clips=some", 422),
        ("GET", "/selections?task=t&label=letter&where=split", 422),
        ("GET", "/selections?task=nope&label=letter", 404),
        ("GET", "/ablations?limit=0", 422),
        ("PUT", "/ablations", 405),
        ("GET", "/docs", 404),
    ],
)
def test_what_is_not_there_is_said_in_one_line(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("threshold", ["q80", "0.001"])
def test_thresholds_by_name(client: TestClient, stored: ServedStore, threshold: str) -> None:
    answer = client.get(f"/selections?task=t&label=letter&percentile=50&clips=all&threshold={threshold}")
    assert answer.status_code == 200, answer.text
    given = float(threshold) if threshold[0] == "0" else threshold
    ds = otoscope.open(stored.url)["t"].to_dataset()
    member = ds.otoscope.class_specific("letter", percentile=50, threshold=given)["member"].sel(category="a")
    assert int(member.sum()) == answer.json().get("all(a)", 0)
    body = {**ASKED, "set": "all(a)", "selection": {"percentile": 50, "threshold": given}}
    assert client.post("/ablations", json=body).status_code in (200, 202)


def test_a_job_that_is_done_is_not_cancelled_and_a_queued_one_has_no_result(
    stored: ServedStore, tmp_path: Path
) -> None:
    settings = stored.settings(tmp_path / "s", max_queued=2)
    process = HereProcess(settings)
    process.may_begin.clear()
    with client_of(make_app(settings, process)) as client:
        first, second = (client.post("/ablations", json={**ASKED, "seed": seed}).json()["id"] for seed in (0, 1))
        assert client.get(f"/ablations/{second}/result").status_code == 409
        assert client.delete(f"/ablations/{second}").json()["state"] == "cancelled"
        assert client.get(f"/ablations/{second}/result").json()["error"].startswith("the job is cancelled;")
        answers = [client.post("/ablations", json={**ASKED, "seed": seed}) for seed in range(2, 6)]
        (refused, *_) = [answer for answer in answers if answer.status_code == 429]
        assert int(refused.headers["retry-after"]) >= 1
        assert "expected fewer" in refused.json()["error"]
        for job in client.get("/ablations", params={"state": "queued"}).json()["jobs"]:
            client.delete(f"/ablations/{job['id']}")
        process.may_begin.set()
        assert ended(client, first)["state"] == "done"
        assert client.delete(f"/ablations/{first}").status_code == 409
        assert client.get(f"/ablations/{first}/result").status_code == 200
        assert client.post("/ablations", json={**ASKED, "seed": 1}).status_code == 202  # asked again


def test_faults_show_nothing_of_the_inside(
    stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(stored.settings(tmp_path / "s"))

    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    def full(*_: object) -> None:
        raise OSError(f"{tmp_path}: disk full")

    with client_of(app) as client:
        monkeypatch.setattr(Catalogue, "tasks", broken)
        answer = client.get("/tasks")
        assert (answer.status_code, answer.json()) == (500, {"error": "a fault of the server; see its log"})
        monkeypatch.setattr(JobTable, "put", full)
        answer = client.post("/ablations", json=ASKED)
        assert (answer.status_code, str(tmp_path) in answer.text) == (503, False)
        assert answer.json()["error"].startswith("a store or the state of the server cannot be used now; ")
        assert f"answered 503: {tmp_path}: disk full" in caplog.text  # for whoever runs it
        assert str(tmp_path) not in client.get("/selections?task=t&label=split&percentile=1").text


def test_every_answer_is_documented(client: TestClient) -> None:
    """The description names every status that the other tests see, with one model for all refusals."""
    paths = client.get("/openapi.json").json()["paths"]
    always = {"200", "400", "401", "405", "413", "503"}
    operations = {(path, method): about for path, methods in paths.items() for method, about in methods.items()}
    assert {operation: set(about["responses"]) - always for operation, about in operations.items()} == {
        ("/api/ablations", "post"): {"202", "415", "422", "429"},
        ("/api/ablations", "get"): {"422"},
        ("/api/ablations/{job}", "get"): {"404", "422"},
        ("/api/ablations/{job}", "delete"): {"404", "409", "422"},
        ("/api/ablations/{job}/result", "get"): {"404", "409", "422"},
        ("/api/tasks", "get"): set(),
        ("/api/tasks/{task}/categories", "get"): {"404", "422"},
        ("/api/selections", "get"): {"404", "422"},
        ("/api/probes", "get"): set(),
        ("/api/health/live", "get"): set(),
        ("/api/health/ready", "get"): set(),
        ("/api/metrics", "get"): set(),
    }
    for about in operations.values():
        for status, answer in about["responses"].items():
            if not status.startswith("2"):
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


names: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(["t", "letter", "a", "d", "split", "..", "/", "@x"]), st.text(max_size=8)
)
thresholds = st.sampled_from(["q80", "median", "z1.5", "q", "q101", "x.csv"])
fields = {
    "task": names, "label": names, "category": names, "splits": names, "gain": st.floats(), "controls": st.integers(),
    "set": st.one_of(names, names.map("only({})".format), names.map("shared({0},{0})".format)),
    "seed": st.integers(), "mode": st.sampled_from(["remove", "gain", "keep", "transplant"]),
    "probe_seed": st.integers(), "side": names, "match": st.lists(names, max_size=3),
    "selection": st.fixed_dictionaries(
        {}, optional={"percentile": st.floats(), "reading": names, "threshold": st.floats() | names | thresholds}
    ),
}  # fmt: skip


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional=fields))
def test_no_body_makes_it_fail(client: TestClient, change: dict[str, Any]) -> None:
    body = {**ASKED, "controls": 0, "set": "only(zzz)", **change}  # most of them name nothing, so that little is run
    answer = client.post("/ablations", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 202, 422, 429), answer.text
    if answer.status_code == 422:
        assert "\n" not in answer.json()["error"]

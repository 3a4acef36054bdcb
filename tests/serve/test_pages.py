"""The pages of the explorer: their numbers are numpy's, their addresses say all, and what may not pass does not."""

import csv
import io
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import otoscope
from otoscope.analysis.selection.selection import Selection
from otoscope.serve.addresses import KEPT_DEFAULTS, Scope, name_in, segment
from otoscope.serve.security import ALWAYS, token_digest
from otoscope.store.changes.tasks import add_labels

from ..support.explored import CARD, TOKEN, exploring, words
from ..support.tones import HOSTILE, N_CLIPS, Tones


@pytest.fixture(scope="module")
def client(tones: Tones, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with exploring(tones, tmp_path_factory.mktemp("state") / "s") as client:
        yield client


def get(client: TestClient, path: str, **options: Any) -> Any:
    """An answer, once it is computed."""
    deadline = time.monotonic() + 120
    while (answer := client.get(path, **options)).status_code == 202:
        assert time.monotonic() < deadline
    return answer


def test_every_page_says_where_one_is(client: TestClient) -> None:
    pages = {
        "/": "What do these neurons listen to?",
        "/t/tones/height": "class-specific neurons, by layer and category",
        CARD: "It is class-specific for high",
        "/t/tones/height/c/3": "Which neurons are active in this clip",
        "/t/tones/height/overlap": "Neurons in common of tones:height",
        "/t/tones/height/overlap?with=tones:when&a=high&b=early": "Only in high",
    }
    for path, expected in pages.items():
        answer = get(client, path)
        assert answer.status_code == 200, words(answer.text)
        assert expected in words(answer.text), words(answer.text)
        assert answer.text.count("<h1>") == 1
        assert "style=" not in answer.text
        assert not re.search(r"<script(?! src=\"/static/explorer.js\" defer></script>)", answer.text)
        assert not re.search(r"\bon[a-z]+=\"", answer.text)
        assert "http" not in answer.text.replace("http-equiv", "")


def test_the_numbers_of_a_card_are_those_of_numpy(client: TestClient, tones: Tones) -> None:
    ds = otoscope.open(tones.url)["tones"].ds
    values = ds["mean"].values[0, 1].astype(np.float64)
    high = ds["height"].values == "high"
    text = words(get(client, CARD).text)
    active = values > np.quantile(values.astype(np.float32), 0.8)
    assert f"high ● class-specific {active[high].mean():.3f}" in text
    assert f"low {active[~high].mean():.3f}" in text
    assert f"active in {active.mean():.3f} of clips" in text
    below = f"{float(np.median(values)):.4g}"
    ends = f"from {values.min():.4g} to {values.max():.4g}"
    assert f"{N_CLIPS} clips with means {ends}, half of them below {below}" in text
    order = np.argsort(-values, kind="stable")
    shown = [int(n) for n in re.findall(r"data-number=\"(\d+)\"", get(client, CARD).text)]
    assert shown == order[:20].tolist()
    # By frames: positive frames of all frames of the category.
    positive, frames = ds["positive_frames"].values[0, 0].astype(float), ds["frame_count"].values.astype(float)
    text = words(get(client, "/t/tones/height/n/0/0?reading=frame").text)
    assert f"high {positive[high].sum() / frames[high].sum():.3f}" in text.replace("● class-specific ", "")


def test_a_range_is_of_both_ends(client: TestClient, tones: Tones) -> None:
    values = otoscope.open(tones.url)["tones"].ds["mean"].values[0, 1].astype(float)
    low, high = float(np.sort(values)[5]), float(np.sort(values)[9])
    page = get(client, f"{CARD}?tab=range&low={low!r}&high={high!r}").text
    assert {int(n) for n in re.findall(r"data-number=\"(\d+)\"", page)} == {*np.argsort(values)[5:10].tolist()}
    assert "5 of 5 clips" in words(page)


def test_lists_are_sorted_and_the_csv_is_whole(client: TestClient) -> None:
    answer = get(client, "/t/tones/height/neurons.csv?find=layer:0&sort=neuron&down=1")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["neuron"]) for row in rows] == [3, 2, 1, 0]
    page = get(client, "/t/tones/height?find=layer:0&sort=neuron&down=1").text
    assert re.findall(r'aria-label="layer 0, neuron (\d)"', page) == ["3", "2", "1", "0"]
    assert 'aria-sort="descending"' in page
    for row, p in zip(rows, re.findall(r'<td class="n">(\d\.\d{3})</td><td>', page)[1::2], strict=False):
        assert not row["p"] or f"{float(row['p']):.3f}" == p


def test_a_wrong_search_shows_where(client: TestClient) -> None:
    answer = get(client, "/t/tones/height", params={"find": "layer:0 purple<3"})
    assert answer.status_code == 200
    assert "layer:0 purple&lt;3\n        ^" in answer.text


def test_a_blank_field_is_none(client: TestClient) -> None:
    answer = get(client, f"{CARD}?reading=&threshold=0&rule=", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{CARD}?threshold=0")


def test_addresses_hold_a_view_and_its_names() -> None:
    of_cards = {*KEPT_DEFAULTS, "tab", "low", "high", "draw", "also", "store", "n"}
    of_lists = {"find", "sort", "down", "page", "a", "b", "with"}
    assert (of_cards | of_lists).isdisjoint(each.name for each in fields(Selection))
    for name in ("rain, heavy", "..", "~x", "a?b&c=d#e", "日本", "%2F", HOSTILE.replace("/", "")):
        assert "/" not in segment(name)
        assert segment(name) not in (".", "..")
    scope = Scope(task="..", label="a?b", store="0" * 8, selection={"where": ["x=1", "y=2"]}, kept={"show": "mean"})
    assert scope.neuron(1, 2, low=0.1) == "/t/~../a%3Fb/n/1/2?where=x%3D1&where=y%3D2&show=mean&low=0.1&store=00000000"
    assert name_in("~..") == ".."


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/t/tones/nothing", 404, "no label 'nothing' in task tones; expected one of"),
        ("/t/nothing/height", 404, "no task 'nothing'; expected one of tones"),
        ("/t/tones/height/n/0/99", 404, "neuron"),
        ("/t/tones/height/n/7/0", 404, "layer"),
        ("/t/tones/height/n/-1/0", 404, "expected two whole numbers"),
        ("/t/tones/height/c/999", 404, "no clip 999 in task tones; expected"),
        ("/t/tones/height/c/x", 404, "no clip 'x'; expected its number"),
        ("/t/tones/height?rule=magic", 422, "rule: Input should be"),
        ("/t/tones/height?threshold=/etc/passwd", 422, "expected a number"),
        ("/t/tones/height?page=9", 422, "no page 9; expected 1 to 1"),
        ("/t/tones/height?sort=colour", 422, "no column 'colour'; expected one of"),
        (f"{CARD}?tab=magic", 422, "no tab 'magic'; expected one of top"),
        (f"{CARD}?tab=range&low=x", 422, "low is 'x'; expected a number"),
        ("/t/tones/height/overlap?a=x&b=y", 404, "no category 'x'"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_what_does_not_exist_is_a_sentence(client: TestClient, path: str, status: int, expected: str) -> None:
    answer = get(client, path)
    assert answer.status_code == status, words(answer.text)
    assert expected in words(answer.text)
    assert "Traceback" not in answer.text


def test_a_link_for_another_store_says_so(client: TestClient) -> None:
    assert "made for another store (12345678)" in words(get(client, f"{CARD}?store=12345678").text)
    own = re.search(r"store=([0-9a-f]{8})", get(client, CARD).text)
    assert own
    assert "another store" not in get(client, f"{CARD}?store={own[1]}").text


def test_a_store_that_changed_is_said_at_the_top(tones: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otoscope.serve.explorer.CHECK_SECONDS", 0.0)
    shutil.copytree(tones.url, tmp_path / "tones.zarr")
    own = Tones(url=str(tmp_path / "tones.zarr"), root=tones.root)
    with exploring(own, tmp_path / "s") as client:
        assert "has changed" not in client.get("/").text
        add_labels(own.url, "tones", {"new": ["x"] * N_CLIPS})
        assert "this store has changed since the server opened it" in client.get("/").text
        assert "This store has changed" in get(client, CARD).text


def test_a_token_becomes_a_cookie_and_leaves_the_address(tones: Tones, tmp_path: Path) -> None:
    with exploring(tones, tmp_path / "s", token=token_digest(TOKEN)) as client:
        for path in ("/", CARD, "/m/tones/0/sound.wav", "/static/explorer.js", "/?token=wrong"):
            assert client.get(path).status_code == 401
        answer = client.get(f"/?token={TOKEN}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert cookie == f"otoscope_80={TOKEN}; HttpOnly; Path=/; SameSite=strict"
        assert client.get("/").status_code == client.get("/static/explorer.js").status_code == 200
        client.cookies.clear()
        for other in (f"otoscope_81={TOKEN}", f"otoscope_80={TOKEN}x"):
            assert client.get("/", headers={"Cookie": other}).status_code == 401


def test_what_changes_something_comes_from_our_own_pages(tones: Tones, tmp_path: Path) -> None:
    with exploring(tones, tmp_path / "s", token=token_digest(TOKEN)) as client:
        cookie, asked = {"Cookie": f"otoscope_80={TOKEN}"}, {"task": "x", "label": "y", "set": "only(z)"}
        for origin in (None, "http://evil.example", "null", "http://testserver.evil.example"):
            headers = {**cookie, **({"Origin": origin} if origin else {})}
            assert client.post("/api/ablations", json=asked, headers=headers).status_code == 403
            assert client.delete(f"/api/ablations/{'0' * 64}", headers=headers).status_code == 403
        own = {**cookie, "Origin": "http://testserver"}
        assert client.post("/api/ablations", json=asked, headers=own).status_code == 422  # looked at
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/api/ablations", json=asked, headers=bearer).status_code == 422
        bearer["Origin"] = "http://evil.example"
        assert client.post("/api/ablations", json=asked, headers=bearer).status_code == 403


def test_every_answer_forbids_what_is_not_ours(client: TestClient) -> None:
    for path in ("/", CARD, "/static/explorer.css", "/m/tones/0/picture", "/api/tasks", "/nowhere", "/api/nowhere"):
        answer = get(client, path)
        assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS, path
    csp = ALWAYS["Content-Security-Policy"]
    assert csp.startswith("default-src 'none'")
    assert "unsafe" not in csp
    assert "*" not in csp
    assert client.get("/", headers={"Host": "evil.example"}).headers["X-Frame-Options"] == "DENY"


def test_a_get_starts_no_job(client: TestClient) -> None:
    for path in ("/", "/t/tones/height", CARD, "/t/tones/height/c/1", f"{CARD}?also=1"):
        get(client, path)
    assert client.get("/api/ablations").json() == {"jobs": []}


def test_groups_move_whole_where_they_are_named(tones: Tones, tmp_path: Path) -> None:
    with exploring(tones, tmp_path / "s", groups={"tones": "voice"}) as client:
        assert "95 % interval, over voice s" in words(get(client, "/t/tones/when/n/0/0?rule=lape").text)


def test_own_scripts_are_small_and_ask_nobody() -> None:
    static = Path(otoscope.__file__).parent / "serve" / "static"
    assert sum(file.stat().st_size for file in static.glob("*.js")) < 30_000
    for file in static.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("://", "http") or "http" not in text

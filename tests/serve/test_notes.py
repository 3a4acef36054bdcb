"""What speaks against a result reaches the client: a probe that knows nothing, no change, layers without use."""

import numpy as np
import pytest

from otoscope.extract.capture import capture
from otoscope.serve.client import Client
from otoscope.serve.routes import make_app
from otoscope.store.changes.tasks import add_labels

from ..ablate import test_unused
from ..support.planted_corpus import write_sounds
from ..support.running_service import HereProcess, ServedStore, asked, listening

pytestmark = pytest.mark.slow


def unused_after() -> object:
    """For `module:`: an encoder whose second site comes after the embedding."""
    return test_unused.two_sites("after the embedding")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("served")
    manifest, url = write_sounds(folder, 15), str(folder / "store.zarr")
    encoder = f"module:{__name__}:unused_after"
    capture(encoder, manifest, url, task="t", threads=1, batch=8)
    letters = np.random.default_rng(0).choice(["a", "b"], 60).tolist()
    letters[-10:] = 10 * [""]
    add_labels(url, "t", {"drawn": letters})
    settings = ServedStore(url=url, manifest=manifest).settings(folder / "state", encoder=encoder)
    with listening(make_app(settings, HereProcess(settings))) as served:
        yield Client(served)


def test_a_job_on_an_unused_layer_fails_with_one_line(client: Client) -> None:
    with pytest.raises(
        ValueError, match=r"failed: the embedding stays the same .* layer 1 \(act\.1\): nothing"
    ) as error:
        client.run(asked(set="(1,3)"), timeout=300)
    assert "\n" not in str(error.value)


def test_a_hopeless_probe_and_clips_left_out_are_in_the_result(client: Client) -> None:
    request = asked(set="(0,3)", label="drawn", mode="gain", gain=1.0)
    notes = client.run(request, timeout=300).attrs["notes"]
    assert notes[0].startswith("0 clips changed of ")
    assert any(note.startswith("the probe is not better than chance: ") for note in notes)
    assert any("clips marked for test have no drawn and are left out" in note for note in notes)
    body = client._json("GET", f"/ablations/{client.submit(request)}/result")
    assert body["notes"] == notes
    assert {row["n_changed"] for row in body["rows"]} == {0}
    assert body["about"]["attrs"]["probe"]["chance"]["p"] > 0.05

"""Laws of audio and manifests in a bucket: read like those on a disk, at few requests, or else reported plainly."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from otoscope.extract.audio.audio_root import Bucket, Folder, root_at
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import content_digest, read_clip
from otoscope.extract.audio.manifest import read_labels, read_manifest
from otoscope.extract.capture import capture
from otoscope.store import remote
from otoscope.store.location import Unreachable, connect
from otoscope.store.status import task_status
from otoscope.store.verify import verify

from ...support.closed_form import RATE, closed_form
from ...support.commands import call, extraction
from ...support.s3_server import BUCKET, SECRET, ObjectServer
from ...support.wav_corpora import LENGTHS, write_corpus


def put(url: str, data: bytes) -> None:
    import obstore

    folder, _, name = url.rpartition("/")
    obstore.put(connect(folder), name, data)


@pytest.fixture
def corpus_url(s3: ObjectServer, tmp_path: Path) -> str:
    """The corpus of 37 clips under tmp_path, and its copy in a bucket: the URL of the manifest."""
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    for path in [manifest, *sorted((tmp_path / "audio").iterdir())]:
        put(f"{url}/{path.relative_to(tmp_path)}", path.read_bytes())
    s3.log.clear()
    return f"{url}/{manifest.name}"


def test_a_corpus_in_a_bucket_is_the_one_on_the_disk(corpus_url: str, tmp_path: Path, s3: ObjectServer) -> None:
    there, here = read_manifest(corpus_url), read_manifest(tmp_path / "corpus.csv")
    assert (there.clips.root, here.clips.root) == (Bucket(corpus_url.rpartition("/")[0]), Folder(tmp_path))
    assert there.clips.table.equals(here.clips.table)
    assert there.labels.equals(here.labels)
    s3.log.clear()
    for i in range(len(here)):
        a, b = (read_clip(corpus.clips.root, corpus.clips.clip(i), RATE) for corpus in (there, here))
        np.testing.assert_array_equal(a.samples, b.samples)
        assert a.digest == b.digest == content_digest(there.clips.root, there.clips.clip(i))
    assert s3.count() == {"GET": 2 * len(here)}
    assert pickle.loads(pickle.dumps(there.clips.root)).read("audio/000.wav") == here.clips.root.read("audio/000.wav")
    assert SECRET.encode() not in pickle.dumps(there)
    assert read_labels(corpus_url, here.clips.table["name"].tolist())["kind"].tolist() == here.labels["kind"].tolist()


@pytest.mark.slow
def test_store_audio_and_manifest_in_a_bucket(corpus_url: str, tmp_path: Path, s3: ObjectServer) -> None:
    url, options = f"{corpus_url}-store", {"task": "t", "block": 4, "batch": 3, "threads": 1}
    capture(closed_form(), corpus_url, url, **options)  # type: ignore[arg-type]
    assert task_status(url, "t").n_ok == 37
    assert len(task_status(url, "t").blocks()) == 10
    assert list(verify(url)) == []
    capture(closed_form(), tmp_path / "corpus.csv", str(tmp_path / "here"), **options)  # type: ignore[arg-type]
    local = {
        p.relative_to(tmp_path / "here").as_posix(): p.read_bytes()
        for p in (tmp_path / "here").rglob("*")
        if p.is_file()
    }
    assert s3.objects(url.removeprefix(f"s3://{BUCKET}/")) == local


def test_audio_by_the_command_and_no_secret_in_what_it_says(corpus_url: str, tmp_path: Path, s3: ObjectServer) -> None:
    store, root = tmp_path / "store", corpus_url.rpartition("/")[0]
    manifest = tmp_path / "elsewhere.csv"
    manifest.write_text((tmp_path / "corpus.csv").read_text())
    result = call(*extraction(store, manifest, "--audio-root", root))
    assert result.exit_code == 0, result.stderr
    assert not any(SECRET.encode() in p.read_bytes() for p in store.rglob("*") if p.is_file())
    assert SECRET not in result.stdout + result.stderr
    result = call(*extraction(tmp_path / "other", manifest, "--audio-root", root + f"?key={SECRET}"))
    assert result.exit_code == 2
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize("few", [0, 100])
def test_absent_files_are_found_by_listing_or_asked_for_at_once(
    corpus_url: str, s3: ObjectServer, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(remote, "MAX_SINGLE", few)
    corpus = read_manifest(corpus_url)
    s3.log.clear()
    assert corpus.clips.absent() == []
    assert s3.count() == ({"HEAD": 37} if few else {"LIST": 1})
    gone = corpus.clips.table["path"].iloc[[3, 30]].tolist()
    import obstore

    obstore.delete(connect(str(corpus.clips.root)), gone)
    assert corpus.clips.absent() == gone
    assert corpus.clips.absent([3, 4]) == gone[:1]


def test_a_listing_much_longer_than_the_corpus_is_given_up(
    corpus_url: str, s3: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_SINGLE", 1)
    monkeypatch.setattr(remote, "MAX_LISTED", 2)
    bucket = root_at(corpus_url.rpartition("/")[0])
    s3.log.clear()
    assert bucket.absent(["audio/035.wav", "audio/036.wav", "audio/none.wav"]) == ["audio/none.wav"]
    assert s3.count() == {"LIST": 1, "HEAD": 3}


def test_odd_names(s3: ObjectServer, tmp_path: Path) -> None:
    names = ["a b/ü [1] #%20 ~.wav", "日本/x+y=z&w?.wav", "'quoted' \"twice\".wav"]
    bucket = root_at(f"s3://{BUCKET}/{tmp_path.name}")
    for name in names:
        put(f"{bucket}/{name}", name.encode())
    assert [bucket.read(name).decode() for name in names] == names
    assert bucket.absent([*names, "no such"]) == ["no such"]
    assert bucket.absent(["../x", "a//b"]) == ["../x", "a//b"]
    with pytest.raises(FileNotFoundError, match="nothing at"):
        bucket.read("../x")
    assert bucket.absent([f"{i}" for i in range(300)] + names) == [f"{i}" for i in range(300)]


def test_reads_that_fail_are_repeated_and_then_told(corpus_url: str, s3: ObjectServer, short_timeouts: None) -> None:
    corpus = read_manifest(corpus_url)
    failures = iter([503, 500])
    s3.fault = lambda method, key: next(failures, None)
    assert read_clip(corpus.clips.root, corpus.clips.clip(0), RATE).samples.any()
    s3.fault = lambda method, key: 503
    with pytest.raises(Unreachable, match=r"^s3://.*000.wav: .*503 Service Unavailable.*\(SlowDown\)$"):
        read_clip(corpus.clips.root, corpus.clips.clip(0), RATE)
    waits = iter([2.5])
    s3.fault = lambda method, key: next(waits, None)
    assert read_clip(corpus.clips.root, corpus.clips.clip(0), RATE).samples.any()
    s3.fault = None
    with pytest.raises(FileNotFoundError, match=r"no audio file s3://.*/nothing.wav"):
        read_clip(corpus.clips.root, Clip(name="x", path="nothing.wav"), RATE)
    with pytest.raises(FileNotFoundError, match=r"no table s3://"):
        read_manifest(corpus_url + ".csv")


def test_a_read_failure_that_lasts_leaves_blocks_pending_and_a_rerun_does_the_rest(
    corpus_url: str, tmp_path: Path, s3: ObjectServer, short_timeouts: None
) -> None:
    store = tmp_path / "store"
    s3.fault = lambda method, key: 503 if key.endswith(("audio/005.wav", "audio/036.wav")) and method == "GET" else None
    result = call(*extraction(store, corpus_url))  # type: ignore[arg-type]
    assert result.exit_code == 2
    assert "could not be read" in result.stderr
    pending = task_status(str(store), "t").status == 0
    assert np.flatnonzero(pending).tolist() == [4, 5, 6, 7, 36]
    s3.fault = None
    assert call(*extraction(store, corpus_url)).exit_code == 0  # type: ignore[arg-type]
    assert call(*extraction(tmp_path / "whole", tmp_path / "corpus.csv")).exit_code == 0
    a, b = (
        {p.relative_to(d): p.read_bytes() for p in d.rglob("*") if p.is_file()} for d in (store, tmp_path / "whole")
    )
    assert a == b


def test_urls_in_the_path_column_lie_under_the_audio_root(tmp_path: Path) -> None:
    manifest = tmp_path / "urls.csv"
    manifest.write_text("path,label\ns3://b/x/a.wav,u\ns3://b/x/y//c.wav,v\nd.wav,v\n")
    corpus = read_manifest(manifest, "s3://b/x/")
    assert corpus.clips.table["path"].tolist() == ["a.wav", "y/c.wav", "d.wav"]
    for root in (None, "s3://b/other", tmp_path):
        with pytest.raises(ValueError, match=r"'s3://b/x/a.wav' in row 2 is not under the audio root .*give that as"):
            read_manifest(manifest, root)
    manifest.write_text(f"path\ns3://b/a.wav?sig={SECRET}\n")
    with pytest.raises(ValueError, match="not under the audio root") as error:
        read_manifest(manifest)
    assert SECRET not in str(error.value)


def test_audio_behind_other_urls(tmp_path: Path) -> None:
    import fsspec

    write_corpus(tmp_path, LENGTHS[:3])
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "audio").iterdir():
        memory.pipe(f"/otoscope-audio/audio/{path.name}", path.read_bytes())
    there = read_manifest(tmp_path / "corpus.csv", "memory://otoscope-audio")
    here = read_manifest(tmp_path / "corpus.csv", f"file://{tmp_path}")
    assert here.clips.root == Folder(tmp_path)
    for i in range(3):
        a, b = (read_clip(corpus.clips.root, corpus.clips.clip(i), RATE) for corpus in (there, here))
        np.testing.assert_array_equal(a.samples, b.samples)
    assert there.clips.root.absent(["audio/000.wav", "none"]) == ["none"]
    assert there.clips.root.absent([*map(str, range(300)), "audio/000.wav"]) == list(map(str, range(300)))

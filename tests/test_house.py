"""The house: a few clips walk through every room, and what holds for all of its source."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import numpy as np
import pytest
import soundfile as sf
import torch

import otoscope
from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.figures.save import save_figure
from otoscope.analysis.tables import neurons_table, write_table
from otoscope.extract.audio.corpora.synth import synthesise
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.m2d import M2D
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.models.tap import tap

ROOT = Path(__file__).parents[1]
PACKAGE = Path(otoscope.__file__).parent
ROOMS = ("store", "cluster", "extract", "analysis", "sae", "ablate", "serve")
SOURCES = sorted({path.resolve() for room in (*ROOMS, ".") for path in (PACKAGE / room).rglob("*.py")})


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Names of the packages that a file imports, within functions too."""
    names: list[str] = []
    for node in ast.walk(parsed(path)):
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
    return frozenset(name.partition(".")[0] for name in names)


def test_ten_clips_walk_through_every_room(tmp_path: Path) -> None:
    """Audio, manifest, encoder, store, probability, AAPE, selection, table, figure, against plain torch and numpy."""
    manifest = synthesise(tmp_path, notes_per_octave=0, events_per_category=1)["events"]
    corpus = read_manifest(manifest)
    assert len(corpus) == 10
    halves = {name: ["low", "high"][i % 2] for i, name in enumerate(corpus.clips.table["name"])}
    rows = manifest.read_text().splitlines()
    labelled = [f"{row},{halves[row.split(',')[0]]}" for row in rows[1:]]
    manifest.write_text("\n".join([f"{rows[0]},half", *labelled]) + "\n")
    encoder = load_encoder("tiny-ssl")
    report = otoscope.capture(
        encoder, str(manifest), str(tmp_path / "s"), task="events", mean_dtype="float32", threads=1
    )
    assert (report.n_ok, report.n_failed) == (10, 0)

    waveforms = np.stack([sf.read(tmp_path / path, dtype="float32")[0] for path in corpus.clips.table["path"]])
    sites = [f"blocks.{i}.mlp.act" for i in range(4)]
    assert isinstance(encoder.module, M2D)
    with torch.inference_mode(), tap(encoder.module, sites) as seen:
        embedding = encoder(torch.from_numpy(waveforms))
    patches = np.stack([seen[site][0][:, 1:].numpy() for site in sites])  # (layer, clip, token, neuron), CLS left out
    patches = patches.reshape(4, 10, 5, 7, 384)  # 80 mels in 5 rows, 101 frames in 7 columns, all within the second
    mean = patches.mean(axis=(2, 3), dtype=np.float64)

    ds = otoscope.open(str(tmp_path / "s"))["events"].to_dataset()
    assert ds["active"].dims == ("layer", "neuron", "clip")
    np.testing.assert_allclose(ds["mean"], mean.transpose(0, 2, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ds["embedding"], embedding, rtol=1e-4, atol=1e-4)
    assert set(ds["frame_count"].values) == {35}
    clear = np.abs(mean) > 1e-5
    np.testing.assert_array_equal(ds["active"].values.transpose(0, 2, 1)[clear], mean[clear] > 0)

    p = ds.otoscope.probability("half").compute()
    assert p["category"].values.tolist() == ["high", "low"]
    active = ds["active"].values
    by_hand = np.stack([active[..., 1::2].mean(axis=2), active[..., ::2].mean(axis=2)], axis=-1)
    np.testing.assert_allclose(p.transpose("layer", "neuron", "category"), by_hand)
    share = by_hand / np.where(by_hand.sum(axis=-1) > 0, by_hand.sum(axis=-1), np.nan)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(share > 0, share * np.log(share), 0 * share).sum(axis=-1)
    aape = ds.otoscope.aape("half").compute()
    np.testing.assert_allclose(aape, entropy, atol=1e-12)

    selection = ds.otoscope.class_specific("half", percentile=30, reading="frame").compute()
    assert selection["member"].any()
    table = neurons_table(selection)
    assert len(table) == int(selection["member"].sum())
    write_table(table, tmp_path / "neurons.csv")
    ratio = otoscope.analysis.common_neuron_ratio(selection["member"])
    assert ratio.sel(category="low", other_category="low").item() == 1.0
    save_figure(overlap_figure([("events", ratio)]), tmp_path / "overlap.pdf")
    assert (tmp_path / "overlap.pdf").stat().st_size > 1000
    together = otoscope.across(otoscope.open(str(tmp_path / "s")), lambda task: task.otoscope.probability("event"))
    assert together.sizes == {"task": 1, "layer": 4, "neuron": 384, "category": 10}


HEAVY = {"torch", "xarray", "zarr", "matplotlib", "pandas", "numpy", "dask", "ray"}


@pytest.mark.parametrize(
    "statement", ["import otoscope", "import otoscope.cli.main", "import otoscope.analysis", "import otoscope.sae"]
)
def test_an_import_brings_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("otoscope.store.reader", {"torch", "soundfile", "matplotlib"}),
        ("otoscope.store.writer", {"torch", "soundfile", "matplotlib"}),
        ("otoscope.cluster.executor", {"torch", "zarr", "soundfile", "numpy"}),
        ("otoscope.analysis.accessor", {"torch", "soundfile", "matplotlib"}),
    ],
)
def test_a_room_loads_without_what_is_not_its_own(module: str, forbidden: set[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not forbidden & {name.partition(".")[0] for name in loaded}


def test_rooms_are_reached_through_relative_links() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_symlink()} >= set(ROOMS)
    for room in ROOMS:
        assert (PACKAGE / room).readlink() == Path(f"../../{room}")
        assert (PACKAGE / room / "__init__.py").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_module_says_its_purpose_and_is_no_placeholder(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree)
    if path.name != "__init__.py":
        assert len(tree.body) > 1, "a placeholder"
    assert path.stem not in ("utils", "helpers", "common")
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("folder", [*ROOMS, "src", "tests", "benchmarks", "examples"])
def test_no_docstring_lists_what_the_file_holds(folder: str) -> None:
    """Such lists rot."""
    trees = {path.relative_to(ROOT): parsed(path) for path in (ROOT / folder).resolve().rglob("*.py")}
    assert [str(path) for path, tree in trees.items() if "\nContents:" in (ast.get_docstring(tree) or "")] == []


def test_no_file_of_the_package_imports_itself_by_way_of_others() -> None:
    """Imports within functions count, and those for the type checker alone."""
    graph = grimp.build_graph("otoscope", cache_dir=None)
    needs = {module: graph.find_upstream_modules(module) for module in graph.modules}
    circles = {frozenset({a, *(b for b in needs[a] if a in needs[b])}) for a in needs}
    assert [sorted(circle) for circle in circles if len(circle) > 1] == []


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_nothing_is_printed_unpickled_or_evaluated(path: Path) -> None:
    """`eval()` of a torch module switches it to evaluation and is fine: it takes no argument."""
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = called(node)
            assert name not in ("print", "exec", "eval", "compile", "__import__", "os.system"), ast.unparse(node)
            if name.endswith("torch.load"):
                safe = [k for k in node.keywords if k.arg == "weights_only"]
                assert safe, ast.unparse(node)
                assert ast.unparse(safe[0].value) == "True"
            if name.endswith("np.load"):
                assert "allow_pickle=True" not in ast.unparse(node)
        if isinstance(node, ast.Import):
            assert not {"cloudpickle", "joblib", "dill", "marshal", "shelve"} & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cloudpickle", "joblib", "dill"):
            assert [alias.name for alias in node.names] == ["UnpicklingError"]  # only to say what went wrong
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert not (node.module or "").startswith("otoscope"), "imports inside the package are relative"


DOORS = {
    "zarr": r"store/.*",
    # Between processes of our own, and to say that a checkpoint is not what it should be.
    "pickle": r"cluster/(ray|pool)\.py|store/location\.py|analysis/published/files\.py|extract/models/checkpoint\.py",
    "soundfile": r"extract/audio/decoding\.py",
    "soxr": r"extract/audio/decoding\.py",
    "matplotlib": r"analysis/figures/.*",
    "torch": r"extract/.*|ablate/.*|analysis/(probe/.*|published/files\.py)|sae/.*",
    "triton": r"extract/triton_sums\.py",
    "ray": r"cluster/ray\.py",
    "sklearn": r"analysis/probe/probe\.py|sae/lasso\.py",
    "numba": r"analysis/adders\.py",
    "opensmile": r"sae/factors\.py",
    "fastapi": r"serve/(page_)?routes\.py",
    "jinja2": r"serve/pages\.py",
    "uvicorn": r"serve/(app|connections)\.py",
    "sqlite3": r"serve/jobs\.py",
    "httpx": r"serve/client\.py",
}


@pytest.mark.parametrize("dependency", DOORS)
def test_a_dependency_has_one_door(dependency: str) -> None:
    users = {path.relative_to(PACKAGE.parents[1]).as_posix() for path in SOURCES if dependency in imported(path)}
    assert all(re.fullmatch(DOORS[dependency], user) for user in users), users

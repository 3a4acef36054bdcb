"""Published files: written here and read by plain torch, written by plain torch and read here."""

import numpy as np
import pytest
import torch
import xarray as xr

import otoscope
from otoscope.analysis import class_specific
from otoscope.analysis.published.files import read_published, write_published

NAMES = ["dog", "café noir", "x,y"]


@pytest.fixture
def p():
    counts = np.random.default_rng(0).integers(0, 30, (3, 50, 3))
    coords = {"layer": np.arange(3), "neuron": np.arange(50), "category": NAMES}
    return xr.DataArray(counts / np.array([29, 30, 31]), dims=("layer", "neuron", "category"), coords=coords)


@pytest.fixture
def folder(tmp_path, p):
    """As notebooks write it, with plain torch."""
    torch.save(torch.tensor(p.values, dtype=torch.float32), tmp_path / "over_zero.pt")
    torch.save(torch.arange(12.0).reshape(4, 3), tmp_path / "features.pt")
    torch.save(torch.tensor([2, 0, 0, 1]), tmp_path / "gts.pt")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    return tmp_path


def test_what_a_store_exports(finished, tmp_path):
    ds = otoscope.open(finished.url)["t"].ds.isel(layer=[1], neuron=slice(3))  # all of one width
    p = ds.otoscope.probability("kind")
    codes = ds.otoscope.codes("kind").copy()
    codes[5] = -1
    paths = write_published(tmp_path / "new" / "t_analysis", p.compute(), ds["embedding"], codes)
    assert sorted(path.name for path in paths) == ["classes.txt", "features.pt", "gts.pt", "over_zero.pt"]
    assert sorted(path.name for path in (tmp_path / "new" / "t_analysis").iterdir()) == sorted(p.name for p in paths)

    loaded = {path.name: torch.load(path, weights_only=True) for path in paths if path.suffix == ".pt"}
    np.testing.assert_array_equal(loaded["over_zero.pt"].numpy(), p.transpose("layer", "neuron", "category").values)
    assert (tmp_path / "new" / "t_analysis" / "classes.txt").read_text() == "a\nb\nc\n"
    counted = np.delete(np.arange(37), 5)
    assert loaded["gts.pt"].tolist() == [i % 3 for i in counted]
    assert loaded["gts.pt"].dtype == torch.int64
    np.testing.assert_array_equal(loaded["features.pt"].numpy(), ds["embedding"].values[counted])


def test_reading_back_gives_the_same_selection(tmp_path, p):
    write_published(tmp_path, p)
    back = read_published(tmp_path)
    xr.testing.assert_equal(back["probability"], p)
    xr.testing.assert_equal(
        class_specific(back["probability"], percentile=10)["member"], class_specific(p, percentile=10)["member"]
    )
    assert set(back.data_vars) == {"probability"}


def test_what_a_notebook_wrote(folder, p):
    ds = read_published(folder)
    np.testing.assert_array_equal(ds["probability"], p.values.astype(np.float32))
    assert ds["probability"].dtype == np.float64
    assert ds["category"].values.tolist() == NAMES
    assert ds["class"].values.tolist() == [NAMES[code] for code in (2, 0, 0, 1)]
    assert ds["embedding"].values.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize(
    "labels", [["x,y", "dog", "dog", "café noir"], torch.eye(3)[[2, 0, 0, 1]], torch.tensor([2.0, 0, 0, 1])]
)
def test_labels_in_other_forms(folder, labels):
    torch.save(labels, folder / "gts.pt")
    assert read_published(folder)["class"].values.tolist() == [NAMES[code] for code in (2, 0, 0, 1)]


def test_categories_may_come_first(folder, p):
    torch.save(torch.tensor(p.values[:2]).movedim(2, 0), folder / "over_zero.pt")
    np.testing.assert_array_equal(read_published(folder)["probability"], p.values[:2])
    torch.save(torch.tensor(p.values).movedim(2, 0), folder / "over_zero.pt")  # three layers, three categories
    with pytest.raises(ValueError, match=r"\(3, 3, 50\) .* expected \(layer, neuron, category\)"):
        read_published(folder)


def test_counts_of_tokens_as_lape_saves_them(tmp_path):
    rng = np.random.default_rng(1)
    counts = {name: (int(rng.integers(50, 90)), rng.integers(0, 50, (2, 7))) for name in ("zh", "en")}
    for name, (n, over_zero) in counts.items():
        path = tmp_path / f"activation.{name}.train.llama-7b"
        torch.save({"n": torch.tensor(n), "over_zero": torch.tensor(over_zero, dtype=torch.int32)}, path)
    torch.save([torch.zeros(3)], tmp_path / "neurons.pth")  # something else that lies there
    ds = read_published(tmp_path)
    assert ds["category"].values.tolist() == ["en", "zh"]
    for name, (n, over_zero) in counts.items():
        np.testing.assert_array_equal(ds["probability"].sel(category=name), over_zero / n)


def test_counts_of_all_categories_in_one_file(folder):
    counts, n = torch.randint(0, 9, (2, 5, 3)), torch.tensor([9, 10, 11])
    torch.save({"n": n, "over_zero": counts}, folder / "over_zero.pt")
    np.testing.assert_array_equal(read_published(folder)["probability"], counts.numpy() / n.numpy())


class Runs:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_what_is_not_as_described_raises(folder, p, capsys, tmp_path_factory):
    def raises(message, error=ValueError, **files):
        kept = {name: (folder / name).read_bytes() for name in ("over_zero.pt", "gts.pt", "classes.txt")}
        for name, content in files.items():
            torch.save(content, folder / f"{name}.pt")
        with pytest.raises(error, match=message):
            read_published(folder)
        for name, content in kept.items():
            (folder / name).write_bytes(content)

    raises(r"cannot be loaded as tensors .*save it again", over_zero=Runs())
    assert "must not run" not in capsys.readouterr().out
    raises(r"values from .* expected probabilities in \[0, 1\]: counts need", over_zero=torch.full((3, 50, 3), 7))
    raises(r"is \(3, 50, 4\) and classes.txt has 3 lines|is \(4, 50, 5\)", over_zero=torch.zeros(4, 50, 5))
    raises(r"holds \(50, 3\); expected a tensor of 3 dimensions", over_zero=torch.zeros(50, 3))
    raises(r"one index below 3 per clip", gts=torch.tensor([0, 1, 2, 3]))
    raises(r"several categories per clip", gts=torch.tensor([[1, 1, 0]] * 4))
    raises(r"'embedding': 4, 'class': 3.* expected the same clips", gts=torch.tensor([0, 1, 2]))
    raises(r"names bird, not in classes.txt", gts=["dog", "dog", "dog", "bird"])
    (folder / "over_zero.pt").write_bytes((folder / "over_zero.pt").read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be loaded as tensors"):
        read_published(folder)
    torch.save(torch.zeros(3, 50, 3), folder / "over_zero.pt")
    (folder / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="names a more than once"):
        read_published(folder)
    (folder / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*classes.txt; expected the categories"):
        read_published(folder)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"neither over_zero.pt nor files with `n` and `over_zero`"):
        read_published(empty)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_published(empty / "absent")


def test_what_the_files_cannot_hold_raises(tmp_path, p):
    with pytest.raises(ValueError, match=r"1 neurons have no probability, as in layers of unequal width"):
        write_published(tmp_path, p.where((p["neuron"] != 3) | (p["layer"] != 1)))
    with pytest.raises(ValueError, match=r"category 'a\\nb' does not survive a line"):
        write_published(tmp_path, p.assign_coords(category=["a\nb", "c", "d"]))
    with pytest.raises(ValueError, match="found no category with clips"):
        write_published(tmp_path, p.isel(category=[]))
    codes = xr.DataArray([0, 1], dims="clip", attrs={"categories": ["dog", "cat", "hen"]})
    with pytest.raises(ValueError, match="different categories"):
        write_published(tmp_path, p, codes=codes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("n", "words"),
    [(0, "n = 0 tokens of en"), (-3, "n = -3 tokens of en"), (float("nan"), "n = nan tokens of en"), ("x", "has n x"),
     (torch.tensor([4, 5]), "expected a number of tokens"), (True, "expected a number of tokens")],
)  # fmt: skip
def test_a_category_without_tokens_is_named(tmp_path, n, words):
    for name, of in (("de", 9), ("en", n)):
        torch.save({"n": of, "over_zero": torch.zeros(2, 3)}, tmp_path / f"activation.{name}.train.x")
    with pytest.raises(ValueError, match=r"activation.en.train.x has .*; expected") as caught:
        read_published(tmp_path)
    assert words in str(caught.value)


def test_a_category_without_tokens_in_one_file(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    torch.save({"n": torch.tensor([4, 0, 3]), "over_zero": torch.ones(2, 5, 3)}, tmp_path / "over_zero.pt")
    with pytest.raises(ValueError, match=r"over_zero.pt has n = 0 tokens of b; expected at least one"):
        read_published(tmp_path)
    torch.save({"n": 0, "over_zero": torch.ones(2, 5, 3)}, tmp_path / "over_zero.pt")
    with pytest.raises(ValueError, match="n = 0 tokens of any category"):
        read_published(tmp_path)
    torch.save(torch.full((2, 5, 3), torch.nan), tmp_path / "over_zero.pt")
    with pytest.raises(ValueError, match="30 values that are NaN or infinity; expected probabilities"):
        read_published(tmp_path)

"""Probes: the published recipe against plain torch and scikit-learn, divisions, files, refusals."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from otoscope.analysis.probe.probe import Recipe, fit_probe, load_probe, save_probe
from otoscope.analysis.probe.splits import make_splits, splits_column

from ...support.amounts import quick_sample

WIDTH, CLIPS = 12, 300
KINDS = ("published", "logistic")


def data(n_categories=3, seed=0, spread=1.0, n_clips=CLIPS):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_categories, n_clips).astype(np.int32)
    centres = np.eye(max(n_categories, 2), WIDTH)[:n_categories] * 3
    embedding = (centres[codes] + spread * rng.normal(size=(n_clips, WIDTH)) + 5).astype(np.float32)
    embedding[:, 3] = 7.0  # a dimension that never changes
    parts = rng.choice(["train", "valid", "test"], n_clips, p=[0.6, 0.2, 0.2])
    return embedding, codes, parts, [f"clip{i:03d}" for i in range(n_clips)]


def fitted(embedding, codes, splits, n_categories=3, **recipe):
    return fit_probe(
        embedding, codes, splits, categories=tuple("abcdefgh"[:n_categories]), identity="id", labelling="t:kind",
        recipe=Recipe(**recipe),
    )  # fmt: skip


def accuracy(probe, embedding, codes, splits):
    tested = splits.test_fold >= 0
    return (probe.logits(embedding, splits.test_fold)[tested].argmax(axis=1) == codes[tested]).mean()


def test_the_published_recipe_in_plain_torch():
    """The same start and the same batches by torch's own layer, loss and optimiser: the same weights."""
    embedding, codes, parts, names = data()
    splits = make_splits(parts, codes, names)
    probe = fitted(embedding, codes, splits, learning_rate=3e-3, seed=7)

    scaler = StandardScaler().fit(embedding[parts == "train"])
    x, valid = (torch.tensor(scaler.transform(embedding[parts == p]), dtype=torch.float32) for p in ("train", "valid"))
    y, y_valid = (torch.tensor(codes[parts == p]).long() for p in ("train", "valid"))
    dice = torch.Generator().manual_seed(7000)
    layer = torch.nn.Linear(WIDTH, 3)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):  # uniform in +- 1/sqrt(width), torch's own default
            tensor.copy_((2 * torch.rand(tensor.shape, generator=dice) - 1) / WIDTH**0.5)
    adam = torch.optim.Adam(layer.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-8)
    history, states = [], []
    for _ in range(200):
        order = torch.randperm(len(y), generator=dice)
        for start in range(0, len(y), 200):
            rows = order[start : start + 200]
            onehot = torch.nn.functional.one_hot(y[rows], 3)
            loss = -(onehot * torch.log_softmax(layer(x[rows]), dim=1)).mean()  # over clips and categories
            adam.zero_grad()
            loss.backward()
            adam.step()
        history.append(float((layer(valid).argmax(dim=1) == y_valid).float().mean()))
        states.append([p.detach().clone().numpy() for p in layer.parameters()])
        best = max(i for i, score in enumerate(history) if score == max(history))
        if len(history) - 1 - best == 20:
            break
    weight, bias = states[best]
    note = probe.about["heads"][0]
    assert (note["epoch"], note["epochs"]) == (best + 1, len(history))
    assert note["valid_accuracy"] == pytest.approx(history[best])
    np.testing.assert_allclose(probe.weight[0], weight, atol=1e-4)
    np.testing.assert_allclose(probe.bias[0], bias, atol=1e-4)
    tested = np.flatnonzero(parts == "test")
    by_torch = scaler.transform(embedding[tested]) @ weight.T + bias
    np.testing.assert_allclose(probe.logits(embedding, splits.test_fold)[tested], by_torch, atol=1e-3)


def test_the_recipe_of_the_paper_on_autoencoders_in_plain_torch():
    """Embeddings as they are, batches of 32, 120 epochs, the weights of the last epoch of the best accuracy."""
    embedding, codes, parts, names = data()
    embedding[:, 3] = 1.0
    splits = make_splits(parts, codes, names)
    probe = fitted(embedding, codes, splits, kind="published-sae", learning_rate=1e-3, seed=7)
    x, valid = (torch.tensor(embedding[parts == p]) for p in ("train", "valid"))
    y, y_valid = (torch.tensor(codes[parts == p]).long() for p in ("train", "valid"))
    dice = torch.Generator().manual_seed(7000)
    layer = torch.nn.Linear(WIDTH, 3)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            tensor.copy_((2 * torch.rand(tensor.shape, generator=dice) - 1) / WIDTH**0.5)
    adam, best = torch.optim.Adam(layer.parameters(), lr=1e-3), (-1.0, [], 0)
    for epoch in range(1, 121):
        order = torch.randperm(len(y), generator=dice)
        for start in range(0, len(y), 32):
            rows = order[start : start + 32]
            adam.zero_grad()
            torch.nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            adam.step()
        right = float((layer(valid).argmax(dim=1) == y_valid).float().mean())
        if right >= best[0]:
            best = right, [parameter.detach().clone().numpy() for parameter in layer.parameters()], epoch
    note = probe.about["heads"][0]
    assert (note["epoch"], note["epochs"]) == (best[2], 120)
    assert (probe.mean == 0).all()
    assert (probe.scale == 1).all()
    np.testing.assert_allclose(probe.weight[0], best[1][0], atol=1e-4)
    np.testing.assert_allclose(probe.bias[0], best[1][1], atol=1e-4)


@pytest.mark.parametrize("n_categories", [2, 3])
def test_logistic_regression_is_scikit_learns(n_categories):
    embedding, codes, parts, names = data(n_categories)
    splits = make_splits(parts, codes, names)
    probe = fitted(embedding, codes, splits, n_categories, kind="logistic")
    train, tested = parts == "train", np.flatnonzero(parts == "test")
    scaler = StandardScaler().fit(embedding[train].astype(float))
    chosen = probe.about["heads"][0]["C"]
    theirs = LogisticRegression(C=chosen, max_iter=5000, tol=1e-8).fit(scaler.transform(embedding[train]), codes[train])
    logits = probe.logits(embedding, splits.test_fold)[tested].astype(float)
    ours = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaler.transform(embedding[tested])), atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_two_categories_are_separated(kind):
    """The published code cannot: its labels of two categories are one column, whose argmax is always 0."""
    embedding, codes, parts, names = data(2, n_clips=600)
    splits = make_splits(parts, codes, names)
    assert accuracy(fitted(embedding, codes, splits, 2, kind=kind, learning_rate=3e-3), embedding, codes, splits) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", quick_sample(["split", "fold", "split without valid"], 1))
def test_the_order_of_clips_and_the_threads_do_not_matter(kind, column):
    """Clips in another order are drawn and tested alike; any number of threads gives the same bytes."""
    embedding, codes, parts, names = data()
    if column == "fold":
        parts = np.array([str(i % 3) for i in range(CLIPS)])
    elif column == "split without valid":
        parts = np.where(parts == "valid", "train", parts)
    splits = make_splits(parts, codes, names, seed=3)
    order = np.random.default_rng(1).permutation(CLIPS)
    shuffled = make_splits(parts[order], codes[order], [names[i] for i in order], seed=3)
    for ours, theirs in ((splits.train, shuffled.train), (splits.valid, shuffled.valid)):
        np.testing.assert_array_equal(ours[:, order], theirs)
    np.testing.assert_array_equal(splits.test_fold[order], shuffled.test_fold)
    torch.set_num_threads(1)
    one = fitted(embedding, codes, splits, kind=kind)
    torch.set_num_threads(2)
    assert fitted(embedding, codes, splits, kind=kind).digest == one.digest
    assert torch.get_num_threads() == 2
    assert fitted(embedding, codes, splits, kind=kind, seed=1).digest != one.digest or kind == "logistic"


def test_every_clip_is_scored_by_the_head_of_its_fold():
    embedding, codes, _, names = data()
    folds = np.array([str(1 + i % 10) for i in range(CLIPS)])
    codes = codes.copy()
    codes[5] = -1
    splits = make_splits(folds, codes, names)
    assert splits.heads == tuple(map(str, range(1, 11)))  # "10" after "9"
    probe = fitted(embedding, codes, splits, kind="logistic")
    logits = probe.logits(embedding, splits.test_fold)
    assert np.isnan(logits[5]).all()
    for i in (0, 7, 9, 299):
        head = splits.heads.index(folds[i])
        standard = (embedding[i].astype(float) - probe.mean[head]) / probe.scale[head]
        np.testing.assert_allclose(logits[i], probe.weight[head] @ standard + probe.bias[head], rtol=1e-4, atol=1e-4)
        assert not splits.train[head, i]
        assert not splits.valid[head, i]
    many = np.stack([embedding, embedding + 1])
    np.testing.assert_allclose(probe.logits(many, splits.test_fold)[0], logits, rtol=1e-5, atol=1e-5)


def test_validation_clips_are_a_tenth_of_every_category():
    codes = np.repeat([0, 1, 2, 3], [100, 40, 2, 1])
    names = [f"c{i}" for i in range(len(codes))]
    parts = np.array(["train"] * len(codes) + ["test"] * 4)
    codes, names = np.append(codes, [0, 1, 2, 3]), [*names, "d0", "d1", "d2", "d3"]
    splits = make_splits(parts, codes, names)
    assert splits.valid_drawn
    assert np.bincount(codes[splits.valid[0]], minlength=4).tolist() == [10, 4, 1, 0]
    assert np.bincount(codes[splits.train[0]], minlength=4).tolist() == [90, 36, 1, 1]
    assert (splits.test_fold >= 0).sum() == 4


def test_splits_that_cannot_be():
    def raises(message, parts, codes=None):
        with pytest.raises(ValueError, match=message):
            make_splits(
                parts,
                np.zeros(len(parts), int) if codes is None else np.array(codes),
                [str(i) for i in range(len(parts))],
            )

    raises("no clips marked test .found train.; expected train and test", ["train", "train", ""])
    raises("no clips marked train", ["test", "valid", "test"])
    raises("no clips marked train or test .found nothing", ["", ""])
    raises("one fold, 3; expected at least 2", ["3", "3"])
    raises("one fold, 3, apart from 2 clips without a category; expected", ["3", "3", "4", "4"], [0, 1, -1, -1])
    raises("none of the clips marked test has a category .2 test without one.", ["train", "test", "test"], [0, -1, -1])
    raises("marked train or test has a category .1 train and 1 test", ["train", "test", "valid"], [-1, -1, 0])
    raises("1 categories have clips in test and no training clips, the first with code 1", ["train", "test"], [0, 1])
    raises("the split has parts called val; expected train, valid, test, or folds", ["train", "val", "test"])
    raises("the split has parts called Test, Train; expected", ["Train", "Test", "Train"])
    with pytest.raises(ValueError, match="the first 'cat'; expected some of every"):
        make_splits(["train", "test"], np.array([0, 1]), ["x", "y"], categories=["dog", "cat"])
    assert splits_column(["fold", "kind", "split"]) == "split"
    assert splits_column(["fold", "kind"]) == "fold"
    assert splits_column(["fold", "kind"], "kind") == "kind"
    with pytest.raises(LookupError, match="neither a column 'split' nor 'fold' among kind; expected one"):
        splits_column(["kind"])
    with pytest.raises(LookupError, match="no column 'part'"):
        splits_column(["kind", "split"], "part")


def test_files_come_back_the_same(tmp_path):
    embedding, codes, _, names = data()
    splits = make_splits(["xy"[i % 2] for i in range(CLIPS)], codes, names)
    probe = fitted(embedding, codes, splits)
    save_probe(probe, tmp_path / "probe.v1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe.v1.json", "probe.v1.safetensors"]
    back = load_probe(tmp_path / "probe.v1")
    assert back.digest == probe.digest
    assert (back.about, back.heads, back.categories) == (probe.about, probe.heads, probe.categories)
    np.testing.assert_array_equal(back.logits(embedding, splits.test_fold), probe.logits(embedding, splits.test_fold))


def test_files_that_do_not_belong_together_raise(tmp_path):
    embedding, codes, parts, names = data()
    splits = make_splits(parts, codes, names)
    save_probe(fitted(embedding, codes, splits, kind="logistic"), tmp_path / "a")
    save_probe(fitted(embedding, codes, splits, seed=2), tmp_path / "b")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"a is damaged .*the tensors are not those that the JSON describes"):
        load_probe(tmp_path / "a")
    about = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(ValueError, match="format 99, not 1"):
        load_probe(tmp_path / "b")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match="b is damaged"):
        load_probe(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match=r"no probe at .*c; expected c\.safetensors and c\.json"):
        load_probe(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_probe(fitted(embedding, codes, splits, kind="logistic"), tmp_path / "d" / "e")


def test_other_embeddings_raise():
    embedding, codes, parts, names = data()
    splits = make_splits(parts, codes, names)
    probe = fitted(embedding, codes, splits, kind="logistic")
    probe.require("id", "t:kind")
    with pytest.raises(ValueError, match="embeddings of identity id, not other; expected the same"):
        probe.require("other", "t:kind")
    with pytest.raises(ValueError, match="labelling t:kind, not t:size"):
        probe.require("id", "t:size")
    with pytest.raises(ValueError, match="embeddings are 11 wide; expected 12"):
        probe.logits(embedding[:, :11], splits.test_fold)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        fitted(np.where(np.arange(WIDTH) == 2, np.nan, embedding), codes, splits)
    with pytest.raises(ValueError, match="1 categories; expected at least 2"):
        fitted(embedding, codes, splits, 1)
    with pytest.raises(ValueError, match=r"kind 'svm', .*expected one of published, logistic"):
        Recipe(kind="svm")

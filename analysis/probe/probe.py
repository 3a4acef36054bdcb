"""Linear probe: what can be read off an embedding, category by category.

Goal: the published linear evaluation, mended where it is wrong, and a logistic regression; from the embeddings that a
store keeps, without running the encoder.
Conventions: embeddings are float32 (..., clip, embedding), categories are codes (clip) into `categories`. A probe has
one head per fold (see `splits`); each clip is scored by the head that tests it. Fitting runs on one thread, so that
the same embeddings and seed give the same probe whatever the number of cores.
A probe is saved at PATH as PATH.safetensors and PATH.json; the JSON holds the digest of the other.

The published evaluation standardises by the training clips, and trains a linear layer with Adam (batches of 200, at
most 200 epochs, cross-entropy divided by the number of categories), stops when the accuracy on validation clips has
not reached its best for 20 epochs, and takes the weights of the last best epoch. It differs here in this: two
categories work (its one-column labels made every label argmax to class 0); validation clips are drawn by clip name and
seed, with every category (it drew by file order from numpy's global state); all folds are scored (its tables show the
last); training clips are those of the store, cropped from their start (it crops training clips at random, once).

The paper on sparse autoencoders probes otherwise: a linear layer on embeddings as they are, by Adam (batches of 32, 120
epochs, cross-entropy), its weights those of the epoch of the best accuracy on validation clips, the last such one.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ...documents import parse_json, read_document
from ...files import whole_file
from ...messages import one_line
from ...store.provenance import Record, digest_of
from .splits import Splits, parts_of

KINDS = ("published", "logistic", "published-sae")
STRENGTHS = tuple(10.0**k for k in range(-6, 5))  # of the logistic regression; sklearn's C, small is strong
MAX_ITERATIONS = 2000
MIN_VALID = 100  # clips to choose by: with fewer, an accuracy of a half has a standard error above 5 points
PARTS = 5  # of the training clips, for cross-validation where validation clips are fewer
ACCURACY_TIE, LOSS_TIE = 0.02, 0.01  # differences that decide nothing; the second in nats
ALWAYS_TRIED = 8  # strengths, the strongest first: among those much too strong no gain is a sign of nothing
MAX_STALE_STRENGTHS = 3  # without any gain, after which no weaker one is tried
TENSORS = ("mean", "scale", "weight", "bias")
FORMAT = 1  # of the files
MAX_TENSOR_BYTES = 2**28

Floats = NDArray[np.float32]


class Steps(NamedTuple):
    """How a published evaluation trains its linear layer."""

    batch: int
    epochs: int
    max_stale_epochs: int
    weight_decay: float
    by_category: bool
    """Whether the cross-entropy is divided by the number of categories."""
    standardised: bool
    """Whether embeddings are standardised by the training clips."""


PUBLISHED = {
    "published": Steps(200, 200, 20, 1e-8, by_category=True, standardised=True),
    "published-sae": Steps(32, 120, 120, 0.0, by_category=False, standardised=False),
}


@dataclass(frozen=True, kw_only=True)
class Recipe(Record):
    """How a probe is fitted."""

    kind: str = "published"
    """"published", or "logistic" for scikit-learn's regression, its strength chosen by clips held out; "published-sae"
    for the probe of the paper on sparse autoencoders."""
    seed: int = 42
    learning_rate: float = 3e-4
    """Of "published": 3e-5 for M2D, 3e-4 for all other encoders in the published configurations; of "published-sae"
    1e-3."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.learning_rate <= 0 or self.seed < 0:
            raise ValueError(
                f"found a probe of kind {self.kind!r}, learning rate {self.learning_rate}, seed {self.seed}; expected "
                f"one of {', '.join(KINDS)}, a rate above 0, a seed of 0 or more"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Standardisation and a linear map per head: logits = weight @ ((embedding - mean) / scale) + bias."""

    identity: str
    """Identity digest of the store whose embeddings it reads."""
    labelling: str
    """As in "cremad:gender"."""
    categories: tuple[str, ...]
    heads: tuple[str, ...]
    mean: Floats
    """(head, embedding)."""
    scale: Floats
    """(head, embedding)."""
    weight: Floats
    """(head, category, embedding)."""
    bias: Floats
    """(head, category)."""
    about: dict[str, Any] = field_of(default_factory=dict)
    """Recipe, and of each head validation accuracy, epochs (or strength, and what it was chosen by) and versions.

    `edge`, where it is there and not empty, says how the fit ended where the search for it did.
    """

    def logits(self, embedding: NDArray[np.floating], heads: NDArray[np.integer]) -> Floats:
        """Logits float32 (..., clip, category) of embeddings (..., clip, embedding).

        heads: (clip) number of the head that scores each clip, as `Splits.test_fold`; NaN where it is -1.
        Raises ValueError for embeddings of another width.
        """
        width = self.mean.shape[1]
        if embedding.shape[-1] != width:
            raise ValueError(
                f"embeddings are {embedding.shape[-1]} wide; expected {width}, as the probe of {self.labelling} was "
                "fitted: use embeddings of the same encoder"
            )
        out = np.full((*embedding.shape[:-1], len(self.categories)), np.nan, np.float32)
        for head in np.unique(heads[heads >= 0]):
            own = np.flatnonzero(heads == head)
            standard = (embedding[..., own, :] - self.mean[head]) / self.scale[head]
            out[..., own, :] = standard @ self.weight[head].T + self.bias[head]
        return out

    @property
    def digest(self) -> str:
        """SHA-256 over everything that scores depend on: the task's identity, labelling, categories, tensors."""
        text = digest_of([self.identity, self.labelling, list(self.categories), list(self.heads)])
        return hashlib.sha256(text.encode() + self.tensors()).hexdigest()

    def require(self, identity: str, labelling: str) -> None:
        """Raise ValueError unless the probe was fitted to this store's embeddings, for this labelling."""
        for what, ours, theirs in (("identity", self.identity, identity), ("labelling", self.labelling, labelling)):
            if ours != theirs:
                raise ValueError(
                    f"the probe was fitted to embeddings of {what} {ours[:40]}, not {theirs[:40]}; expected the same: "
                    "fit one to this store"
                )

    def tensors(self) -> bytes:
        """The tensors as a file of safetensors."""
        return bytes(save_tensors({name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}))


def fit_probe(
    embedding: NDArray[np.floating],
    codes: NDArray[np.integer],
    splits: Splits,
    *,
    categories: tuple[str, ...],
    identity: str,
    labelling: str,
    recipe: Recipe | None = None,
) -> Probe:
    """Fit one head per fold to embeddings (clip, embedding).

    codes: (clip) into categories; splits: which clips each head learns from and is stopped by.
    Raises ValueError for fewer than 2 categories, and for embeddings of training clips that are not finite.
    """
    recipe = recipe or Recipe()
    if len(categories) < 2:
        raise ValueError(f"{labelling} has {len(categories)} categories; expected at least 2 to tell apart")
    used = splits.train.any(axis=0) | splits.valid.any(axis=0)
    for name, train in zip(splits.heads, splits.train, strict=True):
        if len(np.unique(codes[train])) < 2:
            raise ValueError(
                f"{labelling} has training clips of one category for {name}; expected at least 2 to tell apart"
            )
    if not np.isfinite(embedding[used]).all():
        raise ValueError(f"embeddings of {labelling} hold NaN or infinity; expected numbers for every clip that is ok")
    fit = _fit_published if recipe.kind in PUBLISHED else _fit_logistic
    parts: dict[str, list[Any]] = {name: [] for name in TENSORS}
    notes = []
    with _one_thread():
        for head, (train, valid) in enumerate(zip(splits.train, splits.valid, strict=True)):
            scaler = StandardScaler().fit(embedding[train].astype(np.float64))
            mean, scale = scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)
            if recipe.kind in PUBLISHED and not PUBLISHED[recipe.kind].standardised:
                mean, scale = np.zeros_like(mean), np.ones_like(scale)

            def standard(rows: NDArray[np.bool_], m: Floats = mean, s: Floats = scale) -> Floats:
                return np.ascontiguousarray((embedding[rows] - m) / s, np.float32)

            part = parts_of(train, codes, splits.groups, PARTS, recipe.seed)[train]
            weight, bias, note = fit(
                standard(train), codes[train], standard(valid), codes[valid], len(categories), recipe,
                part=part, head=head,
            )  # fmt: skip
            for name, value in zip(TENSORS, (mean, scale, weight, bias), strict=True):
                parts[name].append(value)
            notes.append({"head": splits.heads[head], "n_train": int(train.sum()), "n_valid": int(valid.sum())} | note)
    about = {"recipe": recipe.to_json(), "valid_drawn": splits.valid_drawn, "heads": notes}
    tensors = {name: np.stack(values).astype(np.float32) for name, values in parts.items()}
    return Probe(
        identity=identity, labelling=labelling, categories=categories, heads=splits.heads, about=about, **tensors
    )


Fitted = tuple[NDArray[np.floating], NDArray[np.floating], dict[str, Any]]


def _fit_published(
    x: Floats, y: NDArray[np.integer], x_valid: Floats, y_valid: NDArray[np.integer], n: int, recipe: Recipe, head: int,
    **_: Any,
) -> Fitted:  # fmt: skip
    """Weight (category, embedding), bias (category) and notes, by a published recipe."""
    steps = PUBLISHED[recipe.kind]
    dice = torch.Generator().manual_seed(recipe.seed * 1000 + head)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    width = x.shape[1]
    bound = width**-0.5  # torch.nn.Linear begins so
    weight = ((2 * torch.rand(n, width, generator=dice) - 1) * bound).requires_grad_()
    bias = ((2 * torch.rand(n, generator=dice) - 1) * bound).requires_grad_()
    adam = torch.optim.Adam([weight, bias], lr=recipe.learning_rate, weight_decay=steps.weight_decay)
    best, since, best_epoch, epoch = -1.0, 0, 0, 0
    kept = (weight.detach().clone(), bias.detach().clone())
    for epoch in range(1, steps.epochs + 1):
        for rows in torch.split(torch.randperm(len(y), generator=dice), steps.batch):
            adam.zero_grad()
            logits = torch.nn.functional.linear(inputs[rows], weight, bias)
            loss = torch.nn.functional.cross_entropy(logits, targets[rows])
            (loss / n if steps.by_category else loss).backward()  # type: ignore[no-untyped-call]
            adam.step()
        scores = x_valid @ weight.detach().numpy().T + bias.detach().numpy()
        accuracy = float((scores.argmax(axis=1) == y_valid).mean()) if len(y_valid) else 0.0
        if accuracy >= best:
            best, since, best_epoch = accuracy, 0, epoch
            kept = (weight.detach().clone(), bias.detach().clone())
        else:
            since += 1
        if since == steps.max_stale_epochs:
            break
    notes = {"valid_accuracy": best, "epoch": best_epoch, "epochs": epoch, "torch": str(torch.__version__)}
    if best_epoch == steps.epochs and best < 1:
        notes["edge"] = (
            f"the probe's training ended at {steps.epochs} epochs, the last as good as any on the validation clips"
        )
    return kept[0].numpy(), kept[1].numpy(), notes


def _fit_logistic(
    x: Floats, y: NDArray[np.integer], x_valid: Floats, y_valid: NDArray[np.integer], n: int, recipe: Recipe,
    part: NDArray[np.integer], **_: Any,
) -> Fitted:  # fmt: skip
    """The same by scikit-learn's logistic regression, its strength the one that does best on clips held out.

    part: of the training clips for cross-validation, where validation clips are too few to choose by.
    """
    from sklearn import __version__ as version

    basis = None
    if len(x) < x.shape[1]:  # weights are sums of training clips: fitted in fewer dimensions, they are the same
        basis = np.linalg.qr(x.T.astype(np.float64))[0]
        x, x_valid = (np.ascontiguousarray(rows @ basis, np.float32) for rows in (x, x_valid))
    n_parts = len(np.unique(part))
    if len(y_valid) >= MIN_VALID:
        trials, chosen_by = [(x, y, x_valid, y_valid)], f"{len(y_valid)} validation clips"
    else:
        trials = [(x[part != i], y[part != i], x[part == i], y[part == i]) for i in range(n_parts)]
        chosen_by = f"{n_parts}-fold cross-validation of {len(y)} training clips"
    strength, how = _strength([trial for trial in trials if len(np.unique(trial[1])) > 1])
    model = LogisticRegression(max_iter=MAX_ITERATIONS, C=strength, tol=1e-6)
    _fit_once(model, x, y)
    weight, bias = np.zeros((n, x.shape[1])), np.full(n, -np.inf)
    weight[model.classes_], bias[model.classes_] = _rows(model)
    accuracy = float(((x_valid @ weight.T + bias).argmax(axis=1) == y_valid).mean()) if len(y_valid) else 0.0
    notes = {"valid_accuracy": accuracy, "C": strength, "chosen_by": chosen_by, **how, "sklearn": str(version)}
    return weight if basis is None else weight @ basis.T, bias, notes


Trial = tuple[Floats, NDArray[np.integer], Floats, NDArray[np.integer]]
"""Embeddings and codes to fit to, and those of clips held out."""


def _strength(trials: Sequence[Trial]) -> tuple[float, dict[str, Any]]:
    """Of `STRENGTHS` the one for the clips held out, of all trials together, and how it does on them.

    The highest accuracy, give or take `ACCURACY_TIE`, and of these the lowest log-loss, give or take `LOSS_TIE`, then
    the strongest. With few clips and many dimensions the log-loss alone prefers answers that hardly differ from the
    categories' shares, and so name the largest. Clips of categories that a trial does not fit to are not counted. The
    search goes from strong to weak, and ends, after `ALWAYS_TRIED`, where `MAX_STALE_STRENGTHS` have brought neither.
    """
    models = [LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True) for _ in trials]
    found: list[tuple[float, float]] = []
    for strength in STRENGTHS:
        right, losses = [], []
        for model, (x, y, x_held, y_held) in zip(models, trials, strict=True):
            _fit_once(model.set_params(C=strength), x, y)
            known = np.isin(y_held, model.classes_)
            own = np.searchsorted(model.classes_, y_held[known])
            weight, bias = _rows(model)
            scores = x_held[known] @ weight.T + bias
            losses.append(logsumexp(scores, axis=1) - np.take_along_axis(scores, own[:, None], axis=1)[:, 0])
            right.append(scores.argmax(axis=1) == own)
        if not sum(map(len, right)):
            return 1.0, {"edge": "the probe's strength is a guess, as no clip could be held out to choose it by"}
        found.append((float(np.concatenate(right).mean()), float(np.concatenate(losses).mean())))
        accuracies, means = map(np.array, zip(*found, strict=True))
        stale = len(found) - 1 - max(accuracies.argmax(), means.argmin())
        if len(found) > ALWAYS_TRIED and stale >= MAX_STALE_STRENGTHS:
            break
    near = accuracies >= accuracies.max() - ACCURACY_TIE
    best = int((near & (means <= means[near].min() + LOSS_TIE)).argmax())
    how: dict[str, Any] = {"accuracy": found[best][0], "log_loss": found[best][1], "edge": ""}
    if best in (0, len(STRENGTHS) - 1):
        tried = f"{STRENGTHS[0]:g} to {STRENGTHS[-1]:g}"
        how["edge"] = f"the probe's strength C = {STRENGTHS[best]:g} is at an end of what is tried, {tried}"
    return STRENGTHS[best], how


def _fit_once(model: LogisticRegression, x: Floats, y: NDArray[np.integer]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak ones need not end: what is held out decides
        model.fit(x, y)


def _rows(model: LogisticRegression) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Weight (category, embedding) and bias (category) of the categories that it was fitted to."""
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    halves = np.array([-0.5, 0.5])  # it has one row, the logit of the second against the first
    return halves[:, None] * model.coef_, halves * model.intercept_[0]


@contextmanager
def _one_thread() -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def save_probe(probe: Probe, path: str | os.PathLike[str]) -> None:
    """Write PATH.safetensors, then PATH.json; each appears whole or not at all.

    Raises FileNotFoundError for a folder that does not exist.
    """
    tensors = probe.tensors()
    about = {
        "format": FORMAT, "identity": probe.identity, "labelling": probe.labelling, "heads": probe.heads,
        "categories": probe.categories, "tensors": hashlib.sha256(tensors).hexdigest(), "about": probe.about,
    }  # fmt: skip
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    for ending, content in ((".safetensors", tensors), (".json", text.encode())):
        with whole_file(f"{os.fspath(path)}{ending}") as partial:
            partial.write_bytes(content)


def load_probe(path: str | os.PathLike[str]) -> Probe:
    """The probe that `save_probe` wrote to PATH.

    Raises FileNotFoundError where there is none, ValueError for files that are damaged or do not belong together.
    """
    tensor_path, about_path = (Path(f"{os.fspath(path)}{ending}") for ending in (".safetensors", ".json"))
    try:
        tensors, text = read_document(tensor_path, MAX_TENSOR_BYTES), read_document(about_path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no probe at {path}; expected {tensor_path.name} and {about_path.name}, as a probe is saved"
        ) from error
    try:
        about = parse_json(text)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, not {FORMAT}")
        if hashlib.sha256(tensors).hexdigest() != about["tensors"]:
            raise ValueError("the tensors are not those that the JSON describes")
        found, names = load_tensors(tensors), about["categories"] + about["heads"]
        n_heads, n_categories, width = len(about["heads"]), len(about["categories"]), found["mean"].shape[-1]
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("mean", "scale"), (n_heads, width))
        shapes |= {"bias": (n_heads, n_categories)}
        shapes |= {"weight": (n_heads, n_categories, width)}
        if {name: tensor.shape for name, tensor in found.items()} != shapes:
            raise ValueError(f"tensors of other shapes than {shapes}")
        if any(tensor.dtype != np.float32 or not np.isfinite(tensor).all() for tensor in found.values()):
            raise ValueError("tensors that are not finite float32")
        if not all(isinstance(name, str) for name in (about["identity"], about["labelling"], *names)):
            raise ValueError("names that are no text")
        return Probe(
            identity=about["identity"],
            labelling=about["labelling"],
            categories=tuple(about["categories"]),
            heads=tuple(about["heads"]),
            about=dict(about["about"]),
            **found,
        )
    except (ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(
            f"the probe at {path} is damaged or of another version ({one_line(error)}); expected both "
            "files as they were saved: fit it again"
        ) from error

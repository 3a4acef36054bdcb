"""The files of published analyses, read and written: conditional activation probabilities, classes, embeddings, labels.

Goal: results made elsewhere are analysed here, and results made here go into the published notebooks.
Conventions: a folder holds `over_zero.pt`, P as (layer, neuron, category); `classes.txt`, one category per line in that
order; `features.pt`, embeddings (clip, embedding_dim); `gts.pt`, indices into the classes (clip). Or it holds LAPE's
files, one per category, each a dict of `n` (number of tokens) and `over_zero` (layer, neuron), counts of tokens. Files
are loaded as tensors only: nothing in them is executed.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import xarray as xr

from ...documents import check_size, read_document
from ...files import whole_file
from ...messages import one_line
from ...store.labels import decode
from ..categories import category_names

if TYPE_CHECKING:
    from torch import Tensor

PROBABILITY, CLASSES, FEATURES, LABELS = "over_zero.pt", "classes.txt", "features.pt", "gts.pt"
LABEL = "class"  # name of the one labelling of published files
MAX_FILE_BYTES = 2**29
MAX_VALUES = 2**25  # of a tensor: one value that is said to be many takes no room in a file
TENSORS = (".pt", ".pth", ".bin")


def read_published(folder: str | os.PathLike[str]) -> xr.Dataset:
    """What a folder of published files holds, as arrays.

    `probability` (layer, neuron, category) in [0, 1], float64. Where the files are there: `embedding` float32 (clip,
    embedding_dim), and the coordinate `class` (clip), names of categories, NaN for none. LAPE's counts become
    over_zero / n; its categories are named by the second part of the file names, as in "activation.en.train.llama-7b",
    else by the whole name, in alphabetical order.
    Raises FileNotFoundError where neither kind of file is, ValueError for contents that are not as described, such as a
    category without tokens.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; expected one with {PROBABILITY} and {CLASSES}, or LAPE's files")
    try:
        return _read_published(root)
    except (TypeError, RuntimeError, MemoryError, ArithmeticError) as error:  # of tensors that are not what they seem
        raise ValueError(f"{root} cannot be read ({one_line(error)}); expected plain tensors of numbers") from error


def _read_published(root: Path) -> xr.Dataset:
    if not (root / PROBABILITY).is_file():
        return _dataset(*_read_counts(root), root)
    categories = _read_classes(root / CLASSES)
    data = _dataset(_read_probability(root / PROBABILITY, categories), categories, root)
    clips: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]] = {}
    if (root / FEATURES).is_file():
        features = _tensor(_load(root / FEATURES), root / FEATURES, ndim=2)
        clips["embedding"] = (("clip", "embedding_dim"), features.float().numpy(), {"long_name": "embedding"})
    if (root / LABELS).is_file():
        codes = _read_codes(root / LABELS, categories)
        clips[LABEL] = (("clip",), decode(codes, categories, missing=np.nan), {})
    lengths = {name: len(values) for name, (_, values, _) in clips.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{root}: {FEATURES} and {LABELS} have {lengths} clips; expected the same clips in both")
    return data.assign(clips).set_coords([LABEL] if LABEL in clips else [])


def _dataset(p: np.ndarray, categories: list[str], root: Path) -> xr.Dataset:
    if not p.size:
        raise ValueError(f"{root} holds probabilities of the shape {p.shape}; expected at least one neuron")
    if not np.isfinite(p).all():
        raise ValueError(
            f"{root} has {int((~np.isfinite(p)).sum())} values that are NaN or infinity; expected probabilities in "
            "[0, 1]: leave out the categories or neurons that have none"
        )
    if not ((p >= 0).all() and (p <= 1).all()):
        raise ValueError(
            f"{root} has values from {p.min():.4g} to {p.max():.4g}; expected probabilities in [0, 1]: "
            "counts need their `n`, as LAPE's files have it"
        )
    if len(set(categories)) != len(categories):
        twice = sorted({name for name in categories if categories.count(name) > 1})
        raise ValueError(f"{root} names {', '.join(twice)} more than once; expected every category once")
    probability = xr.DataArray(
        p,
        dims=("layer", "neuron", "category"),
        coords={
            "layer": np.arange(p.shape[0]),
            "neuron": np.arange(p.shape[1]),
            "category": category_names(categories),
        },
        attrs={"long_name": "activation probability", "units": "1"},
    )
    return xr.Dataset({"probability": probability})


def _read_probability(path: Path, categories: list[str]) -> np.ndarray:
    """P with the categories last."""
    found = _load(path)
    if isinstance(found, dict) and {"n", "over_zero"} <= set(found):  # all categories in one file
        return _share(_tensor(found["over_zero"], path, ndim=3), found["n"], path, categories)
    p = _tensor(found, path, ndim=3)
    axes = [axis for axis, size in enumerate(p.shape) if size == len(categories)]
    if 2 in axes:
        return p.double().numpy()
    if axes == [0]:
        return p.movedim(0, 2).double().numpy()  # (category, layer, neuron) -> (layer, neuron, category)
    raise ValueError(
        f"{path} is {tuple(p.shape)} and {CLASSES} has {len(categories)} lines; "
        "expected (layer, neuron, category): use the classes that belong to it"
    )


def _read_counts(root: Path) -> tuple[np.ndarray, list[str]]:
    """P and categories of LAPE's files: named activation.*, or tensors by their ending."""
    shares = {}
    for path in sorted(root.iterdir()):
        if not path.is_file() or not (path.name.startswith("activation.") or path.suffix in TENSORS):
            continue
        found = _load(path)
        if isinstance(found, dict) and {"n", "over_zero"} <= set(found):
            parts = path.name.split(".")
            name = parts[1] if parts[0] == "activation" and len(parts) > 2 else path.stem
            if name in shares:
                raise ValueError(
                    f"{root} has several files for {name}; expected one per category: move the others away"
                )
            shares[name] = _share(_tensor(found["over_zero"], path, ndim=2), found["n"], path, [name])
    if not shares:
        raise FileNotFoundError(
            f"{root} has neither {PROBABILITY} nor files with `n` and `over_zero`; expected either: name their folder"
        )
    shapes = {name: share.shape for name, share in shares.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{root}: over_zero has the shapes {shapes}; expected one shape (layer, neuron) for all")
    return np.stack(list(shares.values()), axis=-1), list(shares)


def _share(over_zero: "Tensor", n: Any, path: Path, categories: list[str]) -> np.ndarray:
    """Counts over `n`: one number, or one per category. Raises ValueError for an `n` that nothing can be divided by."""
    tokens = np.asarray(n)
    if tokens.dtype.kind not in "iuf" or tokens.ndim > 1 or tokens.size not in (1, len(categories)):
        raise ValueError(f"{path} has n {str(n)[:40]}; expected a number of tokens, or one for each category")
    empty = np.flatnonzero(~((tokens > 0) & np.isfinite(tokens)))
    if empty.size:
        which = categories[int(empty[0])] if tokens.size > 1 or len(categories) == 1 else "any category"
        raise ValueError(
            f"{path} has n = {tokens.flat[empty[0]]:g} tokens of {which}; expected at least one, since a share of none "
            "is no number: leave the category out"
        )
    share: np.ndarray = over_zero.double().numpy() / tokens.astype(np.float64)
    return share


def _load(path: Path) -> Any:
    """A file of torch.save: tensors, numbers, strings, lists and dicts of these, and nothing that runs."""
    from pickle import UnpicklingError  # the name only: torch raises it for what it will not unpack

    import torch

    errors = (UnpicklingError, EOFError, BadZipFile, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
    try:
        check_size(path.stat().st_size, MAX_FILE_BYTES)
        if is_zipfile(path):
            with ZipFile(path) as archive:
                check_size(sum(entry.file_size for entry in archive.infolist()), MAX_FILE_BYTES)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*errors, MemoryError) as error:
        raise ValueError(
            f"{path} cannot be loaded as tensors ({one_line(error)}); expected what torch.save writes for tensors: "
            "save it again as such"
        ) from error


def _tensor(found: Any, path: Path, ndim: int) -> "Tensor":
    import torch

    try:
        found = torch.as_tensor(found) if isinstance(found, list) else found
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} holds a list that is no tensor ({one_line(error)}); expected numbers") from error
    if isinstance(found, torch.Tensor) and (found.numel() > MAX_VALUES or found.is_sparse or found.is_complex()):
        raise ValueError(
            f"{path} holds {found.dtype} {tuple(found.shape)}; expected plain numbers, at most {MAX_VALUES} of them"
        )
    if not isinstance(found, torch.Tensor) or found.ndim != ndim:
        what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(f"{path} holds {what}; expected a tensor of {ndim} dimensions")
    return found.detach()


def _read_classes(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; expected the categories of {PROBABILITY}, one per line in its order")
    try:
        lines = read_document(path).decode().splitlines()
    except ValueError as error:
        raise ValueError(f"{path} is not text ({one_line(error)}); expected a category per line in UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def _read_codes(path: Path, categories: list[str]) -> np.ndarray:
    """int32 (clip): from indices, names, or one row per clip with a one at its category."""
    found = _load(path)
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        unknown = sorted(set(found) - set(categories))
        if unknown:
            raise ValueError(f"{path} names {', '.join(unknown[:3])}, not in {CLASSES}; expected its categories only")
        return np.array([categories.index(name) for name in found], np.int32)
    rows = _tensor(found, path, ndim=getattr(found, "ndim", 1)).numpy()
    one_hot = rows.ndim == 2 and ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all()
    if one_hot and rows.shape[1] == len(categories):
        rows = rows.argmax(axis=1)
    if rows.ndim != 1 or (rows != np.round(rows)).any() or (rows < -1).any() or (rows >= len(categories)).any():
        raise ValueError(
            f"{path} is {rows.dtype} {rows.shape}; expected one index below {len(categories)} per clip, or one-hot "
            "rows: several categories per clip are not known here"
        )
    codes: np.ndarray = rows.astype(np.int32)
    return codes


def write_published(
    folder: str | os.PathLike[str],
    p: xr.DataArray,
    embedding: xr.DataArray | None = None,
    codes: xr.DataArray | None = None,
) -> list[Path]:
    """Write `over_zero.pt`, `classes.txt`, and of the clips that count `features.pt` and `gts.pt`; the paths written.

    p: (layer, neuron, category), stored as float64, so that reading it back gives the same selection.
    embedding: (clip, embedding_dim), stored as float32; codes: int (clip), into p's categories, negative for clips that
        count nowhere, which are left out of both files. The folder is made; files that exist are replaced.
    Raises ValueError where there is no category, for those that do not fit on a line, for NaN in p, and for codes that
    are not p's.
    """
    import torch

    categories = [str(name) for name in p["category"].values]
    if not categories:
        raise ValueError("found no category with clips; expected at least one: take another label column")
    bad = [name for name in categories if not name.strip() or name != name.strip() or len(name.splitlines()) != 1]
    if bad:
        raise ValueError(f"category {bad[0]!r} does not survive a line of {CLASSES}; expected plain names: rename it")
    cube = p.transpose("layer", "neuron", "category").values.astype(np.float64)
    if np.isnan(cube).any():
        raise ValueError(
            f"{int(np.isnan(cube).any(axis=2).sum())} neurons have no probability, as in layers of unequal width; "
            f"expected a full cube, since {PROBABILITY} has no way to say so: select layers of one width"
        )
    contents: dict[str, Any] = {PROBABILITY: torch.from_numpy(cube)}
    if codes is not None:
        if list(codes.attrs["categories"]) != categories:
            raise ValueError("codes and probabilities have different categories; expected those of one labelling")
        counted = np.flatnonzero(codes.values >= 0)
        contents[LABELS] = torch.from_numpy(codes.values[counted].astype(np.int64))
        if embedding is not None:
            rows = embedding.transpose("clip", ...).isel(clip=counted).values
            contents[FEATURES] = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for name, tensor in contents.items():
        with whole_file(root / name) as partial:
            torch.save(tensor, partial)
    with whole_file(root / CLASSES) as partial:
        partial.write_text("".join(f"{name}\n" for name in categories), encoding="utf-8")
    return [root / name for name in (*contents, CLASSES)]

"""Checkpoint files of torch and safetensors: tensors out of a file, and into a model.

Goal: nothing in a file is executed, and a file that is damaged or does not fit the model is refused by name.
Conventions: a checkpoint is a state dict, bare or as the `model` entry of a dict, in a .pth, .bin or .safetensors file.
"""

import argparse
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # the name only: torch raises it for what it will not unpack
from typing import Any, TypeVar

import safetensors
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...messages import one_line

Model = TypeVar("Model", bound=nn.Module)
MAX_FAULTS = 5  # that a message names
MAX_INDEX_BYTES = 10_000_000  # of names and shapes in a file: the largest published models have a tenth
INITIALISING = {getattr(Tensor, name) for name in ("uniform_", "normal_", "zero_", "fill_", "mul_")}
MAX_UNPACKED = 4  # bytes of tensors for a byte of file: some share theirs


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and text metadata (safetensors only) of a checkpoint.

    Raises ValueError for a file that is damaged, that wants to unpack more than tensors and plain arguments, whose
    tensors are much more than the file, or that holds no state dict.
    """
    try:
        _check_index(file)
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
        # Pre-training checkpoints keep their command line beside the weights; a Namespace holds data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, so that the optimiser's state beside the weights is never read.
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # of many kinds: foreign bytes are taken for a checkpoint until they make no sense
        raise ValueError(_damage(file, error)) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{file.name} holds a {type(content).__name__}; expected a state dict, bare or under 'model'")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    size, unpacked = file.stat().st_size, sum(value.numel() * value.element_size() for value in tensors.values())
    if unpacked > MAX_UNPACKED * size:
        raise ValueError(
            f"{file.name} has {size} bytes and tensors of {unpacked}; expected a file that holds their values: fetch "
            "it again"
        )
    return tensors, {}


class Tensors(Mapping[str, Tensor]):
    """Tensors of safetensors files by name, each read when it is asked for, and nothing kept.

    names: what each file's tensor is called here, None for one that is not wanted.
    Raises ValueError for files that are damaged.
    """

    def __init__(self, files: Iterable[Path], names: Callable[[str], str | None] = str) -> None:
        self._at: dict[str, tuple[Path, str]] = {}
        for file in files:
            with self._open(file) as opened:
                for key in opened.keys():  # noqa: SIM118
                    if (name := names(key)) is not None:
                        self._at[name] = file, key

    @staticmethod
    @contextmanager
    def _open(file: Path) -> Iterator[Any]:
        try:
            _check_index(file)
            with safetensors.safe_open(file, framework="pt") as opened:
                yield opened
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # as in read_checkpoint
            raise ValueError(_damage(file, error)) from error

    def __getitem__(self, name: str) -> Tensor:
        file, key = self._at[name]
        with self._open(file) as opened:
            tensor: Tensor = opened.get_tensor(key)
        return tensor

    def rows(self, name: str, numbers: Sequence[int]) -> Tensor:
        """Some rows (row, ...) of a tensor, without the others."""
        file, key = self._at[name]
        with self._open(file) as opened:
            part = opened.get_slice(key)
            return torch.cat([part[number : number + 1] for number in numbers])

    def shape(self, name: str) -> tuple[int, ...]:
        """That of a tensor."""
        file, key = self._at[name]
        with self._open(file) as opened:
            return tuple(opened.get_slice(key).get_shape())

    def only(self, wanted: Callable[[str], bool]) -> "Tensors":
        """Those with the names that are wanted."""
        some = Tensors([])
        some._at = {name: at for name, at in self._at.items() if wanted(name)}
        return some

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)


def digest_of_files(files: Iterable[Path], beside: str = "") -> str:
    """SHA-256 over some text, and names and contents of files in their order."""
    digest = hashlib.sha256(beside.encode())
    for file in files:
        with file.open("rb") as opened:
            digest.update(f"\0{file.name}\0".encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


class _Uninitialised(TorchFunctionMode):
    """Leaves tensors without values as they are where their first values would be drawn.

    torch does that for the meta device in Python, for which it imports its compiler: a second, where this takes none.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in INITIALISING and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def filled(make: Callable[[], Model], tensors: Mapping[str, Tensor], where: str, remedy: str) -> Model:
    """The model that `make` builds, with these tensors in float32, in evaluation mode and without gradients.

    Tensors are taken one at a time.
    Raises ValueError for a model that cannot be made, and naming the tensors that are missing, misshapen, of another
    kind, or unknown.
    """
    try:
        with torch.device("meta"), _Uninitialised():  # shapes only: every value comes from the tensors
            model = make()
    except Exception as error:  # of many kinds: sizes come from files
        raise ValueError(
            f"no model can be made as {where} says ({shown(one_line(error))}); expected {remedy}"
        ) from error
    expected = model.state_dict()
    faults = [f"{key} {tuple(expected[key].shape)} is missing" for key in expected if key not in tensors]
    misshapen, odd = list[str](), list[str]()
    unknown = [f"{shown(key)} is not part of this encoder" for key in tensors if key not in expected]
    values: dict[str, Tensor] = {}
    for key, value in expected.items():
        if key not in tensors:
            continue
        found = tensors[key]
        if found.shape != value.shape:
            misshapen.append(f"{key} is {tuple(found.shape)}, expected {tuple(value.shape)}")
        if value.is_floating_point() and not is_plain(found):
            odd.append(f"{key} holds {found.dtype} ({found.layout}), expected dense floating-point values")
        elif not (faults or misshapen or odd or unknown):
            # Copied: a mapped file may change or vanish under a tensor that still points into it.
            values[key] = found.to(torch.float32, copy=True)
    faults += [*misshapen, *odd, *unknown]
    if faults:
        more = f" and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise ValueError(
            f"the weights in {where} do not fit {type(model).__name__}: {'; '.join(faults[:MAX_FAULTS])}{more}; "
            f"expected {remedy}"
        )
    model.load_state_dict(values, assign=True)
    return model.eval().requires_grad_(False)


def shown(text: str, limit: int = 100) -> str:
    """What a file says as a message may have it: on one line, and short."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has floating-point values, all of them, in memory: none quantised, sparse or without storage."""
    return tensor.is_floating_point() and tensor.layout == torch.strided and tensor.device.type == "cpu"


def _check_index(file: Path) -> None:
    """Raise ValueError for what no checkpoint is, and what would be large before a tensor is looked at."""
    if file.exists() and not file.is_file():
        raise ValueError("no regular file")
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little") if file.suffix == ".safetensors" else 0
    if file.suffix != ".safetensors" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which torch does not do")
        size = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if size > MAX_INDEX_BYTES:
        raise ValueError(f"its index has {size} bytes, more than {MAX_INDEX_BYTES}")


def _damage(file: Path, error: Exception) -> str:
    """What is wrong with a file at which a library raised `error`."""
    if file.suffix == ".safetensors":
        return f"{file.name} is not a whole safetensors file ({_reason(error)}); fetch it again"
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, UnpicklingError) and wanted:
        return (
            f"{file.name} holds {shown(wanted[1])} besides tensors, not unpacked because it could run code; "
            "expected a state dict: if you trust the file, save its weights alone as .safetensors"
        )
    reason = _reason(error)
    if not file.is_file():
        return f"{file.name} is no regular file; expected a .pth or .safetensors file that holds the weights"
    with file.open("rb") as opened:  # a checkpoint of torch is a zip archive or, of old, a pickle
        start = opened.read(2)
    if start == b"PK" and not zipfile.is_zipfile(file):
        reason = "it ends too early"
    elif start != b"PK" and start[:1] not in (b"", b"\x80"):
        reason = "its first bytes are not those of a checkpoint"
    return (
        f"{file.name} is not a whole torch checkpoint ({reason}); fetch it again, or name the .pth or .safetensors "
        "file that holds the weights"
    )


def _reason(error: Exception) -> str:
    """The first sentence of a library's error that speaks of the file."""
    if isinstance(error, LookupError | TypeError | AttributeError | OSError):  # those speak of the library's own doings
        return "its content makes no sense as one"
    return one_line(error).partition(".")[0] if str(error) else "it ends too early"

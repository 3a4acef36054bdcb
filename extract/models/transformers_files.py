"""Model folders as transformers lays them out: config, front end settings, weights -> a model in float32.

Goal: the class that the folder names and every tensor in its place, or an error that says what does not fit; nothing in
the folder is run and nothing is fetched.
Conventions: a folder holds config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin, or the
shards that their .index.json lists.
"""

import importlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ...messages import one_line
from .checkpoint import Tensors, filled, read_checkpoint, shown

# Model type in config.json by the name of our family.
MODEL_TYPES = {
    "ast": "audio-spectrogram-transformer",
    "data2vec": "data2vec-audio",
    "hubert": "hubert",
    "mert": "mert_model",
    "qwen2audio": "qwen2_audio",
    "wav2vec2": "wav2vec2",
    "wavlm": "wavlm",
    "whisper": "whisper",
}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SETTINGS = ("config.json", "preprocessor_config.json")
TOKENIZER = "tokenizer.json"
MAX_JSON_BYTES = 10_000_000
MAX_LAYERS = 1_000
MAX_SIZE = 1_000_000
MAX_SIZES = {
    "rope_theta": 1e9,
    "num_conv_pos_embeddings": 1_000,
    "num_mel_bins": 1_000,
    "max_source_positions": 10_000,
    "max_length": 100_000,
}
"""Largest numbers that a configuration may have, where it is not MAX_SIZE: some times any that is published."""
ROTARY = {"rope_theta", "rope_scaling"}
"""What older releases call parts of `rope_parameters`."""
# What stands beside an encoder that has no prefix of its own: heads, quantiser, the mask of pre-training, the decoder.
_BESIDE = re.compile(
    r"(lm_head|proj_out|projector|classifier|final_proj|quantizer|project_q|project_hid|decoder|model\.decoder)\..+"
    r"|masked_spec_embed|layer_weights|label_embs_concat"
)
# Names of older releases, as the published files have them, and today's.
_RENAMED = (
    (r"\bconv\.weight_g$", "conv.parametrizations.weight.original0"),
    (r"\bconv\.weight_v$", "conv.parametrizations.weight.original1"),
)


def transformers_part(part: str = "") -> ModuleType:
    """The transformers package, or a part of it. Raises ImportError that says how to install it."""
    try:
        return importlib.import_module(f"transformers{part}")
    except ImportError as error:
        raise ImportError(
            f"this encoder needs transformers ({error}); install it in otoscope's checkout: pip install -e '.[hf]'"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a model folder says about itself."""

    path: Path
    config: Mapping[str, Any]
    """config.json."""
    front_end: Mapping[str, Any]
    """preprocessor_config.json."""

    def setting(self, name: str, kind: type = object) -> Any:
        """A front end setting. Raises ValueError where the folder does not state it, or as another type."""
        value: Any = self.front_end.get(name)
        is_other = isinstance(value, bool) != (kind is bool) or not isinstance(value, kind)
        if is_other or (kind is float and not math.isfinite(value)):
            raise ValueError(
                f"{self.path}/preprocessor_config.json has {name} {_short(value)}; expected a {kind.__name__}: "
                "take this file from where the weights were published"
            )
        return value

    def configuration(self, config_class: Any) -> Any:
        """The configuration of a model that config.json describes: the settings that this class of transformers adds.

        What all classes read besides has no part in an encoder: labels, data types, kernels to be fetched.
        Raises ValueError for settings of another type or size than any model has.
        """
        common = {field.name for field in fields(transformers_part().PreTrainedConfig)}
        names = {field.name for field in fields(config_class)} - common
        names |= ROTARY if "rope_parameters" in names else set()
        own = {name: value for name, value in self.config.items() if name in names and "token" not in name}
        file = self.path / "config.json"
        for name, value in own.items():
            limit = MAX_LAYERS if "layers" in name else MAX_SIZES.get(name, MAX_SIZE)
            numbers = value if isinstance(value, list) else [value]
            if len(numbers) > MAX_LAYERS or any(isinstance(n, int | float) and not 0 <= n <= limit for n in numbers):
                raise ValueError(
                    f"{file} has {name} {_short(value)}; expected at most {limit}, and nothing negative: take this "
                    "file from where the weights were published"
                )
        try:
            return config_class.from_dict(own)
        except Exception as error:  # of many kinds, as the values are
            raise ValueError(
                f"{file} does not describe a {config_class.model_type} ({shown(one_line(error, whole=True), 200)}); "
                "take this file from where the weights were published"
            ) from error

    def check_front_end(self, **expected: float) -> None:
        """Raise ValueError where settings of the front end are not these; one of 0 may be left out."""
        stated = {name: self.front_end.get(name) or 0 for name, value in expected.items() if not value}
        found = {
            name: self.setting(name, int) if value else 0 if stated[name] == 0 else _short(stated[name])
            for name, value in expected.items()
        }
        if found != expected:
            raise ValueError(
                f"{self.path}/preprocessor_config.json has {found}; expected {expected}, as the model takes: take both "
                "files from one published model"
            )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the names they have in the files.

        Raises FileNotFoundError where there are none, ValueError for a file that is damaged or holds more than tensors.
        """
        for name in WEIGHTS:
            if files := self._weights(name):
                return {key: value for file in files for key, value in read_checkpoint(file)[0].items()}
        raise FileNotFoundError(f"no weights in {self.path}; expected {' or '.join(WEIGHTS)}")

    def lazy_tensors(self, names: Callable[[str], str | None]) -> Tensors:
        """Tensors of the folder's safetensors files, read when they are asked for. Raises as `tensors`.

        names: as of `Tensors`.
        """
        files = self._weights(WEIGHTS[0])
        if not files:
            raise FileNotFoundError(f"no weights in {self.path}; expected {WEIGHTS[0]}, or its index and shards")
        return Tensors(files, names)

    def _weights(self, name: str) -> list[Path]:
        """The file of weights of this name, or the shards of its index; none where neither is there."""
        index = self.path / f"{name}.index.json"
        if (self.path / name).is_file():
            return [self.path / name]
        if not index.is_file():
            return []
        shards = _shards(index)
        # Names from a file: only those of files in this folder are followed.
        absent = [shard for shard in shards if Path(shard).name != shard or not (self.path / shard).is_file()]
        if absent or not shards:
            listed = ", ".join(map(_short, absent[:3])) or "no files"
            raise FileNotFoundError(f"{index} lists {listed}; expected all shards beside it")
        return [self.path / shard for shard in shards]

    def model(
        self,
        make: Callable[[Any], nn.Module],
        config: Any,
        *,
        prefixes: Iterable[str],
        renamed: Iterable[tuple[str, str]] = (),
    ) -> nn.Module:
        """The model that `make` builds, with this folder's weights, in float32 and evaluation mode.

        make: a class of transformers. config: its configuration, without masking and LayerDrop from here on.
        prefixes: where the encoder may sit in the files, longest first.
        renamed: further (pattern, replacement) from names in the files to the class's own.
        Raises ValueError naming the tensors that are missing, misshapen or unknown.
        """
        for off in ("apply_spec_augment", "output_hidden_states", "output_attentions"):
            setattr(config, off, False)
        for none in ("mask_time_prob", "mask_feature_prob", "layerdrop", "encoder_layerdrop"):
            if hasattr(config, none):
                setattr(config, none, 0.0)
        config.return_dict = True
        tensors, found = self.tensors(), {}
        # With a prefix, all that lacks it is beside the encoder: heads of any class.
        prefix = next((p for p in prefixes if any(key.startswith(p) for key in tensors)), "")
        for key, value in tensors.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and not _BESIDE.fullmatch(name):
                for old, new in (*_RENAMED, *renamed):
                    name = re.sub(old, new, name)
                found[name] = value
        return filled(lambda: make(config), found, str(self.path), "config.json and weights of one published model")


def open_folder(path: str, family: str) -> Folder:
    """The model folder at `path`, if it holds a model of the family.

    A class of another family would load most of the weights and silently leave the rest out.
    Raises FileNotFoundError for files that are not there, ValueError for another model type.
    """
    if not Path(path).is_dir():
        raise FileNotFoundError(
            f"no folder {path}; expected one with config.json, preprocessor_config.json and weights"
        )
    config = _read_json(Path(path, "config.json"))
    found, expected = config.get("model_type"), MODEL_TYPES[family]
    if found != expected:
        ours = [name for name, kind in MODEL_TYPES.items() if kind == found]
        remedy = f"load it as {ours[0]}:{path}" if ours else f"known are {', '.join(MODEL_TYPES)}"
        raise ValueError(f"{path} holds a model of type {_short(found)}; {family}: expects {expected!r}: {remedy}")
    return Folder(path=Path(path), config=config, front_end=_read_json(Path(path, "preprocessor_config.json")))


def files_in(path: str, also: Sequence[str] = ()) -> list[Path]:
    """The files of a model folder that an encoder is made of, as far as they are there. also: further names."""
    folder = Path(path)
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        weights = [name] if (folder / name).is_file() else [index.name, *_shards(index)] if index.is_file() else []
        if weights:
            break
    names = [*SETTINGS, *also, *(name for name in weights if Path(name).name == name)]
    return [folder / name for name in names if (folder / name).is_file()]


def _shards(index: Path) -> list[str]:
    """Names of the files that an index lists. Raises ValueError where it lists something else."""
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(n, str) and len(n) <= 255 for n in listed.values()):
        raise ValueError(f"{index} has no weight_map of names of files; take it from where the weights were published")
    return sorted(set(listed.values()))


def _short(value: Any) -> str:
    return shown(repr(value), 60)


def _read_json(file: Path) -> dict[str, Any]:
    if file.exists() and (not file.is_file() or file.stat().st_size > MAX_JSON_BYTES):
        raise ValueError(f"{file} is no regular file of at most {MAX_JSON_BYTES} bytes; fetch it again")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {file.name} in {file.parent}; expected the folder as it was published, with all its .json files"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({shown(one_line(error))}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}; expected a JSON object")
    return content

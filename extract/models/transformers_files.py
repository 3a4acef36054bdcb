"""Model folders as transformers lays them out: config, front end settings, weights -> a model in float32.

Goal: the class that the folder names and every tensor in its place, or an error that says what does not fit; nothing in
the folder is run and nothing is fetched.
Conventions: a folder holds config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin, or the
shards that their .index.json lists.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from .checkpoint import filled, read_checkpoint

# Model type in config.json by the name of our family.
MODEL_TYPES = {
    "ast": "audio-spectrogram-transformer",
    "data2vec": "data2vec-audio",
    "hubert": "hubert",
    "mert": "mert_model",
    "wav2vec2": "wav2vec2",
    "wavlm": "wavlm",
    "whisper": "whisper",
}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What stands beside an encoder in files of whole models: heads, quantiser, the mask of pre-training, the decoder.
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
            f"this encoder needs transformers ({error}); install it with: pip install 'otoscope[hf]'"
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
        value = self.front_end.get(name)
        if value is None or not isinstance(value, kind):
            raise ValueError(
                f"{self.path}/preprocessor_config.json has {name} {value!r}; expected a {kind.__name__}: "
                "take this file from where the weights were published"
            )
        return value

    def check_front_end(self, **expected: float) -> None:
        """Raise ValueError where settings of the front end are not these; one of 0 may be left out."""
        found = {
            name: self.setting(name, int) if value else self.front_end.get(name) or 0
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
            index = self.path / f"{name}.index.json"
            if (self.path / name).is_file():
                return read_checkpoint(self.path / name)[0]
            if index.is_file():
                shards = sorted(set(_read_json(index).get("weight_map", {}).values()))
                # Names from a file: only those of files in this folder are followed.
                absent = [shard for shard in shards if Path(shard).name != shard or not (self.path / shard).is_file()]
                if absent or not shards:
                    raise FileNotFoundError(f"{index} lists {absent or 'no files'}; expected all shards beside it")
                return {key: value for shard in shards for key, value in read_checkpoint(self.path / shard)[0].items()}
        raise FileNotFoundError(f"no weights in {self.path}; expected {' or '.join(WEIGHTS)}")

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
        prefix = next((p for p in prefixes if any(key.startswith(p) for key in tensors)), "")
        for key, value in tensors.items():
            name = key.removeprefix(prefix)
            if not _BESIDE.fullmatch(name):
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
        raise ValueError(f"{path} holds a model of type {found!r}; {family}: expects {expected!r}: {remedy}")
    return Folder(path=Path(path), config=config, front_end=_read_json(Path(path, "preprocessor_config.json")))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {file.name} in {file.parent}; expected the folder as it was published, with all its .json files"
        ) from None
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}; expected a JSON object")
    return content

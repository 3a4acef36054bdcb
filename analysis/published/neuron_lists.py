"""The neuron lists of the published ablations: YAML files with `int_neurons` and `int_gain`.

Goal: the paper's configurations are used as they are, and sets found here go into the paper's code.
Conventions: `int_neurons` is a list of [layer, neuron], both from 0; `int_gain` multiplies these neurons' activations,
0 switching them off, in all frames. Other keys of a configuration say how its authors' code runs the encoder; they are
kept when a list is written into one, comments are not.
"""

import math
import os
from pathlib import Path
from typing import Any

import yaml

from ...documents import MAX_YAML_BYTES, parse_yaml, read_document
from ...files import whole_file
from ...messages import one_line
from ...store.neurons import NeuronSet

NEURONS, GAIN = "int_neurons", "int_gain"
MODEL = "audio_repr"
STEERED = "ar_m2d.AR_M2D_Steering_Neurons"
LIST_ENDINGS = (".yaml", ".yml")


def read_published_list(path: str | os.PathLike[str]) -> tuple[NeuronSet, float]:
    """The neurons of a published configuration and their gain.

    Raises FileNotFoundError where there is none, ValueError for a file without such a list.
    """
    path = Path(path)
    settings = _settings(path)
    pairs, gain = settings.get(NEURONS), settings.get(GAIN)
    if (
        not isinstance(pairs, list) or not isinstance(gain, int | float) or isinstance(gain, bool)
        or not math.isfinite(gain)
    ):  # fmt: skip
        raise ValueError(
            f"{path} has {NEURONS} {type(pairs).__name__} and {GAIN} {gain!r}; expected a list of [layer, neuron] and "
            "a number: use a configuration of a neuron ablation"
        )
    try:
        neurons = NeuronSet(pairs=tuple(pairs), name=path.name, why={"file": path.name})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return neurons, float(gain)


def write_published_list(
    neurons: NeuronSet, gain: float, path: str | os.PathLike[str], base: str | os.PathLike[str] | None = None
) -> None:
    """Write a set and its gain as such a file.

    base: a configuration whose other settings are taken over, as the authors' m2d.yaml; it then names the model that
        knows gains, so that their code runs it. Without one the file holds the list alone.
    Raises ValueError for a gain that is not finite, FileNotFoundError or ValueError for a base that cannot be read,
    FileNotFoundError for an absent folder.
    """
    if not math.isfinite(gain):
        raise ValueError(f"gain {gain}; expected a finite number, 0 to switch off")
    settings = {} if base is None else {**_settings(Path(base)), MODEL: STEERED}
    settings = {key: value for key, value in settings.items() if key not in (NEURONS, GAIN)}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True) if settings else ""
    pairs = ", ".join(f"[{layer}, {neuron}]" for layer, neuron in neurons)
    with whole_file(path) as partial:
        partial.write_text(f"{text}{GAIN}: {float(gain)}\n{NEURONS}: [{pairs}]\n", encoding="utf-8")


def _settings(path: Path) -> dict[str, Any]:
    """A YAML file of plain values: nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected a configuration in YAML")
    try:
        found = parse_yaml(read_document(path, MAX_YAML_BYTES))
    except ValueError as error:
        raise ValueError(f"{path} is not YAML ({one_line(error, whole=True)[:120]}); expected key: value") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}; expected key: value lines")
    return found

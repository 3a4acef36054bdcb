"""Sweep: what `otoscope sae train` is asked for, as options, as a file, and as `sae.json` holds it.

Goal: one spelling for the command line, `--config FILE` and `sae.json`; whatever trained one SAE trains it again.
Conventions: a config is a mapping of options by name, with `_` for `-`. `state` and the fields of a recipe may have
several values, as a list; the SAEs are all combinations of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from itertools import product
from pathlib import Path
from typing import Any

from ..documents import MAX_BYTES, parse_json, parse_yaml, read_document
from ..store.provenance import MAX_THREADS, Record
from .recipe import RECIPES, Recipe, recipe_named

MAX_ORDER_SEED = 2**31 - 1
MAX_SAES = 10_000
MAX_MEMORY_BYTES = 2**50
YAML = (".yaml", ".yml")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class Setting(Record):
    """What all SAEs of a sweep share but the rows' state."""

    task: str
    state: tuple[int, ...]
    """Numbers of the hidden states, 0 the input of the first transformer layer."""
    group: str = ""
    """Label column: the clips of one of its values are all held out, or none."""
    held_out: float = 0.2
    """Share of the clips that are held out."""
    where: tuple[str, ...] = ()
    """Conditions that clips must satisfy, COLUMN=VALUE or COLUMN!=VALUE."""
    order_seed: int = 0
    """Draws which clips are held out, and the order of the others in each epoch."""
    memory: int | None = None
    """Bytes for the rows of one state; None for a share of what the machine has."""
    threads: int = 1
    """Of the arithmetic."""
    device: str | None = None
    """"cpu", "cuda", ...; None for CUDA where there is one."""

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        ranges = {"order_seed": (0, MAX_ORDER_SEED), "threads": (1, MAX_THREADS), "memory": (1, MAX_MEMORY_BYTES)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}; expected {low} to {high}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out:g}; expected a share above 0 and below 1")
        if not self.state:
            raise ValueError("no state was given; expected the number of a hidden state at least")


@dataclass(frozen=True, kw_only=True)
class Sweep(Setting):
    """SAEs of some states: for each of them one by each recipe."""

    recipes: tuple[Recipe, ...]
    varied: tuple[str, ...] = ()
    """Fields in which the recipes differ, beside sparsity and seed."""

    def each(self) -> Iterator[tuple[int, str, Recipe]]:
        """State, name of the folder and recipe of every SAE, in order."""
        for state, recipe in product(self.state, self.recipes):
            more = "".join(f"-{_shown(name, getattr(recipe, name))}" for name in self.varied)
            yield state, f"state{state}-s{recipe.sparsity}-seed{recipe.seed}{more}", recipe

    def config(self, recipe: Recipe) -> dict[str, Any]:
        """The config of the SAE of the one state that is left, by a recipe."""
        (state,) = self.state
        own = {field.name: getattr(self, field.name) for field in fields(Setting)}
        return {**own, "state": state, "where": list(self.where), **recipe.to_json()}


SETTING = tuple(field.name for field in fields(Setting))
RECIPE = tuple(field.name for field in fields(Recipe))


def sweep_of(config: Mapping[str, Any]) -> Sweep:
    """The sweep that a config asks for.

    Raises ValueError for an option that does not exist or is missing, for values of another type or out of range, and
    for more than 10,000 SAEs.
    """
    if unknown := sorted(set(config) - {*SETTING, *RECIPE}):
        raise ValueError(f"no option {unknown[0]!r} to train by; expected some of {', '.join((*SETTING, *RECIPE))}")
    if missing := {"task", "state"} - set(config):
        raise ValueError(f"{' and '.join(sorted(missing))} not given; expected them on the command line or in --config")
    given = {name: value for name, value in config.items() if value is not None}
    shared: dict[str, Any] = {"held_out": 0.2} | {name: given[name] for name in SETTING if name in given}
    shared |= {name: _listed(shared[name]) for name in ("state", "where") if name in shared}
    shared["held_out"] = _number(shared["held_out"])
    if isinstance(shared.get("memory"), str):
        shared["memory"] = bytes_of(shared["memory"])
    setting = Setting.from_json({**_defaults(Setting), **shared})
    several = {name: _listed(given[name]) for name in RECIPE if name in given}
    several.setdefault("recipe", ["centred"])
    several["lr"] = [_number(value) for value in several.get("lr", [])] or [None]
    for name in ("sparsity", "decay"):  # numbers that are exact, and therefore text
        if name in several:
            several[name] = [_decimal(value) for value in several[name]]
    counts = 1
    for name, values in several.items():
        if not values:
            raise ValueError(f"{name} has no value; expected one at least")
        counts *= len(values)
    if counts * len(setting.state) > MAX_SAES:
        raise ValueError(f"the sweep has {counts * len(setting.state)} SAEs; expected at most {MAX_SAES}")
    recipes = []
    for combined in product(*several.values()):
        one = dict(zip(several, combined, strict=True))
        name = one.pop("recipe")
        if name not in RECIPES:
            raise ValueError(f"no recipe {name!r}; expected one of {', '.join(RECIPES)}")
        one = {field: value for field, value in one.items() if value is not None}
        recipes.append(Recipe.from_json({**recipe_named(name).to_json(), **one}))
    varied = tuple(name for name in RECIPE if len(several.get(name, ())) > 1 and name not in ("sparsity", "seed"))
    shared_fields = {field.name: getattr(setting, field.name) for field in fields(Setting)}
    return Sweep(**shared_fields, recipes=tuple(recipes), varied=varied)


def read_config(path: str | Path) -> dict[str, Any]:
    """The config in a YAML or JSON file, or an `sae.json`. Raises ValueError for any other, OSError as reading."""
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"no file {file}; expected options as YAML or JSON, or an sae.json: check the path")
    try:
        data = read_document(file, MAX_BYTES)
        found = parse_yaml(data) if file.suffix.lower() in YAML else parse_json(data)
        config = found.get("config", found) if isinstance(found, dict) else found
        if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
            raise ValueError("it is no mapping of options")
    except ValueError as error:
        raise ValueError(
            f"{file} is not a valid config ({error}); expected options by name, as YAML or JSON, or an sae.json"
        ) from error
    return {name.replace("-", "_"): value for name, value in config.items()}


def bytes_of(text: str) -> int:
    """A number of bytes such as 4G, 500M or 1000000. Raises ValueError for another text."""
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].upper() in UNITS and text[-1:] else (text, "")
    try:
        return int(Decimal(number) * UNITS[unit])
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a valid memory; expected bytes, such as 500M, 4G or 1000000") from None


def _defaults(record: type[Setting]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(record) if field.name not in ("task", "state")}


def _listed(value: Any) -> list[Any]:
    """Values, each once. Raises ValueError for lists within the list."""
    values = value if isinstance(value, list | tuple) else [value]
    if nested := next((one for one in values if isinstance(one, list | tuple | dict)), None):
        raise ValueError(f"{nested!r} is not a value of an option; expected a number, a name, or a list of such")
    return list(dict.fromkeys(values))


def _number(value: Any) -> Any:
    """Text that YAML does not take for a number, such as 1e-3, as one; anything else as it is."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _decimal(value: Any) -> str:
    """A decimal in one spelling: .95, 0.95 and 0.950 are the same."""
    try:
        return format(Decimal(str(value)).normalize(), "f")
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a valid decimal; expected one such as 0.95") from None


def _shown(name: str, value: Any) -> str:
    """A value of a field as part of a folder's name."""
    field = name.replace("_", "-")
    if isinstance(value, bool):
        return field if value else f"no-{field}"
    return str(value) if isinstance(value, str) else f"{field}{value:g}"

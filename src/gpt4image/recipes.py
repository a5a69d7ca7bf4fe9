"""Recipes: options in a TOML file, every key checked against the options of the stage."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gpt4image.base.errors import ConfigError, first_few, nearest
from gpt4image.base.files import parse_toml
from gpt4image.config import StageConfig

STAGES = ("train", "compare")
Config = TypeVar("Config", bound=StageConfig)


def read_recipe(path: Path, stage: type[StageConfig]) -> dict[str, Any]:
    """Return the options in a recipe, by field name; ``-`` and ``_`` in keys are the same.

    ``extends`` names recipes that this one builds on, relative to itself; [train] and [compare] hold options of one
    stage. Later recipes win over earlier ones, a recipe over those it extends, and a stage's table over the rest of its
    file. Paths of data are relative to the working directory.

    Raises:
        ConfigError: a file is missing, is no TOML, extends itself, has unknown keys (all are named) or a key twice, or
            a value of another type than the option has.
    """
    return _read(path, stage, ())


def _read(path: Path, stage: type[StageConfig], above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"Recipe {path} extends itself: {first_few(map(str, above))} lead to it.")
    table = _by_field(path, _table(path, above))
    bases = table.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"Recipe {path}: extends = {bases!r}: give the path of a recipe, or a list of them.")
    options: dict[str, Any] = {}
    for base in bases:
        options |= _read(path.parent / base, stage, (*above, path.resolve()))
    sections = {name: table.pop(name) for name in STAGES if isinstance(table.get(name), dict)}
    own = sections.get(stage.__name__.removesuffix("Config").lower(), {})
    return options | _checked(path, stage, table | _by_field(path, own))


def _table(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        why = f"; {above[-1]} extends it, and names it relative to itself" if above else ""
        raise ConfigError(f"Recipe {path} does not exist{why}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {error}.") from None


def _by_field(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with ``_`` for ``-`` in its keys. Raises ConfigError: two keys become one."""
    names = [key.replace("-", "_") for key in table]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        both = ", ".join(f"{name.replace('_', '-')} and {name}" for name in twice)
        raise ConfigError(f"Recipe {path}: {both} are the same option, written both ways; keep one of them.")
    return dict(zip(names, table.values(), strict=True))


def _checked(path: Path, stage: type[StageConfig], options: dict[str, Any]) -> dict[str, Any]:
    """Return the values as the stage has them: a path is a Path."""
    known = stage.model_fields.keys() - {"as_json"}
    if unknown := [key for key in options if key not in known]:
        raise ConfigError("\n".join(f"Recipe {path}: {_unknown(key, options[key], known)}" for key in unknown))
    return {key: _value(path, stage, key, value) for key, value in options.items()}


def _unknown(key: str, value: Any, known: Collection[str]) -> str:
    if isinstance(value, dict):
        return f"[{key}] is no table of a recipe; allowed are {' and '.join(f'[{name}]' for name in STAGES)}."
    if key in ("json", "as_json"):
        return f"{key!r} is no key of a recipe: how a result is printed is said by --json on the command line."
    return f"unknown key: {nearest(key, known)}"


def _value(path: Path, stage: type[StageConfig], key: str, value: Any) -> Any:
    """Return the value of one option; types are strict, as in JSON: true is no number, and "yes" is not true."""
    field = stage.model_fields[key]
    of_field = TypeAdapter(Annotated[field.annotation, *field.metadata, None])  # pyright: ignore
    try:
        return of_field.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    except TypeError:  # TOML has dates, JSON and options do not
        reason = "a date is no value of an option"
    raise ConfigError(f"Recipe {path}: {key} = {value!r}: {reason}.")


def load_recipe(path: Path, stage: type[Config], **options: Any) -> Config:
    """Return the configuration of a stage from a recipe; ``options`` win over it."""
    return stage(**(read_recipe(path, stage) | options))

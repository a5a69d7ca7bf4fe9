"""Recipes: options in a TOML file, every key checked against the options of the stage."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gpt4image.config import StageConfig
from gpt4image.errors import ConfigError, first_few, nearest

STAGES = ("train", "compare")
Config = TypeVar("Config", bound=StageConfig)


def read_recipe(path: Path, stage: type[StageConfig]) -> dict[str, Any]:
    """Return the options in a recipe, by field name; ``-`` and ``_`` in keys are the same.

    ``extends`` names one or several recipes beside which this one says only what is different; a table named after a
    stage, [train] or [compare], holds options of that stage alone. Later recipes win over earlier ones, a recipe over
    those it extends, and a stage's table over the rest of its file. Paths of data stay relative to the working
    directory, as on the command line; those in ``extends`` are relative to the recipe.

    Raises:
        ConfigError: a file is missing, is no TOML, extends itself, or has keys that the stage does not know (all are
            named).
    """
    return _read(path, stage, ())


def _read(path: Path, stage: type[StageConfig], above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"Recipe {path} extends itself: {first_few(map(str, above))} lead to it.")
    table = {key.replace("-", "_"): value for key, value in _table(path).items()}
    bases = table.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"Recipe {path}: extends = {bases!r}: give the path of a recipe, or a list of them.")
    options: dict[str, Any] = {}
    for base in bases:
        options |= _read(path.parent / base, stage, (*above, path.resolve()))
    sections = {name: table.pop(name) for name in STAGES if isinstance(table.get(name), dict)}
    own = sections.get(stage.__name__.removesuffix("Config").lower(), {})
    return options | _checked(path, stage, table | {key.replace("-", "_"): value for key, value in own.items()})


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"Recipe {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {error}.") from None


def _checked(path: Path, stage: type[StageConfig], options: dict[str, Any]) -> dict[str, Any]:
    unknown = [key for key in options if key not in stage.model_fields or key == "as_json"]
    if unknown:
        raise ConfigError(
            "\n".join(f"Recipe {path}: unknown key: {nearest(key, stage.model_fields)}" for key in unknown)
        )
    for key, value in options.items():
        field = stage.model_fields[key]
        try:
            TypeAdapter(Annotated[field.annotation, *field.metadata, None]).validate_python(value)  # pyright: ignore
        except ValidationError as error:
            raise ConfigError(f"Recipe {path}: {key} = {value!r}: {error.errors()[0]['msg']}.") from None
    return options


def load_recipe(path: Path, stage: type[Config], **options: Any) -> Config:
    """Return the configuration of a stage from a recipe; ``options`` win over it."""
    return stage(**(read_recipe(path, stage) | options))

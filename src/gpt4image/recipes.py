"""Recipes: options in a TOML file, every key checked against the options of the stage."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gpt4image.config import StageConfig
from gpt4image.errors import ConfigError, nearest

Config = TypeVar("Config", bound=StageConfig)


def read_recipe(path: Path, stage: type[StageConfig]) -> dict[str, Any]:
    """Return the options in a recipe, by field name; ``-`` and ``_`` in keys are the same.

    Relative paths stay relative to the working directory, as on the command line.

    Raises:
        ConfigError: the file is missing, is no TOML, or has keys that the stage does not know (all are named).
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"Recipe {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {error}.") from None
    options = {key.replace("-", "_"): value for key, value in table.items()}
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

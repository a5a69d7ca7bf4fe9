"""What every stage configuration is made of: strict, frozen, and with mistakes explained as ConfigError."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.base.files import parse_json

MOST_THREADS = 1024  # more than machines have cores; libraries crash where they cannot start what is asked
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
JsonTable = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda words: parse_json(words[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda table: [json.dumps(table)],
    ),
]


def listed(value: str) -> tuple[str, ...]:
    """Return the parts of a list written with commas, each once."""
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in value.split(",")))))


def known_list(value: str, known: Collection[str]) -> str:
    """Return a list written with commas, each part once. Raises ValueError: one is not known."""
    for name in (names := listed(value)):
        if name not in known:
            raise ValueError(nearest(name, known))
    return ",".join(names)


class StageConfig(BaseModel):
    """Base of all stage configurations."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    as_json: Annotated[bool, tyro.conf.arg(name="json"), Field(exclude=True)] = False
    """Print the result as one JSON object on standard output."""

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[StageConfig]) -> StageConfig:
        try:
            return handler(value)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain_one(cls, detail) for detail in error.errors())) from None


def flag_of(name: str) -> str:
    """Return an option by its field name as it is given on the command line."""
    return "--" + name.replace("_", "-")


def _explain_one(cls: type[StageConfig], detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"] if not str(part).startswith("function-"))
    flag = flag_of(name)
    if detail["type"] == "extra_forbidden":
        return f"Unknown option: {nearest(name, cls.model_fields)}"
    if detail["type"] == "missing":
        return f"{flag} is required: {cls.model_fields[name].description}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{flag} {message}" if not name else f"{flag} = {detail['input']!r}: {message}."

"""The base of all stage configurations: strict, frozen, and with mistakes explained as ConfigError."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
import errno
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config.types import POSITIONAL, PYTHON

MOST_COUNTED = 2**53  # no option needs a larger number, and libraries fail with those of more than 64 bits
MOST_THREADS = 1024  # more than machines have cores; libraries crash where they cannot start what is asked


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
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        defer_build=True,
    )

    essential: ClassVar[frozenset[str]] = frozenset()
    """Optional ones that --help shows, where it does not show all."""

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        given: dict[str, Any] = value if isinstance(value, dict) else {}
        if unknown := [name for name in given if name not in cls.model_fields]:  # before objects are made SPECs
            raise ConfigError("\n".join(f"Unknown option: {nearest(name, cls.model_fields)}" for name in unknown))
        for name, field in cls.model_fields.items():
            if fault := _unusable(given.get(name), is_path="Path" in str(field.annotation), exact=name == "images"):
                raise ConfigError(fault, field=name)
        try:
            return handler(value)
        except ValidationError as error:
            raise ConfigError.of(_explain_one(cls, detail) for detail in error.errors()) from None

    @classmethod
    def changed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of some options, by field name, that are not at their default, in the order of the class."""
        default = {name: field.get_default(call_default_factory=True) for name, field in cls.model_fields.items()}
        return {name: options[name] for name in default if name in options and options[name] != default[name]}

    @classmethod
    def written(cls) -> dict[str, FieldInfo]:
        """Return the options that a command line or a recipe can give, by field name."""
        return {name: field for name, field in cls.model_fields.items() if PYTHON not in field.metadata}

    @classmethod
    def option(cls, name: str) -> str:
        """Return an option by field name as the command line has it: ``--top-k``, positional ones ``RUN_DIR``."""
        is_word = name in cls.model_fields and POSITIONAL in cls.model_fields[name].metadata
        return name.upper() if is_word else flag_of(name)


def flag_of(name: str) -> str:
    """Return an option by its field name as it is given on the command line."""
    return "--" + name.replace("_", "-")


def _unusable(value: Any, *, is_path: bool, exact: bool) -> str:
    """Return why a text, path or number is none that any option can use; ``exact``: names of files, in any encoding."""
    if isinstance(value, list | tuple):
        return next(filter(None, (_unusable(one, is_path=is_path, exact=exact) for one in value)), "")
    if isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\d{17,400}", value)):
        return f"= {value}: must be at most {MOST_COUNTED}." if abs(int(value)) > MOST_COUNTED else ""
    if not isinstance(value, str | os.PathLike):
        return ""
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        return f"= {text!r}: a zero byte cannot be part of it."
    if text.encode(errors="ignore").decode() != text and not exact:
        return f"= {text!a}: is not valid UTF-8; rename the file or folder."
    if not text and is_path:
        return "is empty; give a path, or leave it out."
    for place in (text, text.partition(":")[2]):  # of a SPEC
        try:
            os.stat(place)  # noqa: PTH116
        except OSError as error:
            if error.errno == errno.ELOOP:
                return f"= {text!r}: its links lead in a circle."
    return ""


def _explain_one(cls: type[StageConfig], detail: Any) -> tuple[str, str]:
    """Return the option that a fault is of, and the fault."""
    parts = [str(part) for part in detail["loc"] if not str(part).startswith("function-")]
    if not parts:
        return "", detail["msg"].removeprefix("Value error, ")
    name = ".".join(parts)
    if detail["type"] == "missing":
        return name, f"is required: {cls.model_fields[parts[0]].description}"
    name = parts[0] if parts[0] in cls.model_fields else name
    if detail["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return name, f"= {nearest(str(detail['input']), allowed)}"
    given, advice = detail["input"], detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    is_number = isinstance(given, str) and re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", given)  # from a shell
    return name, f"= {given if is_number else repr(given)}: {advice}{'' if advice[-1] in '.?' else '.'}"

"""The words of a command line and the keys of recipes as options of a stage; and the help of a command, grouped.

Only words are sorted here. What a value may be is checked by the configuration, for shell, recipe and Python alike.
"""

import argparse
import difflib
import inspect
import json
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from gpt4image.base.errors import ConfigError, first_few, first_line, nearest
from gpt4image.base.files import parse_json, parse_toml
from gpt4image.config.base import StageConfig
from gpt4image.config.types import RARE

METAVARS: dict[Any, str] = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH", dict: "JSON"}
WIDTH = 100
JSON, ABOUT_JSON = "--json", "Print the result as one JSON object on standard output."
STAGES = ("train", "compare")
"""Commands that may have a table of their own in a recipe."""
Config = TypeVar("Config", bound=StageConfig)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of this package."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}.")


def parse(usage: str, kind: type[StageConfig], words: Sequence[str], recipe: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the configuration that the words of a command line give, and whether they ask for JSON.

    They win over the options of ``recipe``.

    Raises ConfigError: an option is unknown or lacks its value, or a value is none that it may have.
    """
    parser = _parser(usage, kind, everything=True)
    try:
        found, unknown = parser.parse_known_intermixed_args([_with_dashes(word) for word in words])
    except argparse.ArgumentError as error:
        wants = error.message.replace("expected one argument", "give a value after it")
        raise ConfigError(f"{error.argument_name}: {wants}. See `{parser.prog} --help`.") from None
    if unknown:
        word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
        close = difflib.get_close_matches(word, [kind.option(name) for name in kind.written()], n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        what = f"Unknown option {word}" if word.startswith("-") else f"{word!r} belongs to no option"
        raise ConfigError(f"{what}. {hint}`{parser.prog} --help-all` lists all options.")
    given = {key: value for key, value in vars(found).items() if value not in (None, []) and key != "as_json"}
    return kind(**{**recipe, **given}), found.as_json


def help_text(usage: str, kind: type[StageConfig], *, everything: bool) -> str:
    """Return the help of a command: what everybody needs, or with ``everything`` all options."""
    return _parser(usage, kind, everything=everything).format_help().rstrip()


def _parser(usage: str, kind: type[StageConfig], *, everything: bool) -> _Parser:
    columns = min(WIDTH, shutil.get_terminal_size().columns)
    command = usage.removesuffix(" [RECIPE.toml]")
    needed = [name for name, field in kind.written().items() if field.is_required()]
    first = kind.essential | set(needed)
    rare = sum(RARE in field.metadata for field in kind.written().values())
    more = f"{command} --help-all lists {len(kind.written()) - rare} options; docs/reference/cli.md has {rare} more."
    is_short = bool(kind.essential) and not everything
    required = (f"{flag} {name.upper()}" if (flag := kind.option(name))[0] == "-" else flag for name in needed)
    about, _, example = inspect.cleandoc(kind.__doc__ or "").partition("Example: ")
    parts = [textwrap.fill(part, columns) for part in about.strip().split("\n\n")]
    parser = _Parser(
        prog=command,
        usage=textwrap.fill(" ".join([usage, *required, "[OPTIONS]"]), columns - len("usage: ")),
        description="\n\n".join([*parts, f"Example: {' '.join(example.split())}"]),
        epilog=more if is_short else None,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=columns),
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    for title, names in _groups(kind, first).items():
        group = parser.add_argument_group(title)
        for name in names:
            shown = RARE not in kind.model_fields[name].metadata and (not is_short or name in first)
            _add(group, kind, name, shown=shown)
    parser.add_argument_group("output").add_argument(JSON, action="store_true", dest="as_json", help=ABOUT_JSON)
    return parser


def _groups(kind: type[StageConfig], first: frozenset[str] | set[str]) -> dict[str, list[str]]:
    """Return the options by title: those that everybody needs, then by the class that has them."""
    start: list[str] = []
    groups = {"what everybody needs" if kind.essential else "options": start}
    for name in kind.written():
        if not kind.essential or name in first:
            start.append(name)
            continue
        owner = next(each for each in reversed(kind.__mro__) if name in inspect.get_annotations(each))
        doc = inspect.cleandoc(owner.__doc__ or "").splitlines()[0].rstrip(".")
        title = "this command" if owner is kind else doc[:1].lower() + doc[1:]
        groups.setdefault(title, []).append(name)
    return groups


def _add(group: Any, kind: type[StageConfig], name: str, *, shown: bool) -> None:
    field, option = kind.model_fields[name], kind.option(name)
    about = " ".join((field.description or "").split()) + _default(field.get_default())
    how: dict[str, Any] = {"help": about.replace("%", "%%") if shown else argparse.SUPPRESS}
    kinds = _kinds(field.annotation)
    if bool in kinds and field.default:
        group.add_argument(option, dest=name, action=argparse.BooleanOptionalAction, **how)
        return
    if bool in kinds:  # --no-NAME turns off what a recipe has turned on
        group.add_argument(option, dest=name, action="store_const", const=True, **how)
        off = option.replace("--", "--no-", 1)
        group.add_argument(off, dest=name, action="store_const", const=False, help=argparse.SUPPRESS)
        return
    how["metavar"] = metavar(kind, name)
    if dict in kinds:
        how["type"] = _json
    if option.isupper():
        group.add_argument(name, nargs="*" if tuple in kinds else "?", **how)
        return
    if tuple in kinds:
        how |= {"nargs": "+", "action": "extend"}
        if "|" in how["metavar"]:  # the choices once: argparse names a value twice
            how["metavar"] = (how["metavar"], name.upper())
    group.add_argument(option, dest=name, **how)


def _kinds(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is None:
        return [annotation]
    if origin is Literal or origin is dict:
        return [origin]
    inner = [kind for part in get_args(annotation)[: 1 if origin is Annotated else None] for kind in _kinds(part)]
    return [tuple, *inner] if origin is tuple else inner


def choices(annotation: Any) -> list[str]:
    """Return the values that a type allows; none where it allows any."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def metavar(kind: type[StageConfig], name: str) -> str:
    """Return what stands for the value of an option in the help: its choices, or a word for its type."""
    field = kind.model_fields[name]
    if known := choices(field.annotation):
        return "|".join(known)
    if kind.option(name).isupper():
        return kind.option(name)
    if "SPEC" in (field.description or ""):
        return "SPEC"
    return next((METAVARS[each] for each in _kinds(field.annotation) if each in METAVARS), "VALUE")


def _default(value: Any) -> str:
    if value in (None, False, "", (), {}) or value is PydanticUndefined:
        return ""
    shown = " ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    return f" (default: {'on' if value is True else shown})"


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON ({error}); quote it: '{{\"name\": 1}}'") from None


def command_line(name: str, kind: type[StageConfig], options: Mapping[str, Any]) -> str:
    """Return a command as it is typed: positional words first, then the options that are not at their default."""
    words, flags = list[str](), list[str]()
    for key, value in kind.changed(options).items():
        option = kind.option(key)
        value = json.dumps(value) if isinstance(value, dict) else value
        values = [str(each) for each in value] if isinstance(value, tuple) else [str(value)]
        if option.isupper():
            words += values
        elif isinstance(value, bool):
            flags.append(option if value else option.replace("--", "--no-", 1))
        else:
            flags += [option, *values]
    return shlex.join(["gpt4image", *name.split(), *words, *flags])


def _with_dashes(word: str) -> str:
    option, sign, value = word.partition("=")
    return option.replace("_", "-") + sign + value if word.startswith("--") else word


def read_recipe(path: Path, stage: type[StageConfig], above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the options in a recipe, by field name; ``-`` and ``_`` in keys are the same.

    ``extends`` names recipes that this one builds on, relative to itself; [train] and [compare] hold options of one
    stage. Later recipes win over earlier ones, a recipe over those it extends, and a stage's table over the rest of its
    file; variants add up. Paths of data are relative to the working directory; ``above`` are recipes that extend it.
    Raises ConfigError: a file is missing, is no TOML, extends itself or has unknown keys or values.
    """
    if path.resolve() in above:
        raise ConfigError(f"Recipe {path} extends itself: {first_few(map(str, above))} lead to it.")
    try:
        table = _by_field(parse_toml(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        why = f"; {above[-1]} extends it, and names it relative to itself" if above else ""
        raise ConfigError(f"Recipe {path} does not exist{why}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {first_line(error)}.") from None
    bases = table.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"Recipe {path}: extends = {bases!r}: give the path of a recipe, or a list of them.")
    options: dict[str, Any] = {}
    for base in bases:
        options |= read_recipe(path.parent / base, stage, (*above, path.resolve()))
    sections = {name: table.pop(name) for name in STAGES if isinstance(table.get(name), dict)}
    given = table | _by_field(sections.get(stage.__name__.removesuffix("Config").lower(), {}))
    if unknown := [key for key in given if key not in stage.written()]:
        known = (f"Recipe {path}: unknown key: {nearest(key, stage.written())}" for key in unknown)
        raise ConfigError("\n".join(known))
    own = {key: _value(path, stage, key, value) for key, value in given.items()}
    both = options.get("variants", {}) | own.get("variants", {})
    return options | own | ({"variants": both} if both else {})


def _by_field(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


def _value(path: Path, stage: type[StageConfig], key: str, value: Any) -> Any:
    """Return the value of one option; types are strict, as in JSON: true is no number, and "yes" is not true."""
    field = stage.model_fields[key]
    of_field = TypeAdapter(Annotated[field.annotation, *field.metadata, None])  # pyright: ignore
    try:
        return of_field.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(f"Recipe {path}: {key} = {value!r}: {error.errors()[0]['msg']}.") from None


def load_recipe(path: Path, stage: type[Config], **options: Any) -> Config:
    """Return the configuration of a stage from a recipe; ``options`` win over it."""
    return stage(**(read_recipe(path, stage) | options))

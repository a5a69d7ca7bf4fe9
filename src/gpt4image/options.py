"""The words of a command line as options of a stage, by argparse; and the help of a command, grouped.

Only words are sorted here. What a value may be is checked by the configuration, for shell, recipe and Python alike.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

from pydantic_core import PydanticUndefined

from gpt4image.base.errors import ConfigError
from gpt4image.base.files import parse_json
from gpt4image.config.base import StageConfig

METAVARS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH", dict: "JSON"}
WIDTH = 100


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of this package."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}.")


def parse(usage: str, kind: type[StageConfig], words: Sequence[str], recipe: Mapping[str, Any]) -> StageConfig:
    """Return the configuration that the words of a command line give; they win over the options of ``recipe``.

    Raises:
        ConfigError: an option is unknown or lacks its value, or a value is none that it may have.
    """
    parser = _parser(usage, kind, everything=True)
    try:
        found, unknown = parser.parse_known_intermixed_args([_with_dashes(word) for word in words])
    except argparse.ArgumentError as error:
        name = (error.argument_name or "").split("/")[-1]
        wants = error.message.replace("expected one argument", "give a value after it")
        raise ConfigError(f"{name}: {wants}. See `{parser.prog} --help`.") from None
    if unknown:
        raise ConfigError(_unknown(parser, kind, unknown))
    given = {key: value for key, value in vars(found).items() if value not in (None, [])}
    return kind(**{**recipe, **given})


def require_inputs(config: StageConfig) -> None:
    """Refuse paths to what a command reads where there is nothing, in the words of the stage.

    Stages load libraries for seconds before they look.

    Raises:
        Gpt4ImageError: as the stage.
    """
    from gpt4image.artifacts import runs
    from gpt4image.artifacts.run_records import COMPARISON, require_recorded_folder
    from gpt4image.artifacts.store_file import require_store
    from gpt4image.artifacts.table import read_manifest
    from gpt4image.artifacts.text_labels import TextLabels
    from gpt4image.data import require_there

    given: Any = {name: getattr(config, name) for name in type(config).model_fields}
    if given.get("resume") and runs.is_finished(given["out"]):
        return  # nothing is read again
    if isinstance(data := given.get("data"), str) and data:
        require_there(data)
    folder = given.get("run_dir")
    if folder is not None and not (runs.is_finished(folder) or (folder / COMPARISON).is_file()):
        runs.read_run(folder)
    readers: dict[str, Callable[[Path], Any]] = {
        "embeddings": read_manifest,
        "answers": require_store,
        "text_labels": TextLabels.load,
        "teacher": runs.read_run,
        "dir": require_recorded_folder,
        "model": runs.require_model,
    }
    if "seeds" in given:  # a comparison takes no text labels
        del readers["text_labels"]
    if "batch_tokens" in given:  # encode reads the store that others make
        readers["store"] = require_store
    for name, read in readers.items():
        if isinstance(path := given.get(name), Path) and not path.exists():
            read(path)


def help_text(usage: str, kind: type[StageConfig], *, everything: bool) -> str:
    """Return the help of a command: what everybody needs, or with ``everything`` all options."""
    return _parser(usage, kind, everything=everything).format_help().rstrip()


def _parser(usage: str, kind: type[StageConfig], *, everything: bool) -> _Parser:
    columns = min(WIDTH, shutil.get_terminal_size().columns)
    command = usage.removesuffix(" [RECIPE.toml]")
    first = kind.essential | {name for name, field in kind.model_fields.items() if field.is_required()}
    is_short = bool(kind.essential) and not everything
    required = " ".join(
        option if option.isupper() else f"{option} {metavar(kind, name)}"
        for name, field in kind.model_fields.items()
        if field.is_required()
        for option in [kind.option(name)]
    )
    parser = _Parser(
        prog=command,
        usage=f"{usage} {required + ' ' if required else ''}[OPTIONS]",
        description=_folded(inspect.cleandoc(kind.__doc__ or ""), columns),
        epilog=f"{command} --help-all lists all {len(kind.model_fields)} options." if is_short else None,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=columns),
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=None,
    )
    for title, names in _groups(kind, first).items():
        group = parser.add_argument_group(title)
        for name in names:
            _add(group, kind, name, shown=not is_short or name in first)
    return parser


def _folded(text: str, columns: int) -> str:
    """Return a docstring with no line wider than ``columns``; an example can still be pasted into a shell."""
    parts: list[str] = []
    for part in text.split("\n\n"):
        example = part.startswith("Example:")
        lines = [""]
        for word in re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", part) if example else part.split():
            if lines[-1] and len(lines[-1]) + 1 + len(word) > columns - 2 * example:
                lines.append(" " if example else "")
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
        parts.append((" \\\n" if example else "\n").join(lines))
    return "\n\n".join(parts)


def _groups(kind: type[StageConfig], first: frozenset[str] | set[str]) -> dict[str, list[str]]:
    """Return the options by title: those that everybody needs, then by the class that has them."""
    groups: dict[str, list[str]] = {"what everybody needs" if kind.essential else "options": []}
    start = next(iter(groups.values()))
    for name in sorted(kind.model_fields, key=lambda name: name == "as_json"):
        owner = next(each for each in reversed(kind.__mro__) if name in inspect.get_annotations(each))
        if not kind.essential or name in first:
            start.append(name)
            continue
        doc = inspect.cleandoc(owner.__doc__ or "").splitlines()[0].rstrip(".")
        title = "output" if owner is StageConfig else "this command" if owner is kind else doc[:1].lower() + doc[1:]
        groups.setdefault(title, []).append(name)
    return groups


def _add(group: Any, kind: type[StageConfig], name: str, *, shown: bool) -> None:
    field, option = kind.model_fields[name], kind.option(name)
    about = " ".join((field.description or "").split()).replace("%", "%%") + _default(field.get_default())
    about = about if shown else argparse.SUPPRESS
    kinds = _kinds(field.annotation)
    if bool in kinds and field.default:
        group.add_argument(option, dest=name, action=argparse.BooleanOptionalAction, help=about)
        return
    if bool in kinds:  # --no-NAME turns off what a recipe has turned on
        off = option.replace("--", "--no-", 1)
        group.add_argument(option, dest=name, action="store_const", const=True, help=about)
        group.add_argument(off, dest=name, action="store_const", const=False, help=argparse.SUPPRESS)
        return
    how: dict[str, Any] = {"help": about, "metavar": metavar(kind, name)}
    if dict in kinds:
        how["type"] = _json
    if tuple in kinds:
        how |= {"nargs": "*"} if option.isupper() else {"nargs": "+", "action": "extend"}
        if "|" in how["metavar"]:  # the choices once: argparse names a value twice
            how["metavar"] = (how["metavar"], name.upper())
    elif option.isupper():
        how["nargs"] = "?"
    group.add_argument(
        *([name] if option.isupper() else [option]), **how, **({} if option.isupper() else {"dest": name})
    )


def _kinds(annotation: Any) -> list[Any]:
    """Return the types that an annotation is made of: tuple and str of ``tuple[str, ...] | None``."""
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
    if value is True:
        return " (default: on)"
    if value in (None, False, "", (), {}) or value is PydanticUndefined:
        return ""
    shown = " ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    return f" (default: {shown})".replace("%", "%%")


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON ({error}); quote it: '{{\"name\": 1}}'") from None


def _with_dashes(word: str) -> str:
    """Return a word of the command line, an option of it with dashes: ``--val_fraction`` is ``--val-fraction``."""
    option, sign, value = word.partition("=")
    return option.replace("_", "-") + sign + value if word.startswith("--") else word


def _unknown(parser: argparse.ArgumentParser, kind: type[StageConfig], words: Sequence[str]) -> str:
    """Return what is wrong with words that are no option of a command."""
    word = next((word for word in words if word.startswith("-")), None)
    if word is None:
        kinds = "; a recipe ends with .toml" if "[RECIPE.toml]" in (parser.usage or "") else ""
        return f"{words[0]!r} belongs to no option of `{parser.prog}`{kinds}. See `{parser.prog} --help`."
    word = word.partition("=")[0]
    options = [kind.option(name) for name in kind.model_fields if not kind.option(name).isupper()]
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"Unknown option {word}. {hint}`{parser.prog} --help-all` lists all options."

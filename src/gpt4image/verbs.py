"""The commands as functions: ``gpt4image.train(data="photos", out="run")`` is ``gpt4image train`` with these options.

Options are checked by the same configuration; signature, documentation and the stub ``__init__.pyi`` follow from it.
Objects of Python (images, functions, modules) become SPECs. Errors and help speak of ``out=``, not ``--out``.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from gpt4image.base.errors import ConfigError, Gpt4ImageError, nearest
from gpt4image.base.outcome import Outcome, Row, Skipped
from gpt4image.cli import COMMANDS
from gpt4image.config import StageConfig, results
from gpt4image.config.results import PredictResult
from gpt4image.next_steps import call, with_next
from gpt4image.options import parse

VERBS = {name.replace("-", "_"): name for name in COMMANDS if " " not in name}
"""The command of each function."""
RESULTS = {verb: f"{name.title().replace('-', '')}Result" for verb, name in VERBS.items()} | {"demo": "CompareResult"}
"""The class of what each returns, in ``config.results``."""
_PLOTS = {"train": "run", "compare": "comparison", "demo": "comparison", "evaluate": "classes"}
PLOTS = {verb: f"reporting.charts:plot_{what}" for verb, what in _PLOTS.items()}
GIVEN = {
    "data": "data.given:dataset",
    "describer": "describing.describers.function:describer",
    "model": "models.backbones:given_model",
}
"""Options that take an object too, with what gives the SPEC that stands for it."""
TYPES = {
    "data": "Data",
    "describer": "Describer",
    "images": "Images",
    "model": "Model",
    "classes": "StrPath | Sequence[str]",
    "init": "StrPath",
}
"""The types of options that are texts for the command line, and may be more here."""
ALIASES = {
    "StrPath": "str | Path",
    "Data": "str | Path | (images, labels) | DataFrame",
    "Describer": "str | Callable[[Image, str], str | Mapping] | (name, Callable)",
    "Images": "str | Path | Image | NDArray | Sequence of these | DataFrame",
    "Model": "str | nn.Module",
}
"""Names of types in the stub, in words for ``help``."""
ABOUT = {
    ("predict", "images"): "Paths of files and folders, patterns ('photos/**/*.jpg'), PIL pictures, arrays of uint8, "
    "several of these, or a DataFrame with a column path or image.",
    ("predict", "out"): "File of the predictions. Default: none; they are `.rows` of the result.",
}
"""Help of options that do something else here than on the command line."""
_TASK = ("Task | None", "A task of your own, where the registry has none of its name.")
_MODEL = ("Module | None", "The module that was trained, where `train` was given one in another process.")
_ON_EPOCH = (
    "Callable[[Epoch], bool | None] | None",
    "Function that is told each epoch when it has ended; where it returns False, training ends.",
)
OBJECTS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "train": {"task": _TASK, "on_epoch": _ON_EPOCH},
    "evaluate": {"task": _TASK, "model": _MODEL},
    "compare": {"task": _TASK},
    "export": {"task": _TASK, "model": _MODEL},
    "predict": {"task": _TASK},
    "search": {"model": _MODEL},
}
"""Parameters of a function that the command lacks: type and help."""
_FLAG = re.compile(
    r"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?: = | (?=['\"\d/~{.]|[A-Z_]{2,}\b|\w+:|[^\s]*[/_\d]))?"
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function: its type and default as Python, and what it does. ``default`` is "" without one."""

    name: str
    kind: str
    default: str
    about: str
    positional: bool


def config_of(name: str) -> Any:
    """Return the configuration class of a function."""
    return getattr(importlib.import_module("gpt4image.config"), COMMANDS[VERBS[name]].config)


def verb(name: str) -> Callable[..., Outcome]:
    """Return the function of a command: it takes options as keywords, and the words of the command line by place."""

    def function(*given: Any, **options: Any) -> Outcome:
        kind = config_of(name)
        try:
            with ExitStack() as held:
                return _called(name, kind, given, options, held)
        except Gpt4ImageError as error:
            error.args = (in_python(str(error), kind), *error.args[1:])
            raise

    function.__name__ = function.__qualname__ = name
    function.__module__ = "gpt4image"
    function.__doc__ = documentation(name)
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                each.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD if each.positional else inspect.Parameter.KEYWORD_ONLY,
                default=_Text(each.default) if each.default else inspect.Parameter.empty,
                annotation=_Text(in_words(each.kind)),
            )
            for each in parameters(name)
        ],
        return_annotation=_Text(RESULTS[name]),
    )
    return function


class _Text(str):
    """A text that ``help`` shows as it is, in place of a type or a default."""

    __slots__ = ()
    __repr__ = str.__str__


def _called(name: str, kind: Any, given: Sequence[Any], options: Mapping[str, Any], held: ExitStack) -> Outcome:
    """Check the options, call the stage and add the next step; ``held`` keeps files of images in memory meanwhile."""
    # Objects go to the stage beside its configuration; a task by its name is an option.
    passed = {key: options[key] for key in OBJECTS.get(name, {}) if options.get(key) is not None}
    passed = {key: value for key, value in passed.items() if not (key == "task" and isinstance(value, str))}
    own = {key: value for key, value in options.items() if key not in passed}
    renamed: Mapping[str, str] = {}
    if wrong := [key for key in own if key not in kind.model_fields]:  # before pictures in memory become files
        raise ConfigError("\n".join(f"Unknown option: {nearest(key, kind.model_fields)}" for key in wrong))
    if given and isinstance(given[0], StageConfig):
        config: Any = given[0].model_copy(update=own)
    else:
        by_place = [key for key in kind.model_fields if kind.option(key).isupper()]
        if len(given) > len(by_place) or set(by_place[: len(given)]) & own.keys():
            raise TypeError(f"positional arguments are {', '.join(by_place) or 'none'}; all others are keywords")
        words = {**dict(zip(by_place, given, strict=False)), **own}
        if name == "compare" and not isinstance(words.get("model"), str | NoneType):
            raise ConfigError(
                "--model of a comparison is a name, as its runs are trained in processes of their own. Train a module "
                "with `gpt4image train`, once for each arm."
            )
        if name == "predict" and "images" in words:
            from gpt4image.data.given import as_files

            words["images"], renamed = held.enter_context(as_files(words["images"]))
            if renamed and words.get("out") is not None:
                raise ConfigError(
                    "--out names images by their files, and these have none; write `.rows` of the result."
                )
        config = kind(**{key: _plain(kind, key, value) for key, value in words.items()})
    _call("data:require_apart", config)
    if "model" in passed:
        _call(GIVEN["model"], passed.pop("model"))
    if name == "predict":
        passed["keep"] = True
    found: Outcome = _call(COMMANDS[VERBS[name]].stage, config, **passed)
    if isinstance(found, PredictResult) and renamed:  # images in memory by their number, not by a file of meanwhile
        rows = [{**row, "image": renamed.get(row["image"], row["image"])} for row in found.rows]
        skipped = tuple(Skipped(name=renamed.get(item.name, item.name), reason=item.reason) for item in found.skipped)
        found = replace(found, read_rows=partial(list[Row], rows), skipped=skipped)
    found = with_next(name, found, config, python=True)
    plots = found.path is not None and name in PLOTS
    return replace(found, drawing=partial(_call, PLOTS[name], found.path) if plots else None)


def _call(where: str, *arguments: Any, **options: Any) -> Any:
    """Call a function of this package by MODULE:FUNCTION; it is imported now."""
    module, _, function = where.partition(":")
    return getattr(importlib.import_module(f"gpt4image.{module}"), function)(*arguments, **options)


def _plain(kind: Any, name: str, value: Any) -> Any:
    """Return a value as the configuration has it: a SPEC for an object, text for a path, one thing as a list of one."""
    annotation = str(kind.model_fields[name].annotation) if name in kind.model_fields else ""
    if isinstance(value, Path) and "Path" not in annotation:
        value = str(value)
    if name in GIVEN and "str" in annotation and not isinstance(value, str | NoneType):
        return _call(GIVEN[name], value)
    if annotation.startswith("tuple[") and isinstance(value, str | Path):
        value = (value,)
    if annotation.startswith("tuple[str") and isinstance(value, list | tuple):
        value = tuple(str(each) if isinstance(each, Path) else each for each in value)
    return value


def parameters(name: str) -> list[Parameter]:
    """Return the parameters of a function, positional ones first."""
    kind = config_of(name)
    found: list[Parameter] = []
    for key, field in kind.model_fields.items():
        if key == "as_json":
            continue
        of_text = get_args(field.annotation) in ((str, NoneType), (str, ...)) or field.annotation is str
        typed = type_text(field.annotation)
        if key in TYPES and of_text and (name, key) != ("compare", "model"):
            typed = TYPES[key] + (" | None" if NoneType in get_args(field.annotation) else "")
        value = field.get_default(call_default_factory=True)
        default = "" if field.is_required() else repr(str(value) if isinstance(value, Path) else value)
        default = "..." if len(default) > 60 else default
        about = ABOUT.get((name, key)) or in_python(" ".join((field.description or "").split()), kind)
        found.append(Parameter(key, typed, default, about, kind.option(key).isupper()))
    own = {each.name: each for each in found}
    for key, (typed, about) in OBJECTS.get(name, {}).items():
        if key in own:  # as the task of train, which may be a name
            typed, about = f"{own[key].kind} | {typed.removesuffix(' | None')}", f"{own[key].about} {about}"
            found[found.index(own[key])] = replace(own[key], kind=typed, about=about)
        else:
            found.append(Parameter(key, typed, "None", about, positional=False))
    return sorted(found, key=lambda each: not each.positional)


def type_text(annotation: Any) -> str:
    """Return the type of an option as Python writes it: what may be given, not what it becomes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, inner))}]"
    if origin is tuple:
        return f"{type_text(inner[0])} | Sequence[{type_text(inner[0])}]"
    if origin is dict:
        return "Mapping[str, Any]"
    if inner:
        return " | ".join(dict.fromkeys(map(type_text, inner)))
    return {Path: "StrPath", NoneType: "None"}.get(annotation) or annotation.__name__


def in_words(kind: str) -> str:
    """Return a type with the names of the stub in words."""
    return re.sub(r"\w+", lambda word: ALIASES.get(word[0], word[0]), kind)


def documentation(name: str) -> str:
    """Return the docstring of a function: what it does, an example, its parameters and its result."""
    command, kind = COMMANDS[VERBS[name]], config_of(name)
    about, _, example = inspect.cleandoc(kind.__doc__).partition("Example: ")
    given = parse("", kind, shlex.split(example)[2:], {})
    rows = [
        f"    {each.name} ({in_words(each.kind)}{', optional' if each.default else ''}): {each.about}"
        for each in parameters(name)
    ]
    return "\n".join(
        [
            f"{command.about[0].upper()}{command.about[1:]}: ``gpt4image {VERBS[name]}`` as a function.",
            "",
            in_python(about.strip(), kind),
            "",
            f"Example: {call(VERBS[name], {key: getattr(given, key) for key in kind.model_fields})}",
            "",
            "Args:",
            *rows,
            "",
            "Returns:",
            f"    {RESULTS[name]}: {inspect.cleandoc(getattr(results, RESULTS[name]).__doc__).splitlines()[0]}",
        ]
    )


def in_python(message: str, kind: Any = None) -> str:
    """Return a message in Python's words: ``--val-fraction`` becomes ``val_fraction=``; commands stay commands."""
    parts = re.split(r"(`[a-z][a-z0-9-]* [^`]*`)", message)
    parts[::2] = [_FLAG.sub(lambda flag: flag[1].replace("-", "_") + "=", part) for part in parts[::2]]
    message = "".join(parts)
    for name in kind.model_fields if kind else ():
        if (option := kind.option(name)).isupper():
            message = re.sub(rf"^{option}\b(?: =)?(?= is required| )", f"{name}=", message, flags=re.MULTILINE)
    return re.sub(r"(?<=[a-z]=) (?='|\")", "", message)

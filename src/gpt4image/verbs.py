"""The commands as functions: ``gpt4image.train(data="photos", out="run")`` is ``gpt4image train`` with these options.

One wrapper serves them all. Options are checked by the same configuration, and errors speak of ``out=`` instead of
``--out``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.outcome import Outcome
from gpt4image.cli import COMMANDS, CONFIG_TYPES
from gpt4image.config import StageConfig
from gpt4image.next_steps import with_next
from gpt4image.options import require_inputs

VERBS = tuple(name for name in COMMANDS if " " not in name)
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")


def verb(name: str) -> Callable[..., Outcome]:
    """Return the function of a command: it takes options as keywords, and the ``task`` where the stage takes one."""
    command = COMMANDS[name]
    config_type: Any = getattr(importlib.import_module("gpt4image.config"), command.config)

    def call(*given: Any, task: Any = None, **options: Any) -> Outcome:
        module, function = command.stage.split(":")
        if isinstance(task, str):  # a name is an option; anything else is a task of one's own
            task, options = None, {**options, "task": task}
        try:
            config = _config(config_type, given, options)
            require_inputs(config)
            stage = getattr(importlib.import_module(f"gpt4image.{module}"), function)
            importlib.import_module("gpt4image.data").require_apart(config)
            outcome = stage(config) if task is None else stage(config, task=task)
        except Gpt4ImageError as error:
            error.args = (in_python(str(error), config_type), *error.args[1:])
            raise
        outcome = with_next(name, outcome, config, config_types=CONFIG_TYPES, python=True)
        return replace(outcome, drawing=_drawing(name, outcome.path))

    keyword = inspect.Parameter.KEYWORD_ONLY
    fields = {key: field for key, field in config_type.model_fields.items() if key != "as_json"}
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{command.about.capitalize()}: ``gpt4image {name}`` as a function.\n\n{config_type.__doc__}"
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                key, keyword, default=inspect.Parameter.empty if field.is_required() else field.get_default()
            )
            for key, field in fields.items()
        ]
    )
    return call


def _config(kind: Any, given: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Return the configuration of a call: one that is given, with other options, or positional words and keywords.

    Raises:
        ConfigError: an option is wrong.
        TypeError: there are more positional arguments than the command has, or one is given twice.
    """
    if given and isinstance(given[0], StageConfig):
        return given[0].model_copy(update=dict(options))
    names = [name for name in kind.model_fields if kind.option(name).isupper()]
    if len(given) > len(names) or set(names[: len(given)]) & options.keys():
        raise TypeError(f"positional arguments are {', '.join(names) or 'none'}; all others are keywords")
    words = {**dict(zip(names, given, strict=False)), **options}
    return kind(**{name: _plain(kind, name, value) for name, value in words.items()})


def _plain(kind: Any, name: str, value: Any) -> Any:
    """Return a value as the configuration has it: a path as text where text is meant, one thing as a list of one."""
    annotation = str(kind.model_fields[name].annotation) if name in kind.model_fields else ""
    if isinstance(value, Path) and "Path" not in annotation:
        value = str(value)
    if annotation.startswith("tuple[") and isinstance(value, str | Path):
        value = (value,)
    if annotation.startswith("tuple[str") and isinstance(value, list | tuple):
        value = tuple(str(each) if isinstance(each, Path) else each for each in value)
    return value


def _drawing(name: str, path: Path | None) -> Callable[[], Any] | None:
    """Return what draws the result of a command; matplotlib is loaded only when it is asked for."""
    plot = {"train": "plot_run", "compare": "plot_comparison", "demo": "plot_comparison", "evaluate": "plot_classes"}
    return None if path is None or name not in plot else partial(_draw, plot[name], path)


def _draw(function: str, path: Path) -> Any:
    return getattr(importlib.import_module("gpt4image.reporting.plots"), function)(path)


def in_python(message: str, config_type: Any = None) -> str:
    """Return a message with options as keywords: ``--val-fraction`` becomes ``val_fraction=``."""
    message = _FLAG.sub(lambda flag: flag[1].replace("-", "_") + "=", message)
    for name in config_type.model_fields if config_type else ():
        if (option := config_type.option(name)).isupper():
            message = re.sub(rf"^{option}\b(?= is required| = )", f"{name}=", message, flags=re.MULTILINE)
    return re.sub(r"(?<=[a-z]=) (?:= |(?='))", "", message)

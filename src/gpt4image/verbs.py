"""The commands as functions: ``gpt4image.train(data="photos", out="run")`` is ``gpt4image train`` with these options.

One wrapper serves them all. Options are checked by the same configuration, and errors speak of ``out=`` instead of
``--out``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.outcome import Outcome
from gpt4image.cli import COMMANDS, CONFIG_TYPES
from gpt4image.next_steps import with_next

VERBS = tuple(name for name in COMMANDS if " " not in name and name != "completion")
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")


def verb(name: str) -> Callable[..., Outcome]:
    """Return the function of a command: it takes options as keywords, and the ``task`` where the stage takes one."""
    command = COMMANDS[name]
    config_type: Any = getattr(importlib.import_module("gpt4image.config"), command.config)

    def call(config: Any = None, /, *, task: Any = None, **options: Any) -> Outcome:
        module, function = command.stage.split(":")
        try:
            config = config_type(**options) if config is None else config.model_copy(update=options)
            stage = getattr(importlib.import_module(f"gpt4image.{module}"), function)
            outcome = stage(config) if task is None else stage(config, task=task)
        except Gpt4ImageError as error:
            error.args = (in_python(str(error), config_type), *error.args[1:])
            raise
        return with_next(name, outcome, config, config_types=CONFIG_TYPES, python=True)

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


def in_python(message: str, config_type: Any = None) -> str:
    """Return a message with options as keywords: ``--val-fraction`` becomes ``val_fraction=``."""
    message = _FLAG.sub(lambda flag: flag[1].replace("-", "_") + "=", message)
    for name in config_type.model_fields if config_type else ():
        if (option := config_type.option(name)).isupper():
            message = re.sub(rf"^{option}\b(?= is required| = )", f"{name}=", message, flags=re.MULTILINE)
    return re.sub(r"(?<=[a-z]=) = ", "", message)

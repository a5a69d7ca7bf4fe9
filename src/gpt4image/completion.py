"""The stage completion: a script by which a shell completes commands, options and their values; tyro writes it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import operator
from typing import Annotated, Any

import tyro

from gpt4image import cli, config
from gpt4image.base.outcome import Outcome


def completion(options: config.CompletionConfig) -> Outcome:
    """Return the script for one shell as the outcome's text."""
    script = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(script):
        tyro.cli(_whole(), prog="gpt4image", args=["--tyro-print-completion", options.shell])
    return Outcome(text=script.getvalue())


def _whole() -> Any:
    """Return all commands as one type that tyro understands: a union of those of one word and of groups of them."""
    groups: dict[str, list[Any]] = {}
    for name, command in cli.COMMANDS.items():
        *group, last = name.split()
        kind = Annotated[getattr(config, command.config), tyro.conf.subcommand(name=last)]
        groups.setdefault(" ".join(group), []).append(kind)
    words = groups.pop("")
    for name, kinds in groups.items():
        # None, for tyro takes a union of one as that one, without its name.
        inner = Annotated[_either([*kinds, *([] if kinds[1:] else [None])]), tyro.conf.arg(name="")]
        words.append(Annotated[dataclasses.make_dataclass(name, [("of", inner)]), tyro.conf.subcommand(name=name)])
    return _either(words)


def _either(kinds: list[Any]) -> Any:
    return functools.reduce(operator.or_, kinds)

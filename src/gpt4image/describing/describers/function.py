"""A function of one's own as describer: it gets a picture and a question, and returns an answer.

A call in Python gives the function itself; the command line names it, as ``python:MODULE:FUNCTION``.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, DecodeError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Answer, FreeDescriber, Request
from gpt4image.describing.describers.images import pictures, why_unusable

KIND = "python"
Answering = Callable[[Image.Image, str], Any]
"""Returns a text, or a dictionary of the parts that are asked for."""
GIVEN: dict[str, Answering] = {}
"""Functions that calls in Python were given, by the name that is recorded."""


def describer(function: Any) -> str:
    """Return the SPEC of a function, or of a pair of a name and a function; the name is recorded with each answer.

    Raises ConfigError.
    """
    name, answers = function if isinstance(function, tuple) and len(function) == 2 else ("", function)
    if not callable(answers):
        raise ConfigError(
            f"--describer is a {type(answers).__name__}; give a SPEC such as openai:MODEL, a function (image, "
            "question) -> text, or a pair (name, function)."
        )
    name = name or f"{answers.__module__}:{getattr(answers, '__qualname__', type(answers).__qualname__)}"
    if "<" in name:
        raise ConfigError(f"--describer {name}: this function has no name to record; give a pair (name, function).")
    GIVEN[name] = answers
    return f"{KIND}:{name}"


class FunctionDescriber(FreeDescriber):
    """Asks a function, one image after the other. What it raises is the error of that image."""

    def __init__(
        self, name: str, options: DescriberOptions, *, function: Answering | None = None, kind: str = KIND
    ) -> None:
        """Take a function that another package brings, or find it. Raises ConfigError: there is none that answers."""
        self._name, self._options = name, options.model_copy(update={"contact_sheet": True})
        self.settings: Mapping[str, Any] = {"kind": kind, "function": name}
        self._function = function or GIVEN.get(name) or _imported(name)

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        return ([self._answer(request)] for request in requests)

    def _answer(self, request: Request) -> Answer:
        try:
            picture = pictures(request, self._options)[0]
        except (DecodeError, OSError) as error:
            return Answer(request=request, error=why_unusable(error))
        try:
            found = self._function(picture, request.question)
            text = json.dumps(dict(found), default=str) if isinstance(found, Mapping) else found
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  (a function of the user may raise anything, or call sys.exit)
            return Answer(request=request, error=plugins.why(error))
        if not isinstance(text, str):
            error = f"{self._name} returned a {type(text).__name__}; a text or a dictionary is needed"
            return Answer(request=request, error=error)
        return Answer(request=request, text=text)


def _imported(name: str) -> Answering:
    """Return a function by MODULE:FUNCTION; modules in the working folder are found too. Raises ConfigError."""
    module, _, function = name.partition(":")
    path, found = [*sys.path], cast(Any, None)
    lacks = (
        f"cannot be imported as {KIND}:MODULE:FUNCTION. If a call in Python was given it, give it again: it lives only "
        "in that process"
    )
    sys.path.insert(0, str(Path.cwd()))
    try:
        with plugins.guarded(f"--describer {KIND}:{name}", lacks):
            found = importlib.import_module(module)
            for part in function.split("."):
                found = getattr(found, part)
    finally:
        sys.path[:] = path
    if not callable(found):
        raise ConfigError(f"--describer {KIND}:{name} is no function.")
    return found

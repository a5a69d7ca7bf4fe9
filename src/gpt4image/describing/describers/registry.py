"""Finds a describer by its SPEC; the library that it needs is imported only then."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Describer
from gpt4image.describing.describers.foreign import ForeignDescriber
from gpt4image.describing.describers.function import KIND as FUNCTION
from gpt4image.describing.describers.function import FunctionDescriber
from gpt4image.describing.describers.openai.server import PROVIDERS
from gpt4image.describing.prices import FREE

SERVERS = tuple(PROVIDERS)
"""Describers behind a server, with calls in flight."""
DESCRIBERS: dict[str, str | Callable[[str, DescriberOptions], Describer]] = {
    **dict.fromkeys(SERVERS, "openai.describer:OpenAIDescriber"),
    "transformers": "transformers_model:TransformersDescriber",
    "replay": "replay:ReplayDescriber",
    "python": "function:FunctionDescriber",
}
"""By the first word of a SPEC: what makes a describer of the rest and the options, or the module and class."""
LOCAL = ("transformers", "replay", "python")
"""Describers that nobody is paid for."""


def is_free(options: DescriberOptions) -> bool:
    """Return whether answers are known to cost nothing. Raises as ``load_describer``, for a server."""
    return options.describer.partition(":")[0] in LOCAL or load_describer(options).price == FREE


def load_describer(options: DescriberOptions) -> Describer:
    """Return the describer of ``options.describer``: one of DESCRIBERS or of another package, a colon and a name.

    Raises ConfigError, MissingExtraError.
    """
    kind, colon, name = options.describer.partition(":")
    make = DESCRIBERS.get(kind) or plugins.find("describers", kind)
    if make is None:
        message = f"Unknown describer: {nearest(kind, [*DESCRIBERS, *plugins.names('describers')])}"
        if kind and not colon and "Did you mean" not in message:
            whose = {"claude": "anthropic", "gemini": "gemini"}.get(kind.partition("-")[0], "openai")
            message += f" Did you mean '{whose}:{kind}'?"
        raise ConfigError(f"{message} Services that speak the protocol of OpenAI: openai:MODEL --base-url ADDRESS.")
    if options.per_call > 1 and kind not in SERVERS:
        raise ConfigError(f"--per-call goes with {', '.join(f'{name}:' for name in SERVERS)}, not with {kind}:.")
    if isinstance(make, str):
        module, _, described = make.partition(":")
        make = getattr(import_module(f"gpt4image.describing.describers.{module}"), described)
    maker: Callable[[str, DescriberOptions], Any] = make
    if kind not in DESCRIBERS:
        return _of_package(maker, kind, name, options)
    made = maker(name, options)
    if options.per_call > 1:
        from gpt4image.describing.describers.sheets import SheetDescriber

        return SheetDescriber(made, options.per_call)
    return ForeignDescriber(options.describer, made) if kind == FUNCTION else made


def _of_package(make: Callable[..., Any], kind: str, name: str, options: DescriberOptions) -> Describer:
    who = f"the describer {options.describer!r} of another package"
    with plugins.guarded(who):
        made = make(name, options)
        if hasattr(made, "describe"):
            return ForeignDescriber(who, made)
        if callable(made):
            return ForeignDescriber(who, FunctionDescriber(name, options, function=made, kind=kind))
    raise ConfigError(f"{who} is a {type(made).__name__}; a describer or a function (image, question) is needed.")

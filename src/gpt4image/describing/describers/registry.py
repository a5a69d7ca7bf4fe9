"""Finds a describer by its SPEC; the library that it needs is imported only then."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Describer
from gpt4image.describing.prices import FREE

DESCRIBERS: dict[str, str | Callable[[str, DescriberOptions], Describer]] = {
    "openai": "openai.describer:OpenAIDescriber",
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
    """Return the describer of ``options.describer``, a SPEC: one of DESCRIBERS, a colon and a name.

    Raises:
        ConfigError: the SPEC names no describer, or what it names cannot be used.
        MissingExtraError: it needs a package that is not installed.
    """
    kind, colon, name = options.describer.partition(":")
    if kind not in DESCRIBERS:
        message = f"Unknown describer: {nearest(kind, DESCRIBERS)}"
        if kind and not colon and "Did you mean" not in message:
            message += f" Did you mean 'openai:{kind}'?"
        raise ConfigError(f"{message} Services that speak the protocol of OpenAI: openai:MODEL --base-url ADDRESS.")
    make = DESCRIBERS[kind]
    if isinstance(make, str):
        module, _, described = make.partition(":")
        make = getattr(import_module(f"gpt4image.describing.describers.{module}"), described)
    maker: Callable[[str, DescriberOptions], Describer] = make
    return maker(name, options)

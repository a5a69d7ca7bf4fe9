"""Finds a describer by its SPEC; the library that it needs is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Describer
from gpt4image.describing.prices import FREE


def _replay(name: str, _: DescriberOptions) -> Describer:
    from gpt4image.describing.describers.replay import ReplayDescriber

    return ReplayDescriber(name)


def _openai(name: str, options: DescriberOptions) -> Describer:
    from gpt4image.describing.describers.openai.describer import OpenAIDescriber

    return OpenAIDescriber(name, options)


def _transformers(name: str, options: DescriberOptions) -> Describer:
    from gpt4image.describing.describers.local.transformers_model import TransformersDescriber

    return TransformersDescriber(name, options)


def _python(name: str, options: DescriberOptions) -> Describer:
    from gpt4image.describing.describers.function import FunctionDescriber

    return FunctionDescriber(name, options)


DESCRIBERS: Mapping[str, Callable[[str, DescriberOptions], Describer]] = {
    "openai": _openai,
    "transformers": _transformers,
    "replay": _replay,
    "python": _python,
}


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
    return DESCRIBERS[kind](name, options)

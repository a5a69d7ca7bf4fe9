"""What a description store holds, as values: prompts with their class list, and results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from gpt4image.artifacts.answers import Answer


class ClassOption(NamedTuple):
    """A class that a describer may choose, and what belongs to it, in a few words."""

    name: str
    definition: str = ""


@dataclass(frozen=True, order=True)
class Prompt:
    """What a describer was asked; the ``version`` is raised when the text of the ``name`` changes.

    ``text`` has ``{class_name}`` for the class of the image. If ``class_conditioned``, the description may give the
    label away. ``ask`` is of description, class, tags and boxes; ``classes`` is the list to choose from.
    """

    name: str
    version: int
    text: str
    class_conditioned: bool
    ask: tuple[str, ...] = ("description",)
    classes: tuple[ClassOption, ...] = ()

    def __post_init__(self) -> None:
        """Take lists, as JSON has them, for tuples."""
        object.__setattr__(self, "ask", tuple(self.ask))
        object.__setattr__(self, "classes", tuple(ClassOption(*option) for option in self.classes))

    def __hash__(self) -> int:
        """Leave the class list out: it may be long, and prompts are looked up for every answer."""
        return hash((self.name, self.version, self.text, self.class_conditioned, self.ask))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class list."""
        return tuple(option.name for option in self.classes)

    @cached_property
    def row(self) -> tuple[str, int, str, int, str]:
        """Values of its columns in the store; ``asked`` is empty for a description alone."""
        asked = "" if self.ask == ("description",) else canonical_json({"ask": self.ask, "classes": self.classes})
        return self.name, self.version, self.text, int(self.class_conditioned), asked


@dataclass(frozen=True, kw_only=True)
class Description:
    """One result: an answer (``text`` or ``answer``, and no ``error``), a rejected one (a refusal, say) or a failure.

    ``digest`` is of the image, ``describer`` all settings as JSON, ``sample`` the number among several answers to the
    same question, ``cost_usd`` the price with failed tries, ``latency_s`` from request to answer, ``created`` seconds
    since 1970.
    """

    digest: str
    prompt: Prompt
    describer: Mapping[str, Any] = field(hash=False)
    created: float
    sample: int = 0
    text: str | None = None
    answer: Answer | None = None
    error: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None

    @property
    def status(self) -> Literal["ok", "failed"]:
        """``ok`` where there is a description or a structured answer."""
        return "ok" if (self.text, self.answer) != (None, None) and self.error is None else "failed"


class StoredText(NamedTuple):
    """A description for the text stages; ``row`` finds it again in the store (``texts_at``)."""

    digest: str
    text: str
    prompt: Prompt
    row: int


class StoredAnswer(NamedTuple):
    """A structured answer; one that ``was_example`` was shown with every question, and is no evidence of quality."""

    digest: str
    answer: Answer
    classes: tuple[str, ...]
    prompt: Prompt
    describer: Mapping[str, Any]
    sample: int
    was_example: bool = False


def canonical_json(value: Mapping[str, Any]) -> str:
    """Return ``value`` as JSON with sorted keys: equal settings are equal text."""
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def describer_name(settings: Mapping[str, Any]) -> str:
    """Return kind and model of a describer, whatever its other settings are: ``openai:gpt-4.1-mini``."""
    parts = (settings.get(part) for part in ("kind", "name", "model", "file", "function"))
    return ":".join([part for part in parts if isinstance(part, str)][:2]) or canonical_json(settings)[:60]

"""Prompts, answers and results as values: what describers are asked, what they say, and what a store holds of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

Kind = Literal["in_list", "none", "outside_list"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One structured answer about one image; None is what was not asked, or not told.

    ``said`` is the model's own word where it is not a name of the list; a ``probability`` of the class is imported.
    Boxes have a ``label`` and ``box_2d``: left, top, right, bottom in thousandths of the upright image; or, with
    ``picture``, its width and height in pixels, the numbers that the model wrote (see ``box_formats``). ``box_faults``
    counts boxes by what was wrong.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    class_name: str | None = None
    said: str | None = None
    second: str | None = None
    confidence: Share | None = None
    probability: Share | None = None
    tags: tuple[str, ...] | None = None
    boxes: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)
    picture: tuple[Count, Count] | None = None
    box_faults: Mapping[str, Count] | None = field(default=None, hash=False, compare=False)

    @property
    def is_unmapped(self) -> bool:
        """Whether the model named a class that is not in the list."""
        return self.class_name is None and self.said is not None

    @property
    def kind(self) -> Kind:
        """Whether the class is in the list, none of them, or outside the list; where a class was asked for."""
        return "in_list" if self.class_name is not None else "outside_list" if self.is_unmapped else "none"

    def to_json(self) -> str:
        """Return the answer as JSON text, without what is unknown; equal answers are equal text."""
        known = {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}
        return canonical_json(known)


_FIELDS = tuple(one.name for one in fields(Answer))


def answer_of_json(text: str) -> Answer:
    """Return the answer that ``Answer.to_json`` wrote. Raises ValueError: a damaged file gives others."""
    return _READER.validate_json(text)


def is_box(value: Mapping[str, Any]) -> bool:
    """Return whether this has a label and four numbers."""
    match value:
        case {"label": str(), "box_2d": [_, _, _, _] as numbers}:
            return all(type(one) in (int, float) and abs(one) < 1e9 for one in numbers)  # nor NaN
        case _:
            return False


def _whole(answer: Answer) -> Answer:
    if not all(map(is_box, answer.boxes or ())):
        raise ValueError("a box has no label or no four numbers")
    return answer


_READER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, AfterValidator(_whole)])


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

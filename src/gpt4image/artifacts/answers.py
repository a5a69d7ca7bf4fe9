"""Structured answers about images: the class out of a list, how sure the describer is, tags and boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_args

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
        return json.dumps(known, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


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

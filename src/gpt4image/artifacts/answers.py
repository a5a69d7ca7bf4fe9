"""Structured answers about images: the class out of a list, how sure the describer is, tags and boxes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["in_list", "none", "outside_list"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One structured answer about one image.

    Attributes:
        class_name: of the class list; None where the model said "none of these", or nothing was asked.
        said: the model's own word, where it is not a name of the list.
        second: the next best class of the list.
        confidence: stated by the model, 0 to 1.
        probability: of the tokens of the class, where the server gives log-probabilities.
        tags: what can be seen, in the model's words.
        boxes: each a ``label``, ``box_2d`` (left, top, right, bottom in thousandths of the upright image) and perhaps
            ``truncated``, ``words`` and ``confidence``.
        picture: width and height of the upright image in pixels, as long as the numbers of the boxes are those that
            the model wrote; None where they are thousandths (see ``box_formats``).
        box_faults: number of boxes by what was wrong with them; no part of what the answer says.
    """

    class_name: str | None = None
    said: str | None = None
    second: str | None = None
    confidence: float | None = None
    probability: float | None = None
    tags: tuple[str, ...] | None = None
    boxes: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)
    picture: tuple[int, int] | None = None
    box_faults: Mapping[str, int] | None = field(default=None, hash=False, compare=False)

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


_FIELDS = tuple(Answer.__dataclass_fields__)


def answer_of_json(text: str) -> Answer:
    """Return the answer that ``Answer.to_json`` wrote. Raises ValueError or TypeError: a damaged file gives others."""
    values: Any = json.loads(text)
    if not isinstance(values, dict) or not values.keys() <= set(_FIELDS):
        raise ValueError(f"an answer is {text!r:.40}")
    words = [values.get(name) for name in ("class_name", "said", "second")]
    shares = [values.get(name) for name in ("confidence", "probability")]
    tags, boxes, picture, faults = (values.get(name) for name in ("tags", "boxes", "picture", "box_faults"))
    if not all(word is None or isinstance(word, str) for word in words):
        raise TypeError(f"an answer names a class that is no text: {text!r:.40}")
    if not all(share is None or _is_share(share) for share in shares):
        raise TypeError(f"an answer has a confidence that is not from 0 to 1: {text!r:.40}")
    if not (_is_list_of(tags, str) and _is_list_of(boxes, dict) and all(map(is_box, boxes or ()))):
        raise TypeError(f"an answer has tags or boxes of another kind: {text!r:.40}")
    sides, counts = (0, 0) if picture is None else picture, {} if faults is None else dict(faults)
    if len(sides) != 2 or not all(type(n) is int and 0 <= n < 2**31 for n in (*sides, *counts.values())):
        raise TypeError(f"an answer has an image size or counts of another kind: {text!r:.40}")
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Answer(**known)


def is_box(value: Mapping[str, Any]) -> bool:
    """Return whether this has a label and four numbers."""
    match value:
        case {"label": str(), "box_2d": [_, _, _, _] as numbers}:
            return all(map(_is_number, numbers))
        case _:
            return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # nor NaN


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _is_list_of(values: Sequence[Any] | None, kind: type) -> bool:
    return values is None or (isinstance(values, list) and all(isinstance(value, kind) for value in values))

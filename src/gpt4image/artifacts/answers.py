"""Prompts, answers and results as values: what describers are asked, what they say, and what a store holds of it.

A prompt whose text changes gets a new version: stored descriptions keep the one that they answer. In its template,
``{class_list}`` is filled in once for the run and belongs to the identity of the prompt; ``{class_name}`` differs from
image to image and marks the prompt as class-conditioned.

Models write boxes in the convention that they were trained with, whatever they are asked for. So the store keeps the
numbers as they were written, and the convention by describer: a wrong one is corrected without asking again.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from gpt4image.base.errors import ConfigError, first_few, first_line, nearest
from gpt4image.config import BOX_FORMATS

Kind = Literal["in_list", "none", "outside_list"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DESCRIPTION, CLASS, TAGS, BOXES = "description", "class", "tags", "boxes"  # parts of an answer
NONE_OF_THESE = "none of these"
"""What is said of an image that shows none of the classes, by describers and by models."""
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
        known = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
        return canonical_json(known)


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
    def content(self) -> str:
        """All of it as JSON: its identity in the store."""
        return canonical_json({each.name: getattr(self, each.name) for each in fields(self)})

    @cached_property
    def asked(self) -> str | None:
        """What it asks for and the class list, as JSON; None for a description alone."""
        return None if self.ask == ("description",) else canonical_json({"ask": self.ask, "classes": self.classes})


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


AS_ASKED = BOX_FORMATS[0]  # the convention of the question, and of files
BOX_FAULTS = ("unusable", "clipped", "no_area", "duplicates", "whole_image")
"""What may be wrong with boxes. All but the clipped ones are left out."""
_SAME, _BORDER, _ROUNDING = 0.9, 10.0, 1.0  # IoU; thousandths
_PLACES = {"xyxy": (0, 1, 2, 3), "yxyx": (1, 0, 3, 2), "xywh": (0, 1, 2, 3), "yxhw": (1, 0, 3, 2)}


def in_thousandths(answer: Answer, name: str = AS_ASKED, max_side: int | None = None) -> Answer:
    """Return an answer whose boxes are clipped to the image, in thousandths, with what was wrong with them counted.

    Boxes without area, boxes of the same class with an IoU above 0.9, and, beside other boxes, those of the whole image
    are left out. ``max_side`` is the longer side of the image that was sent, where it was made smaller.
    """
    if answer.boxes is None:
        return answer
    sides = (1, 1) if answer.picture is None else answer.picture
    given = corners([box["box_2d"] for box in answer.boxes], name, sides, max_side)
    inside = np.clip(given, 0, 1000).round(3)
    has_area = np.all(inside[:, 2:] > inside[:, :2], axis=1)
    kept = _distinct(inside, [box["label"] for box in answer.boxes], np.flatnonzero(has_area))
    whole = np.all((inside <= _BORDER) == [True, True, False, False], axis=1)
    whole &= np.all((inside >= 1000 - _BORDER) == [False, False, True, True], axis=1)
    chosen = kept[~whole[kept]] if not whole[kept].all() else kept
    faults = dict(answer.box_faults or {}) | {
        "clipped": int((np.abs(given - inside)[chosen] > _ROUNDING).any(axis=1).sum()),
        "no_area": int((~has_area).sum()),
        "duplicates": int(has_area.sum()) - len(kept),
        "whole_image": len(kept) - len(chosen),
    }
    plain = [[int(value) if value == int(value) else value for value in box] for box in inside.tolist()]
    boxes = tuple({**answer.boxes[i], "box_2d": plain[i]} for i in chosen)
    return replace(answer, boxes=boxes, picture=None, box_faults={what: n for what, n in faults.items() if n} or None)


def corners(
    written: Sequence[Sequence[float]], name: str, picture: tuple[int, int], max_side: int | None = None
) -> NDArray[np.float64]:
    """Return boxes (N, 4), written in the convention ``name``, as left, top, right, bottom in thousandths.

    ``picture`` is width and height in pixels: without it, boxes in pixels are empty.
    """
    order, unit = name.split("-")
    found = np.asarray(written, np.float64).reshape(-1, 4)[:, _PLACES[order]]
    if order in ("xywh", "yxhw"):
        found[:, 2:] += found[:, :2]
    if unit in ("1000", "1"):
        return found * (1000 / int(unit))
    sent, longer = picture, max(picture)
    if unit == "sent" and max_side is not None and longer > max_side:
        sent = [max(1, round(side * max_side / longer)) for side in picture]
    return found * ([1000 / side for side in sent] * 2 if min(sent) > 0 else 0.0)


def overlap(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the IoU of boxes (N, 4) with boxes (M, 4) as (N, M), as torchvision's ``box_iou``, without torch."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2, dtype=np.float64)
    area_a, area_b = (np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b))
    return common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-12)


def apart(boxes: NDArray[np.floating[Any]], most: float) -> list[int]:
    """Return the positions of boxes (N, 4), the best first, that overlap no better one by an IoU of more than most."""
    shared, kept = overlap(boxes, boxes), list[int]()
    for row in range(len(boxes)):
        if not kept or shared[row, kept].max() <= most:
            kept.append(row)
    return kept


def box_counts(answers: Iterable[Answer], classes: Iterable[str] = ()) -> dict[str, int]:
    """Return how many boxes answers have, outside the list of ``classes`` too, and with which fault; {} without any."""
    known, counts = frozenset(classes), dict.fromkeys(("boxes", "boxes_outside_list"), 0)
    counts |= {f"boxes_{fault}": 0 for fault in BOX_FAULTS}
    asked = [answer for answer in answers if answer.boxes is not None]
    for answer in asked:
        boxes = answer.boxes or ()
        counts["boxes"] += len(boxes)
        counts["boxes_outside_list"] += sum(bool(known) and box["label"] not in known for box in boxes)
        for fault, count in (answer.box_faults or {}).items():
            counts[f"boxes_{fault}"] += count
    return counts if asked else {}


def _distinct(inside: NDArray[np.float64], labels: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    classes = np.unique(labels, return_inverse=True)[1][rows] if len(rows) else rows
    same = (overlap(inside[rows], inside[rows]) > _SAME) & (classes[:, None] == classes[None])
    kept: list[int] = []
    for place in range(len(rows)):
        if not same[place, kept].any():
            kept.append(place)
    return rows[kept]


def max_side_of(describer: Mapping[str, Any]) -> int | None:
    """Return to how many pixels a describer, by its settings, makes images smaller; None where it does not."""
    side = describer.get("max_side")
    return side if isinstance(side, int) and side > 0 else None


CLASS_NAME = "{class_name}"
PLACES = ("class_name", "class_list")
_PLACE = re.compile(r"\{(\w+)\}")

_TEXTS = {
    # What the texts of our evidence answered (docs/practice.md); a text of MiniLM's length, at half the price.
    "short": "Describe this image in detail, in 25 to 45 words.",
    "paper": "Describe this image in detail.",  # arXiv 2306.00693, first version
    "class-conditioned": f"This is an image of the class: {CLASS_NAME}. Describe this image in detail; say only what "
    "can be seen.",
    "attributes": "Describe what this image shows in at most 100 words: the main object and its parts, their colours, "
    "shapes and textures, its pose or state, and the setting around it. Say only what can be seen; no introduction.",
    "contrastive": f"This is an image of the class: {CLASS_NAME}. In at most 100 words, say what in this image tells "
    f"this {CLASS_NAME} from the other classes ({{class_list}}): parts, colours, shapes, textures, setting. Say only "
    "what can be seen.",
    "motion": "These are frames of one clip, in the order of time (on one picture: row by row). What moves, how, and "
    "in which order? Answer in 25 to 45 words; say only what can be seen.",
    "imported": "",
}
PROMPTS: Mapping[str, Prompt] = {name: Prompt(name, 1, text, CLASS_NAME in text) for name, text in _TEXTS.items()}


def find_prompt(name: str) -> Prompt:
    """Return the prompt called ``name``; a name of the user's own has no text. ConfigError: it is a slip of one."""
    if name in PROMPTS:
        return PROMPTS[name]
    if not name.strip() or difflib.get_close_matches(name.lower(), PROMPTS, n=1, cutoff=0.75):
        raise ConfigError(f"Unknown prompt: {nearest(name, PROMPTS)}")
    return Prompt(name, 1, "", class_conditioned=False)


def load_prompt(name: str) -> Prompt:
    """Return the prompt ``name``, or the template in the text file ``name``, called by the file's stem. ConfigError."""
    path = Path(name)
    if name in PROMPTS or not (path.suffix or path.is_file()):
        return find_prompt(name)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = (
            "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({first_line(error)})"
        )
        asking = ", ".join(prompt.name for prompt in PROMPTS.values() if prompt.text)
        raise ConfigError(f"--prompt {name}: {why}; give a text file, or one of {asking}.") from None
    unknown = [place for place in _PLACE.findall(text) if place not in PLACES]
    if unknown:
        odd, places = (first_few(f"{{{place}}}" for place in some) for some in (unknown, PLACES))
        raise ConfigError(f"--prompt {name}: nothing fills {odd}; a prompt may use {places}.")
    if not text:
        raise ConfigError(f"--prompt {name}: it is empty; write what is to be asked.")
    return Prompt(path.stem, 1, text, class_conditioned=CLASS_NAME in text)


def fill(prompt: Prompt, classes: Sequence[str]) -> Prompt:
    """Return the prompt with the class list filled in, which is the same for every image. Raises ConfigError."""
    if "{class_list}" in prompt.text and not classes:
        raise ConfigError(f"The prompt {prompt.name!r} lists the classes, but the dataset has none; use another.")
    return replace(prompt, text=prompt.text.replace("{class_list}", ", ".join(map(_readable, classes))))


def text_for(prompt: Prompt, class_name: str) -> str:
    """Return the question about an image of a class, which is told only if the prompt has a place for it."""
    return prompt.text.replace(CLASS_NAME, _readable(class_name))


def _readable(class_name: str) -> str:
    return class_name.replace("_", " ")

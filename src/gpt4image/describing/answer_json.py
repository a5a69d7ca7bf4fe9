"""Answers in JSON, as models write them: within code fences or prose, with trailing commas, or cut off.

What a model writes is data: of another kind, out of range or too long, it is left out or cut, and never an error of the
program.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from gpt4image.artifacts.answers import Answer, is_box
from gpt4image.artifacts.store import Prompt
from gpt4image.describing.class_lists import LONGEST_NAME, ClassNames, is_none, readable
from gpt4image.describing.flaws import without_thoughts
from gpt4image.describing.questions import ANSWERS, BOXES, CLASS, DESCRIPTION, TAGS, asks_of_list

MOST_TAGS_KEPT, LONGEST_WORD, MOST_BOXES = 64, LONGEST_NAME, 1000
_FIELDS = ("class", "second", "confidence", "tags", "boxes")
_MOST_TRIES = 16  # places where an object may begin
_LONGEST_TEXT = 400_000
_LENIENT = json.JSONDecoder(strict=False)  # line breaks within texts are common
_FLAT = re.compile(r"\{[^{}]*\}")
_NO_BOXES = re.compile(r"[\s`]*(?:json)?\s*\[\s*\][\s`]*")
_NUMBER = re.compile(r"\s*(\d{1,3}(?:\.\d{1,20})?|\.\d{1,20})\s*(%?)\s*")


class Parsed(NamedTuple):
    """What an answer holds: a description, where one was asked for, and the rest."""

    description: str | None
    answer: Answer


def parse_answer(text: str, prompt: Prompt, names: ClassNames, probability: float | None = None) -> Parsed | str:
    """Return what an answer holds, or in one line why it is not what was asked for. Never raises."""
    missing = "there is no JSON object in it"
    loose = _loose_boxes(text) if prompt.ask == (BOXES,) else ()
    for fields in itertools.chain(_objects(text), loose):
        lacking = [part for part in _needed(prompt) if not _has(fields, part)]
        if not lacking:
            own = {name: fields.get(name) for name in _FIELDS}
            description = valid(fields[DESCRIPTION]).strip() if DESCRIPTION in prompt.ask else None
            return Parsed(description, to_answer(own, prompt.ask, names, probability))
        missing = f"it lacks {' and '.join(map(repr, lacking))}"
    return f"the answer is not the JSON that was asked for: {missing}"


def items_of_sheet(text: str, prompt: Prompt, count: int) -> dict[int, str]:
    """Return the answers about each of ``count`` images in one about all of them, by the number of the image from 1 on.

    Each is the text that would answer ``prompt`` about the image alone. Items that are cut or no objects are left out,
    and so are those whose number is used twice or is of no image. Never raises.
    """
    listed = (fields[ANSWERS] for fields in _objects(text) if isinstance(fields.get(ANSWERS), list))
    items = [item for item in next(listed, _bare_list(text)) if isinstance(item, dict)]
    given = [_number_of(item.get("image")) for item in items]
    if len(items) == count and (not any("image" in item for item in items) or given == [*range(count)]):
        given = [*range(1, count + 1)]  # not numbered, or from 0 on
    if 0 in given:
        return {}
    uses = Counter(given)
    return {
        number: answer
        for number, item in zip(given, items, strict=True)
        if number is not None and number <= count and uses[number] == 1 and (answer := _answer_of(item, prompt))
    }


def _answer_of(item: Mapping[str, Any], prompt: Prompt) -> str:
    if prompt.ask != (DESCRIPTION,):
        return json.dumps({name: value for name, value in item.items() if name != "image"}, ensure_ascii=False)
    return value if isinstance(value := item.get(DESCRIPTION), str) else ""


def _number_of(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 5:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _bare_list(text: str) -> list[Any]:
    """Return the list that an answer consists of, as some models write it; an empty one where it is something else."""
    text = without_thoughts(text[:_LONGEST_TEXT])
    try:
        value = _LENIENT.raw_decode(_without_trailing_commas(text[text.find("[") :]))[0]
    except (ValueError, RecursionError):
        return []
    return cast("list[Any]", value) if isinstance(value, list) else []


def to_answer(
    fields: Mapping[str, Any], ask: Sequence[str], names: ClassNames, probability: float | None = None
) -> Answer:
    """Return the parts of an answer that were asked for; a class outside the list is kept as ``said``.

    Boxes stay as they are written. Their label is the class of the list, or the model's own word.
    """
    known: dict[str, Any] = {}
    if CLASS in ask:
        chosen, said, second = (_word(fields.get(name)) for name in ("class", "said", "second"))
        class_name, second = names.find(chosen or said), names.find(second)
        chosen, said = (None if is_none(word) and class_name is None else word for word in (chosen, said))
        as_listed = class_name is not None and chosen in (class_name, readable(class_name))
        known = {
            "class_name": class_name,
            "said": said or (None if as_listed else chosen),
            "second": None if second == class_name else second,
            "confidence": share(fields.get("confidence")),
            "probability": probability,
        }
    if TAGS in ask:
        found = tags(fields.get("tags"))
        if found is not None and not asks_of_list(ask):  # of a list, if there is one
            found = tuple(dict.fromkeys(names.find(tag) or tag for tag in found))
        known["tags"] = found
    if BOXES in ask:
        given: Any = fields.get("boxes")
        found = boxes(given)
        known["boxes"] = found and tuple({**box, "label": names.find(box["label"]) or box["label"]} for box in found)
        if found is not None and len(given) > len(found):
            known["box_faults"] = {"unusable": len(given) - len(found)}
    return Answer(**known)


def share(value: Any) -> float | None:
    """Return a stated confidence from 0 to 1, also of "97 %" and 97; None where it is none."""
    if isinstance(value, str) and (found := _NUMBER.fullmatch(value)):
        value = float(found[1]) / (100 if found[2] else 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return float(value) if value <= 1 else float(value) / 100


def tags(value: Any) -> tuple[str, ...] | None:
    """Return the distinct words of a list, or of a text with commas, at most ``MOST_TAGS_KEPT``."""
    if isinstance(value, str):
        value = value[:_LONGEST_TEXT].split(",")
    if not isinstance(value, list | tuple):
        return None
    words = (_word(one) for one in cast("Sequence[Any]", value)[:10_000])
    return tuple(dict.fromkeys(word for word in words if word))[:MOST_TAGS_KEPT]


def boxes(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    """Return the usable boxes of a list, at most MOST_BOXES: a label, four numbers, and perhaps more (see Answer)."""
    if not isinstance(value, list | tuple):
        return None
    return tuple(box for one in cast("Sequence[Any]", value)[:MOST_BOXES] if (box := _box(one)) is not None)


def valid(text: str) -> str:
    """Return a text with U+FFFD for halves of surrogate pairs: some servers send them, no database takes them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _box(value: Any) -> Mapping[str, Any] | None:
    if not isinstance(value, Mapping):
        return None
    given = cast("Mapping[str, Any]", value)
    names = ("box_2d", "bbox_2d", "bbox", "box")  # some models know only their own
    box: dict[str, Any] = {
        "label": _word(given.get("label")),
        "box_2d": next((given[name] for name in names if name in given), None),
    }
    if not box["label"] or not is_box(box):
        return None
    truncated, words, confidence = given.get("truncated"), _word(given.get("words")), share(given.get("confidence"))
    rest = {"truncated": truncated if isinstance(truncated, bool) else None, "words": words, "confidence": confidence}
    return {**box, "box_2d": list(box["box_2d"]), **{name: known for name, known in rest.items() if known is not None}}


def _needed(prompt: Prompt) -> list[str]:
    """Return the fields without which an answer is of no use: the tags, at its end, may be cut off."""
    return [part for part in prompt.ask if part in (DESCRIPTION, CLASS, BOXES)] or list(prompt.ask)


def _has(fields: Mapping[str, Any], part: str) -> bool:
    value = fields.get(part)
    if part == DESCRIPTION:
        return isinstance(value, str) and bool(value.strip())
    if part == CLASS:
        return CLASS in fields and (value is None or _word(value) is not None)
    # Boxes of which none can be used do not say that there is no object.
    return isinstance(value, list) and (part != BOXES or not value or bool(boxes(value)))


def _word(value: Any) -> str | None:
    """Return a text on one line, cut; None where it is none."""
    return " ".join(valid(value[: 10 * LONGEST_WORD]).split())[:LONGEST_WORD] if isinstance(value, str) else None


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield JSON objects that a text may hold: whole ones first, then repaired, then cut off."""
    text = without_thoughts(text[:_LONGEST_TEXT]).rstrip("…")  # which marks a text that was cut here
    starts = [place.start() for place, _ in zip(re.finditer(r"\{", text), range(_MOST_TRIES), strict=False)]
    for start in starts:
        for read in (str, _without_trailing_commas):
            if (value := _decoded(_first_object, read(text[start:]))) is not None:
                yield value
                break
    if starts:
        rest = _without_trailing_commas(text[starts[0] :])
        if (value := _decoded(lambda cut: from_json(cut, allow_partial=True), rest)) is not None:
            yield _with_whole_items(value, rest)
        # A text may be cut, a class may not: "do" is no dog.
        if (value := _decoded(lambda cut: from_json(cut, allow_partial="trailing-strings"), rest)) is not None:
            yield {name: value[name] for name in value if name == DESCRIPTION}


def _first_object(text: str) -> Any:
    return _LENIENT.raw_decode(text)[0]


def _open_brackets(text: str) -> int:
    """Return how many brackets are open at the end of a text."""
    pieces = re.findall(r'"(?:[^"\\]|\\.)*"?|[{}\[\]]', text, re.DOTALL)
    return sum((piece in "{[") - (piece in "}]") for piece in pieces)


def _with_whole_items(value: Mapping[str, Any], rest: str) -> Mapping[str, Any]:
    """Return a cut object without the box or answer within which it was cut: 4 may have been the beginning of 412."""
    depth = _open_brackets(rest)
    lists = {name: cast("list[Any]", value[name]) for name in (BOXES, ANSWERS) if isinstance(value.get(name), list)}
    whole = {name: items[: -1 if depth > 2 else None] for name, items in lists.items()}
    # An answer that was cut before its first box does not say that there is none.
    return {**value, **{name: items if items or depth < 2 else None for name, items in whole.items()}}


def _loose_boxes(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the boxes that stand in a text one by one: in a bare list, as some models write it, or in broken JSON."""
    text = without_thoughts(text[:_LONGEST_TEXT])
    pieces = (piece[0] for piece in itertools.islice(_FLAT.finditer(text), 10 * MOST_BOXES))
    objects = (_decoded(_LENIENT.decode, _without_trailing_commas(piece)) for piece in pieces)
    found = [fields for fields in objects if fields is not None and _box(fields) is not None]
    if found or _NO_BOXES.fullmatch(text):
        yield {BOXES: found}


def _without_trailing_commas(text: str) -> str:
    if not re.search(r",\s*[}\]]", text):
        return text
    kept = r'("(?:[^"\\]|\\.)*"?|[^",]+|,(?!\s*[}\]]))|,'  # texts, what is neither text nor comma, other commas
    return "".join(re.findall(kept, text, re.DOTALL))


def _decoded(decode: Callable[[str], Any], text: str) -> dict[str, Any] | None:
    try:
        value = decode(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None

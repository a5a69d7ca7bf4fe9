"""What a model wrote: its JSON, within code fences or prose, with trailing commas, or cut off; and flaws of its texts.

What a model writes is data: of another kind, out of range or too long, it is left out or cut, and never an error of the
program. A flaw is reported only where there is little doubt, because an answer that is thrown away was paid for: short
texts have no loops, and a refusal must be the whole answer.
"""

import contextlib
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from gpt4image.artifacts.answers import BOXES, CLASS, DESCRIPTION, TAGS, Answer, is_box
from gpt4image.artifacts.class_lists import LONGEST_NAME, ClassNames, is_none, readable
from gpt4image.artifacts.store import Prompt
from gpt4image.config import Flaw
from gpt4image.describing.questions import ANSWERS, asks_of_list

MOST_TAGS_KEPT, LONGEST_WORD, MOST_BOXES = 64, LONGEST_NAME, 1000
_LONGEST_TEXT, _MOST_TRIES = 400_000, 16  # characters; places where JSON may begin
_LENIENT = json.JSONDecoder(strict=False)  # line breaks within texts are common
_PARTS_OF_NAME = re.compile(r"[a-z]+|[0-9]{1,9}(?:\.0*)?")
_NUMBER = re.compile(r"\s*(\d{1,3}(?:\.\d{1,20})?|\.\d{1,20})\s*(%|percent|/\s?100)?\s*", re.IGNORECASE)


class Parsed(NamedTuple):
    """What an answer holds: a description, where one was asked for, and the rest."""

    description: str | None
    answer: Answer


def parse_answer(text: str, prompt: Prompt, names: ClassNames) -> Parsed | str:
    """Return what an answer holds, or in one line why it is not what was asked for. Never raises."""
    missing = "there is no JSON object in it"
    # Without these an answer is of no use: the tags, at its end, may be cut off.
    needed = [part for part in prompt.ask if part in (DESCRIPTION, CLASS, BOXES)] or list(prompt.ask)
    only_boxes = prompt.ask == (BOXES,)
    loose = _loose_boxes(text) if only_boxes else ()
    for fields in itertools.chain(_objects(text, BOXES if only_boxes else None), loose):
        lacking = [part for part in needed if not _has(fields, part)]
        if not lacking:
            description = valid(fields[DESCRIPTION]).strip() if DESCRIPTION in prompt.ask else None
            own = {name: value for name, value in fields.items() if name != "said"}
            return Parsed(description, to_answer(own, prompt.ask, names))
        missing = f"it lacks {' and '.join(map(repr, lacking))}"
    return f"the answer is not the JSON that was asked for: {missing}"


def items_of_sheet(text: str, prompt: Prompt, marks: Sequence[str]) -> dict[int, str]:
    """Return the answers about each image in one about all of them, by the number of the image from 1 on.

    Each is the text that would answer ``prompt`` about the image alone. An item belongs to the image whose mark it
    echoes, unless another item does, too, or its number is of another image. Without any mark, items must be numbered
    from 1 to the last, in this order. Others are left out, and so are items that are cut. Never raises.
    """
    found: Any = next((one[ANSWERS] for one in _objects(text, ANSWERS) if isinstance(one.get(ANSWERS), list)), ())
    items: list[dict[str, Any]] = [item for item in found if isinstance(item, dict)]
    names = [_PARTS_OF_NAME.findall(str(item.get("image")).lower()) for item in items]
    numbers = [{int(float(part)) for part in name if part[0].isdigit()} for name in names]
    marked = [{place for place, mark in enumerate(marks, start=1) if mark in name} for name in names]
    if not any(marked) and numbers == [{place} for place in range(1, len(marks) + 1)]:
        marked = numbers
    answers, uses = dict[int, str](), Counter(itertools.chain(*marked))
    for places, own, item in zip(marked, numbers, items, strict=True):
        alone = item.get(DESCRIPTION)
        if prompt.ask != (DESCRIPTION,):
            alone = json.dumps({name: value for name, value in item.items() if name != "image"}, ensure_ascii=False)
        place = next(iter(places), None) if len(places) == 1 and places >= own else None
        if alone and isinstance(alone, str) and place is not None and uses[place] == 1:
            answers[place] = alone
    return answers


def to_answer(fields: Mapping[str, Any], ask: Sequence[str], names: ClassNames) -> Answer:
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
            "probability": share(fields.get("probability")),
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
    """Return a stated confidence from 0 to 1, also of "97 %", "97/100" and 97; None where it is none."""
    if isinstance(value, str) and (found := _NUMBER.fullmatch(value)):
        value = float(found[1]) / (100 if found[2] else 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return float(value) if value <= 1 else float(value) / 100


def tags(value: Any) -> tuple[str, ...] | None:
    """Return the distinct words of a list, or of a text with commas, at most ``MOST_TAGS_KEPT``."""
    value = value.split(",") if isinstance(value, str) else value
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
    given = cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
    names = ("box_2d", "bbox_2d", "bbox", "box")  # some models know only their own
    corners = next((given[name] for name in names if name in given), None)
    box: dict[str, Any] = {"label": _word(given.get("label")), "box_2d": corners}
    if not box["label"] or not is_box(box):
        return None
    truncated, confidence = given.get("truncated"), share(given.get("confidence"))
    own = {"truncated": truncated if isinstance(truncated, bool) else None, "confidence": confidence}
    return box | {"box_2d": list(box["box_2d"])} | {name: one for name, one in own.items() if one is not None}


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


def _objects(text: str, bare: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield JSON objects that a text may hold, within code fences or prose: whole ones first, then one that was cut.

    A ``bare`` list, as some models write it, is the value of that field.
    """
    text = without_thoughts(text[:_LONGEST_TEXT]).rstrip("…")  # which marks a text that was cut here
    begin = re.compile(r"\{" if bare is None else r"[\[{]")
    starts = [place.start() for place in itertools.islice(begin.finditer(text), _MOST_TRIES)]
    for start in starts:
        for read in (str, _without_trailing_commas):
            with contextlib.suppress(ValueError, RecursionError):
                found = _LENIENT.raw_decode(read(text[start:]))[0]
                if found or start == starts[0]:  # elsewhere, [] says nothing about boxes
                    yield from _as_object(found, bare)
                break
    for start in starts[:1]:
        with contextlib.suppress(ValueError):
            rest = _without_trailing_commas(text[start:])
            for value in _as_object(from_json(rest, allow_partial=True), bare):
                last = next(reversed(value), "")
                if last in (BOXES, ANSWERS) and isinstance(value[last], list):  # 4 may be the beginning of 412
                    value[last] = (
                        value[last][:-1] or None
                    )  # an end before the first box does not say that there is none
                yield value
            # A text may be cut, a class may not: "do" is no dog.
            for value in _as_object(from_json(rest, allow_partial="trailing-strings"), None):
                yield {name: value[name] for name in value if name == DESCRIPTION}


def _loose_boxes(text: str) -> Iterator[dict[str, Any]]:
    """Yield the boxes that stand one by one in broken JSON or in prose, if there are some."""
    pieces = itertools.islice(re.finditer(r"\{[^{}]*\}", without_thoughts(text[:_LONGEST_TEXT])), 10 * MOST_BOXES)
    found: list[Any] = []
    for piece in pieces:
        with contextlib.suppress(ValueError):
            found.append(_LENIENT.decode(_without_trailing_commas(piece[0])))
    if good := [one for one in found if _box(one) is not None]:
        yield {BOXES: good}


def _as_object(value: Any, bare: str | None) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield cast("dict[str, Any]", value)
    elif isinstance(value, list) and bare is not None:
        yield {bare: value}


def _without_trailing_commas(text: str) -> str:
    return re.sub(r",\s*(?=[}\]])", "", text)


# Flaws

REFUSED = frozenset({"content_filter", "refusal"})
CUT_OFF = "length"
REJECTED: tuple[Flaw, ...] = ("empty", "refusal", "echo", "loop")
"""Flaws for which an answer is asked once more, and then kept as rejected."""

# Thoughts of a reasoning model, from a server that does not separate them from the answer.
_THOUGHTS = re.compile(r"\s*(?:<think(?:ing)?>|◁think▷)", re.IGNORECASE)
_THOUGHT = re.compile(r".*(?:</think(?:ing)?>|◁/think▷)", re.IGNORECASE | re.DOTALL)
_LEAST_LOOP, _ENDS, _LOOP_RATIO = 40, (100, 600), 2.4  # bytes and characters; zlib halves prose of 600 at most
_FEW_WORDS = 3  # that an echo of the question may add

# A refusal in English, or a placeholder for no answer: every sentence must be a refusal or a courtesy, so that no
# description is taken for one.
_PICTURE = r"(?:(?:the|this|that|your|an?|any|no) )?(?:images?|pictures?|photos?|photographs?|files?|description)\b"
_CANNOT = r"(?:can'?t|cannot|can not|won'?t|will not|could(?: not|n'?t)|unable to|failed to|not able to|decline to)"
_SORRY = r"(?:(?:i'?m |i am )?(?:so |very )?sorry|i apologi[sz]e|(?:my )?apologies|unfortunately|regrettably)"
_REFUSAL = re.compile(
    rf"(?:{_SORRY}\W+)?(?:i (?:{_CANNOT}|must|have to|need to|refuse to) (?!see |make |identify the)(?:\w+ )?(?:assist"
    r"|help|provide|describe|process|discuss|answer|analy[sz]e|view|open|decline|refuse|comply|fulfil)"
    r"|i(?:'?m| am) (?:not (?:allowed|permitted|comfortable)|unable)"
    r"|(?:i(?:'?m| am)|as) an? (?:\w+ ){0,3}?(?:ai|assistant|language model)\b"
    rf"|(?:it \w+ (?:like |that )?)?(?:there is )?no {_PICTURE} (?:was |is )?(?:provided|attached))"
    rf"|(?:{_SORRY}|i refuse|n/a|none|null|nan|undefined|\[image\]?"
    rf"|{_PICTURE}(?: (?:was |is )?not (?:found|available))?"
    rf"|(?:error\W+)?{_CANNOT} \w+ {_PICTURE}(?: file)?|{_PICTURE} {_CANNOT} be \w+)\W*\Z"
)
_COURTESY = re.compile(
    r"if (?:you|there)|please|let me know|feel free|how (?:can|may) i|thank|hello|hi\b|(?:would|could) you|i can help"
)


def without_thoughts(text: str) -> str:
    """Return what follows the thoughts of a reasoning model; some templates open them in the question."""
    end = _THOUGHT.match(text)
    return text if end is None else text[end.end() :].lstrip()


def flaws(text: str, *, finish_reason: str | None, question: str) -> list[Flaw]:
    """Return what is wrong with an answer, in the order of ``Flaw``; nothing for a good one.

    Thoughts of a reasoning model where the answer should begin are ``empty``, unless the server calls it a refusal.
    """
    plain, asked = (" ".join(re.findall(r"\w+", one.lower())) for one in (text, question))
    found: dict[Flaw, bool] = {
        "empty": finish_reason not in REFUSED and (not any(map(str.isalpha, text)) or bool(_THOUGHTS.match(text))),
        "refusal": finish_reason in REFUSED or is_refusal(text),
        "echo": bool(asked) and plain.startswith(asked) and len(plain.replace(asked, "").split()) < _FEW_WORDS,
        "loop": any(_repeats(text.strip()[-end:].encode("utf-8", "replace")) for end in _ENDS),
        "truncated": finish_reason == CUT_OFF,
    }
    return [flaw for flaw, there in found.items() if there]


def _repeats(text: bytes) -> bool:
    return len(text) >= _LEAST_LOOP and len(text) > _LOOP_RATIO * len(zlib.compress(text))


def is_refusal(text: str) -> bool:
    """Return whether a text refuses to describe, or says that there is no image or no answer, and nothing else."""
    plain = text[:2000].lower().translate(str.maketrans("’‘ʼ`", "''''"))
    parts = (part.lstrip(" \t*_#>,-") for part in re.split(r"(?<=[.!?])\s+|\n+|\b(?:but|however)\b", plain))
    sentences = [part for part in parts if re.search(r"\w", part)]
    refusing = [bool(_REFUSAL.match(part)) for part in sentences]
    return any(refusing) and all(one or _COURTESY.match(part) for one, part in zip(refusing, sentences, strict=True))

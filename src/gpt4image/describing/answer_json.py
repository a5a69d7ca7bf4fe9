"""What a model wrote: its JSON, within code fences or prose, with trailing commas, or cut off; and flaws of its texts.

What a model writes is data: of another kind, out of range or too long, it is left out or cut, and never an error of the
program. A flaw is reported only where there is little doubt, because an answer that is thrown away was paid for: short
texts have no loops, and a refusal must be the whole answer.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from gpt4image.artifacts.answers import Answer, is_box
from gpt4image.artifacts.store import Prompt
from gpt4image.config import Flaw
from gpt4image.describing.class_lists import LONGEST_NAME, ClassNames, is_none, readable
from gpt4image.describing.questions import ANSWERS, BOXES, CLASS, DESCRIPTION, TAGS, asks_of_list

MOST_TAGS_KEPT, LONGEST_WORD, MOST_BOXES = 64, LONGEST_NAME, 1000
_FIELDS = ("class", "second", "confidence", "probability", "tags", "boxes")
_MOST_TRIES = 16  # places where an object may begin
_LONGEST_TEXT = 400_000
_LENIENT = json.JSONDecoder(strict=False)  # line breaks within texts are common
_FLAT = re.compile(r"\{[^{}]*\}")
_NO_BOXES = re.compile(r"[\s`]*(?:json)?\s*\[\s*\][\s`]*")
_PARTS_OF_NAME = re.compile(r"[a-z]+|[0-9]{1,9}(?:\.0*)?")
_NUMBER = re.compile(r"\s*(\d{1,3}(?:\.\d{1,20})?|\.\d{1,20})\s*(%|percent|/\s?100)?\s*", re.IGNORECASE)


class Parsed(NamedTuple):
    """What an answer holds: a description, where one was asked for, and the rest."""

    description: str | None
    answer: Answer


def parse_answer(text: str, prompt: Prompt, names: ClassNames) -> Parsed | str:
    """Return what an answer holds, or in one line why it is not what was asked for. Never raises."""
    missing = "there is no JSON object in it"
    loose = _loose_boxes(text) if prompt.ask == (BOXES,) else ()
    # Without these an answer is of no use: the tags, at its end, may be cut off.
    needed = [part for part in prompt.ask if part in (DESCRIPTION, CLASS, BOXES)] or list(prompt.ask)
    for fields in itertools.chain(_objects(text), loose):
        lacking = [part for part in needed if not _has(fields, part)]
        if not lacking:
            own = {name: fields.get(name) for name in _FIELDS}
            description = valid(fields[DESCRIPTION]).strip() if DESCRIPTION in prompt.ask else None
            return Parsed(description, to_answer(own, prompt.ask, names))
        missing = f"it lacks {' and '.join(map(repr, lacking))}"
    return f"the answer is not the JSON that was asked for: {missing}"


def items_of_sheet(text: str, prompt: Prompt, marks: Sequence[str]) -> dict[int, str]:
    """Return the answers about each image in one about all of them, by the number of the image from 1 on.

    Each is the text that would answer ``prompt`` about the image alone. An item belongs to the image whose mark it
    echoes, unless another item does, too, or its number is of another image. Without any mark, items must be numbered
    from 1 to the last, in this order. Others are left out, and so are items that are cut. Never raises.
    """
    found: Any = next((fields[ANSWERS] for fields in _objects(text) if isinstance(fields.get(ANSWERS), list)), None)
    if found is None:  # a bare list, as some models write it
        bare = without_thoughts(text[:_LONGEST_TEXT])
        found = _decoded(_first_value, _without_trailing_commas(bare[bare.find("[") :]))
    items: list[dict[str, Any]] = [item for item in found or () if isinstance(item, dict)]
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
    truncated, confidence = given.get("truncated"), share(given.get("confidence"))
    box |= {"box_2d": list(box["box_2d"])}
    box |= {"truncated": truncated} if isinstance(truncated, bool) else {}
    return box | ({} if confidence is None else {"confidence": confidence})


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


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield JSON objects that a text may hold, within code fences or prose: whole ones first, then one that was cut."""
    text = without_thoughts(text[:_LONGEST_TEXT]).rstrip("…")  # which marks a text that was cut here
    starts = [place.start() for place, _ in zip(re.finditer(r"\{", text), range(_MOST_TRIES), strict=False)]
    for start in starts:
        for read in (str, _without_trailing_commas):
            if isinstance(value := _decoded(_first_value, read(text[start:])), dict):
                yield value
                break
    if starts:
        rest = _without_trailing_commas(text[starts[0] :])
        if isinstance(value := _decoded(lambda cut: from_json(cut, allow_partial=True), rest), dict):
            last = next(reversed(value), "")
            if last in (BOXES, ANSWERS) and isinstance(value[last], list):  # 4 may have been the beginning of 412
                value[last] = value[last][:-1] or None  # nor does an end before the first box say that there is none
            yield value
        # A text may be cut, a class may not: "do" is no dog.
        if isinstance(value := _decoded(lambda cut: from_json(cut, allow_partial="trailing-strings"), rest), dict):
            yield {name: value[name] for name in value if name == DESCRIPTION}


def _first_value(text: str) -> Any:
    return _LENIENT.raw_decode(text)[0]


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


def _decoded(decode: Callable[[str], Any], text: str) -> Any:
    try:
        return value if isinstance(value := decode(text), dict | list) else None
    except (ValueError, RecursionError):
        return None


# Flaws

REFUSED = frozenset({"content_filter", "refusal"})
CUT_OFF = "length"
REJECTED: tuple[Flaw, ...] = ("empty", "refusal", "echo", "loop")
"""Flaws for which an answer is asked once more, and then kept as rejected."""

# Thoughts of a reasoning model, from a server that does not separate them from the answer.
_THOUGHTS = re.compile(r"\s*(?:<think(?:ing)?>|◁think▷)", re.IGNORECASE)
_THOUGHT = re.compile(r".*(?:</think(?:ing)?>|◁/think▷)", re.IGNORECASE | re.DOTALL)

# Scripts that put no spaces between words: each letter counts as a word.
_UNSPACED = (
    r"\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0002FA1F"
)
_WORD = re.compile(rf"[^\W\d_{_UNSPACED}]+|[{_UNSPACED}]")
_ASCII_WORD = re.compile(r"[a-z]+")

_FEW_WORDS = 3  # that an echo of the question may add
_SHINGLE, _LEAST_LOOP, _LEAST_SIGNS = 4, 12, 40
# The text backwards: a unit of a few signs, over and over, at its end.
_SIGNS_AT_END = re.compile(r"(.{1,12}?)\1{15,}", re.DOTALL)

# A refusal in English, or a placeholder for no answer: every sentence must be a refusal or a courtesy, so that no
# description is taken for one.
_PICTURE = r"(?:images?|pictures?|photos?|photographs?|attachments?|files?)\b"
_ANY_PICTURE = rf"(?:(?:the|this|that|your|an?|any) )?{_PICTURE}"
_DO = r"(?:describ|process|load|open|read|view|access|display|analy[sz]|see|retriev)(?:e|ed|n)?"
_CANNOT = r"(?:can'?t|cannot|can not|won'?t|will not|could(?: not|n'?t))"
_I_AM = r"i(?:'?m| am) (?:just |only )?"
_SORRY = rf"(?:(?:{_I_AM})?(?:so |very )?sorry|i apologi[sz]e|(?:my )?apologies|unfortunately|regrettably)"
_PEOPLE = r"(?:\w+ ){0,3}?(?:people|persons?|individuals?|who|someone|anyone|faces?)\b"

# Beginnings of the sentences of a refusal, in lower case.
_BEGINNINGS = (
    rf"i {_CANNOT} (?:assist|help|provide|describe|process|fulfil|comply|discuss|satisfy|answer|analy[sz]e)",
    rf"i {_CANNOT} (?:(?:see|view|access|open) {_ANY_PICTURE}|(?:identify|recogni[sz]e|name) {_PEOPLE})",
    rf"{_I_AM}(?:unable to|not (?:able|allowed|permitted|comfortable))\b",
    rf"(?:{_I_AM}|as )an? (?:[\w-]+ ){{0,3}}?(?:ai|language model|assistant)\b",
    r"i (?:must|have to|refuse to|need to) (?:respectfully )?(?:decline|refuse)",
    rf"i (?:don'?t|do not) (?:see|have) (?:an?|any|the|access to) {_PICTURE}",
    rf"(?:it (?:seems|looks|appears) (?:like |that )?)?(?:there is )?no {_PICTURE} (?:was |is )?(?:provided|attached)",
)
# Whole sentences of one.
_WHOLE = (
    rf"{_SORRY}|i refuse|n/a|none|null|nil|nan|undefined|\[image\]?",
    rf"(?:no )?(?:{_ANY_PICTURE}|description)(?: is| was)? (?:not )?(?:available|found)|no (?:{_PICTURE}|description)",
    rf"(?:error\W+)?(?:unable to|failed to|{_CANNOT}) {_DO} {_ANY_PICTURE}(?: file)?|{_ANY_PICTURE} {_CANNOT} be {_DO}",
)
_COURTESIES = (
    r"if (?:you|there)|please|let me know|feel free|how (?:can|may) i|thank|hello|hi\b|(?:would|can|could) you"
    r"|i(?:'d| would) be (?:happy|glad)|i can (?:help|assist|try|only)"
)
_REFUSAL = re.compile(rf"(?:{_SORRY}\W+)?(?:{'|'.join(_BEGINNINGS)})|(?:{'|'.join(_WHOLE)})\W*\Z")
_COURTESY = re.compile(_COURTESIES)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+|\b(?:but|however)\b")
_APOSTROPHES = str.maketrans("’‘ʼ`", "''''")
_LONGEST_REFUSAL = 2000


def without_thoughts(text: str) -> str:
    """Return what follows the thoughts of a reasoning model; some templates open them in the question."""
    end = _THOUGHT.match(text)
    return text if end is None else text[end.end() :].lstrip()


def flaws(text: str, *, finish_reason: str | None, question: str) -> list[Flaw]:
    """Return what is wrong with an answer, in the order of ``Flaw``; nothing for a good one.

    Thoughts of a reasoning model where the answer should begin are ``empty``, unless the server calls it a refusal.
    """
    own = words(text)
    found: dict[Flaw, bool] = {
        "empty": finish_reason not in REFUSED and (not any(map(str.isalpha, text)) or bool(_THOUGHTS.match(text))),
        "refusal": finish_reason in REFUSED or is_refusal(text),
        "echo": _repeats(own, _question_words(question)),
        "loop": _is_loop(text, own),
        "truncated": finish_reason == CUT_OFF,
    }
    return [flaw for flaw, there in found.items() if there]


def words(text: str) -> list[str]:
    """Return the words in lower case, without digits and signs; of Chinese and its like, the single characters."""
    lower = text.lower()
    return (_ASCII_WORD if lower.isascii() else _WORD).findall(lower)


_question_words = lru_cache(maxsize=1024)(words)


def _repeats(own: list[str], question: list[str]) -> bool:
    """Whether an answer is the question, once or more, with hardly anything beside it."""
    rest = own
    while question and rest[: len(question)] == question:
        rest = rest[len(question) :]
    return len(rest) < min(len(own), _FEW_WORDS)


def _is_loop(text: str, own: list[str]) -> bool:
    """Whether most of a text is one passage over and over, or its end a few signs."""
    shingles = [tuple(own[start : start + _SHINGLE]) for start in range(len(own) - _SHINGLE + 1)]
    if len(shingles) >= _LEAST_LOOP and len(set(shingles)) <= len(shingles) / 2:
        return True
    at_end = _SIGNS_AT_END.match(text.rstrip()[: -1 - 4 * _LEAST_SIGNS : -1])
    return at_end is not None and len(at_end[0]) >= _LEAST_SIGNS


def is_refusal(text: str) -> bool:
    """Return whether a text refuses to describe, or says that there is no image or no answer, and nothing else."""
    if len(text) > _LONGEST_REFUSAL:
        return False
    sentences = [part.lstrip(" \t*_#>,-") for part in _SENTENCES.split(text.lower().translate(_APOSTROPHES))]
    refusing = [sentence for sentence in sentences if _REFUSAL.match(sentence)]
    return bool(refusing) and all(
        sentence in refusing or _COURTESY.match(sentence) for sentence in sentences if re.search(r"\w", sentence)
    )

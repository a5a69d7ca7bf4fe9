"""The question that asks for several things at once, and the JSON schema of its answer.

Classes come in another order for every image: a model prefers what stands first in a list. The order depends on nothing
but the digest, so that the same image is asked in the same way again.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gpt4image.artifacts.answers import BOXES, CLASS, DESCRIPTION, NONE_OF_THESE, TAGS, text_for
from gpt4image.artifacts.class_lists import readable
from gpt4image.artifacts.store import ClassOption, Prompt

MOST_TAGS = 12
MOST_OFFERED = 100
"""Classes of a dataset up to which tags are taken from them by default."""
_MOST_IN_SCHEMA = 250  # servers refuse a schema with very many choices
ANSWERS = "answers"
"""Field of the list in the answer to a sheet of images."""
_OPTIONS = "{class_options}"
_ONE_OBJECT = "Answer with one JSON object and nothing else. Its fields, in this order:"
OUTSIDE_THE_LIST = (
    "\n\nAn earlier answer named a class that is not in the list. Copy one name of the list exactly, or say "
    f'"{NONE_OF_THESE}".'
)
"""End of a question that is asked once more."""


def asking_for(prompt: Prompt, ask: Sequence[str], classes: Sequence[ClassOption]) -> Prompt:
    """Return the prompt that asks for these things: itself, if that is only a description.

    Where no description is asked for, its text does not matter, and the name says what is asked for.
    """
    ask = tuple(ask)
    if ask == (DESCRIPTION,):
        return prompt
    if DESCRIPTION not in ask:
        prompt = Prompt("-".join(ask), 1, "answers", class_conditioned=False)
    lines = [_ONE_OBJECT]
    if DESCRIPTION in ask:
        lines.append(f'"description": {prompt.text}')
    if CLASS in ask:
        lines += [
            f'"class": the class from the list below that fits the image best, spelled as in the list, or '
            f'"{NONE_OF_THESE}".',
            '"second": the next best class of the list, or null.',
            '"confidence": the probability that "class" is right, from 0 to 1.',
        ]
    if TAGS in ask:
        lines.append(
            '"tags": a list of all classes of the list below that can be seen, spelled as in the list.'
            if tags_of_list(ask, classes)
            else f'"tags": up to {MOST_TAGS} short words or phrases for what can be seen.'
        )
    if BOXES in ask:
        lines += [
            f'"boxes": a list of all objects {"of the classes below " if classes else ""}that can be seen, each with '
            f'"label": {"its class, spelled as in the list" if classes else "what it is, in one word"}; "box_2d": '
            "[x0, y0, x1, y1], its left, top, right and bottom edge in thousandths of the width and height of the "
            'image, whole numbers from 0 to 1000; "truncated": true if the border of the image or another object '
            "hides a part of it, otherwise false."
        ]
    if listed := classes and (tags_of_list(ask, classes) or asks_of_list(ask)):
        lines += ["", "Classes:", _OPTIONS]
    # A prompt without text answers from a file: nothing is asked.
    text = "\n".join(lines) if prompt.text else ""
    return replace(prompt, text=text, ask=ask, classes=tuple(classes) if listed else ())


def asks_of_list(ask: Sequence[str]) -> bool:
    """Return whether a class or boxes are asked for, which are of a list, and beside which tags are words."""
    return not {CLASS, BOXES}.isdisjoint(ask)


def tags_of_list(ask: Sequence[str], classes: Sequence[ClassOption]) -> bool:
    """Return whether tags are classes of the list; beside a class or boxes of the list, they are words of the model."""
    return bool(classes) and TAGS in ask and not asks_of_list(ask)


def question(prompt: Prompt, class_name: str, digest: str) -> str:
    """Return the question about an image."""
    options = [*prompt.classes]
    random.Random(f"{digest} 0").shuffle(options)
    shown = [f"- {readable(name)}{f': {definition}' if definition else ''}" for name, definition in options]
    shown += [f"- {NONE_OF_THESE}"] if CLASS in prompt.ask else []
    return text_for(prompt, class_name).replace(_OPTIONS, "\n".join(shown))


def sheet_question(prompt: Prompt, question: str) -> str:
    """Return the question about several named images at once, of which each is asked ``question``."""
    fields = (
        f'"description": {question}' if prompt.ask == (DESCRIPTION,) else question.removeprefix(_ONE_OBJECT).strip()
    )
    return (
        "Above are several images, each after its name: a number and a mark. Look at each by itself, as if it were the "
        f'only one. Answer with one JSON object and nothing else: {{"{ANSWERS}": [...]}}, with one item per image, in '
        "the order of their numbers. The fields of an item, in this order:\n"
        f'"image": number and mark of the image, copied exactly.\n{fields}'
    )


def mark_of(digest: str) -> str:
    """Return a mark of an image in a sheet: four letters that a model can only know from the question."""
    return "".join(random.Random(f"{digest} mark").choices("bcdfghjkmnpqrstvwxz", k=4))


@lru_cache(maxsize=64)
def sheet_schema(prompt: Prompt) -> Mapping[str, Any]:
    """Return the JSON schema of the answer about several images; the same for any number of them."""
    schema = schema_of(prompt) or _object({DESCRIPTION: {"type": "string"}})
    item = _object({"image": {"type": "string"}, **schema["properties"]})
    return _object({ANSWERS: {"type": "array", "items": item}})


@lru_cache(maxsize=64)  # the requests of a batch wait with it
def schema_of(prompt: Prompt) -> Mapping[str, Any] | None:
    """Return the JSON schema of the answer to a prompt; None where it is a text."""
    if prompt.ask == (DESCRIPTION,):
        return None
    names = dict.fromkeys(map(readable, prompt.class_names))

    def one_of(*others: str | None) -> dict[str, Any]:
        return {"enum": [*names, *others]} if 0 < len(names) <= _MOST_IN_SCHEMA else {}

    fields: dict[str, Any] = {}
    if DESCRIPTION in prompt.ask:
        fields["description"] = {"type": "string"}
    if CLASS in prompt.ask:
        fields["class"] = {"type": "string", **one_of(NONE_OF_THESE)}
        fields["second"] = {"type": ["string", "null"], **one_of(None)}
        fields["confidence"] = {"type": "number"}
    if TAGS in prompt.ask:
        one = one_of() if tags_of_list(prompt.ask, prompt.classes) else {}
        fields["tags"] = {"type": "array", "items": {"type": "string", **one}}
    if BOXES in prompt.ask:
        corners = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        box = {"label": {"type": "string", **one_of()}, "box_2d": corners, "truncated": {"type": "boolean"}}
        fields["boxes"] = {"type": "array", "items": _object(box)}
    return _object(fields)


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}

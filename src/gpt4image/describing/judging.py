"""What becomes of an answer: kept, rejected for a flaw, or a failure; and whether it is worth asking once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import get_args

from gpt4image.artifacts import answers
from gpt4image.artifacts.store import OUTSIDE_LIST
from gpt4image.base.errors import DecodeError
from gpt4image.config import Flaw
from gpt4image.data.decode import sides
from gpt4image.describing.answer_json import parse_answer, valid
from gpt4image.describing.class_lists import ClassNames
from gpt4image.describing.describers.base import Answer
from gpt4image.describing.flaws import CUT_OFF, flaws, without_thoughts
from gpt4image.describing.questions import DESCRIPTION

class_names = lru_cache(maxsize=8)(ClassNames)


@dataclass(frozen=True)
class Judged:
    """What of an answer is stored.

    Attributes:
        text: the description; of a rejected answer, all that the model wrote.
        answer: its structured part.
        error: why it is no answer.
        outside_list: it is one, except that its class is not in the list.
    """

    text: str | None = None
    answer: answers.Answer | None = None
    error: str | None = None
    outside_list: bool = False

    @property
    def why(self) -> str:
        """The error, as it is shown."""
        return f"the answer is no description: {self.error}" if self.error in get_args(Flaw) else self.error or ""


def judge(answer: Answer, reject: Collection[Flaw], *, last_try: bool) -> Judged:
    """Return what of an answer is stored. Its class may be outside the list only at the ``last_try``."""
    prompt = answer.request.prompt
    if answer.error is not None or answer.text is None:
        return Judged(error=valid(answer.error or "no answer"))
    text, structured, broken = without_thoughts(valid(answer.text)), None, None
    if prompt.ask != (DESCRIPTION,):
        parsed = parse_answer(text, prompt, class_names(prompt.class_names), answer.probability)
        if isinstance(parsed, str):
            broken = parsed + ("; it ends at the limit of tokens (--max-tokens)" if _is_cut(answer) else "")
        else:
            text, structured = parsed.description, parsed.answer
            if structured.boxes is not None:
                structured = replace(structured, picture=_sides(answer))
    if text is not None:
        found = flaws(text, finish_reason=answer.finish_reason, turns=answer.request.turns)
        flaw = next((flaw for flaw in found if flaw in reject), None)
        if flaw is not None or broken is not None:
            return Judged(text, structured, flaw if flaw is not None else broken)
    if structured is not None and structured.is_unmapped and not last_try:
        return Judged(text or valid(answer.text), structured, f"{OUTSIDE_LIST}: {structured.said}", True)
    return Judged(text, structured)


def _is_cut(answer: Answer) -> bool:
    """Return whether an answer ends where its tokens were used up."""
    return answer.finish_reason == CUT_OFF


def _sides(answer: Answer) -> tuple[int, int]:
    """Return width and height of the image, which boxes in pixels need; (0, 0) where it cannot be read any more."""
    try:
        return sides(answer.request.read())
    except (OSError, DecodeError):
        return 0, 0

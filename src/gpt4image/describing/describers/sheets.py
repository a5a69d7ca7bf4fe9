"""Sheets: several images in one call to a server, each with a number and a mark, and an answer about each of them.

Requests come as if shuffled, so neighbours of a folder do not share a sheet. What a sheet leaves unanswered or in doubt
(an item that is missing, everything after the end of a cut answer, all of a refused one, a mark that was not echoed) is
asked once more, alone. Each image pays its share of the tokens of its calls.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpt4image.artifacts.store import Prompt
from gpt4image.data.dataset import Dataset
from gpt4image.describing.answer_json import items_of_sheet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.questions import mark_of, sheet_question, sheet_schema

_WORDS = hashlib.sha256(sheet_question(Prompt("", 1, "", class_conditioned=False), "").encode()).hexdigest()
_NOTHING = "the call about several images brought no answer for this one"


class SheetDescriber:
    """Asks the model of a server about ``per_call`` images at a time."""

    repeatable = False

    def __init__(self, asked: OpenAIDescriber, per_call: int) -> None:
        self.asked, self._per_call, self.price, self._in_doubt = asked, per_call, asked.price, 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**self.asked.settings, "per_call": self._per_call, "sheet_sha256": _WORDS}

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        yield from map(self._split, self.asked.describe(self._calls(requests)))

    def arrived(self) -> Sequence[Answer]:
        return self._split(self.asked.arrived())

    def report(self, images: Dataset) -> Report:
        report = self.asked.report(images)
        return replace(report, facts={**report.facts, "unassigned_in_sheets": self._in_doubt})

    def _split(self, calls: Sequence[Answer]) -> Sequence[Answer]:
        answers = [answer for call in calls for answer in _answers(call)]
        self._in_doubt += sum(answer.error == _NOTHING for answer in answers)
        return answers

    def _calls(self, requests: Iterable[Request]) -> Iterator[Request]:
        waiting: dict[Prompt, list[Request]] = {}
        for request in requests:
            if request.again:
                yield request
                continue
            sheet = waiting.setdefault(request.prompt, [])
            sheet.append(request)
            if len(sheet) == self._per_call:
                yield _call_about(waiting.pop(request.prompt))
        yield from map(_call_about, waiting.values())


def _call_about(sheet: Sequence[Request]) -> Request:
    """Return the request of a sheet; of a single image, its own."""
    first = sheet[0]
    about_all: dict[str, Any] = {
        "keys": tuple(key for one in sheet for key in one.keys),
        "question": sheet_question(first.prompt, first.question),
        "schema": sheet_schema(first.prompt),
        "sheet": tuple(sheet),
        "lost": lambda: False not in [one.lost() for one in sheet],
    }
    return first if len(sheet) == 1 else replace(first, **about_all)


def _answers(call: Answer) -> list[Answer]:
    """Return the answer about each image of a sheet, with its share of the cost; of a call about one image, its own.

    Shares are whole tokens that add up to those of the call. An image that is left unanswered has an error.
    """
    sheet, size, answers = call.request.sheet, len(call.request.sheet), list[Answer]()
    found = items_of_sheet(call.text or "", call.request.prompt, [mark_of(request.digest) for request in sheet])
    for place, request in enumerate(sheet):
        text = found.get(place + 1)
        own: dict[str, Any] = {"finish_reason": "stop"} if text else {"error": call.error or _NOTHING, "retry": True}
        for name in ("tokens_in", "tokens_out", "cost_usd", "latency_s"):
            if (whole := getattr(call, name)) is not None:
                is_count = name.startswith("tokens")
                own[name] = whole * (place + 1) // size - whole * place // size if is_count else whole / size
        answers.append(replace(call, request=request, text=text, **own))
    return answers or [call]

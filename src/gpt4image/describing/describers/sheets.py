"""Sheets: several numbered images in one call to a server, and an answer about each of them.

Requests come as if shuffled, so neighbours of a folder do not share a sheet. What a sheet leaves unanswered (an item
that is missing, everything after the end of a cut answer, all of a refused one) is asked in sheets of half the size,
and at last alone. Each image pays its share of the tokens of all calls that it was in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.data.dataset import Dataset
from gpt4image.describing.answer_json import items_of_sheet
from gpt4image.describing.describers.base import Answer, Name, Report, Request
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.questions import sheet_question, sheet_schema

_COSTS = ("tokens_in", "tokens_out", "cost_usd", "wasted", "unpriced")
_NOTHING = "the call about several images brought no answer for this one"


class SheetDescriber:
    """Asks the model of a server about ``per_call`` images at a time."""

    repeatable = False

    def __init__(self, asked: OpenAIDescriber, per_call: int) -> None:
        self.asked, self._per_call, self.price = asked, per_call, asked.price
        self.alone = 0
        """Images that go alone before any sheet is made: what shows how much sheets save."""
        self._left = deque[tuple[Request, ...]]()  # sheets to ask in place of larger ones
        self._paid: dict[Name, Answer] = {}  # what earlier calls about an image have cost

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the model, and the size of a sheet."""
        return {**self.asked.settings, "per_call": self._per_call}

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers as the sheets arrive; see ``Describer``."""
        source = iter(requests)
        try:
            while True:
                for group in self.asked.describe(self._calls(source)):
                    yield [answer for call in group for answer in self._opened(call)]
                if not self._left:
                    return
        except Gpt4ImageError:
            yield self._unanswered()
            raise

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was interrupted."""
        return [*(answer for call in self.asked.arrived() for answer in self._opened(call)), *self._unanswered()]

    def report(self, images: Dataset) -> Report:
        """Return the facts about the calls."""
        return self.asked.report(images)

    def _unanswered(self) -> list[Answer]:
        """Return errors of paid requests without an answer, also of calls that were taken and never sent."""
        self._left.clear()
        return [self._billed(Answer(request=paid.request, error=_NOTHING)) for paid in [*self._paid.values()]]

    def _calls(self, source: Iterator[Request]) -> Iterator[Request]:
        waiting: dict[tuple[Prompt, int], list[Request]] = {}
        for request in source:
            while self._left:
                yield call_about(self._left.popleft())
            if request.again or self.alone:
                self.alone -= not request.again
                yield request
                continue
            sheet = waiting.setdefault((request.prompt, request.sample), [])
            sheet.append(request)
            if len(sheet) == self._per_call:
                yield call_about(sheet)
                sheet.clear()
        yield from (call_about(sheet) for sheet in waiting.values() if sheet)
        while self._left:
            yield call_about(self._left.popleft())

    def _opened(self, call: Answer) -> Iterator[Answer]:
        sheet = call.request.sheet
        if not sheet:
            yield self._billed(call)
            return
        missing: list[Request] = []
        for share in opened(call, dict(enumerate(sheet)), len(sheet)):
            billed, request = self._billed(share), share.request
            if billed.text is not None:
                yield billed
                continue
            self._paid[request.name] = billed
            if request.pay_again():
                missing.append(request)
            else:
                yield replace(self._billed(Answer(request=request)), error=billed.error)
        size = max(1, len(sheet) // 2)
        self._left += [tuple(missing[start : start + size]) for start in range(0, len(missing), size)]

    def _billed(self, answer: Answer) -> Answer:
        earlier = self._paid.pop(answer.request.name, None)
        if earlier is None:
            return answer
        both = {name: (getattr(earlier, name), getattr(answer, name)) for name in _COSTS}
        known = {name: [one for one in pair if one is not None] for name, pair in both.items()}
        return replace(answer, **{name: sum(pair) for name, pair in known.items() if pair})


def call_about(sheet: Sequence[Request]) -> Request:
    """Return the request of a sheet; of a single image, its own."""
    first = sheet[0]
    if len(sheet) == 1:
        return first
    return replace(
        first,
        keys=tuple(key for one in sheet for key in one.keys),
        turns=(sheet_question(first.prompt, first.turns[0]),),
        schema=sheet_schema(first.prompt),
        pay_again=lambda: all([one.pay_again() for one in sheet]),  # noqa: C419  (each reserves its own share)
        sheet=tuple(sheet),
    )


def opened(call: Answer, sheet: Mapping[int, Request], size: int) -> Iterator[Answer]:
    """Yield the answer about each image of a sheet by its place in it, of ``size`` places, with its share of the cost.

    Shares are whole tokens that add up to those of the call. An image that is left unanswered has an error.
    """
    found = items_of_sheet(call.text or "", call.request.prompt, size)
    for place, request in sheet.items():
        text = found.get(place + 1)
        own: dict[str, Any] = {"request": request, "probability": None, "text": text}
        own |= {"error": call.error or _NOTHING} if text is None else {"error": None, "finish_reason": "stop"}
        for name in ("tokens_in", "tokens_out", "cost_usd", "latency_s"):
            if (whole := getattr(call, name)) is not None:
                count = name.startswith("tokens")
                own[name] = whole * (place + 1) // size - whole * place // size if count else whole / size
        yield replace(call, **own)

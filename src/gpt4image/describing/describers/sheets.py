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
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.questions import sheet_question, sheet_schema

_NOTHING = "the call about several images brought no answer for this one, and the run ended before it was asked alone"


class SheetDescriber:
    """Asks the model of a server about ``per_call`` images at a time."""

    repeatable = False

    def __init__(self, asked: OpenAIDescriber, per_call: int) -> None:
        self.asked, self._per_call = asked, per_call
        self.price = asked.price
        self.alone = 0
        """Images that go alone before any sheet is made: what shows how much sheets save."""
        self._left = deque[tuple[Request, ...]]()  # sheets to ask in place of larger ones
        self._paid: dict[tuple[str, Prompt, int], Answer] = {}  # what earlier calls about an image have cost

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the model, and the size of a sheet: answers from sheets are no worse, but others."""
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
            yield [self._billed(Answer(request=one, error=_NOTHING)) for one in self._unanswered()]
            raise

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was interrupted."""
        found = [answer for call in self.asked.arrived() for answer in self._opened(call)]
        return found + [self._billed(Answer(request=one, error=_NOTHING)) for one in self._unanswered()]

    def report(self, images: Dataset) -> Report:
        """Return the facts about the calls."""
        return self.asked.report(images)

    def _unanswered(self) -> list[Request]:
        """Return paid requests without an answer, also of calls that were taken and never sent."""
        self._left.clear()
        return [paid.request for paid in self._paid.values()]

    def _calls(self, source: Iterator[Request]) -> Iterator[Request]:
        """Yield one request per call, for a sheet or for an image that goes alone."""
        waiting: dict[tuple[Prompt, int], list[Request]] = {}
        for request in source:
            while self._left:
                yield _call(self._left.popleft())
            if request.again or self.alone:
                self.alone -= not request.again
                yield request
                continue
            sheet = waiting.setdefault((request.prompt, request.sample), [])
            sheet.append(request)
            if len(sheet) == self._per_call:
                yield _call(sheet)
                sheet.clear()
        yield from (_call(sheet) for sheet in waiting.values() if sheet)
        while self._left:
            yield _call(self._left.popleft())

    def _opened(self, call: Answer) -> Iterator[Answer]:
        """Yield the answers in that of one call; what is missing is put aside for a smaller sheet."""
        sheet = call.request.sheet
        if not sheet:
            yield self._billed(call)
            return
        found = items_of_sheet(call.text or "", sheet[0].prompt, len(sheet))
        missing: list[Request] = []
        for number, (request, share) in enumerate(zip(sheet, _shares(call), strict=True), start=1):
            billed = self._billed(replace(share, request=request))
            if number in found:
                yield replace(billed, text=found[number], error=None, finish_reason="stop")
                continue
            self._paid[request.name] = billed
            if request.pay_again():
                missing.append(request)
            else:
                yield replace(self._billed(Answer(request=request)), text=None, error=call.error or _NOTHING)
        size = max(1, len(sheet) // 2)
        self._left += [tuple(missing[start : start + size]) for start in range(0, len(missing), size)]

    def _billed(self, answer: Answer) -> Answer:
        """Return an answer with the cost of earlier calls about its image."""
        earlier = self._paid.pop(answer.request.name, None)
        if earlier is None:
            return answer
        names = ("tokens_in", "tokens_out", "cost_usd", "wasted", "unpriced")
        return replace(answer, **{name: _sum(getattr(earlier, name), getattr(answer, name)) for name in names})


def _call(sheet: Sequence[Request]) -> Request:
    """Return the request of a sheet; of a single image, its own."""
    first = sheet[0]
    if len(sheet) == 1:
        return first
    return replace(
        first,
        keys=tuple(key for one in sheet for key in one.keys),
        turns=(sheet_question(first.prompt, first.turns[0]),),
        schema=sheet_schema(first.prompt),
        pay_again=lambda: _all_pay_again(sheet),
        sheet=tuple(sheet),
    )


def _all_pay_again(sheet: Sequence[Request]) -> bool:
    allowed = [one.pay_again() for one in sheet]  # each reserves its own share
    return all(allowed)


def _shares(call: Answer) -> Iterator[Answer]:
    """Yield the share of each image in the cost of a call: whole tokens that add up to those of the call."""
    size = len(call.request.sheet)

    def share(count: int | None, place: int) -> int | None:
        return None if count is None else count * (place + 1) // size - count * place // size

    for place in range(size):
        yield replace(
            call,
            tokens_in=share(call.tokens_in, place),
            tokens_out=share(call.tokens_out, place),
            cost_usd=None if call.cost_usd is None else call.cost_usd / size,
            latency_s=None if call.latency_s is None else call.latency_s / size,
            probability=None,
        )


def _sum(some: Any, other: Any) -> Any:
    return other if some is None else some if other is None else some + other

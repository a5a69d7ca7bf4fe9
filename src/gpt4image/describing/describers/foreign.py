"""The border to describers of other packages and functions of users: errors name them, and answers are bounded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpt4image.base import plugins
from gpt4image.base.errors import DescriberError
from gpt4image.base.files import parse_json
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Describer, Name, Report, Request
from gpt4image.describing.describers.openai.server import MAX_MESSAGE, MAX_NAME, MAX_TEXT
from gpt4image.describing.prices import Price

EMPTY_GROUPS = 100_000
"""Groups without an answer, one after the other, from which on a describer is taken for one that never ends."""
_LARGEST = 2**53


class ForeignDescriber:
    """A describer of others, as ``describe`` can rely on it: one bounded answer per request, in a run that ends."""

    def __init__(self, who: str, describer: Describer) -> None:
        """Take a describer; ``who`` names it in messages. Raises DescriberError: what it says of itself is no use."""
        self._who, self._describer = who, describer
        with plugins.guarded(f"{who}: its settings", "are no JSON", DescriberError):
            self.settings: Mapping[str, Any] = {**parse_json(json.dumps(describer.settings, allow_nan=False))}
        with plugins.guarded(who, kind=DescriberError):
            self.price, self.repeatable = describer.price, bool(describer.repeatable)
            if not isinstance(self.price, Price | None):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise DescriberError(f"its price is a {type(self.price).__name__}; a Price or None is needed.")

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        open_ones, empty, taken = dict[Name, Request](), 0, 0
        waiting = iter(requests)

        def noted() -> Iterator[Request]:
            nonlocal taken
            for request in waiting:
                open_ones[request.name] = request
                taken += 1
                yield request

        with plugins.guarded(self._who, kind=DescriberError):
            for group in self._describer.describe(noted()):
                answers = [self._checked(answer, open_ones) for answer in group]
                empty = 0 if answers else empty + 1
                if empty > EMPTY_GROUPS:
                    break
                if answers:
                    yield answers
        if not taken and next(waiting, None) is not None:
            raise DescriberError(f"{self._who} takes no request; its describe has to read them, and to answer each.")
        if open_ones:
            yield [Answer(request=one, error=f"{self._who} gave no answer") for one in open_ones.values()]

    def arrived(self) -> Sequence[Answer]:
        with plugins.guarded(self._who, kind=DescriberError):
            return [
                self._checked(answer, {answer.request.name: answer.request}) for answer in self._describer.arrived()
            ]

    def report(self, images: Dataset) -> Report:
        with plugins.guarded(f"{self._who}: its report", kind=DescriberError):
            found = self._describer.report(images)
            facts = {str(name): parse_json(json.dumps(value, default=str)) for name, value in found.facts.items()}
            skipped = [Skipped(str(item.name), str(item.reason)) for item in found.skipped]
            return Report(facts=facts, skipped=skipped)

    def _checked(self, answer: Answer, open_ones: dict[Name, Request]) -> Answer:
        """Return an answer to one of the requests, within the bounds of those of a server. Raises DescriberError."""
        if not isinstance(answer, Answer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DescriberError(f"{self._who} gave a {type(answer).__name__} as answer; an Answer is needed.")
        request = open_ones.pop(answer.request.name, None)
        if request is None:
            raise DescriberError(f"{self._who} gave an answer to no request, or a second one to the same.")
        text, error = answer.text, answer.error
        if not isinstance(text, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            text, error = None, f"{self._who} gave a {type(text).__name__}; a text is needed"
        is_long = text is not None and len(text) > MAX_TEXT
        reason = "length" if is_long else answer.finish_reason
        return Answer(
            request=request,
            text=text and text[:MAX_TEXT],
            error=None if error is None else " ".join(str(error)[: 20 * MAX_MESSAGE].split())[:MAX_MESSAGE],
            finish_reason=None if reason is None else str(reason)[:MAX_NAME],
            tokens_in=_number(answer.tokens_in, int),
            tokens_out=_number(answer.tokens_out, int),
            cost_usd=_number(answer.cost_usd),
            latency_s=_number(answer.latency_s),
            retry=bool(answer.retry),
            unpriced=bool(answer.unpriced),
        )


def _number(value: Any, kind: type[int] | type[float] = float) -> Any:
    """Return a number of a bounded size; None where it is none."""
    good = isinstance(value, int | kind) and math.isfinite(value) and 0 <= value < _LARGEST
    return kind(value) if good else None

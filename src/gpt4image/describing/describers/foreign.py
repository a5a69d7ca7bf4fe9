"""The border to describers of other packages and functions of users: errors name them, and answers are bounded."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpt4image.base import plugins
from gpt4image.base.errors import DescriberError
from gpt4image.base.files import parse_json
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Describer, Name, Report, Request
from gpt4image.describing.describers.openai.server import MAX_MESSAGE, MAX_NAME, MAX_TEXT
from gpt4image.describing.prices import Price

_EMPTY_GROUPS = 100_000  # without an answer, one after the other: such a describer never ends
_NUMBERS = ("tokens_in", "tokens_out", "cost_usd", "latency_s")


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
        open_ones, waiting, empty, taken = dict[Name, Request](), iter(requests), 0, False

        def noted() -> Iterator[Request]:
            nonlocal taken
            for request in waiting:
                open_ones[request.name], taken = request, True
                yield request

        with plugins.guarded(self._who, kind=DescriberError):
            for group in self._describer.describe(noted()):
                if answers := [self._checked(answer, open_ones) for answer in group]:
                    yield answers
                empty = 0 if answers else empty + 1
                if empty > _EMPTY_GROUPS:
                    break
        if not taken and next(waiting, None) is not None:
            raise DescriberError(f"{self._who} takes no request; its describe has to read them, and to answer each.")
        if open_ones:
            yield [Answer(request=one, error=f"{self._who} gave no answer") for one in open_ones.values()]

    def arrived(self) -> Sequence[Answer]:
        with plugins.guarded(self._who, kind=DescriberError):
            return [self._checked(one, {one.request.name: one.request}) for one in self._describer.arrived()]

    def report(self, images: Dataset) -> Report:
        with plugins.guarded(f"{self._who}: its report", kind=DescriberError):
            found = self._describer.report(images)
            facts = {str(name): parse_json(json.dumps(value, default=str)) for name, value in found.facts.items()}
            return Report(facts=facts, skipped=[Skipped(str(item.name), str(item.reason)) for item in found.skipped])

    def _checked(self, answer: Answer, open_ones: dict[Name, Request]) -> Answer:
        """Return an answer to one of the requests, within the bounds of those of a server. Raises DescriberError."""
        if not isinstance(answer, Answer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DescriberError(f"{self._who} gave a {type(answer).__name__} as answer; an Answer is needed.")
        request, text, error = open_ones.pop(answer.request.name, None), answer.text, answer.error
        if request is None:
            raise DescriberError(f"{self._who} gave an answer to no request, or a second one to the same.")
        if not isinstance(text, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            text, error = None, f"{self._who} gave a {type(text).__name__}; a text is needed"
        return replace(
            answer,
            request=request,
            text=text and text[:MAX_TEXT],
            error=error and " ".join(str(error)[:MAX_MESSAGE].split()),
            finish_reason=answer.finish_reason and str(answer.finish_reason)[:MAX_NAME],
            **{name: _number(getattr(answer, name)) for name in _NUMBERS},
        )


def _number(value: Any) -> Any:
    """Return a number of a bounded size; None where it is none."""
    return value if isinstance(value, int | float) and 0 <= value < 2**53 else None

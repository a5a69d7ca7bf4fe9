"""What the answer of a chat completion holds: texts, why they ended, and tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt4image.describing.describers.openai.untrusted import MAX_NAME, MAX_TEXT, mapping, redacted, sequence

_CLASS = re.compile(r'"class"\s*:\s*"(?P<value>(?:[^"\\]|\\.)+)"')
_MOST_TOKENS = 2**53  # what is more is no count, and no database takes it


@dataclass(frozen=True)
class Choice:
    """One answer of the model."""

    text: str
    finish_reason: str | None
    probability: float | None = None
    """Of the tokens of the class, where the answer is JSON with one and the server gives log-probabilities."""


@dataclass(frozen=True)
class Completion:
    """What a response holds: no choice where it is malformed; tokens are paid for all the same."""

    choices: tuple[Choice, ...] = ()
    tokens_in: int | None = None
    tokens_out: int | None = None

    @property
    def is_priced(self) -> bool:
        """Whether the server says how many tokens are to be paid for."""
        return self.tokens_in is not None and self.tokens_out is not None

    @property
    def tokens(self) -> int | None:
        """All tokens, where the server counts them."""
        known = [count for count in (self.tokens_in, self.tokens_out) if count is not None]
        return sum(known) if known else None


def completion_of(body: Any, secrets: Sequence[str] = ()) -> Completion:
    """Return what a decoded response body holds. Never raises: whatever is of another shape is left out.

    A body with an error has no answer, whatever else it holds; the tokens that it reports are paid for.

    Args:
        body: the JSON value.
        secrets: what texts may not hold.
    """
    usage = mapping(mapping(body).get("usage"))
    found = [] if mapping(body).get("error") else sequence(mapping(body).get("choices"))
    return Completion(
        tuple(_choices(found, secrets)), _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS else None


def _choices(choices: Sequence[Any], secrets: Sequence[str]) -> Iterator[Choice]:
    for choice in map(mapping, choices):
        message, reason = mapping(choice.get("message")), choice.get("finish_reason")
        if reason == "error":
            continue
        refusal = message.get("refusal")
        reason = redacted(reason, secrets, MAX_NAME) if isinstance(reason, str) else None
        if isinstance(refusal, str) and refusal:
            yield Choice(redacted(refusal, secrets, MAX_TEXT), "refusal")
        elif (text := _text(message)) is not None:
            reason = reason if len(text) <= MAX_TEXT else "length"
            yield Choice(redacted(text, secrets, MAX_TEXT), reason, class_probability(choice.get("logprobs")))


def class_probability(logprobs: Any) -> float | None:
    """Return the probability of the tokens that spell the class in a JSON answer; None where it is not told."""
    tokens: list[tuple[str, float]] = []
    for one in sequence(mapping(logprobs).get("content")):
        match one:
            case {"token": str(token), "logprob": int() | float() as value} if -1e6 <= value <= 1e-3:
                tokens.append((token, value))
            case _:
                return None
    found = _CLASS.search("".join(token for token, _ in tokens))
    if found is None:
        return None
    total, place = 0.0, 0
    for token, value in tokens:
        end = place + len(token)
        if place < found.end("value") and end > found.start("value"):
            total += value
        place = end
    return min(1.0, math.exp(total))


def _text(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message; empty where a reasoning model spent all tokens on thinking."""
    content = message.get("content")
    if content is None and "role" in message:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") for part in map(mapping, sequence(content))]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None

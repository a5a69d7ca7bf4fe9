"""What is wrong with an answer, so that it is no description."""

from __future__ import annotations

from collections.abc import Sequence

from gpt4image.config import Flaw


def flaws(text: str, *, finish_reason: str | None, turns: Sequence[str]) -> list[Flaw]:
    """Return the flaws of ``text``."""
    if not any(letter.isalpha() for letter in text):
        return ["empty"]
    return ["refusal"] if text.startswith(("I'm sorry", "I cannot")) else []

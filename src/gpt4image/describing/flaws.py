"""Flaws of a text that a describer wrote: what makes it useless, or worse than it could be.

Everything here is a pure function of the text, made to run on every answer as it arrives. Each test must be sure before
it says something: a description that is thrown away was paid for. So short texts have no language and no loops, and a
refusal must stand where the description should.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from gpt4image.config import Flaw
from gpt4image.describing.languages import Language, differs, language_of, names_a_language
from gpt4image.describing.refusals import is_refusal

REFUSED = frozenset({"content_filter", "refusal"})
CUT_OFF = "length"

# What a reasoning model thinks, where the server does not tell it from the answer.
_THOUGHTS = re.compile(r"\s*(?:<think(?:ing)?>|◁think▷)", re.IGNORECASE)

# Scripts that put no spaces between words: each letter counts as a word.
_UNSPACED = (
    r"\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0002FA1F"
)
_WORD = re.compile(rf"[^\W\d_{_UNSPACED}]+|[{_UNSPACED}]")
_ASCII_WORD = re.compile(r"[a-z]+")

_IMAGE = r"(?:image|picture|photo|photograph|illustration|scene)"
_STOCK_PHRASES = (
    r"(?:certainly|sure(?: thing)?|of course|absolutely|okay|alright)\s*[!,.:]",
    r"here(?:['’]s| is| are) (?:an?|the|your|some|my) (?:[\w-]+ ){0,3}?(?:description|caption|summary|analysis)",
    rf"(?:(?:detailed|{_IMAGE}) )?(?:description|caption)\W*:",
    rf"(?:the|this) (?:\w+ )?{_IMAGE} (?:shows|depicts|features|displays|captures|presents|portrays|contains)\b",
    rf"(?:the|this) (?:\w+ )?{_IMAGE} (?:showcases|illustrates|is (?:an?|of|the))\b",
    rf"(?:this|it) is an? (?:[\w-]+ ){{0,2}}?{_IMAGE} (?:of|showing|depicting)\b",
    rf"in (?:the|this) (?:\w+ )?{_IMAGE}\b",
    r"(?:we|you|i) can (?:clearly )?see\b",
)
_BOILERPLATE = re.compile(rf"[\W_]*(?:{'|'.join(_STOCK_PHRASES)})", re.IGNORECASE)

# Words that an echo of the question may add.
_NOTHING_NEW = frozenset(
    ("user", "assistant", "human", "system", "question", "prompt", "answer", "a", "an", "the", "this")
)
_FEW_WORDS = 3
_NEARLY = 0.8

_SHINGLE = 4
_LEAST_LOOP = 12
_ROUNDS = 3
# The text backwards: a unit of a few signs, over and over, at its end.
_SIGNS_AT_END = re.compile(r"(.{1,12}?)\1{15,}", re.DOTALL)
_LEAST_SIGNS = 40


def flaws(text: str, *, finish_reason: str | None, turns: Sequence[str]) -> list[Flaw]:
    """Return what is wrong with an answer, in the order of ``Flaw``; nothing for a good one.

    - ``empty``: it has no letters, or thoughts of the model ("<think>") where the answer should begin, and the server
      did not say that it kept something back.
    - ``refusal``: the server kept it back, or it says that it cannot or will not describe, and little else.
    - ``echo``: it is what was asked, and adds nothing.
    - ``loop``: most of it, or its end, is one passage over and over.
    - ``language``: it is in another language than what was asked, which named none.
    - ``truncated``: it was cut off at the limit of tokens.
    - ``boilerplate``: it opens with a stock phrase ("The image shows", "Certainly!").

    Args:
        text: the answer.
        finish_reason: why it ended, as the model gave it.
        turns: what was asked; empty where that is not known, and then there is neither ``echo`` nor ``language``.
    """
    said = words(text)
    asked = _asked(tuple(turns))
    found: dict[Flaw, bool] = {
        "empty": finish_reason not in REFUSED and _is_empty(text),
        "refusal": finish_reason in REFUSED or is_refusal(text),
        "echo": _is_echo(said, asked.questions),
        "loop": _is_loop(text, said),
        "language": asked.language is not None and differs(text, said, asked.language),
        "truncated": finish_reason == CUT_OFF,
        "boilerplate": _BOILERPLATE.match(text) is not None,
    }
    return [flaw for flaw, there in found.items() if there]


def words(text: str) -> list[str]:
    """Return the words in small letters, without digits and signs; of Chinese and its like, the single letters."""
    lower = text.lower()
    return (_ASCII_WORD if lower.isascii() else _WORD).findall(lower)


def opening(text: str, length: int = 3) -> str:
    """Return the first words of a text: what texts that open alike have in common."""
    return " ".join(words(text[:200])[:length])


@dataclass(frozen=True)
class _Asked:
    """What was asked: the words of each turn and of all together, and the language that answers are expected in."""

    questions: tuple[list[str], ...]
    language: Language | None


@lru_cache(maxsize=1024)
def _asked(turns: tuple[str, ...]) -> _Asked:
    questions = [words(turn) for turn in turns]
    together = [word for question in questions for word in question]
    distinct = {" ".join(question): question for question in (*questions, together) if question}
    language = None if names_a_language(together) else language_of(" ".join(turns), together)
    return _Asked(tuple(distinct.values()), language)


def _is_empty(text: str) -> bool:
    return not any(map(str.isalpha, text)) or _THOUGHTS.match(text) is not None


def _is_echo(said: list[str], questions: Sequence[list[str]]) -> bool:
    return any(_repeats(said, question) for question in questions)


def _repeats(said: list[str], question: list[str]) -> bool:
    """Whether an answer is the question, once or more, or most of it without a word that is new."""
    length, rest = len(question), said
    while rest[:length] == question:
        rest = rest[length:]
    if len(rest) < len(said):
        return len(rest) < _FEW_WORDS
    if len(said) > 2 * length or not set(said).difference(question) <= _NOTHING_NEW:
        return False
    return SequenceMatcher(None, said, question, autojunk=False).ratio() >= _NEARLY


def _is_loop(text: str, said: list[str]) -> bool:
    shingles = len(said) - _SHINGLE + 1
    if shingles >= _LEAST_LOOP:
        distinct = len(set(zip(*(said[start:] for start in range(_SHINGLE)), strict=False)))
        if distinct <= shingles / 2 or _ends_in_rounds(said):
            return True
    at_end = _SIGNS_AT_END.match(text.rstrip()[: -1 - 4 * _LEAST_SIGNS : -1])
    return at_end is not None and len(at_end[0]) >= _LEAST_SIGNS


def _ends_in_rounds(said: list[str]) -> bool:
    """Whether the last words are one passage, three times or more. The very last word may be cut off."""
    last = len(said) - 2
    for period in range(1, len(said) // _ROUNDS + 1):
        place = last
        while place >= period and said[place] == said[place - period]:
            place -= 1
        if last - place + period >= max(_LEAST_LOOP, _ROUNDS * period):
            return True
    return False

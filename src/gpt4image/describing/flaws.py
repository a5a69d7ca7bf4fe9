"""Flaws of an answer: what makes it useless as a description, or worse than it could be.

These functions run on every answer as it arrives. They report a flaw only where there is little doubt, because an
answer that is thrown away was paid for: short texts have no loops, and a refusal must be the whole answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from gpt4image.config import Flaw

REFUSED = frozenset({"content_filter", "refusal"})
CUT_OFF = "length"

# Thoughts of a reasoning model, from a server that does not separate them from the answer.
_THOUGHTS = re.compile(r"\s*(?:<think(?:ing)?>|◁think▷)", re.IGNORECASE)
_THOUGHT = re.compile(r".*(?:</think(?:ing)?>|◁/think▷)", re.IGNORECASE | re.DOTALL)

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
_FEW_WORDS, _NEARLY = 3, 0.8
_SHINGLE, _LEAST_LOOP, _ROUNDS, _LEAST_SIGNS = 4, 12, 3, 40
# The text backwards: a unit of a few signs, over and over, at its end.
_SIGNS_AT_END = re.compile(r"(.{1,12}?)\1{15,}", re.DOTALL)

# A refusal in English, or a placeholder for no answer: every sentence must be a refusal or a courtesy, so that no
# description is taken for one.
_PICTURE = r"(?:images?|pictures?|photos?|photographs?|attachments?|files?)\b"
_ANY_PICTURE = rf"(?:(?:the|this|that|your|an?|any) )?{_PICTURE}"
_DO = r"(?:describ|process|load|open|read|view|access|display|analy[sz]|see|retriev)(?:e|ed|n)?"
_CANNOT = r"(?:can'?t|cannot|can not|won'?t|will not|could(?: not|n'?t))"
_I_AM = r"i(?:'?m| am) (?:just |only )?"
_SORRY = rf"(?:(?:{_I_AM})?(?:so |very )?sorry|i apologi[sz]e|(?:my )?apologies|unfortunately|regrettably)"
_PEOPLE = r"(?:\w+ ){0,3}?(?:people|persons?|individuals?|who|someone|anyone|faces?)\b"

# Beginnings of the sentences of a refusal, in lower case.
_BEGINNINGS = (
    rf"i {_CANNOT} (?:assist|help|provide|describe|process|fulfil|comply|discuss|satisfy|answer|analy[sz]e)",
    rf"i {_CANNOT} (?:(?:see|view|access|open) {_ANY_PICTURE}|(?:identify|recogni[sz]e|name) {_PEOPLE})",
    rf"{_I_AM}(?:unable to|not (?:able|allowed|permitted|comfortable))\b",
    rf"(?:{_I_AM}|as )an? (?:[\w-]+ ){{0,3}}?(?:ai|language model|assistant)\b",
    r"i (?:must|have to|refuse to|need to) (?:respectfully )?(?:decline|refuse)",
    rf"i (?:don'?t|do not) (?:see|have) (?:an?|any|the|access to) {_PICTURE}",
    rf"(?:it (?:seems|looks|appears) (?:like |that )?)?(?:there is )?no {_PICTURE} (?:was |is )?(?:provided|attached)",
)
# Whole sentences of one.
_WHOLE = (
    rf"{_SORRY}|i refuse|n/a|none|null|nil|nan|undefined|\[image\]?",
    rf"(?:no )?(?:{_ANY_PICTURE}|description)(?: is| was)? (?:not )?(?:available|found)|no (?:{_PICTURE}|description)",
    rf"(?:error\W+)?(?:unable to|failed to|{_CANNOT}) {_DO} {_ANY_PICTURE}(?: file)?|{_ANY_PICTURE} {_CANNOT} be {_DO}",
)
_COURTESIES = (
    r"if (?:you|there)|please|let me know|feel free|how (?:can|may) i|thank|hello|hi\b|(?:would|can|could) you"
    r"|i(?:'d| would) be (?:happy|glad)|i can (?:help|assist|try|only)"
)
_REFUSAL = re.compile(rf"(?:{_SORRY}\W+)?(?:{'|'.join(_BEGINNINGS)})|(?:{'|'.join(_WHOLE)})\W*\Z")
_COURTESY = re.compile(_COURTESIES)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+|\b(?:but|however)\b")
_APOSTROPHES = str.maketrans("’‘ʼ`", "''''")
_LONGEST_REFUSAL = 2000


def without_thoughts(text: str) -> str:
    """Return what follows the thoughts of a reasoning model; some templates open them in the question."""
    end = _THOUGHT.match(text)
    return text if end is None else text[end.end() :].lstrip()


def flaws(text: str, *, finish_reason: str | None, turns: Sequence[str]) -> list[Flaw]:
    """Return what is wrong with an answer, in the order of ``Flaw``; nothing for a good one.

    - ``empty``: no letters, or thoughts of the model ("<think>") where the answer should begin, unless the server
      marked it as a refusal.
    - ``refusal``: the server kept it back, or it only says that it cannot or will not describe.
    - ``echo``: the question, with nothing added; unknown without ``turns``.
    - ``loop``: most of it, or its end, is one passage over and over.
    - ``truncated``: cut off at the limit of tokens.
    - ``boilerplate``: it opens with a stock phrase ("The image shows", "Certainly!").
    """
    own = words(text)
    found: dict[Flaw, bool] = {
        "empty": finish_reason not in REFUSED and (not any(map(str.isalpha, text)) or bool(_THOUGHTS.match(text))),
        "refusal": finish_reason in REFUSED or is_refusal(text),
        "echo": any(_repeats(own, question) for question in _questions(tuple(turns))),
        "loop": _is_loop(text, own),
        "truncated": finish_reason == CUT_OFF,
        "boilerplate": _BOILERPLATE.match(text) is not None,
    }
    return [flaw for flaw, there in found.items() if there]


def words(text: str) -> list[str]:
    """Return the words in lower case, without digits and signs; of Chinese and its like, the single characters."""
    lower = text.lower()
    return (_ASCII_WORD if lower.isascii() else _WORD).findall(lower)


@lru_cache(maxsize=1024)
def _questions(turns: tuple[str, ...]) -> tuple[list[str], ...]:
    """Return the words of each turn and of all together."""
    questions = [words(turn) for turn in turns]
    together = [word for question in questions for word in question]
    return tuple({" ".join(question): question for question in (*questions, together) if question}.values())


def _repeats(own: list[str], question: list[str]) -> bool:
    """Whether an answer is the question, once or more, or most of it without a new word."""
    length, rest = len(question), own
    while rest[:length] == question:
        rest = rest[length:]
    if len(rest) < len(own):
        return len(rest) < _FEW_WORDS
    if len(own) > 2 * length or not set(own).difference(question) <= _NOTHING_NEW:
        return False
    return SequenceMatcher(None, own, question, autojunk=False).ratio() >= _NEARLY


def _is_loop(text: str, own: list[str]) -> bool:
    """Whether most of a text, or its end, is one passage over and over; its very last word may be cut off."""
    shingles = len(own) - _SHINGLE + 1
    if shingles >= _LEAST_LOOP:
        distinct = len(set(zip(*(own[start:] for start in range(_SHINGLE)), strict=False)))
        if distinct <= shingles / 2:
            return True
        last = len(own) - 2
        for period in range(1, len(own) // _ROUNDS + 1):
            place = last
            while place >= period and own[place] == own[place - period]:
                place -= 1
            if last - place + period >= max(_LEAST_LOOP, _ROUNDS * period):
                return True
    at_end = _SIGNS_AT_END.match(text.rstrip()[: -1 - 4 * _LEAST_SIGNS : -1])
    return at_end is not None and len(at_end[0]) >= _LEAST_SIGNS


def is_refusal(text: str) -> bool:
    """Return whether a text refuses to describe, or says that there is no image or no answer, and nothing else."""
    if len(text) > _LONGEST_REFUSAL:
        return False
    sentences = [part.lstrip(" \t*_#>,-") for part in _SENTENCES.split(text.lower().translate(_APOSTROPHES))]
    refusing = [sentence for sentence in sentences if _REFUSAL.match(sentence)]
    return bool(refusing) and all(
        sentence in refusing or _COURTESY.match(sentence) for sentence in sentences if re.search(r"\w", sentence)
    )

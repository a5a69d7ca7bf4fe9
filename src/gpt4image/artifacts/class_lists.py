"""Class lists that a describer chooses from: how users write them, and which class of the list a word means."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from gpt4image.artifacts.answers import NONE_OF_THESE, ClassOption
from gpt4image.base.errors import ConfigError, first_few, first_line

_NOTHING = ("", "none", "none of the above", "no class", "n/a", "null")
_NEARLY = 0.75
"""Likeness of two names from which on one is taken for a misspelt other, as difflib reckons."""
_MOST_CLASSES, LONGEST_NAME = 100_000, 200
_VARIATIONS = re.compile("[\ufe00-\ufe0f]")  # the same sign, drawn in another way
_VOWEL_SIGNS = ("Mn", "Mc")  # of Thai, Hindi and others: Python counts them among no letters
_FILE = re.compile(r"\.(?:txt|csv|tsv|json|jsonl|ya?ml|md|names|list)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the) ")
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh)es$")


def class_list(given: str) -> tuple[ClassOption, ...]:
    """Return the classes of ``given``: a text file or a list, one class per line, or separated by commas.

    A definition follows its class after a colon: ``person: any human, athletes too``. Where a list has line breaks or
    only one class, commas belong to definitions. Raises ConfigError.
    """
    text, where = given, "--classes"
    try:
        if "\n" not in given and Path(given).is_file():
            text, where = Path(given).read_text(encoding="utf-8-sig"), f"--classes {given}"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--classes {given:.200}: cannot be read ({first_line(error)}); give a text file in UTF-8."
        ) from None
    lines = text.splitlines() if "\n" in text or where != "--classes" else text.split(",")
    lines = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    parts = (re.split(r":\s+|:$", line, maxsplit=1) for line in lines)
    options = tuple(ClassOption(name.strip(), *(" ".join(rest.split()) for rest in own)) for name, *own in parts)
    if len(options) == 1 and (alone := options[0].name):
        if where == "--classes" and _FILE.search(alone):
            raise ConfigError(
                f"{where} {alone}: there is no such file; give a text file, or a list such as 'cat, dog'."
            )
        if sign := next((sign for sign in ";|,\t" if sign in alone), ""):
            raise ConfigError(
                f"{where}: {alone!r} would be one class. Separate classes by commas in a list, by lines in a file, not "
                f"by {sign!r}."
            )
    if not options or len(options) > _MOST_CLASSES:
        raise ConfigError(f"{where}: {len(options):,} classes; give 1 to {_MOST_CLASSES:,}, one per line.")
    if long := [option.name for option in options if not 0 < len(option.name) <= LONGEST_NAME]:
        raise ConfigError(f"{where}: a class has {len(long[0])} characters; give names of 1 to {LONGEST_NAME}.")
    first: dict[str, str] = {}
    for option in reversed(options):
        first[_normal(option.name)] = option.name
    if len(first) < len(options):
        forms = Counter(_normal(option.name) for option in options)
        twice = [name for form, name in first.items() if forms[form] > 1]
        raise ConfigError(f"{where}: {first_few(twice)} cannot be told from another class; list each class once.")
    if _normal(NONE_OF_THESE) in first:
        raise ConfigError(f"{where}: {first[NONE_OF_THESE]!r} is offered in any case; leave it out.")
    return options


def compare_with(options: Iterable[ClassOption], known: Iterable[str], spec: str) -> str:
    """Return in a sentence how a list differs from the classes of a dataset; empty where it does not.

    A class that is not in the dataset is no mistake, as images without a label may be of it. A class whose name is
    nearly that of a class of the dataset that is not in the list is one. Raises ConfigError.
    """
    names, known = [option.name for option in options], list(known)
    if not known:
        return ""
    here, there = ClassNames(names), ClassNames(known)
    new, lost = [n for n in names if there.find(n) is None], [k for k in known if here.find(k) is None]
    near = {n: found[0] for n in new if (found := difflib.get_close_matches(n, lost, n=1, cutoff=_NEARLY))}
    if near:
        pairs = ", ".join(f"{name!r} (of the data: {other!r})" for name, other in near.items())
        raise ConfigError(
            f"--classes: {pairs} is almost the name of a class of {spec} that the list lacks. Spell it as the data do, "
            "or list both."
        )
    parts = [f"{first_few(new)}: in --classes, but no labelled image of {spec} has this class"] if new else []
    if lost:
        parts.append(f"{first_few(lost)}: class of {spec}, but not in --classes")
    return "; ".join(parts)


class ClassNames:
    """Finds the class of a list that a word means; without a list every word is a class."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._exact = set(names)
        self._by_form: dict[str, set[str]] = {}
        for name in names:
            for form in {_normal(name), _singular(_normal(name))}:
                self._by_form.setdefault(form, set()).add(name)

    def find(self, said: str | None) -> str | None:
        """Return the class: as spelt, or the only one that differs in case, spaces, article or plural."""
        if said is None or said in self._exact or not self._exact:
            return None if is_none(said) and said not in self._exact else said
        form = _normal(said)
        for candidate in (form, _singular(form)):
            found = [name for name in self._by_form.get(candidate, ()) if _normal(name) == candidate]
            found = found or list(self._by_form.get(candidate, ()))
            if len(found) == 1:
                return found[0]
        return None


class_names = lru_cache(maxsize=8)(ClassNames)


def is_none(said: str | None) -> bool:
    """Return whether a word says that no class of the list fits."""
    return said is None or _normal(said) in (_normal(NONE_OF_THESE), *_NOTHING) or said.strip().lower() in _NOTHING


def readable(name: str) -> str:
    """Return a class name as words on one line: folder names often have underscores."""
    return " ".join(name.replace("_", " ").split())


def _normal(name: str) -> str:
    folded = _VARIATIONS.sub("", unicodedata.normalize("NFKC", name)).casefold()
    spaced = (sign if sign.isalnum() or unicodedata.category(sign) in _VOWEL_SIGNS else " " for sign in folded)
    return _ARTICLE.sub("", " ".join("".join(spaced).split())) or folded.strip()


def _singular(words: str) -> str:
    if len(words) > 4 and words.endswith("ies"):
        return words[:-3] + "y"
    if len(words) > 4 and _SIBILANT.search(words):
        return words[:-2]
    return words[:-1] if len(words) > 3 and words.endswith("s") and not words.endswith("ss") else words

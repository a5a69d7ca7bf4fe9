"""Text from outside, made safe to look at: nothing in it is hidden, moves the cursor or turns the reading direction."""

from __future__ import annotations

import unicodedata

# Control, format and surrogate characters, line and paragraph separators.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Joiners shape emoji and many scripts.
_HARMLESS = frozenset("\n\t\u200c\u200d")

_FORMULA = ("=", "+", "-", "@", "'")  # what a spreadsheet runs; tab and carriage return are escaped before


def visible(text: str) -> str:
    r"""Return ``text`` with what nobody sees but a terminal or a browser acts on as escapes, e.g. ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in _HIDDEN and letter not in _HARMLESS else letter
        for letter in text
    )


def csv_cell(text: str) -> str:
    r"""Return ``in_one_line`` text for a CSV file: one that a spreadsheet would run as a formula begins with ``'``.

    So does one that begins with ``'`` itself: whoever removes one ``'`` from the front of a cell has the text again.
    """
    text = in_one_line(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def in_one_line(text: str) -> str:
    r"""Return ``visible`` text with its line breaks and tabs as escapes too: for rows and columns."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")

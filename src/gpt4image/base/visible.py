"""Text from outside, made safe to print: nothing in it is hidden, moves the cursor or turns the reading direction."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable

# Control, format and surrogate characters, line and paragraph separators.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Joiners shape emoji and many scripts.
_HARMLESS = frozenset("\n\t\u200c\u200d")

# Texts that a spreadsheet may run as a formula; with those that begin with an apostrophe already, and the empty text,
# so that ``from_csv_cell`` can tell them apart.
_RUN = re.compile(r"'*(?:[=+\-@＝＋－＠\t\r\n]|\Z)")


def csv_cell(text: str) -> str:
    """Return ``text`` as a CSV cell that no spreadsheet runs as a formula: an apostrophe before what might be one."""
    return f"'{text}" if _RUN.match(text) else text


def csv_line(cells: Iterable[str]) -> str:
    """Return texts as a line of a CSV file, in which no spreadsheet finds a formula."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([csv_cell(cell) if cell else "" for cell in cells])
    return line.getvalue()


def from_csv_cell(cell: str) -> str:
    """Return the text of which ``csv_cell`` made this cell."""
    return cell[1:] if cell.startswith("'") and _RUN.match(cell) else cell


def visible(text: str) -> str:
    r"""Return ``text`` with the invisible characters that a terminal or browser acts on as escapes, e.g. ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in _HIDDEN and letter not in _HARMLESS else letter
        for letter in text
    )


def in_one_line(text: str) -> str:
    r"""Return ``visible`` text with line breaks and tabs as escapes too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")

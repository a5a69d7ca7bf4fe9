"""Tables for a terminal: plain columns, what a terminal would act on escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gpt4image.base.visible import in_one_line, visible

WIDTH: Final = 80
"""Columns of a terminal that nobody has made wider, and of mails and logs."""


def text_table(title: str, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return rows of equal length as columns under a title, if there is one; the first row holds the headings.

    With ``numbers``, all columns but the first are aligned to the right. Where a long name in the first column would
    make a row wider than WIDTH, the name has a line of its own, uncut, and the rest of its row follows.
    """
    cells = [[in_one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    room = WIDTH - sum(2 + width for width in widths[1:])
    widths[0] = max(len(row[0]) for row in cells if len(row[0]) <= max(room, len(cells[0][0])))
    cells = [part for row in cells for part in ([row] if len(row[0]) <= widths[0] else [row[:1], ["", *row[1:]]])]
    signs = ["<", *(">" if numbers else "<" for _ in widths[1:])]
    lines = [
        "  ".join(f"{cell:{sign}{width}}" for cell, sign, width in zip(row, signs, widths, strict=False)).rstrip()
        for row in cells
    ]
    return "\n".join([visible(title), *lines] if title else lines)

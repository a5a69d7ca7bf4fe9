"""Tables for a terminal: plain columns, what a terminal would act on escaped."""

from __future__ import annotations

from collections.abc import Sequence

from gpt4image.base.visible import in_one_line, visible


def text_table(title: str, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return rows of equal length as columns under a title, if there is one; the first row holds the headings.

    With ``numbers``, all columns but the first are aligned to the right.
    """
    cells = [[in_one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    signs = ["<", *(">" if numbers else "<" for _ in widths[1:])]
    lines = [
        "  ".join(f"{cell:{sign}{width}}" for cell, sign, width in zip(row, signs, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([visible(title), *lines] if title else lines)

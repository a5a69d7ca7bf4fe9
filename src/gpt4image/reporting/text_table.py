"""Tables for a terminal: plain columns, what a terminal would act on escaped."""

from __future__ import annotations

from collections.abc import Sequence

from gpt4image.base.visible import in_one_line, visible


def text_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length as columns under a title; the first row holds the headings."""
    cells = [[in_one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([visible(title), *lines])

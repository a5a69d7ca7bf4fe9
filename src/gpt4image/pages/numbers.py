"""Numbers, lines of text and tables as people read them, on pages and in a terminal."""

import re
from collections.abc import Sequence
from typing import Final

from gpt4image.base.visible import in_one_line, visible

WIDTH: Final = 80
"""Columns of a terminal that nobody has made wider, and of mails and logs."""


def one_line(text: str) -> str:
    """Return ``text`` with every run of white space as one space, and what a terminal would act on made visible."""
    return visible(" ".join(text.split()))


def sentence(text: str) -> str:
    """Return ``text`` with a capital letter at its start; those inside it stay."""
    return text[:1].upper() + text[1:]


def tied(text: str) -> str:
    """Return ``text`` with no line break between a number and its unit or sign."""
    return re.sub(r"(?<=[\d=<p]) (?=[%=<\d]|points|seed|min|MB|GB|[sh]\b)", "\u00a0", text)


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign, which what rounds to zero has not; the minus is the typographic one."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return e.g. ``34.8 %``, or a dash for nothing."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %".replace("-", "−")


def percent_interval(interval: tuple[float, float] | None) -> str:
    """Return e.g. ``31.2 to 38.4 %``, or a dash for nothing."""
    return "–" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %".replace("-", "−")


def points(difference: float) -> str:
    """Return a difference of fractions in points, e.g. ``+15.5``."""
    return signed(100 * difference)


def points_interval(interval: tuple[float, float] | None) -> str:
    """Return e.g. ``+11.0 to +20.0``, or a dash for nothing."""
    return "–" if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def p_value(p: float | None) -> str:
    """Return e.g. ``0.004``, ``< 0.001``, or a dash for nothing."""
    if p is None:
        return "–"
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float | None) -> str:
    """Return e.g. ``42 s``, ``3.5 min`` or ``2.1 h``, or a dash for nothing."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def memory(size: float | None) -> str:
    """Return bytes as e.g. ``640 MB`` or ``1.2 GB``, or a dash for nothing."""
    if size is None:
        return "–"
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def seeds(n: int) -> str:
    """Return e.g. ``3 seeds``."""
    return f"{n} seed{'' if n == 1 else 's'}"


def text_table(title: str, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return rows of equal length as columns under a title; the first row holds the headings.

    With ``numbers``, all columns but the first are aligned to the right. A name too long for WIDTH has a line of its
    own.
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

"""Charts of a report as inline SVG: matplotlib draws, the page's style sheet colours them.

Every chart is drawn twice, for a wide page and for a phone, so that its text keeps its size; the style sheet shows one
of them. Colours become CSS variables, so that dark mode works, and text stays text, set in the page's font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from gpt4image.artifacts.run_records import Arm
from gpt4image.pages.numbers import percent, percent_interval, signed

# The light theme of the style sheet. Each colour is unique: in the SVG it becomes var(--name, colour).
COLOURS = {
    "ink": "#1d2126",
    "muted": "#5c6570",
    "rule": "#dddcd6",
    "accent": "#0b5fa5",
    "warm": "#a9480b",
    "reference": "#8b949e",
}
INK, MUTED, RULE, ACCENT, WARM, REFERENCE = COLOURS.values()
WIDE, NARROW = 720, 350
"""Widths of the two drawings in CSS pixels."""
MATRIX = 20
"""Classes that a confusion matrix has room for."""
FEW_PICTURES = 30
"""A score of a class that rests on fewer test pictures is shown with their number."""
BROKEN = "//"
"""Marks an axis that does not begin at 0."""
FONT = 12
SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT - 1,
    "ytick.labelsize": FONT - 1,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "text.parse_math": False,
}
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A quantity over epochs: ``epochs`` (E,), ``values`` (S, E) with one row per seed."""

    name: str
    epochs: NDArray[np.int64]
    values: NDArray[np.float64]
    colour: str = ACCENT
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Score of one class before and after; fractions. ``before`` is None where there is only one model.

    ``pictures`` is how many test pictures it rests on.
    """

    name: str
    before: float | None
    after: float
    pictures: int


def interval_chart(
    identifier: str,
    title: str,
    arms: Mapping[str, Arm],
    *,
    reference: str,
    axis: str,
    bounds: Mapping[str, str] = MappingProxyType({}),
) -> Markup:
    """Draw one row per arm: a ring per seed, the mean and its 95 % interval, the mean of ``reference`` as a line.

    Arms in ``bounds``, by what they are, are no results but what these are held against: a line and a band.
    """

    def draw(width: int) -> Figure:
        figure, axes = _rows(width, 44 + 34 * len(arms), axis)
        for row, (name, arm) in enumerate(arms.items()):
            colour = REFERENCE if name == reference else ACCENT
            if name == reference or name in bounds:
                axes.axvline(arm.mean, color=REFERENCE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            right = max((arm.mean, *(arm.ci95 or ()), *(() if name in bounds else arm.test)))
            _write(axes, f"{100 * arm.mean:.1f} %", (right, row), (9, 0), va="center", fontweight="bold")
            if name in bounds:
                if arm.ci95 is not None:
                    axes.axvspan(*arm.ci95, color=REFERENCE, alpha=0.14, linewidth=0, zorder=0)
                continue
            if arm.ci95 is not None:
                axes.plot(arm.ci95, [row, row], color=colour, linewidth=6, alpha=0.28, solid_capstyle="round")
            axes.scatter(arm.test, [row] * len(arm.test), s=34, facecolors="none", edgecolors=colour, linewidths=1.3)
            axes.plot([arm.mean] * 2, [row - 0.27, row + 0.27], color=colour, linewidth=2.6)
        _name_rows(axes, [_short(name, 30 if width > NARROW else 22) for name in arms])
        for label, name in zip(axes.get_yticklabels(), arms, strict=True):
            label.set_color(MUTED if name in bounds else INK)
        axes.margins(x=0.14 if width > NARROW else 0.26)
        _from_zero_or_marked(axes, "x")
        _percent_axis(axes, "x", bins=7 if width > NARROW else 3)
        return figure

    words = (
        f"{name}{f' ({bounds[name]})' if name in bounds else ''}: mean {percent(arm.mean)}"
        + (f", interval {percent_interval(arm.ci95)}" if arm.ci95 else "")
        for name, arm in arms.items()
    )
    return _both_widths(identifier, title, "; ".join(words), draw)


def curve_chart(
    identifier: str,
    title: str,
    panels: Mapping[str, Sequence[Curve]],
    *,
    fractions: bool,
    behind: Curve | None = None,
    named: bool = False,
) -> Markup:
    """Draw one small panel per arm on common axes: mean over seeds as a line, range of the seeds as a band.

    Args:
        identifier: prefix of all ids in the SVG; unique in the page.
        title: of the chart.
        panels: curves of each arm by name.
        fractions: values are fractions, written as per cent.
        behind: curve that every panel repeats in grey, for comparison.
        named: whether the only curve of a panel bears its name, too.
    """

    def draw(width: int) -> Figure:
        columns = min(len(panels), 3 if width > NARROW else 2)
        rows = -(-len(panels) // columns)
        figure = _figure(width, rows * (170 if columns > 1 else 220) + 10)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
            axes.set_title(_short(name, 24), loc="left", color=INK, fontweight="bold")
            if behind is not None and all(curve is not behind for curve in curves):
                axes.plot(behind.epochs, behind.values.mean(axis=0), color=REFERENCE, linewidth=1.2)
            for curve in curves:
                _draw_curve(axes, curve, label=named or len(curves) > 1)
            if fractions:
                _percent_axis(axes, "y", bins=5)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.margins(x=0.02)
        _from_zero_or_marked(grid[0, 0], "y")
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for column in range(columns):
            lowest = max(row for row in range(rows) if row * columns + column < len(panels))
            grid[lowest, column].tick_params(labelbottom=True)
            grid[lowest, column].set_xlabel("epoch")
        return figure

    ends = [
        f"{name}, {curve.name}: {curve.values[:, -1].mean():.3f} after epoch {curve.epochs[-1]}"
        for name, curves in panels.items()
        for curve in curves
    ]
    return _both_widths(identifier, title, "; ".join(ends), draw)


def class_chart(identifier: str, title: str, gains: Sequence[Gain], *, axis: str) -> Markup:
    """Draw one row per class: a ring before, a dot after, the way between them, and the difference in points."""

    def draw(width: int) -> Figure:
        figure, axes = _rows(width, 44 + 23 * len(gains), axis)
        for row, gain in enumerate(gains):
            start = 0.0 if gain.before is None else gain.before
            colour = ACCENT if gain.after >= start else WARM
            axes.plot([start, gain.after], [row, row], color=colour, linewidth=2.6, alpha=0.45)
            axes.scatter([gain.after], [row], s=42, color=colour, zorder=3)
            text = f"{100 * gain.after:.0f} %"
            if gain.before is not None:
                axes.scatter([start], [row], s=30, facecolors="none", edgecolors=REFERENCE, linewidths=1.5, zorder=2)
                text = signed(100 * (gain.after - start), digits=0)
            _write(axes, text, (max(start, gain.after), row), (8, 0), va="center", color=colour)
        names = [_short(gain.name, 26 if width > NARROW else 17) for gain in gains]
        few = [f" (n = {gain.pictures})" if gain.pictures < FEW_PICTURES else "" for gain in gains]
        _name_rows(axes, [name + n for name, n in zip(names, few, strict=True)])
        axes.set_xlim(-0.02, 1.1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        return figure

    befores = ["" if gain.before is None else f"{100 * gain.before:.0f} to " for gain in gains]
    words = [
        f"{gain.name}: {before}{100 * gain.after:.0f} % of {gain.pictures} pictures"
        for gain, before in zip(gains, befores, strict=True)
    ]
    return _both_widths(identifier, title, "; ".join(words), draw)


def matrix_chart(identifier: str, title: str, names: Sequence[str], counts: NDArray[np.int64]) -> Markup:
    """Draw pictures by true class (rows) and predicted class (columns), (K, K): the darker, the more of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(width: int) -> Figure:
        narrow, count = width <= NARROW, len(names)
        figure = _figure(width, 130 + 24 * count)
        axes = figure.subplots()
        for row, column in np.argwhere(counts).tolist():
            colour = ACCENT if row == column else WARM
            shade = 0.08 + 0.5 * float(shares[row, column])
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=shade, linewidth=0))
            if count <= (8 if narrow else MATRIX):
                place = (column, row)
                _write(axes, str(counts[row, column]), place, (0, 0), ha="center", va="center", fontsize=FONT - 2)
        _name_rows(axes, [_short(name, 12 if narrow else 22) for name in names])
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_xticks(range(count), [_short(name, 14) for name in names], rotation=90, color=INK)
        axes.tick_params(axis="x", labelbottom=False, labeltop=True)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel("predicted class")
        axes.xaxis.set_label_position("top")
        axes.set_ylabel("true class")
        return figure

    right, every = int(np.trace(counts)), int(counts.sum())
    return _both_widths(identifier, title, f"{right:,} of {every:,} pictures on the diagonal", draw)


def histogram_chart(identifier: str, title: str, edges: Sequence[float], counts: Sequence[int], *, axis: str) -> Markup:
    """Draw how often values fall between neighbouring ``edges`` (b + 1); ``counts`` is (b,)."""

    def draw(width: int) -> Figure:
        figure, axes = _rows(width, 150, axis)
        axes.stairs(counts, edges, fill=True, color=ACCENT, alpha=0.75)
        axes.grid(visible=False, axis="x")
        axes.spines["left"].set_visible(False)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(8 if width > NARROW else 5, integer=True))
        axes.margins(x=0.01)
        axes.set_ylim(0)
        return figure

    fullest = int(np.argmax(counts))
    most = f"most between {edges[fullest]:g} and {edges[fullest + 1]:g}"
    words = f"{sum(counts):,} values from {edges[0]:g} to {edges[-1]:g}, {most}"
    return _both_widths(identifier, title, words, draw)


def _draw_curve(axes: Axes, curve: Curve, *, label: bool) -> None:
    mean = curve.values.mean(axis=0)
    line = (0, (4, 2)) if curve.dashed else "-"
    if len(curve.values) > 1:
        low, high = curve.values.min(axis=0), curve.values.max(axis=0)
        axes.fill_between(curve.epochs, low, high, color=curve.colour, alpha=0.18, linewidth=0)
    axes.plot(curve.epochs, mean, color=curve.colour, linewidth=1.8, linestyle=line)
    if label:
        above = mean[-1] < 0.5 * sum(axes.get_ylim())
        style = {"ha": "right", "va": "bottom" if above else "top", "color": curve.colour, "fontsize": FONT - 1}
        _write(axes, curve.name, (curve.epochs[-1], mean[-1]), (0, 7 if above else -7), **style)


def _write(axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Write text at a place of the data, ``offset`` points away, even outside the axes."""
    axes.annotate(text, place, xytext=offset, textcoords="offset points", annotation_clip=False, **style)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, from the top, in place of a vertical axis."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _figure(width: int, height: int) -> Figure:
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def _rows(width: int, height: int, axis: str) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    axes = figure.subplots()
    axes.set_xlabel(_short(axis, 90 if width > NARROW else 40))
    return figure, axes


def _from_zero_or_marked(axes: Axes, which: str) -> None:
    """Let an axis begin at 0 where that costs less than half of it; mark it as broken where it would cost more."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if low <= 0.5 * high:
        (axes.set_xlim if which == "x" else axes.set_ylim)(min(low, 0.0), high)
    else:
        style: Any = {"color": MUTED, "annotation_clip": False, "ha": "center", "va": "center"}
        axes.annotate(BROKEN, (0, 0), xycoords="axes fraction", rotation=0 if which == "x" else 90, **style)


def _percent_axis(axes: Axes, which: str, *, bins: int) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, symbol=" %"))  # as many digits as tell the ticks apart


def _clean(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _short(name: str, limit: int) -> str:
    clean = _clean(name)
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def _both_widths(identifier: str, title: str, words: str, draw: Callable[[int], Figure]) -> Markup:
    drawings: list[str] = []
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        with mpl.rc_context(SETTINGS), mpl.rc_context({"svg.hashsalt": identifier}), warnings.catch_warnings():
            # The page's own fonts draw the text: that matplotlib's lacks a character does not matter.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            buffer = io.StringIO()
            draw(width).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        drawings.append(_inline(buffer.getvalue(), f"{identifier}-{kind}", kind, title, words))
    # Markup: the SVG was serialised by an XML library, which escaped every name in it.
    return Markup('<div class="chart">' + "".join(drawings) + "</div>")


def _inline(svg: str, identifier: str, kind: str, title: str, words: str) -> str:
    """Return an SVG file as an element for a page: titled, sized by the page, with ids of its own and CSS colours."""
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{identifier}-{value}")
            elif name == f"{{{XLINK}}}href":
                element.set(name, f"#{identifier}-{value.removeprefix('#')}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{identifier}-"))
            elif name == "style":
                element.set(name, _page_style(value))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    labels = {"title": title, "desc": words}
    for place, (tag, text) in enumerate(labels.items()):
        label = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{identifier}-{tag}"})
        label.text = _clean(text)
        root.insert(place, label)
    root.attrib.update({"class": kind, "role": "img", "aria-labelledby": f"{identifier}-title {identifier}-desc"})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _page_style(style: str) -> str:
    style = re.sub(r"font: (\d+ )?([\d.]+px) [^;]*", r"font-weight: \1; font-size: \2", style)  # before matplotlib 3.11
    style = re.sub(r"font-family: [^;]*; |font-weight: ; ", "", style)
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name}, {colour})")
    return style

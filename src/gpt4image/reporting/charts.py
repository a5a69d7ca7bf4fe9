"""Charts of reports and notebooks: matplotlib draws; in a page they are inline SVG that the style sheet colours.

Colours become CSS variables, so that dark mode works, and text stays text, set in the page's font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from gpt4image.artifacts.run_records import Arm
from gpt4image.pages.numbers import signed

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
WIDTH = 720
"""Width of a drawing in CSS pixels."""
FEW_PICTURES = 30
"""A score of a class that rests on fewer test pictures is shown with their number."""
BROKEN = "//"
"""Marks an axis that does not begin at 0."""
FONT = 12
SETTINGS: Any = {
    **{"svg.fonttype": "none", "text.parse_math": False, "text.color": INK, "font.size": FONT},
    **{"axes.titlesize": FONT, "axes.labelsize": FONT, "xtick.labelsize": FONT - 1, "ytick.labelsize": FONT - 1},
    **{"axes.edgecolor": RULE, "axes.labelcolor": MUTED, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.7},
    **{"xtick.color": MUTED, "ytick.color": MUTED, "xtick.major.size": 0, "ytick.major.size": 0},
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
    """Score of a class, of ``pictures`` test pictures, ``before`` and ``after``; fractions. None: only one model."""

    name: str
    before: float | None
    after: float
    pictures: int


def figure_of(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, sides in CSS pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


@mpl.rc_context(SETTINGS)
def interval_figure(
    comparisons: Mapping[str, Mapping[str, Arm]],
    reference: str,
    axis: str,
    bounds: Mapping[str, str] = MappingProxyType({}),
) -> Figure:
    """Draw one row per arm: a ring per seed, the mean and its 95 % interval, the mean of ``reference`` as a line.

    Arms in ``bounds``, by what they are, are no results but what these are held against: a line and a band. There is
    a panel per comparison.
    """
    rows = [len(arms) for arms in comparisons.values()]
    figure = figure_of(44 * len(rows) + 34 * sum(rows))
    panels = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0]
    for axes, (title, arms) in zip(panels, comparisons.items(), strict=True):
        axes.set_title(_short(title, 90), loc="left")
        axes.set_xlabel(_short(axis, 90))
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
        _name_rows(axes, [_short(name, 30) for name in arms])
        for label, name in zip(axes.get_yticklabels(), arms, strict=True):
            label.set_color(MUTED if name in bounds else INK)
        axes.margins(x=0.14)
        _from_zero_or_marked(axes, "x")
        _percent_axis(axes, "x", bins=7)
    return figure


@mpl.rc_context(SETTINGS)
def curve_figure(
    panels: Mapping[str, Sequence[Curve]], *, fractions: bool, behind: Curve | None = None, named: bool = False
) -> Figure:
    """Draw one small panel per arm on common axes: mean over seeds as a line, range of the seeds as a band.

    Every panel repeats the curve ``behind`` in grey. ``fractions`` are written as per cent; the only curve of a panel
    bears its name if ``named``.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = figure_of(rows * (170 if columns > 1 else 220) + 10)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        axes.set_title(_short(name, 24), loc="left", color=INK, fontweight="bold")
        if behind is not None and all(curve is not behind for curve in curves):
            axes.plot(behind.epochs, behind.values.mean(axis=0), color=REFERENCE, linewidth=1.2)
        for curve in curves:
            draw_curve(axes, curve, label=named or len(curves) > 1)
        if fractions:
            _percent_axis(axes, "y", bins=5)
        axes.margins(x=0.02)
    _from_zero_or_marked(grid[0, 0], "y")
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.set_axis_off()
        elif number + columns >= len(panels):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("epoch")
    return figure


@mpl.rc_context(SETTINGS)
def class_figure(gains: Sequence[Gain], axis: str) -> Figure:
    """Draw one row per class: a ring before, a dot after, the way between them, and the difference in points."""
    figure = figure_of(44 + 23 * len(gains))
    axes = figure.subplots()
    axes.set_xlabel(_short(axis, 90))
    for row, gain in enumerate(gains):
        start = gain.before or 0.0
        colour = ACCENT if gain.after >= start else WARM
        axes.plot([start, gain.after], [row, row], color=colour, linewidth=2.6, alpha=0.45)
        axes.scatter([gain.after], [row], s=42, color=colour, zorder=3)
        text = f"{100 * gain.after:.0f} %"
        if gain.before is not None:
            axes.scatter([start], [row], s=30, facecolors="none", edgecolors=REFERENCE, linewidths=1.5, zorder=2)
            text = signed(100 * (gain.after - start), digits=0)
        _write(axes, text, (max(start, gain.after), row), (8, 0), va="center", color=colour)
    few = [f" (n = {gain.pictures})" if gain.pictures < FEW_PICTURES else "" for gain in gains]
    _name_rows(axes, [_short(gain.name, 26) + n for gain, n in zip(gains, few, strict=True)])
    axes.set_xlim(-0.02, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


def draw_curve(axes: Axes, curve: Curve, *, label: bool) -> None:
    """Draw a curve, its range over seeds as a band, and its name at its end if ``label``."""
    mean = curve.values.mean(axis=0)
    if len(curve.values) > 1:
        low, high = curve.values.min(axis=0), curve.values.max(axis=0)
        axes.fill_between(curve.epochs, low, high, color=curve.colour, alpha=0.18, linewidth=0)
    axes.plot(curve.epochs, mean, color=curve.colour, linewidth=1.8, linestyle=(0, (4, 2)) if curve.dashed else "-")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if label:
        above = mean[-1] < 0.5 * sum(axes.get_ylim())
        style = {"ha": "right", "va": "bottom" if above else "top", "color": curve.colour, "fontsize": FONT - 1}
        _write(axes, curve.name, (curve.epochs[-1], mean[-1]), (0, 7 if above else -7), **style)


def inline(identifier: str, title: str, words: str, figure: Figure) -> Markup:
    """Return a figure as an element of a page: titled and described, sized by the page, with ids and CSS colours."""
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": identifier}), warnings.catch_warnings():
        # The page's own fonts draw the text: that matplotlib's lacks a character does not matter.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
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
    for place, (tag, text) in enumerate({"title": title, "desc": words}.items()):
        label = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{identifier}-{tag}"})
        label.text = _clean(text)
        root.insert(place, label)
    root.attrib.update({"role": "img", "aria-labelledby": f"{identifier}-title {identifier}-desc"})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    # Markup: the SVG was serialised by an XML library, which escaped every name in it.
    return Markup(f'<div class="chart">{ElementTree.tostring(root, encoding="unicode")}</div>')


def _write(axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Write text at a place of the data, ``offset`` points away, even outside the axes."""
    axes.annotate(_clean(text), place, xytext=offset, textcoords="offset points", annotation_clip=False, **style)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, from the top, in place of a vertical axis."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _from_zero_or_marked(axes: Axes, which: Literal["x", "y"]) -> None:
    """Let an axis begin at 0 where that costs less than half of it; mark it as broken where it would cost more."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if low <= 0.5 * high:
        (axes.set_xlim if which == "x" else axes.set_ylim)(min(low, 0.0), high)
    else:
        style: Any = {"color": MUTED, "annotation_clip": False, "ha": "center", "va": "center"}
        axes.annotate(BROKEN, (0, 0), xycoords="axes fraction", rotation=0 if which == "x" else 90, **style)


def _percent_axis(axes: Axes, which: Literal["x", "y"], *, bins: int) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, symbol=" %"))  # as many digits as tell the ticks apart


def _clean(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _short(name: str, limit: int) -> str:
    clean = _clean(name)
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def _page_style(style: str) -> str:
    style = re.sub(r"font: (\d+ )?([\d.]+px) [^;]*", r"font-weight: \1; font-size: \2", style)  # before matplotlib 3.11
    style = re.sub(r"font-family: [^;]*; |font-weight: ; ", "", style)
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name}, {colour})")
    return style

"""Charts of runs and comparisons: what ``plot()`` draws in a notebook, and the inline SVG of pages.

Colours become CSS variables, so that dark mode works, and text stays text, set in the page's font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from gpt4image.artifacts.runs import (
    FEW_IMAGES,
    Arm,
    Epoch,
    Evaluation,
    Run,
    checked,
    load_comparisons,
    load_run,
    read_evaluation,
)
from gpt4image.base.errors import RunError
from gpt4image.base.visible import in_one_line
from gpt4image.pages.numbers import percent, percent_interval, sentence, signed
from gpt4image.reporting.findings import metric_label

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
WIDTH = 720  # of a drawing in CSS pixels
FEW_PICTURES = 30  # a score of a class that rests on fewer test pictures is shown with their number
BROKEN = "//"  # marks an axis that does not begin at 0
CONFUSED = 5  # pairs of classes named per arm
CLASSES_SHOWN = 30  # rows of a class chart; of more classes, the first and the last are shown
PRETRAINING = "pretraining_loss"  # metric of runs without labels, which is no fraction
LOSSES: Mapping[str, tuple[str, str, bool]] = {
    "task": ("task", ACCENT, False),
    "align": ("alignment", WARM, True),
    "consistency": ("consistency", REFERENCE, True),
    "simclr": ("SimCLR", INK, True),
}
"""Parts of the training loss: in words, their colour, and whether their curve is dashed."""
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


def _curve(name: str, runs: Iterable[Run], read: Callable[[Epoch], float | None], **style: Any) -> Curve | None:
    """Return a quantity of the runs over their common epochs, or None where fewer than two epochs have it."""
    recorded = [[(epoch.epoch, value) for epoch in run.metrics if (value := read(epoch)) is not None] for run in runs]
    series = [points for points in recorded if len(points) > 1]
    if not series:
        return None
    length = min(map(len, series))
    epochs = np.array([epoch for epoch, _ in series[0][:length]])
    values = np.array([[value for _, value in points[:length]] for points in series])
    return Curve(name=name, epochs=epochs, values=values, **style)


def _losses(runs: Sequence[Run]) -> list[Curve]:
    """Return the curves of the known parts of the loss that are not 0 throughout."""
    there = {name for run in runs for epoch in run.metrics for name, value in epoch.losses.items() if value}
    found = [
        _curve(words, runs, lambda epoch, name=name: epoch.losses.get(name), colour=colour, dashed=dashed)
        for name, (words, colour, dashed) in LOSSES.items()
        if name in there
    ]
    return [curve for curve in found if curve]


def _few(runs: Iterable[Run]) -> int | None:
    """Return the validation images of the run with fewest, where they are too few for a curve."""
    counts = [run.held_out for run in runs if run.held_out < FEW_IMAGES]
    return min(counts, default=None)


def _primary(runs: Iterable[Run]) -> tuple[str, str]:
    for evaluation in (run.evaluation for run in runs if run.evaluation):
        return evaluation.metric, metric_label(evaluation.metric, evaluation.titles)
    names = (name for run in runs for epoch in run.metrics for name in epoch.val or () if name != "loss")
    metric = next(names, "")
    return metric, metric_label(metric)


def interval_chart(
    identifier: str, title: str, arms: Mapping[str, Arm], reference: str, bounds: Mapping[str, str]
) -> Markup:
    """Return the chart of the means and intervals of arms; see ``interval_figure``."""
    words = (
        f"{name}{f' ({bounds[name]})' if name in bounds else ''}: mean {percent(arm.mean)}"
        + (f", interval {percent_interval(arm.ci95)}" if arm.ci95 else "")
        for name, arm in arms.items()
    )
    figure = interval_figure({"": arms}, reference, title, bounds)
    return inline(f"{identifier}-intervals", f"{sentence(title)} of each arm", "; ".join(words), figure)


def _curves(identifier: str, title: str, panels: Mapping[str, Sequence[Curve]], **how: Any) -> Markup:
    words = (
        f"{name}, {curve.name}: {curve.values[:, -1].mean():.3f} after epoch {curve.epochs[-1]}"
        for name, curves in panels.items()
        for curve in curves
    )
    return inline(identifier, title, "; ".join(words), curve_figure(panels, **how))


def score_curves(
    identifier: str, runs: Mapping[str, Sequence[Run]], *, reference: str | None, bounds: Collection[str] = ()
) -> Markup:
    """Return the chart of the primary metric over epochs, one panel per arm before the reference in grey.

    Arms in ``bounds`` are grey too. There is no curve of fewer than ``FEW_IMAGES`` validation images.
    """
    every = [run for several in runs.values() for run in several]
    metric, title = _primary(every)
    curves: dict[str, Curve] = {}
    for arm, arm_runs in runs.items():
        colour = REFERENCE if arm == reference or arm in bounds else ACCENT
        curve = _curve(arm, arm_runs, lambda epoch: (epoch.val or {}).get(metric), colour=colour)
        if curve and _few(arm_runs) is None:
            curves[arm] = curve
    if not curves:
        few = _few(every)
        return Markup("<p>Not drawn: only {} validation images.</p>").format(few) if few else Markup()
    panels = {arm: [curve] for arm, curve in curves.items()}
    behind = curves.get(reference) if reference else None
    return _curves(
        f"{identifier}-scores",
        f"Validation {title} over epochs",
        panels,
        fractions=metric != PRETRAINING,
        behind=behind,
    )


def loss_curves(identifier: str, runs: Mapping[str, Sequence[Run]]) -> Markup:
    """Return the chart of the parts of the training loss over epochs, one panel per arm."""
    panels = {arm: curves for arm, arm_runs in runs.items() if (curves := _losses(arm_runs))}
    if not panels:
        return Markup()
    return _curves(f"{identifier}-losses", "Training losses over epochs", panels, fractions=False, named=True)


def _class_scores(evaluations: Iterable[Evaluation | None]) -> dict[str, tuple[float, int]]:
    """Return the mean score of each class, and its test pictures; classes without any are left out."""
    values: dict[str, list[float]] = {}
    pictures: dict[str, int] = {}
    for found in filter(None, evaluations):
        for name, score, support in zip(found.classes, found.per_class, found.support, strict=True):
            if score is not None:
                values.setdefault(name, []).append(score)
                pictures[name] = support
    return {name: (fmean(scores), pictures[name]) for name, scores in values.items()}


def _gains(before: Iterable[Evaluation | None] | None, after: Iterable[Evaluation | None]) -> list[Gain]:
    """Return the scores of classes, sorted by gain over ``before``, or by score without it."""
    old, new = None if before is None else _class_scores(before), _class_scores(after)
    gains = [
        Gain(name=in_one_line(name), before=old[name][0] if old else None, after=score, pictures=pictures)
        for name, (score, pictures) in new.items()
        if old is None or name in old
    ]
    return sorted(gains, key=lambda gain: (gain.before or 0.0) - gain.after)


def class_gains(identifier: str, before: Sequence[Run] | None, after: Sequence[Run]) -> tuple[Markup, str]:
    """Return the chart of class scores, sorted by gain over ``before``, or by score without it, and which classes are
    left out of it; an empty one where there is nothing to show."""
    measure = next((run.evaluation.class_metric for run in after if run.evaluation), "")
    gains = _gains(None if before is None else [run.evaluation for run in before], [run.evaluation for run in after])
    if not gains:
        return Markup(), ""
    left_out = ""
    if len(gains) > CLASSES_SHOWN:
        by = measure if before is None else "gain"
        left_out = f"{CLASSES_SHOWN} of {len(gains)} classes: those with the largest and the smallest {by}. "
        gains = gains[: CLASSES_SHOWN // 2] + gains[-CLASSES_SHOWN // 2 :]
    words = (
        f"{gain.name}: {'' if gain.before is None else f'{100 * gain.before:.0f} to '}{100 * gain.after:.0f} % of "
        f"{gain.pictures} pictures"
        for gain in gains
    )
    title = f"{sentence(measure)} of each class" + ("" if before is None else ", before and after")
    figure = class_figure(gains, f"{measure} within the class")
    return inline(f"{identifier}-classes", title, "; ".join(words), figure), left_out


class Confused(NamedTuple):
    """Test pictures of class ``truth`` predicted as ``taken``, summed over seeds, and their share of that class."""

    truth: str
    taken: str
    pictures: int
    share: float


def confusions(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Confused]]:
    """Return the most confused pairs of classes of each arm, most frequent first; none where nothing is recorded."""
    found: dict[str, list[Confused]] = {}
    for arm, arm_runs in runs.items():
        counts: Counter[tuple[str, str]] = Counter()
        support: Counter[str] = Counter()
        for one in (run.evaluation for run in arm_runs if run.evaluation):
            if one.confused is not None:
                support.update(dict(zip(one.classes, one.support, strict=True)))
                counts.update({(one.classes[truth], one.classes[taken]): n for truth, taken, n in one.confused})
        if support:
            found[arm] = [Confused(*pair, n, n / support[pair[0]]) for pair, n in counts.most_common(CONFUSED)]
    return found


@dataclass(frozen=True)
class Plot:
    """A drawing that a notebook shows; ``figure`` is matplotlib's, to change or to save."""

    figure: Figure

    def _repr_svg_(self) -> str:
        file = io.StringIO()
        self.figure.savefig(file, format="svg", bbox_inches="tight")
        return file.getvalue()

    def save(self, path: Path | str) -> None:
        """Write the drawing to a file; its ending says the format (.png, .svg, .pdf)."""
        self.figure.savefig(path, bbox_inches="tight")


def plot_run(folder: Path) -> Plot:
    """Draw the losses and the validation score of a run over its epochs."""
    run = load_run(folder)
    metric, title = _primary([run])
    figure = figure_of(216)
    left, right = figure.subplots(1, 2)
    for curve in _losses([run]):
        draw_curve(left, curve, label=True)
    score = _curve(title, [run], lambda epoch: (epoch.val or {}).get(metric))
    if (few := _few([run])) is not None:
        text = f"not drawn: only {few} validation images"
        right.text(0.5, 0.5, text, ha="center", va="center", transform=right.transAxes)
    elif score:
        draw_curve(right, score, label=False)
    for axes, name in ((left, "training loss"), (right, f"validation {title}")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
    return Plot(figure)


def plot_comparison(folder: Path) -> Plot:
    """Draw the test scores of each arm, their mean and its 95 % interval, a panel per comparison in the folder."""
    comparisons = load_comparisons(folder)
    first = next(iter(comparisons.values()))
    arms = {name: one.arms for name, one in comparisons.items()}
    axis = f"test {metric_label(first.metric, first.titles)}, 95 % interval over seeds"
    return Plot(interval_figure(arms, first.reference, axis))


def plot_classes(record: Path) -> Plot:
    """Draw the score of each class of a run that ``evaluate`` measured, best first. Raises RunError."""
    evaluation = checked(record, lambda: Evaluation.model_validate(read_evaluation(record)))
    gains = _gains(None, [evaluation])
    if not gains:
        raise RunError(f"{record} has no score of a class, so there is nothing to draw.")
    axis = f"{evaluation.class_metric} per class, {evaluation.split} split"
    return Plot(class_figure(gains[:CLASSES_SHOWN], axis))

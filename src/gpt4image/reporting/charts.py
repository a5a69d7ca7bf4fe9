"""Charts of runs and comparisons, drawn by matplotlib: the same in notebooks, in files and on pages."""

import base64
import io
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gpt4image.artifacts.comparisons import Arm, load_comparisons
from gpt4image.artifacts.runs import FEW_IMAGES, Epoch, Evaluation, Run, load_evaluation, load_run
from gpt4image.base.errors import RunError
from gpt4image.base.intervals import wilson
from gpt4image.pages.numbers import percent, percent_interval, sentence, signed
from gpt4image.reporting.findings import metric_label

INK, MUTED, RULE, ACCENT, WARM, REFERENCE = "#1d2126", "#5c6570", "#dddcd6", "#0b5fa5", "#a9480b", "#8b949e"
WIDTH = 10.0  # of a chart, in inches
FEW_PICTURES = 30  # a score of a class that rests on fewer test pictures is shown with their number
CLASSES_SHOWN = 30  # rows of a class chart; of more classes, the first and the last are shown
PRETRAINING = "pretraining_loss"  # metric of runs without labels, which is no fraction
LOSSES: Mapping[str, tuple[str, str]] = {
    "task": ("task", ACCENT),
    "align": ("alignment", WARM),
    "consistency": ("consistency", REFERENCE),
    "simclr": ("SimCLR", INK),
}
"""Parts of the training loss: in words, and their colour."""
SETTINGS: Any = {
    **{"svg.fonttype": "none", "svg.hashsalt": "gpt4image", "font.family": "sans-serif", "font.size": 12},
    **{"text.parse_math": False, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": RULE},
    **{"axes.titlesize": 12, "axes.labelsize": 12, "axes.titlelocation": "left"},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": RULE},
    **{"xtick.color": MUTED, "ytick.color": MUTED, "xtick.major.size": 0, "ytick.major.size": 0},
}
with_settings = mpl.rc_context(SETTINGS)


@dataclass(frozen=True)
class Plot:
    """A chart that a notebook or a page shows. ``figure`` is matplotlib's, to change or to save; ``words`` say what is
    to be seen."""

    figure: Figure
    words: str = ""

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        with mpl.rc_context(SETTINGS), warnings.catch_warnings():
            # The fonts of the reader draw the text: that matplotlib's lacks a character does not matter.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()

    def __html__(self) -> Markup:
        data = base64.b64encode(self._repr_svg_().encode()).decode()
        return Markup('<img class="chart" alt="{}" src="data:image/svg+xml;base64,{}">').format(self.words, data)

    def save(self, path: Path | str) -> None:
        """Write the chart to a file; its ending says the format (.png, .svg, .pdf)."""
        self.figure.savefig(path, bbox_inches="tight")


@with_settings
def intervals(
    comparisons: Mapping[str, Mapping[str, Arm]],
    reference: str,
    axis: str,
    bounds: Mapping[str, str] = MappingProxyType({}),
) -> Plot:
    """Draw one row per arm: a ring per seed, the mean and its 95 % interval, the mean of ``reference`` as a line.

    Arms in ``bounds``, by their kind, are no ways to train: a line and a band. There is a panel per comparison.
    """
    rows = [len(arms) for arms in comparisons.values()]
    figure = Figure(figsize=(WIDTH, 0.6 * len(rows) + 0.47 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0]
    words = list[str]()
    for axes, (title, arms) in zip(panels, comparisons.items(), strict=True):
        axes.set_title(_short(title, 90))
        axes.set_xlabel(_short(axis, 90))
        for row, (name, arm) in enumerate(arms.items()):
            colour = REFERENCE if name == reference else ACCENT
            if name == reference or name in bounds:
                axes.axvline(arm.mean, color=REFERENCE, linewidth=1, linestyle="--", zorder=1)
            if arm.ci95 is not None and name in bounds:
                axes.axvspan(*arm.ci95, color=REFERENCE, alpha=0.14, linewidth=0, zorder=0)
            elif arm.ci95 is not None:
                axes.plot(arm.ci95, [row, row], color=colour, linewidth=6, alpha=0.28, solid_capstyle="round")
            if name not in bounds:
                axes.scatter(arm.test, [row] * len(arm.test), s=34, facecolors="none", edgecolors=colour)
                axes.plot([arm.mean] * 2, [row - 0.27, row + 0.27], color=colour, linewidth=2.6)
            right = max((arm.mean, *(arm.ci95 or ()), *(() if name in bounds else arm.test)))
            _write(axes, f"{100 * arm.mean:.1f} %", right, row, fontweight="bold")
            kind, interval = f" ({bounds[name]})" if name in bounds else "", percent_interval(arm.ci95)
            words.append(f"{name}{kind}: mean {percent(arm.mean)}, interval {interval}")
        _name_rows(axes, [_short(name, 30) for name in arms])
        axes.margins(x=0.14)
        _from_zero_or_marked(axes, "x")
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return Plot(figure, f"{sentence(axis)} of each arm: {'; '.join(words)}")


def _primary(runs: Iterable[Run]) -> tuple[str, str]:
    """Return the primary metric of runs, and its name in words."""
    for evaluation in (run.evaluation for run in runs if run.evaluation):
        return evaluation.metric, metric_label(evaluation.metric, evaluation.titles)
    names = (name for run in runs for epoch in run.metrics for name in epoch.val or () if name != "loss")
    metric = next(names, "")
    return metric, metric_label(metric)


def _curve(axes: Axes, runs: Sequence[Run], read: Callable[[Epoch], float | None], colour: str, *, band: bool) -> str:
    """Draw the mean of a quantity over the runs and their common epochs, its range as a ``band``; return it in words,
    or nothing where fewer than two epochs have it."""
    recorded = [[(epoch.epoch, value) for epoch in run.metrics if (value := read(epoch)) is not None] for run in runs]
    series = [points for points in recorded if len(points) > 1]
    if not series:
        return ""
    length = min(map(len, series))
    epochs = [epoch for epoch, _ in series[0][:length]]
    values = np.array([[value for _, value in points[:length]] for points in series])
    axes.plot(epochs, values.mean(axis=0), color=colour, linewidth=1.8)
    if band and len(values) > 1:
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return f"{values[:, -1].mean():.3f} after epoch {epochs[-1]}"


@with_settings
def training(
    runs: Mapping[str, Sequence[Run]], reference: str | None = None, bounds: Collection[str] = ()
) -> Plot | None:
    """Draw a row per arm: the parts of its training loss and its validation score over epochs.

    Lines are means over seeds, bands their range. The score of the ``reference`` is grey in every row; arms in
    ``bounds`` are grey too. There is no score of fewer than ``FEW_IMAGES`` validation images. Return None where nothing
    is recorded.
    """
    metric, title = _primary([run for several in runs.values() for run in several])
    figure = Figure(figsize=(WIDTH, 2.6 * len(runs)), layout="constrained")
    grid, words = figure.subplots(len(runs), 2, sharex=True, sharey="col", squeeze=False), list[str]()

    def score(epoch: Epoch) -> float | None:
        return (epoch.val or {}).get(metric)

    def too_few(of: Iterable[Run]) -> int | None:
        return min((run.held_out for run in of if run.held_out < FEW_IMAGES), default=None)

    for (left, right), (name, own) in zip(grid, runs.items(), strict=True):
        left.set_title(f"{_short(name, 24)}: training loss", color=INK)
        right.set_title(f"validation {title}", color=INK)
        for part, (label, colour) in LOSSES.items():
            drawn = any(epoch.losses.get(part) for run in own for epoch in run.metrics)
            if drawn and (
                found := _curve(left, own, lambda epoch, part=part: epoch.losses.get(part), colour, band=True)
            ):
                left.lines[-1].set_label(label)
                words.append(f"{name}, {label} {found}")
        if left.lines:
            left.legend(frameon=False)
        if (few := too_few(own)) is not None:
            text = f"not drawn: only {few} validation images"
            right.text(0.5, 0.5, text, ha="center", va="center", transform=right.transAxes)
            words.append(f"{name}, {text}")
        elif metric:
            behind = [] if reference is None or name == reference else runs.get(reference, [])
            if behind and too_few(behind) is None:
                _curve(right, behind, score, REFERENCE, band=False)
            colour = REFERENCE if name == reference or name in bounds else ACCENT
            found = _curve(right, own, score, colour, band=True)
            words += [f"{name}, validation {title} {found}"] * bool(found)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    if metric != PRETRAINING and any(axes.lines for axes in grid[:, 1]):
        grid[0, 1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        _from_zero_or_marked(grid[0, 1], "y")
    return Plot(figure, f"Training over epochs: {'; '.join(words)}") if words else None


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


@with_settings
def classes(before: Iterable[Evaluation | None] | None, after: Iterable[Evaluation | None]) -> tuple[Plot | None, str]:
    """Draw a row per class: a ring before, a dot after, and the difference in points; sorted by gain, or by score
    without ``before``. Return also which classes are left out. The plot is None where no class has a score."""
    measured = [evaluation for evaluation in after if evaluation]
    old, new = None if before is None else _class_scores(before), _class_scores(measured)
    gains = {name: score - (old[name][0] if old else 0.0) for name, (score, _) in new.items() if not old or name in old}
    names, left_out = sorted(gains, key=lambda name: -gains[name]), ""
    if not names:
        return None, ""
    measure = measured[0].class_metric
    if len(names) > CLASSES_SHOWN:
        by = "gain" if old else measure
        left_out = f"{CLASSES_SHOWN} of {len(names)} classes: those with the largest and the smallest {by}. "
        names = names[: CLASSES_SHOWN // 2] + names[-CLASSES_SHOWN // 2 :]
    figure = Figure(figsize=(WIDTH, 0.6 + 0.32 * len(names)), layout="constrained")
    axes, words, labels = figure.subplots(), list[str](), list[str]()
    axes.set_xlabel(f"{measure} per class, {measured[0].split} split")
    for row, name in enumerate(names):
        score, pictures = new[name]
        start, colour = score - gains[name], WARM if gains[name] < 0 else ACCENT
        axes.plot([start, score], [row, row], color=colour, linewidth=2.6, alpha=0.45)
        axes.scatter([score], [row], s=42, color=colour, zorder=3)
        if old:
            axes.scatter([start], [row], s=30, facecolors="none", edgecolors=REFERENCE, zorder=2)
        text = signed(100 * gains[name], digits=0) if old else f"{100 * score:.0f} %"
        _write(axes, text, max(start, score), row, color=colour)
        labels.append(_short(name, 26) + (f" (n = {pictures})" if pictures < FEW_PICTURES else ""))
        words.append(f"{name}: {f'{100 * start:.0f} to ' if old else ''}{100 * score:.0f} % of {pictures} pictures")
    _name_rows(axes, labels)
    axes.set_xlim(-0.02, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return Plot(figure, f"{sentence(measure)} of each class: {'; '.join(words)}"), left_out


@with_settings
def reliability(evaluation: Evaluation | None) -> Plot | None:
    """Draw how often predictions are right against what they state: a dot per group, and its 95 % interval."""
    if evaluation is None or evaluation.calibration is None:
        return None
    figure = Figure(figsize=(WIDTH / 2, WIDTH / 2), layout="constrained")
    axes, words = figure.subplots(), list[str]()
    axes.plot([0, 1], [0, 1], color=REFERENCE, linewidth=1, linestyle="--")
    for stated, right, images in evaluation.calibration.bins:
        axes.plot([stated] * 2, wilson(right, images), color=ACCENT, linewidth=2.6, alpha=0.45)
        axes.scatter([stated], [right], s=42, color=ACCENT, zorder=3)
        words.append(f"stated {percent(stated)}, right {percent(right)} of {images} pictures")
    axes.set_xlabel("stated probability")
    axes.set_ylabel("share that is right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return Plot(figure, f"How sure the model is, and how often it is right: {'; '.join(words)}")


def _write(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """Write text right of a place of the data, even outside the axes."""
    place: Any = {"xytext": (9, 0), "textcoords": "offset points", "annotation_clip": False, "va": "center"}
    axes.annotate(text, (x, y), **place, **style)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, from the top, in place of a vertical axis."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _from_zero_or_marked(axes: Axes, which: Literal["x", "y"]) -> None:
    """Let an axis begin at 0 where that costs less than half of it; mark it as broken by // where it costs more."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if low <= 0.5 * high:
        (axes.set_xlim if which == "x" else axes.set_ylim)(min(low, 0.0), high)
    else:
        style: Any = {"color": MUTED, "annotation_clip": False, "ha": "center", "va": "center"}
        axes.annotate("//", (0, 0), xycoords="axes fraction", rotation=0 if which == "x" else 90, **style)


def _short(name: str, limit: int) -> str:
    """Return a name on one line, without what no font can draw."""
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def plot_run(folder: Path) -> Plot | None:
    """Draw the losses and the validation score of a run over its epochs."""
    return training({folder.resolve().name: [load_run(folder)]})


def plot_comparison(folder: Path) -> Plot:
    """Draw the test scores of each arm, their mean and its 95 % interval, a panel per comparison in the folder."""
    comparisons = load_comparisons(folder)
    first = next(iter(comparisons.values()))
    arms = {name: one.arms for name, one in comparisons.items()}
    return intervals(arms, first.reference, f"test {metric_label(first.metric, first.titles)}, 95 % interval")


def plot_classes(record: Path) -> Plot:
    """Draw the score of each class of a run that ``evaluate`` measured, best first. Raises RunError."""
    found, _ = classes(None, [load_evaluation(record)])
    if found is None:
        raise RunError(f"{record} has no score of a class, so there is nothing to draw.")
    return found


@with_settings
def plot_benchmark(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Draw the score of each model of ``benchmark`` with its interval over milliseconds and over megabytes."""
    there = [row for row in rows if row["score"] is not None]
    if not there:
        raise RunError("No model was measured on labelled images, so there is nothing to draw.")
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    for axes, (key, unit) in zip(
        figure.subplots(1, 2, sharey=True),
        (("ms_1", "milliseconds per image, one thread"), ("mb", "megabytes")),
        strict=True,
    ):
        for row in there:
            if row["ci95"]:
                axes.plot([row[key]] * 2, row["ci95"], color=ACCENT, linewidth=5, alpha=0.28, solid_capstyle="round")
            axes.scatter(row[key], row["score"], s=40, color=ACCENT)
            axes.annotate(_short(row["model"], 24), (row[key], row["score"]), (5, 5), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel(unit)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    figure.axes[0].set_ylabel(f"{there[0]['metric']}, 95 % interval")
    told = (f"{row['model']}: {percent(row['score'])}, {row['ms_1']} ms, {row['mb']} MB" for row in there)
    return Plot(figure, "; ".join(told))

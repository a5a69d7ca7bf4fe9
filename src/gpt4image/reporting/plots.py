"""What ``plot()`` of a result draws in a notebook: the curves of a run, the bars of a comparison, scores per class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpt4image.artifacts.run_records import FEW_IMAGES, Epoch, Evaluation, checked, load_comparisons, load_run
from gpt4image.artifacts.runs import read_evaluation
from gpt4image.base.errors import RunError
from gpt4image.base.visible import in_one_line
from gpt4image.reporting.findings import metric_label
from gpt4image.reporting.run_charts import losses_of

CLASSES_SHOWN = 40


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
    epochs = run.metrics
    figure = Figure(figsize=(9, 3))
    left, right = figure.subplots(1, 2)
    for name, title in losses_of(epochs).items():
        _line(left, epochs, [epoch.losses.get(name) for epoch in epochs], title)
    left.set_ylabel("training loss")
    left.legend()
    metric = next((name for epoch in epochs for name in epoch.val or () if name != "loss"), "")
    if run.held_out is not None and run.held_out < FEW_IMAGES:
        text = f"not drawn: only {run.held_out} validation images"
        right.text(0.5, 0.5, text, ha="center", va="center", transform=right.transAxes)
    else:
        _line(right, epochs, [(epoch.val or {}).get(metric) for epoch in epochs], metric)
    right.set_ylabel(f"validation {metric_label(metric)}")
    for axes in (left, right):
        axes.set_xlabel("epoch")
    return Plot(figure)


def _line(axes: Axes, epochs: Sequence[Epoch], values: Sequence[float | None], name: str) -> None:
    points = [(epoch.epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 20 else None)


def _plain(name: str) -> str:
    return in_one_line(name).replace("$", r"\$")


def plot_comparison(folder: Path) -> Plot:
    """Draw the mean test score of each arm with its 95 % interval, a panel per comparison in the folder."""
    comparisons = load_comparisons(folder)
    rows = [len(comparison.arms) for comparison in comparisons.values()]
    figure = Figure(figsize=(8, 1 + 0.45 * sum(rows)))
    panels = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0]
    for axes, (name, comparison) in zip(panels, comparisons.items(), strict=True):
        arms = dict(reversed(comparison.arms.items()))
        means = [arm.mean for arm in arms.values()]
        intervals = [arm.ci95 or (arm.mean, arm.mean) for arm in arms.values()]
        spread = [[mean - low for mean, (low, _) in zip(means, intervals, strict=True)]]
        spread += [[high - mean for mean, (_, high) in zip(means, intervals, strict=True)]]
        axes.barh([_plain(arm) for arm in arms], means, xerr=spread, color="#0b5fa5", alpha=0.75, capsize=3)
        axes.set_xlim(left=0.0)
        axes.set_title(_plain(name), loc="left")
        axes.set_xlabel(f"test {metric_label(comparison.metric, comparison.titles)}, 95 % interval over seeds")
    figure.set_layout_engine("tight")
    return Plot(figure)


def plot_classes(record: Path) -> Plot:
    """Draw the score of each class of a run that ``evaluate`` measured, best first. Raises RunError."""
    evaluation = checked(record, lambda: Evaluation.model_validate(read_evaluation(record)))
    pairs = zip(evaluation.classes, evaluation.per_class, strict=True)
    scored = sorted(((score, name) for name, score in pairs if score is not None), reverse=True)[:CLASSES_SHOWN]
    if not scored:
        raise RunError(f"{record} has no score of a class, so there is nothing to draw.")
    figure = Figure(figsize=(8, 1 + 0.25 * len(scored)))
    axes = figure.subplots()
    axes.barh([_plain(name) for _, name in scored][::-1], [score for score, _ in scored][::-1], color="#0b5fa5")
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel(f"{evaluation.class_metric} per class, {evaluation.split} split")
    return Plot(figure)

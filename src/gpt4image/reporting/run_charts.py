"""Charts of runs: curves over epochs, scores per class, confused classes; and what ``plot()`` draws in a notebook."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpt4image.artifacts.run_records import FEW_IMAGES, Epoch, Evaluation, Run, checked, load_comparisons, load_run
from gpt4image.artifacts.runs import read_evaluation
from gpt4image.base.errors import RunError
from gpt4image.base.visible import in_one_line
from gpt4image.pages.numbers import sentence
from gpt4image.reporting import charts
from gpt4image.reporting.findings import metric_label

CONFUSED = 5
"""Pairs of classes named per arm."""
BARS = 40
"""Classes that ``plot`` shows."""
CLASSES_SHOWN = 30
"""Rows of the class chart; of more classes, the first and the last are shown."""
PRETRAINING = "pretraining_loss"
"""Metric of runs without labels, which is no fraction."""
LOSSES: Mapping[str, str] = {"task": "task", "align": "alignment", "consistency": "consistency", "simclr": "SimCLR"}
"""Parts of the training loss in words, in the order of charts."""
LOSS_STYLES = ((charts.ACCENT, False), (charts.WARM, True), (charts.REFERENCE, True), (charts.INK, True))
"""Colours of the losses of a run, and whether they are dashed."""


def losses_of(epochs: Iterable[Epoch]) -> dict[str, str]:
    """Return the known parts of the loss that are not 0 throughout, and their names in words."""
    seen = {name for epoch in epochs for name, value in epoch.losses.items() if value}
    return {name: title for name, title in LOSSES.items() if name in seen}


def _curve(name: str, runs: Iterable[Run], read: Callable[[Epoch], float | None], **style: Any) -> charts.Curve | None:
    """Return a quantity of the runs over their common epochs, or None where fewer than two epochs have it."""
    recorded = [[(epoch.epoch, value) for epoch in run.metrics if (value := read(epoch)) is not None] for run in runs]
    series = [points for points in recorded if len(points) > 1]
    if not series:
        return None
    length = min(map(len, series))
    return charts.Curve(
        name=name,
        epochs=np.array([epoch for epoch, _ in series[0][:length]]),
        values=np.array([[value for _, value in points[:length]] for points in series]),
        **style,
    )


def score_curves(
    identifier: str, runs: Mapping[str, Sequence[Run]], *, reference: str | None, bounds: Collection[str] = ()
) -> Markup:
    """Return the chart of the primary metric over epochs, one panel per arm before the reference in grey.

    Arms in ``bounds`` are grey too. There is no curve of fewer than ``FEW_IMAGES`` validation images.
    """
    metric, title = _primary(runs)
    curves: dict[str, charts.Curve] = {}
    for arm, arm_runs in runs.items():
        if any(run.held_out is not None and run.held_out < FEW_IMAGES for run in arm_runs):
            continue
        colour = charts.REFERENCE if arm == reference or arm in bounds else charts.ACCENT
        if curve := _curve(arm, arm_runs, lambda epoch: (epoch.val or {}).get(metric), colour=colour):
            curves[arm] = curve
    if not curves:
        few = [run.held_out for arm_runs in runs.values() for run in arm_runs if run.held_out]
        return (
            Markup("<p>Not drawn: only {} validation images.</p>").format(min(few))
            if few and min(few) < FEW_IMAGES
            else Markup()
        )
    return charts.curve_chart(
        f"{identifier}-scores",
        f"Validation {title} over epochs",
        {arm: [curve] for arm, curve in curves.items()},
        fractions=metric != PRETRAINING,
        behind=curves.get(reference) if reference else None,
    )


def _primary(runs: Mapping[str, Sequence[Run]]) -> tuple[str, str]:
    every = [run for several in runs.values() for run in several]
    for evaluation in (run.evaluation for run in every if run.evaluation):
        return evaluation.metric, metric_label(evaluation.metric, evaluation.titles)
    metric = next((name for run in every for epoch in run.metrics for name in epoch.val or ()), "")
    return metric, metric_label(metric)


def loss_curves(identifier: str, runs: Mapping[str, Sequence[Run]]) -> Markup:
    """Return the chart of the parts of the training loss over epochs, one panel per arm."""
    panels: dict[str, list[charts.Curve]] = {}
    for arm, arm_runs in runs.items():
        names = losses_of(epoch for run in arm_runs for epoch in run.metrics)
        found = [
            _curve(title, arm_runs, lambda epoch, name=name: epoch.losses.get(name), colour=colour, dashed=dashed)
            for (name, title), (colour, dashed) in zip(names.items(), LOSS_STYLES, strict=False)
        ]
        if curves := [curve for curve in found if curve]:
            panels[arm] = curves
    if not panels:
        return Markup()
    return charts.curve_chart(
        f"{identifier}-losses", "Training losses over epochs", panels, fractions=False, named=True
    )


def class_scores(runs: Sequence[Run]) -> dict[str, tuple[float, int]]:
    """Return the score of each class, the mean over runs, and its test pictures; classes without any are left out."""
    values: dict[str, list[float]] = {}
    pictures: dict[str, int] = {}
    for found in (run.evaluation for run in runs if run.evaluation):
        for name, score, support in zip(found.classes, found.per_class, found.support, strict=True):
            if score is not None:
                values.setdefault(name, []).append(score)
                pictures[name] = support
    return {name: (fmean(scores), pictures[name]) for name, scores in values.items()}


@dataclass(frozen=True, kw_only=True)
class OfClasses:
    """A chart of classes, empty where there is nothing to show, and a sentence about those that are left out of it."""

    chart: Markup = field(default_factory=Markup)
    left_out: str = ""


def class_gains(identifier: str, before: Sequence[Run] | None, after: Sequence[Run]) -> OfClasses:
    """Return the chart of class scores, sorted by gain over ``before``, or by score without it."""
    old, new = class_scores(before) if before is not None else None, class_scores(after)
    measure = next((run.evaluation.class_metric for run in after if run.evaluation), "")
    names = [name for name in new if old is None or name in old]
    gains = [
        charts.Gain(
            name=in_one_line(name), before=old[name][0] if old else None, after=new[name][0], pictures=new[name][1]
        )
        for name in names
    ]
    gains.sort(key=lambda gain: (gain.before or 0.0) - gain.after)
    if not gains:
        return OfClasses()
    left_out = ""
    if len(gains) > CLASSES_SHOWN:
        by = measure if old is None else "gain"
        left_out = f"{CLASSES_SHOWN} of {len(gains)} classes: those with the largest and the smallest {by}. "
        gains = gains[: CLASSES_SHOWN // 2] + gains[-CLASSES_SHOWN // 2 :]
    title = f"{sentence(measure)} of each class" + ("" if old is None else ", before and after")
    chart = charts.class_chart(f"{identifier}-classes", title, gains, axis=f"{measure} within the class")
    return OfClasses(chart=chart, left_out=left_out)


def confusion_matrix(identifier: str, evaluation: Evaluation | None) -> OfClasses:
    """Return the confusion matrix of a run; of many classes, those that are confused most often."""
    if evaluation is None or evaluation.confused is None:
        return OfClasses()
    involved, total = Counter[int](), len(evaluation.classes)
    for truth, taken, n in evaluation.confused:
        involved.update({truth: n, taken: n})
    most = [k for k, _ in involved.most_common(charts.MATRIX)]
    kept = sorted([*most, *(k for k in range(total) if k not in involved)][: charts.MATRIX])
    place = {k: row for row, k in enumerate(kept)}
    counts = np.zeros((len(kept), len(kept)), np.int64)
    missed = Counter[int]()
    for truth, taken, n in evaluation.confused:
        missed[truth] += n
        if truth in place and taken in place:
            counts[place[truth], place[taken]] += n
    for k, row in place.items():
        counts[row, row] = max(evaluation.support[k] - missed[k], 0)
    left_out = f"{len(kept)} of {total} classes: those that are confused most often. " if total > len(kept) else ""
    names = [in_one_line(evaluation.classes[k]) for k in kept]
    title = "Pictures by true and by predicted class"
    return OfClasses(chart=charts.matrix_chart(f"{identifier}-matrix", title, names, counts), left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Test pictures of class ``truth`` predicted as ``taken``, summed over seeds, and their share of that class."""

    truth: str
    taken: str
    count: int
    share: float


def confusions(runs: Mapping[str, Sequence[Run]], limit: int = CONFUSED) -> dict[str, list[Confused]]:
    """Return the most confused pairs of classes of each arm, most frequent first; none where nothing is recorded."""
    found: dict[str, list[Confused]] = {}
    for arm, arm_runs in runs.items():
        counts: Counter[tuple[str, str]] = Counter()
        support: Counter[str] = Counter()
        for evaluation in (run.evaluation for run in arm_runs if run.evaluation):
            if evaluation.confused is not None:
                names = evaluation.classes
                support.update(dict(zip(names, evaluation.support, strict=True)))
                counts.update({(names[truth], names[taken]): n for truth, taken, n in evaluation.confused})
        if support:
            found[arm] = [
                Confused(truth=truth, taken=taken, count=n, share=n / support[truth])
                for (truth, taken), n in counts.most_common(limit)
            ]
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
        axes.barh([_plain(arm) for arm in arms], means, xerr=spread, color=charts.ACCENT, alpha=0.75, capsize=3)
        axes.set_xlim(left=0.0)
        axes.set_title(_plain(name), loc="left")
        axes.set_xlabel(f"test {metric_label(comparison.metric, comparison.titles)}, 95 % interval over seeds")
    figure.set_layout_engine("tight")
    return Plot(figure)


def plot_classes(record: Path) -> Plot:
    """Draw the score of each class of a run that ``evaluate`` measured, best first. Raises RunError."""
    evaluation = checked(record, lambda: Evaluation.model_validate(read_evaluation(record)))
    pairs = zip(evaluation.classes, evaluation.per_class, strict=True)
    scored = sorted(((score, name) for name, score in pairs if score is not None), reverse=True)[:BARS]
    if not scored:
        raise RunError(f"{record} has no score of a class, so there is nothing to draw.")
    figure = Figure(figsize=(8, 1 + 0.25 * len(scored)))
    axes = figure.subplots()
    axes.barh([_plain(name) for _, name in scored][::-1], [score for score, _ in scored][::-1], color=charts.ACCENT)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel(f"{evaluation.class_metric} per class, {evaluation.split} split")
    return Plot(figure)

"""Charts of runs and comparisons for a report; and what ``plot()`` draws in a notebook."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from gpt4image.artifacts.run_records import FEW_IMAGES, Arm, Epoch, Evaluation, Run, checked, load_comparisons, load_run
from gpt4image.artifacts.runs import read_evaluation
from gpt4image.base.errors import RunError
from gpt4image.base.visible import in_one_line
from gpt4image.pages.numbers import percent, percent_interval, sentence
from gpt4image.reporting import charts
from gpt4image.reporting.findings import metric_label

CONFUSED = 5
"""Pairs of classes named per arm."""
CLASSES_SHOWN = 30
"""Rows of a class chart; of more classes, the first and the last are shown."""
PRETRAINING = "pretraining_loss"
"""Metric of runs without labels, which is no fraction."""
LOSSES: Mapping[str, tuple[str, str, bool]] = {
    "task": ("task", charts.ACCENT, False),
    "align": ("alignment", charts.WARM, True),
    "consistency": ("consistency", charts.REFERENCE, True),
    "simclr": ("SimCLR", charts.INK, True),
}
"""Parts of the training loss: in words, their colour, and whether their curve is dashed."""


def _curve(name: str, runs: Iterable[Run], read: Callable[[Epoch], float | None], **style: Any) -> charts.Curve | None:
    """Return a quantity of the runs over their common epochs, or None where fewer than two epochs have it."""
    recorded = [[(epoch.epoch, value) for epoch in run.metrics if (value := read(epoch)) is not None] for run in runs]
    series = [points for points in recorded if len(points) > 1]
    if not series:
        return None
    length = min(map(len, series))
    epochs = np.array([epoch for epoch, _ in series[0][:length]])
    values = np.array([[value for _, value in points[:length]] for points in series])
    return charts.Curve(name=name, epochs=epochs, values=values, **style)


def _losses(runs: Sequence[Run]) -> list[charts.Curve]:
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
    counts = [run.held_out for run in runs if run.held_out is not None and run.held_out < FEW_IMAGES]
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
    """Return the chart of the means and intervals of arms; see ``charts.interval_figure``."""
    words = (
        f"{name}{f' ({bounds[name]})' if name in bounds else ''}: mean {percent(arm.mean)}"
        + (f", interval {percent_interval(arm.ci95)}" if arm.ci95 else "")
        for name, arm in arms.items()
    )
    figure = charts.interval_figure({"": arms}, reference, title, bounds)
    return charts.inline(f"{identifier}-intervals", f"{sentence(title)} of each arm", "; ".join(words), figure)


def _curves(identifier: str, title: str, panels: Mapping[str, Sequence[charts.Curve]], **how: Any) -> Markup:
    words = (
        f"{name}, {curve.name}: {curve.values[:, -1].mean():.3f} after epoch {curve.epochs[-1]}"
        for name, curves in panels.items()
        for curve in curves
    )
    return charts.inline(identifier, title, "; ".join(words), charts.curve_figure(panels, **how))


def score_curves(
    identifier: str, runs: Mapping[str, Sequence[Run]], *, reference: str | None, bounds: Collection[str] = ()
) -> Markup:
    """Return the chart of the primary metric over epochs, one panel per arm before the reference in grey.

    Arms in ``bounds`` are grey too. There is no curve of fewer than ``FEW_IMAGES`` validation images.
    """
    every = [run for several in runs.values() for run in several]
    metric, title = _primary(every)
    curves: dict[str, charts.Curve] = {}
    for arm, arm_runs in runs.items():
        colour = charts.REFERENCE if arm == reference or arm in bounds else charts.ACCENT
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


class OfClasses(NamedTuple):
    """A chart of classes, empty where there is nothing to show, and a sentence about those that are left out of it."""

    chart: Markup = Markup()
    left_out: str = ""


def _gains(before: Iterable[Evaluation | None] | None, after: Iterable[Evaluation | None]) -> list[charts.Gain]:
    """Return the scores of classes, sorted by gain over ``before``, or by score without it."""
    old, new = None if before is None else _class_scores(before), _class_scores(after)
    gains = [
        charts.Gain(name=in_one_line(name), before=old[name][0] if old else None, after=score, pictures=pictures)
        for name, (score, pictures) in new.items()
        if old is None or name in old
    ]
    return sorted(gains, key=lambda gain: (gain.before or 0.0) - gain.after)


def class_gains(identifier: str, before: Sequence[Run] | None, after: Sequence[Run]) -> OfClasses:
    """Return the chart of class scores, sorted by gain over ``before``, or by score without it."""
    measure = next((run.evaluation.class_metric for run in after if run.evaluation), "")
    gains = _gains(None if before is None else [run.evaluation for run in before], [run.evaluation for run in after])
    if not gains:
        return OfClasses()
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
    figure = charts.class_figure(gains, f"{measure} within the class")
    return OfClasses(charts.inline(f"{identifier}-classes", title, "; ".join(words), figure), left_out)


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
    figure = charts.figure_of(216)
    left, right = figure.subplots(1, 2)
    for curve in _losses([run]):
        charts.draw_curve(left, curve, label=True)
    score = _curve(title, [run], lambda epoch: (epoch.val or {}).get(metric))
    if (few := _few([run])) is not None:
        text = f"not drawn: only {few} validation images"
        right.text(0.5, 0.5, text, ha="center", va="center", transform=right.transAxes)
    elif score:
        charts.draw_curve(right, score, label=False)
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
    return Plot(charts.interval_figure(arms, first.reference, axis))


def plot_classes(record: Path) -> Plot:
    """Draw the score of each class of a run that ``evaluate`` measured, best first. Raises RunError."""
    evaluation = checked(record, lambda: Evaluation.model_validate(read_evaluation(record)))
    gains = _gains(None, [evaluation])
    if not gains:
        raise RunError(f"{record} has no score of a class, so there is nothing to draw.")
    axis = f"{evaluation.class_metric} per class, {evaluation.split} split"
    return Plot(charts.class_figure(gains[:CLASSES_SHOWN], axis))

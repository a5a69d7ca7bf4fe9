"""The report stage: one self-contained HTML page about a comparison or a run, from its records alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from gpt4image.config import ReportConfig
from gpt4image.errors import RunError
from gpt4image.files import read_json, write_text
from gpt4image.outcome import Outcome, SetAside
from gpt4image.reporting import charts, findings, metric_tables
from gpt4image.reporting.page import render
from gpt4image.reporting.records import (
    COMPARISON,
    DOUBTFUL,
    EXAMPLES,
    Comparison,
    Doubt,
    Epoch,
    Evaluation,
    Example,
    Run,
    load_arm_runs,
    load_comparisons,
    load_items,
    load_run,
)
from gpt4image.runs import CONFIG, RUN

PAGE = "report.html"
CONFUSED = 5
"""Pairs of classes named per arm."""
CLASSES_SHOWN = 30
"""Rows of the class chart; of more classes, those with the most and the least are shown."""
NOT_OPTIONS = frozenset({"arm", "chosen", "out", "seed", "resume"})


@dataclass(frozen=True, kw_only=True)
class Page:
    """A rendered page and what the stage says about it."""

    html: str
    text: str
    summary: Mapping[str, Any]
    set_aside: tuple[SetAside, ...]


def report(config: ReportConfig) -> Outcome:
    """Write report.html into a run or comparison folder.

    Raises:
        RunError: the folder holds neither a comparison nor a finished run, or a record in it is malformed.
    """
    page = _build(config.dir)
    path = config.dir / PAGE
    write_text(path, page.html)
    return Outcome(path=path, summary=page.summary, text=page.text, set_aside=page.set_aside)


def write_report(folder: Path) -> Path:
    """Write the report.html of a run or comparison folder and return its path; raises as `report` does."""
    write_text(folder / PAGE, _build(folder).html)
    return folder / PAGE


def _build(folder: Path) -> Page:
    if (folder / COMPARISON).is_file():
        return _comparison_page(folder)
    if (folder / RUN).is_file() or (folder / CONFIG).is_file():
        return _run_page(load_run(folder))
    raise RunError(
        f"{folder} holds neither {COMPARISON} nor {RUN}; give a folder that `gpt4image compare`, `gpt4image demo` or "
        "`gpt4image train` has finished writing."
    )


def _comparison_page(folder: Path) -> Page:
    comparisons = load_comparisons(folder)
    examples, bad_examples = load_items(folder / EXAMPLES, Example)
    doubtful, bad_doubts = load_items(folder / DOUBTFUL, Doubt)
    set_aside = bad_examples + bad_doubts
    sections = []
    all_runs: dict[str, list[Run]] = {}
    for number, (name, comparison) in enumerate(comparisons.items(), start=1):
        runs, unreadable = load_arm_runs(folder, comparison)
        set_aside += unreadable
        sections.append(_section(f"c{number}", name, comparison, runs))
        for arm, arm_runs in runs.items():
            all_runs[f"{name}: {arm}" if name else arm] = arm_runs
    first = next(iter(comparisons.values()))
    html = render(
        "comparison.html",
        title=findings.one_line(first.question) or "What did descriptions buy?",
        sections=sections,
        headings=metric_tables.HEADINGS,
        test_examples=[example for example in examples if example.split != "train"],
        train_examples=[example for example in examples if example.split == "train"],
        doubtful=doubtful,
        set_aside=set_aside,
        background=_background(all_runs),
    )
    record = read_json(folder / COMPARISON)
    summary = {
        "findings": {section.name or "comparison": section.findings[0] for section in sections},
        "pictures": len(examples),
    }
    return Page(html=html, text=metric_tables.all_tables(record), summary=summary, set_aside=tuple(set_aside))


def _run_page(run: Run) -> Page:
    arm = str(run.config.get("arm", "train"))
    name = findings.one_line(run.folder.resolve().name if arm == "train" else arm)  # "train": no arm of a comparison
    runs = {name: [run]}
    sentence = run_sentence(run.evaluation)
    html = render(
        "run.html",
        title=f"Run {name}",
        sentence=sentence,
        run=run,
        evaluation=run.evaluation,
        curves=accuracy_curves("run", runs, reference=None),
        losses=loss_curves("run", runs),
        classes=class_gains("run", None, runs[name]),
        confusions=confusions(runs),
        background=_background(runs),
    )
    accuracy = run.evaluation.top1 if run.evaluation else None
    return Page(html=html, text=sentence, summary={"top1": accuracy}, set_aside=())


@dataclass(frozen=True, kw_only=True)
class Section:
    """One comparison, ready for the template; a chart is empty where its records are missing."""

    id: str
    name: str
    comparison: Comparison
    metric: str
    findings: list[str]
    few_seeds: str
    metrics: list[metric_tables.MetricTable]
    corruptions: list[metric_tables.Corrupted]
    absent: list[str]
    intervals: Markup
    curves: Markup
    losses: Markup
    classes: Markup
    best_arm: str | None
    confusions: dict[str, list[Confused]]


def _section(identifier: str, name: str, comparison: Comparison, runs: Mapping[str, Sequence[Run]]) -> Section:
    metric, best = findings.metric_name(comparison), findings.best_text_arm(comparison)
    spreads = [
        charts.Spread(
            name=arm,
            values=record.test,
            mean=record.mean,
            interval=record.ci95,
            is_reference=arm == comparison.reference,
        )
        for arm, record in comparison.arms.items()
    ]
    title = f"{metric.capitalize()} of each arm"
    return Section(
        id=identifier,
        name=name,
        comparison=comparison,
        metric=metric,
        findings=findings.findings(comparison),
        few_seeds=findings.few_seeds_note(comparison),
        metrics=metric_tables.metric_tables(comparison),
        corruptions=metric_tables.corruption_table(comparison),
        absent=metric_tables.absent_notes(comparison),
        intervals=charts.interval_chart(f"{identifier}-intervals", title, spreads, axis=metric),
        curves=accuracy_curves(identifier, runs, reference=comparison.reference),
        losses=loss_curves(identifier, runs),
        classes=class_gains(identifier, runs[comparison.reference], runs[best]) if best else Markup(),
        best_arm=best,
        confusions=confusions(runs),
    )


def run_sentence(evaluation: Evaluation | None) -> str:
    """Return how good one run is, in one sentence."""
    if evaluation is None or evaluation.top1 is None:
        return "This run was not evaluated on labelled pictures."
    split = {"val": "Validation", "test": "Test", "train": "Training"}.get(evaluation.split, evaluation.split)
    more = [
        f"{label} {value}"
        for label, value in (
            ("top-5", evaluation.top5 is not None and findings.percent(evaluation.top5)),
            (
                "mean over classes",
                evaluation.mean_class_accuracy is not None and findings.percent(evaluation.mean_class_accuracy),
            ),
            ("calibration error", evaluation.ece is not None and f"{evaluation.ece:.3f}"),
        )
        if value
    ]
    extra = f" ({', '.join(more)})" if more else ""
    return f"{split} accuracy is {findings.percent(evaluation.top1)} on {evaluation.labelled:,} pictures{extra}."


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


def accuracy_curves(identifier: str, runs: Mapping[str, Sequence[Run]], *, reference: str | None) -> Markup:
    """Return the chart of validation accuracy over epochs, one panel per arm before the reference in grey."""

    def curve(arm: str) -> charts.Curve | None:
        colour = charts.REFERENCE if arm == reference else charts.ACCENT
        return _curve(arm, runs[arm], lambda epoch: epoch.val.top1 if epoch.val else None, colour=colour)

    curves = {arm: found for arm in runs if (found := curve(arm))}
    if not curves:
        return Markup()
    return charts.curve_chart(
        f"{identifier}-accuracy",
        "Validation accuracy over epochs",
        {arm: [curve] for arm, curve in curves.items()},
        fractions=True,
        behind=curves.get(reference) if reference else None,
    )


def loss_curves(identifier: str, runs: Mapping[str, Sequence[Run]]) -> Markup:
    """Return the chart of the task and alignment losses over epochs, one panel per arm."""
    panels: dict[str, list[charts.Curve]] = {}
    for arm, arm_runs in runs.items():
        found = [
            _curve("task", arm_runs, lambda epoch: epoch.task_loss),
            _curve("alignment", arm_runs, lambda epoch: epoch.align_loss, colour=charts.WARM, dashed=True),
        ]
        if curves := [curve for curve in found if curve]:
            panels[arm] = curves
    if not panels:
        return Markup()
    return charts.curve_chart(f"{identifier}-losses", "Training losses over epochs", panels, fractions=False)


def class_accuracies(runs: Sequence[Run]) -> dict[str, float]:
    """Return the accuracy of each class, the mean over runs; classes without a test picture are left out."""
    values: dict[str, list[float]] = {}
    for run in runs:
        if run.evaluation:
            for name, accuracy in zip(run.evaluation.classes, run.evaluation.per_class, strict=True):
                if accuracy is not None:
                    values.setdefault(name, []).append(accuracy)
    return {name: fmean(accuracies) for name, accuracies in values.items()}


def class_gains(identifier: str, before: Sequence[Run] | None, after: Sequence[Run]) -> Markup:
    """Return the chart of class accuracies, sorted by gain over ``before``, or by accuracy without it."""
    old, new = class_accuracies(before) if before is not None else None, class_accuracies(after)
    names = [name for name in new if old is None or name in old]
    gains = [charts.Gain(name=name, before=old[name] if old else None, after=new[name]) for name in names]
    gains.sort(key=lambda gain: (gain.before or 0.0) - gain.after)
    if not gains:
        return Markup()
    if len(gains) > CLASSES_SHOWN:
        gains = gains[: CLASSES_SHOWN // 2] + gains[-CLASSES_SHOWN // 2 :]
    title = "Accuracy of each class" if old is None else "Accuracy of each class, before and after"
    return charts.class_chart(f"{identifier}-classes", title, gains, axis="accuracy within the class")


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Test pictures of class ``truth`` taken for ``taken``, summed over seeds, and their share of that class."""

    truth: str
    taken: str
    count: int
    share: float


def confusions(runs: Mapping[str, Sequence[Run]], limit: int = CONFUSED) -> dict[str, list[Confused]]:
    """Return the most confused pairs of classes of each arm, most frequent first."""
    found: dict[str, list[Confused]] = {}
    for arm, arm_runs in runs.items():
        counts: Counter[tuple[str, str]] = Counter()
        support: Counter[str] = Counter()
        for evaluation in (run.evaluation for run in arm_runs if run.evaluation):
            for truth, row in zip(evaluation.classes, evaluation.confusion, strict=True):
                support[truth] += sum(row)
                counts.update({(truth, taken): n for taken, n in zip(evaluation.classes, row, strict=True) if n})
        wrong = Counter({pair: n for pair, n in counts.items() if pair[0] != pair[1]})
        if counts:
            found[arm] = [
                Confused(truth=truth, taken=taken, count=n, share=n / support[truth])
                for (truth, taken), n in wrong.most_common(limit)
            ]
    return found


@dataclass(frozen=True, kw_only=True)
class Background:
    """How the runs were made: what they share, how arms differ, where they ran, what they cost and set aside."""

    shared: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    differing: dict[str, dict[str, str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    costs: dict[str, dict[str, float | None]] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)


def _background(runs: Mapping[str, Sequence[Run]]) -> Background:
    everything = [run for arm_runs in runs.values() for run in arm_runs]
    options = {
        arm: distinct(
            {name: value for name, value in run.config.items() if name not in NOT_OPTIONS} for run in arm_runs
        )
        for arm, arm_runs in runs.items()
        if arm_runs
    }
    names = sorted({name for values in options.values() for name in values})
    spread = {name: {arm: values.get(name, "–") for arm, values in options.items()} for name in names}
    return Background(
        shared={name: next(iter(v.values())) for name, v in spread.items() if len(set(v.values())) == 1},
        chosen=distinct(run.config.get("chosen", {}) for run in everything),
        differing={name: v for name, v in spread.items() if len(set(v.values())) > 1},
        environment=distinct(run.environment for run in everything),
        data=distinct(run.run.get("data", {}) for run in everything),
        costs={arm: _cost(arm_runs) for arm, arm_runs in runs.items() if arm_runs},
        set_aside=_set_aside(everything),
    )


def distinct(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return every key of the records with its distinct values as text, in order of appearance."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            values.setdefault(name, {})[text] = None
    return {name: " · ".join(texts) for name, texts in values.items()}


def _cost(runs: Sequence[Run]) -> dict[str, float | None]:
    def mean(name: str) -> float | None:
        values = [value for run in runs if isinstance(value := run.run.get(name), int | float)]
        return fmean(values) if values else None

    return {name: mean(name) for name in ("seconds", "peak_memory_bytes", "steps", "images_per_second", "parameters")}


def _set_aside(runs: Sequence[Run]) -> list[SetAside]:
    items = {
        (str(item.get("name")), str(item.get("reason"))): None
        for run in runs
        for item in run.run.get("set_aside", [])
        if isinstance(item, Mapping)
    }
    return [SetAside(name=name, reason=reason) for name, reason in items]

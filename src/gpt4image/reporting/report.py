"""The report stage: one self-contained HTML page about a comparison or a run, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gpt4image.artifacts.runs import RUN, has_begun, is_finished
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_text
from gpt4image.base.outcome import Outcome, SetAside
from gpt4image.config import ReportConfig
from gpt4image.pages.numbers import one_line, percent
from gpt4image.pages.page import render
from gpt4image.reporting import charts, findings, metric_tables
from gpt4image.reporting.background import background
from gpt4image.reporting.done import what_was_done
from gpt4image.reporting.extras import (
    DESCRIPTIONS,
    DOUBTFUL,
    EXAMPLES,
    Descriptions,
    Doubt,
    Example,
)
from gpt4image.reporting.records import (
    COMPARISON,
    Comparison,
    Evaluation,
    Run,
    load_arm_runs,
    load_comparisons,
    load_item,
    load_items,
    load_run,
)
from gpt4image.reporting.run_charts import ClassGains, Confused, class_gains, confusions, loss_curves, score_curves

PAGE = "report.html"


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
    if is_finished(folder) or has_begun(folder):
        return _run_page(load_run(folder), _extras(folder))
    raise RunError(
        f"{folder} holds neither {COMPARISON} nor {RUN}; give a folder that `gpt4image compare`, `gpt4image demo` or "
        "`gpt4image train` has finished writing."
    )


def _comparison_page(folder: Path) -> Page:
    comparisons = load_comparisons(folder)
    set_aside: list[SetAside] = []
    sections = []
    all_runs: dict[str, list[Run]] = {}
    for number, (name, comparison) in enumerate(comparisons.items(), start=1):
        runs, unreadable = load_arm_runs(folder, comparison)
        set_aside += unreadable
        sections.append(_section(f"c{number}", name, comparison, runs))
        for arm, arm_runs in runs.items():
            all_runs[f"{name}: {arm}" if name else arm] = arm_runs
    first = next(iter(comparisons.values()))
    extras = _extras(folder)
    html = render(
        "comparison.html",
        title=one_line(first.question) or "What did descriptions buy?",
        sections=sections,
        headings=metric_tables.HEADINGS,
        set_aside=[*set_aside, *extras.set_aside],
        background=background(all_runs),
        **_shown("comparison", extras, all_runs),
    )
    record = read_json(folder / COMPARISON)
    summary = {
        "findings": {section.name or "comparison": section.findings[0] for section in sections},
        "pictures": len(extras.examples),
    }
    text = metric_tables.all_tables(record)
    return Page(html=html, text=text, summary=summary, set_aside=(*set_aside, *extras.set_aside))


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is shown beside results; what is not there, or cannot be read, is empty."""

    examples: list[Example]
    doubtful: list[Doubt]
    descriptions: Descriptions | None
    set_aside: list[SetAside]


def _extras(folder: Path) -> Extras:
    examples, bad_examples = load_items(folder / EXAMPLES, Example)
    doubtful, bad_doubts = load_items(folder / DOUBTFUL, Doubt)
    descriptions, bad_descriptions = load_item(folder / DESCRIPTIONS, Descriptions)
    return Extras(
        examples=examples,
        doubtful=doubtful,
        descriptions=descriptions,
        set_aside=bad_examples + bad_doubts + bad_descriptions,
    )


def _shown(identifier: str, extras: Extras, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return what the templates of both pages need of the extras."""
    known = extras.descriptions
    lengths = None if known is None else known.words_histogram
    chart = Markup()
    if lengths is not None:
        title, axis = "Words in a description", "words; the last bar holds all that are longer"
        chart = charts.histogram_chart(f"{identifier}-words", title, lengths.edges, lengths.counts, axis=axis)
    return {
        "done": what_was_done(known, runs),
        "descriptions": known,
        "lengths": chart,
        "test_examples": [example for example in extras.examples if example.split != "train"],
        "train_examples": [example for example in extras.examples if example.split == "train"],
        "doubtful": extras.doubtful,
    }


def _run_page(run: Run, extras: Extras) -> Page:
    arm = str(run.config.get("arm", "train"))
    name = one_line(run.folder.resolve().name if arm == "train" else arm)  # "train": no arm of a comparison
    runs = {name: [run]}
    sentence = run_sentence(run.evaluation)
    html = render(
        "run.html",
        title=f"Run {name}",
        sentence=sentence,
        run=run,
        evaluation=run.evaluation,
        curves=score_curves("run", runs, reference=None),
        losses=loss_curves("run", runs),
        classes=class_gains("run", None, runs[name]),
        confusions=confusions(runs),
        background=background(runs),
        set_aside=extras.set_aside,
        **_shown("run", extras, runs),
    )
    measured = {} if run.evaluation is None else {run.evaluation.metric: run.evaluation.score}
    return Page(html=html, text=sentence, summary=measured, set_aside=tuple(extras.set_aside))


@dataclass(frozen=True, kw_only=True)
class Section:
    """One comparison, ready for the template; a chart is empty where its records are missing."""

    id: str
    name: str
    comparison: Comparison
    metric: str
    findings: list[str]
    few_seeds: str
    sure: set[str]
    metrics: list[metric_tables.MetricTable]
    absent: list[str]
    intervals: Markup
    curves: Markup
    losses: Markup
    classes: ClassGains
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
        sure={name for name in comparison.arms if (pair := comparison.pair(name)) and findings.is_sure(pair)},
        metrics=metric_tables.metric_tables(comparison),
        absent=metric_tables.absent_notes(comparison),
        intervals=charts.interval_chart(f"{identifier}-intervals", title, spreads, axis=metric),
        curves=score_curves(identifier, runs, reference=comparison.reference),
        losses=loss_curves(identifier, runs),
        classes=class_gains(identifier, runs[comparison.reference], runs[best]) if best else ClassGains(),
        best_arm=best,
        confusions=confusions(runs),
    )


def run_sentence(evaluation: Evaluation | None) -> str:
    """Return how good one run is, in one sentence."""
    if evaluation is None or evaluation.score is None:
        return "This run was not evaluated on labelled pictures."
    split = {"val": "Validation", "test": "Test", "train": "Training"}.get(evaluation.split, evaluation.split)
    others = {name: value for name, value in evaluation.scores.items() if name != evaluation.metric}
    more = [f"{evaluation.titles.get(name, name)} {percent(value)}" for name, value in others.items()]
    extra = f" ({', '.join(more)})" if more else ""
    return f"{split} {evaluation.title} is {percent(evaluation.score)} on {evaluation.labelled:,} pictures{extra}."

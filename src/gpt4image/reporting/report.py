"""The report stage: one self-contained HTML page about a comparison or a run, from its records only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gpt4image.artifacts.run_records import (
    COMPARISON,
    Comparison,
    Evaluation,
    Run,
    load_arm_runs,
    load_comparisons,
    load_items,
    load_run,
)
from gpt4image.artifacts.runs import RUN, has_begun, is_finished
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_text
from gpt4image.base.outcome import Outcome, SetAside
from gpt4image.config import ReportConfig
from gpt4image.pages.numbers import one_line, percent, sentence
from gpt4image.pages.page import render
from gpt4image.reporting import charts, findings, metric_tables
from gpt4image.reporting.background import background
from gpt4image.reporting.done import what_was_done
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES, Descriptions, Example, SuspectedError
from gpt4image.reporting.run_charts import ClassGains, Confused, class_gains, confusions, loss_curves, score_curves

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A rendered page, and the same in a few words."""

    html: str
    text: str
    summary: Mapping[str, Any]
    skipped: Sequence[SetAside]


def report(config: ReportConfig) -> Outcome:
    """Write report.html into a run or comparison folder.

    Raises:
        RunError: the folder holds neither a comparison nor a finished run, or a record in it is malformed.
    """
    page = _build(config.dir)
    path = config.dir / PAGE
    write_text(path, page.html)
    return Outcome(path=path, summary=page.summary, text=page.text, set_aside=tuple(page.skipped))


def write_report(folder: Path) -> Path:
    """Write the report.html of a run or comparison folder and return its path; raises as `report` does."""
    write_text(folder / PAGE, _build(folder).html)
    return folder / PAGE


def _build(folder: Path) -> Page:
    if (folder / COMPARISON).is_file():
        return _comparison_page(folder)
    if is_finished(folder) or has_begun(folder):
        return _run_page(folder)
    raise RunError(
        f"{folder} holds neither {COMPARISON} nor {RUN}; give a folder that `gpt4image compare`, `gpt4image demo` or "
        "`gpt4image train` has finished writing."
    )


def _comparison_page(folder: Path) -> Page:
    skipped: list[SetAside] = []
    sections: list[Section] = []
    all_runs: dict[str, list[Run]] = {}
    for number, (name, comparison) in enumerate(load_comparisons(folder).items(), start=1):
        runs, unreadable = load_arm_runs(folder, comparison)
        skipped += unreadable
        sections.append(_section(f"c{number}", name, comparison, runs))
        all_runs |= {f"{name}: {arm}" if name else arm: arm_runs for arm, arm_runs in runs.items()}
    extras, malformed = _extras("comparison", folder, all_runs)
    html = render(
        "comparison.html",
        title=one_line(sections[0].comparison.question) or "What do descriptions add?",
        sections=sections,
        headings=metric_tables.HEADINGS,
        skipped=[*skipped, *malformed],
        background=background(all_runs),
        **extras,
    )
    summary = {
        "findings": {section.name or "comparison": section.findings[0] for section in sections},
        "pictures": len(extras["test_examples"]) + len(extras["train_examples"]),
    }
    text = findings.comparison_tables(read_json(folder / COMPARISON))
    return Page(html=html, text=text, summary=summary, skipped=[*skipped, *malformed])


def _run_page(folder: Path) -> Page:
    run = load_run(folder)
    arm = str(run.config.get("arm", "train"))
    name = one_line(folder.resolve().name if arm == "train" else arm)  # "train": no arm of a comparison
    runs = {name: [run]}
    extras, malformed = _extras("run", folder, runs)
    text = run_sentence(run.evaluation)
    html = render(
        "run.html",
        title=f"Run {name}",
        sentence=text,
        run=run,
        curves=score_curves("run", runs, reference=None),
        losses=loss_curves("run", runs),
        classes=class_gains("run", None, runs[name]),
        confusions=confusions(runs),
        background=background(runs),
        skipped=malformed,
        **extras,
    )
    measured = {} if run.evaluation is None else {run.evaluation.metric: run.evaluation.score}
    return Page(html=html, text=text, summary=measured, skipped=malformed)


def _extras(identifier: str, folder: Path, runs: Mapping[str, Sequence[Run]]) -> tuple[dict[str, Any], list[SetAside]]:
    """Return what the templates of both pages show beside results, and what could not be read."""
    examples, bad_examples = load_items(folder / EXAMPLES, Example)
    errors, bad_errors = load_items(folder / DOUBTFUL, SuspectedError)
    descriptions, bad_descriptions = load_items(folder / DESCRIPTIONS, Descriptions)
    known = descriptions[0] if descriptions else None
    chart = Markup()
    if known is not None and (lengths := known.words_histogram) is not None:
        title, axis = "Words in a description", "words; the last bar holds all that are longer"
        chart = charts.histogram_chart(f"{identifier}-words", title, lengths.edges, lengths.counts, axis=axis)
    shown = {
        "done": what_was_done(known, runs),
        "descriptions": known,
        "lengths": chart,
        "test_examples": [example for example in examples if example.split != "train"],
        "train_examples": [example for example in examples if example.split == "train"],
        "suspected": errors,
    }
    return shown, [*bad_examples, *bad_errors, *bad_descriptions]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One comparison, ready for the template; a chart is empty where its records are missing."""

    id: str
    name: str
    comparison: Comparison
    metric: str
    findings: list[str]
    few_seeds: str
    significant: set[str]
    metrics: list[metric_tables.MetricTable]
    absent: list[str]
    intervals: Markup
    curves: Markup
    losses: Markup
    classes: ClassGains
    best_arm: str | None
    confusions: dict[str, list[Confused]]


def _section(identifier: str, name: str, comparison: Comparison, runs: Mapping[str, Sequence[Run]]) -> Section:
    metric, best = sentence(findings.metric_name(comparison)), findings.best_text_arm(comparison)
    pairs = {arm: comparison.pair(arm) for arm in comparison.arms}
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
    return Section(
        id=identifier,
        name=name,
        comparison=comparison,
        metric=metric,
        findings=findings.findings(comparison),
        few_seeds=findings.few_seeds_note(comparison),
        significant={arm for arm, pair in pairs.items() if pair and findings.is_significant(pair)},
        metrics=metric_tables.metric_tables(comparison),
        absent=metric_tables.absent_notes(comparison),
        intervals=charts.interval_chart(f"{identifier}-intervals", f"{metric} of each arm", spreads, axis=metric),
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
    words = {
        name: f"{metric_tables.metric_label(name, evaluation.titles)} {percent(value)}"
        for name, value in evaluation.scores.items()
    }
    split = {"val": "Validation", "test": "Test", "train": "Training"}.get(evaluation.split, evaluation.split)
    first = words.pop(evaluation.metric)
    more = f" ({'; '.join(words.values())})" if words else ""
    return f"{split} {first} on {evaluation.labelled:,} pictures{more}."

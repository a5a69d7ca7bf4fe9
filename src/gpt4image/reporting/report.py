"""The report stage: one self-contained HTML page about a comparison or a run, from its records only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from markupsafe import Markup

from gpt4image.artifacts.run_records import (
    COMPARISON,
    DEMO,
    Comparison,
    Evaluation,
    Run,
    load_arm_runs,
    load_comparisons,
    load_items,
    load_run,
    require_recorded_folder,
)
from gpt4image.base.files import read_json, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.config import ReportConfig
from gpt4image.config.results import ReportResult
from gpt4image.pages.numbers import duration, one_line, percent, sentence
from gpt4image.pages.page import render
from gpt4image.reporting import charts, findings
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES, Descriptions, Example, SuspectedError
from gpt4image.reporting.making import background, commands, what_was_done
from gpt4image.reporting.run_charts import (
    PRETRAINING,
    OfClasses,
    class_gains,
    confusion_matrix,
    confusions,
    loss_curves,
    score_curves,
)

PAGE = "report.html"
HEADINGS = (
    "Held-out pictures and their predictions",
    "Held-out pictures with a wrong prediction",
    "Held-out pictures with a right prediction",
    "Training pictures, their descriptions and text labels",
    "Held-out pictures with true boxes (dashed) and predicted ones, the lowest scores first",
)
"""Of the groups of pictures, in their order on the page."""


def report(config: ReportConfig) -> ReportResult:
    """Write report.html into a run or comparison folder. Raises RunError."""
    folder = config.dir
    if (folder / COMPARISON).is_file():
        return _report_comparison(folder)
    require_recorded_folder(folder)
    return _report_run(folder)


def _report_comparison(folder: Path) -> ReportResult:
    skipped: list[Skipped] = []
    sections: list[dict[str, Any]] = []
    all_runs: dict[str, list[Run]] = {}
    comparisons = load_comparisons(folder)
    for number, (name, comparison) in enumerate(comparisons.items(), start=1):
        runs, unreadable = load_arm_runs(folder, comparison)
        skipped += unreadable
        sections.append(_section(f"c{number}", name, comparison, runs))
        all_runs |= {f"{name}: {arm}" if name else arm: arm_runs for arm, arm_runs in runs.items()}
    given = [comparison.command for comparison in comparisons.values()]
    extras, malformed = _extras("comparison", folder, all_runs, given)
    skipped += malformed
    html = render(
        "comparison.html",
        title=one_line(next(iter(comparisons.values())).question) or "What do descriptions add?",
        sections=sections,
        headings=findings.METRIC_HEADINGS,
        skipped=skipped,
        background=background(all_runs),
        few_pictures=charts.FEW_PICTURES,
        of_demo=_of_demo(folder),
        **extras,
    )
    write_text(folder / PAGE, html)
    return ReportResult(
        path=folder / PAGE,
        text=findings.comparison_tables(read_json(folder / COMPARISON)),
        findings={section["name"] or "comparison": section["findings"][0] for section in sections},
        pictures=sum(map(len, extras["examples"].values())),
        skipped=tuple(skipped),
    )


def _of_demo(folder: Path) -> str:
    """Return what a demo took and would cost live, in one sentence; nothing for other comparisons."""
    if not (folder / DEMO).is_file():
        return ""
    facts = read_json(folder / DEMO)
    count, cost, seconds = (facts.get(name) for name in ("photographs", "live_cost_usd", "seconds"))
    if not (isinstance(count, int) and isinstance(cost, float) and isinstance(seconds, float)):
        return ""
    return (
        f"Recorded answers about {count:,} photographs were replayed; asked live they would cost about ${cost:.2f}. "
        f"Everything together took {duration(seconds)}."
    )


def _report_run(folder: Path) -> ReportResult:
    run = load_run(folder)
    arm = str(run.config.get("arm", "train"))
    name = one_line(folder.resolve().name if arm == "train" else arm)  # "train": no arm of a comparison
    runs = {name: [run]}
    given = [str(run.environment.get("command") or "")]
    if run.evaluation is not None and arm == "train":
        split = [] if run.evaluation.split == "test" else ["--split", run.evaluation.split]
        given.append(shlex.join(["gpt4image", "evaluate", str(folder), *split]))
    extras, malformed = _extras("run", folder, runs, given if given[0] else [])
    text = pretraining_sentence(run) or run_sentence(run.evaluation)
    html = render(
        "run.html",
        title=run_title(run),
        name=name,
        sentence=text,
        run=run,
        curves=score_curves("run", runs, reference=None),
        losses=loss_curves("run", runs),
        classes=class_gains("run", None, runs[name]),
        matrix=confusion_matrix("run", run.evaluation),
        confusions=confusions(runs),
        background=background(runs),
        skipped=malformed,
        few_pictures=charts.FEW_PICTURES,
        **extras,
    )
    write_text(folder / PAGE, html)
    measured = {} if run.evaluation is None else {run.evaluation.metric: run.evaluation.score}
    return ReportResult(path=folder / PAGE, text=text, scores=measured, skipped=tuple(malformed))


def run_title(run: Run) -> str:
    """Return what was trained, on what and how, e.g. ``resnet10t on photos, text labels, seed 0``."""
    config = run.config
    data = str(config["data"])
    arm = str(config.get("arm", ""))
    parts = [f"{config.get('model', 'A model')} on {PurePath(data.partition(':')[2] or data).name or data}"]
    parts += [findings.phrase(arm)] if arm not in ("", "train") else []
    parts += [f"seed {config['seed']}"] if "seed" in config else []
    return one_line(", ".join(parts))


def example_groups(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Return pictures by the heading of their group; of a single run, wrong and right predictions stand apart."""
    groups: dict[str, list[Example]] = {}
    single = all(len(example.predictions) <= 1 for example in examples)
    for example in examples:
        if example.boxes:
            heading = HEADINGS[4]
        elif example.split == "train":
            heading = HEADINGS[3]
        elif not single or not example.predictions or example.label is None:
            heading = HEADINGS[0]
        else:
            (guess,) = example.predictions.values()
            heading = HEADINGS[2 if guess.class_ == example.label else 1]
        groups.setdefault(heading, []).append(example)
    return dict(sorted(groups.items(), key=lambda group: HEADINGS.index(group[0])))


def _extras(
    identifier: str, folder: Path, runs: Mapping[str, Sequence[Run]], given: Sequence[str]
) -> tuple[dict[str, Any], list[Skipped]]:
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
        "examples": example_groups(examples),
        "commands": commands(known, [run for some in runs.values() for run in some], list(filter(None, given))),
        "suspected": errors,
    }
    return shown, [*bad_examples, *bad_errors, *bad_descriptions]


def _section(identifier: str, name: str, comparison: Comparison, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return one comparison as the template shows it; a chart is empty where its records are missing."""
    metric, best, reference = findings.metric_name(comparison), findings.best_text_arm(comparison), comparison.reference
    pairs = {arm: comparison.pair(arm) for arm in comparison.arms}
    title = f"{sentence(metric)} of each arm"
    arms = findings.bounds_last(comparison)
    bounds = {arm: kind for arm, record in arms.items() if (kind := findings.is_bound(arm, record))}
    return {
        "id": identifier,
        "name": name,
        "comparison": comparison,
        "metric": sentence(metric),
        "findings": findings.findings(comparison),
        "few_seeds": findings.few_seeds_note(comparison),
        "arms": arms,
        "bounds": bounds,
        "evidence": {arm: pair.evidence for arm, pair in pairs.items() if pair},
        "significant": {arm for arm, pair in pairs.items() if pair and findings.is_significant(pair)},
        "metrics": findings.metric_tables(comparison),
        "absent": findings.absent_notes(comparison),
        "intervals": charts.interval_chart(
            f"{identifier}-intervals",
            title,
            {findings.phrase(name): arm for name, arm in arms.items()},
            reference=findings.phrase(reference),
            axis=metric,
            bounds={findings.phrase(name): bound for name, bound in bounds.items()},
        ),
        "curves": score_curves(identifier, runs, reference=reference, bounds=bounds),
        "losses": loss_curves(identifier, runs),
        "classes": class_gains(identifier, runs[reference], runs[best]) if best else OfClasses(),
        "best_arm": best,
        "confusions": confusions(runs),
    }


def pretraining_sentence(run: Run) -> str:
    """Return what a run without labels came to, in one sentence; nothing for other runs."""
    if run.config.get("task") != "pretrain":
        return ""
    last = next(
        (epoch.val[PRETRAINING] for epoch in reversed(run.metrics) if epoch.val and PRETRAINING in epoch.val), None
    )
    measured = "" if last is None else f": its loss on the validation pictures ended at {last:.3f}"
    return f"This run learned without labels{measured}. What its weights are worth, fine-tuning them (--init) says."


def run_sentence(evaluation: Evaluation | None) -> str:
    """Return how good one run is, in one sentence."""
    if evaluation is None or evaluation.score is None:
        return "This run was not evaluated on labelled pictures."
    words = {
        name: f"{findings.metric_label(name, evaluation.titles)} {percent(value)}"
        for name, value in evaluation.scores.items()
    }
    split = {"val": "Validation", "test": "Test", "train": "Training"}.get(evaluation.split, evaluation.split)
    first = words.pop(evaluation.metric)
    more = f" ({'; '.join(words.values())})" if words else ""
    return f"{split} {first} on {evaluation.labelled:,} pictures{more}."

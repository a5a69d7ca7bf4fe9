"""The report stage: one self-contained HTML page about a comparison or a run, from its records only.

The second half says how runs were made: options, machine and cost.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

from gpt4image.artifacts.comparisons import (
    COMPARISON,
    Comparison,
    load_arm_runs,
    load_comparisons,
    require_recorded_folder,
)
from gpt4image.artifacts.runs import Run, load_run
from gpt4image.base.files import read_json, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.config import ReportConfig
from gpt4image.config.results import ReportResult
from gpt4image.pages.numbers import duration, one_line, percent, percent_interval, sentence
from gpt4image.pages.page import render
from gpt4image.reporting import charts, findings
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLE, EXAMPLES, SUSPECTED, read_items

PAGE = "report.html"
HEADINGS = (
    "Held-out pictures and their predictions",
    "Held-out pictures with a wrong prediction",
    "Held-out pictures with a right prediction",
    "Training pictures, their descriptions and text labels",
    "Held-out pictures with true boxes (dashed) and predicted ones, the lowest scores first",
)
"""Of the groups of pictures, in their order on the page."""
NOT_OPTIONS = {"arm", "chosen", "out", "seed", "resume"}
COSTS = ("seconds", "peak_memory_bytes", "steps", "images_per_second", "parameters")


def report(config: ReportConfig) -> ReportResult:
    """Write report.html into a run or comparison folder. Raises RunError."""
    if (config.dir / COMPARISON).is_file():
        return _report_comparison(config.dir)
    require_recorded_folder(config.dir)
    return _report_run(config.dir)


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
    extras = _extras(folder, all_runs, [comparison.command for comparison in comparisons.values()])
    html = render(
        "comparison.html",
        title=one_line(next(iter(comparisons.values())).question) or "What do descriptions add?",
        sections=sections,
        headings=findings.METRIC_HEADINGS,
        skipped=skipped,
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


def _report_run(folder: Path) -> ReportResult:
    run = load_run(folder)
    arm = str(run.config["arm"])
    name = one_line(folder.resolve().name if arm == "train" else arm)  # "train": no arm of a comparison
    runs = {name: [run]}
    extras = _extras(folder, runs, [str(run.environment.get("command") or "")])
    text = run_sentence(run)
    html = render(
        "run.html",
        title=run_title(run),
        name=name,
        sentence=text,
        run=run,
        training=charts.training(runs),
        classes=charts.classes(None, [run.evaluation]),
        reliability=charts.reliability(run.evaluation),
        confusions=findings.confusions(runs),
        skipped=(),
        **extras,
    )
    write_text(folder / PAGE, html)
    found = run.evaluation
    more: Any = {}
    if found is not None:
        more = {"scores": {found.metric: found.score}, "counts": {found.metric: found.labelled}, "ci95": found.ci95}
    return ReportResult(path=folder / PAGE, text=text, **more)


def run_title(run: Run) -> str:
    """Return what was trained, on what and how, e.g. ``resnet10t on photos, text labels, seed 0``."""
    config = run.config
    data, arm = str(config["data"]), str(config["arm"])
    title = f"{config.get('model', 'A model')} on {PurePath(data.partition(':')[2] or data).name or data}"
    title += f", {findings.phrase(arm)}" if arm != "train" else ""
    return one_line(title + (f", seed {config['seed']}" if "seed" in config else ""))


def example_groups(examples: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return pictures by the heading of their group; of a single run, wrong and right predictions stand apart."""
    groups: dict[str, list[dict[str, Any]]] = {}
    single = all(len(example["predictions"]) <= 1 for example in examples)
    for example in examples:
        if example["boxes"]:
            heading = HEADINGS[4]
        elif example["split"] == "train":
            heading = HEADINGS[3]
        elif not single or not example["predictions"] or example["label"] is None:
            heading = HEADINGS[0]
        else:
            (guess,) = example["predictions"].values()
            heading = HEADINGS[2 if guess["class"] == example["label"] else 1]
        groups.setdefault(heading, []).append(example)
    return dict(sorted(groups.items(), key=lambda group: HEADINGS.index(group[0])))


def _extras(folder: Path, runs: Mapping[str, Sequence[Run]], given: Sequence[str]) -> dict[str, Any]:
    """Return what the templates of both pages show beside results."""
    examples = read_items(folder / EXAMPLES, EXAMPLE)
    known = read_json(folder / DESCRIPTIONS) if (folder / DESCRIPTIONS).is_file() else None
    return {
        "done": what_was_done(known, runs),
        "descriptions": known,
        "examples": example_groups([example for example in examples if not example["at_random"]]),
        "at_random": [example for example in examples if example["at_random"]],
        "commands": list(dict.fromkeys(filter(None, given))),
        "suspected": read_items(folder / DOUBTFUL, SUSPECTED),
        "background": background(runs),
        "few_pictures": charts.FEW_PICTURES,
    }


def _section(identifier: str, name: str, comparison: Comparison, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return one comparison as the template shows it; a chart is empty where its records are missing."""
    metric, best, reference = findings.metric_name(comparison), findings.best_text_arm(comparison), comparison.reference
    pairs = {arm: comparison.pair(arm) for arm in comparison.arms}
    arms = findings.bounds_last(comparison)
    bounds = {arm: kind for arm, record in arms.items() if (kind := findings.is_bound(arm, record))}
    evaluations = {arm: [run.evaluation for run in some] for arm, some in runs.items()}
    named = {findings.phrase(name): arm for name, arm in arms.items()}
    held_against = {findings.phrase(name): bound for name, bound in bounds.items()}
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
        "intervals": charts.intervals({"": named}, findings.phrase(reference), metric, held_against),
        "training": charts.training(runs, reference, bounds),
        "classes": charts.classes(*(evaluations[arm] for arm in (reference, best))) if best else (None, ""),
        "best_arm": best,
        "confusions": findings.confusions(runs),
    }


def run_sentence(run: Run) -> str:
    """Return how good one run is, in one sentence."""
    evaluation = run.evaluation
    if run.config["task"] == "pretrain":
        losses = [
            epoch.val[charts.PRETRAINING] for epoch in run.metrics if epoch.val and charts.PRETRAINING in epoch.val
        ]
        measured = f": its loss on the validation pictures ended at {losses[-1]:.3f}" if losses else ""
        return f"This run learned without labels{measured}. What its weights are worth, fine-tuning them (--init) says."
    if evaluation is None or evaluation.score is None:
        return "This run was not evaluated on labelled pictures."
    words = {
        name: f"{findings.metric_label(name, evaluation.titles)} {percent(value)}"
        for name, value in evaluation.scores.items()
    }
    images, interval = f"{evaluation.labelled:,} pictures", evaluation.ci95.get(evaluation.metric)
    images += "" if interval is None else f", 95 % interval {percent_interval(interval)}"
    split = {"val": "Validation", "test": "Test", "train": "Training"}.get(evaluation.split, evaluation.split)
    first = words.pop(evaluation.metric)
    more = f" ({'; '.join(words.values())})" if words else ""
    return f"{split} {first} on {images}{more}."


def background(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return how the runs were made, by arm; ``differing`` is by option and arm, ``costs`` are means over runs."""
    everything = [run for arm_runs in runs.values() for run in arm_runs]
    options = {arm: distinct(run.config for run in arm_runs) for arm, arm_runs in runs.items() if arm_runs}
    names = sorted({name for values in options.values() for name in values} - NOT_OPTIONS)
    spread = {name: {arm: values.get(name, "–") for arm, values in options.items()} for name in names}
    items = [item for run in everything for item in run.run["set_aside"] if isinstance(item, Mapping)]
    skipped = dict.fromkeys((str(item.get("name")), str(item.get("reason"))) for item in items)
    return {
        "shared": {name: next(iter(v.values())) for name, v in spread.items() if len(set(v.values())) == 1},
        "chosen": distinct(run.config["chosen"] for run in everything),
        "differing": {name: v for name, v in spread.items() if len(set(v.values())) > 1},
        "environment": distinct(run.environment for run in everything),
        "data": distinct(run.run["data"] for run in everything),
        "costs": {
            arm: {name: fmean(found) if (found := _numbers(some, name)) else None for name in COSTS}
            for arm, some in runs.items()
            if some
        },
        "skipped": [Skipped(name=name, reason=reason) for name, reason in skipped],
    }


def distinct(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return every key of the records with its distinct values as text, in order of appearance."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            values.setdefault(name, {})[text] = None
    return {name: " · ".join(texts) for name, texts in values.items()}


def _numbers(runs: Iterable[Run], name: str) -> list[float]:
    return [value for run in runs if isinstance(value := run.run.get(name), int | float)]


def what_was_done(known: dict[str, Any] | None, runs: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """Return what was done, and at what cost, as headings and lines; what is not known is left out."""
    found: dict[str, str] = {}
    if known is not None:
        encoding, by, described = known["encoding"], known.get("describers", []), known["described"]
        some = "all described" if described == known["images"] else f"{described:,} of them described"
        found["Pictures"] = f"{known['images']:,}, {some}"
        conditioned = {asked["name"] for asked in known.get("prompts", []) if asked["class_conditioned"]}
        marks = [" (class-conditioned)" * (one["prompt"] in conditioned) for one in by]
        words = (f"{one['describer']}, prompt {one['prompt']}{mark}" for one, mark in zip(by, marks, strict=True))
        found["Described by"] = " · ".join(dict.fromkeys(words))
        prices = [one["cost_usd"] for one in by if one.get("cost_usd") is not None]
        tokens_in, tokens_out = (sum(one.get(name) or 0 for one in by) for name in ("tokens_in", "tokens_out"))
        tokens = f"; {tokens_in:,} tokens in, {tokens_out:,} out" if tokens_in or tokens_out else ""
        cost = f"${sum(prices):,.2f}" if len(prices) == len(by) else "cost not recorded of all"
        found["Cost of descriptions"] = f"{known['descriptions']:,} descriptions{tokens}; {cost}" if by else ""
        treated = "pooled from chunks" if encoding["length_policy"] == "pool" else "cut"
        beyond = f"{100 * encoding['truncated']:.1f} % are longer than {encoding['max_tokens']} tokens and {treated}"
        found["Text encoder"] = f"{encoding['encoder']}: {encoding['width']} numbers per text; {beyond}"
    different = list({run.folder.resolve(): run for arm_runs in runs.values() for run in arm_runs}.values())
    models = dict[str, None]()
    for run in (run for run in different if run.config.get("model")):
        size, weights = run.config.get("image_size"), run.run.get("parameters")
        known_of = [f"{weights:,} weights"] if isinstance(weights, int) else []
        models[", ".join([run.config["model"], *known_of, *([f"{size} x {size} pixels"] if size else [])])] = None
    found["Model"] = " · ".join(models)
    if seconds := _numbers(different, "seconds"):
        together = (
            f"{len(seconds)} runs, {duration(sum(seconds))} together" if len(seconds) > 1 else duration(seconds[0])
        )
        devices = dict.fromkeys(str(run.environment["device"]) for run in different if run.environment.get("device"))
        found["Training"] = together + (f", on {' · '.join(devices)}" if devices else "")
    return {name: line for name, line in found.items() if line}

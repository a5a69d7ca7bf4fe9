"""Train all arms over several seeds with the same data, order and budget, and measure what text adds.

The images and texts that the report shows are those of the first seed; see evaluating/examples.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.artifacts.run_records import COMPARISON
from gpt4image.artifacts.table import read_manifest
from gpt4image.artifacts.top_k_probs import chosen, scattered
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.files import write_json
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.comparing.jobs import run_all
from gpt4image.comparing.planning import Plan, make_plan
from gpt4image.comparing.regimes import Regime
from gpt4image.comparing.results import summarise
from gpt4image.config import CompareConfig, ReportConfig
from gpt4image.config.results import CompareResult
from gpt4image.data import annotation
from gpt4image.data.splits import wrong_copies
from gpt4image.encoding.class_names import find_class_names
from gpt4image.evaluating.examples import (
    Said,
    manifests_of,
    write_all,
    write_descriptions,
    write_examples,
    write_suspected,
)
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.label_noise import suspected_errors
from gpt4image.labelling.predictions import Predictions
from gpt4image.labelling.teaching import labels_of, predict_training
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES
from gpt4image.reporting.findings import comparison_tables
from gpt4image.reporting.report import PAGE, report
from gpt4image.tasks.base import Task
from gpt4image.training.training_data import TrainingData

FEW = 20_000
"""Labelled images whose texts are read only to find label errors, where no arm has text labels."""


def compare(*configs: CompareConfig, names: Sequence[str] = ("comparison",), task: Task | None = None) -> CompareResult:
    """Run one comparison, or several into one folder, and write comparison.json and report.html.

    Finished runs are kept and not made again, so an interrupted comparison goes on where it stopped; comparisons that
    share a run (the oracle of one is the baseline of another) make it once.

    Args:
        configs: one per comparison; the folder and the number of jobs are those of the first.
        names: one per comparison, no two the same.
        task: what to train for, where it is not one of the registry.

    Raises ConfigError, DataError, TableError, ModelError, RunError: before training starts; the last also where another
    process is at work in the folder.
    """
    if len(set(names)) < len(names):
        raise ConfigError(f"Comparisons need different names, and these are {first_few(names)}.")
    out = configs[0].out
    configs = tuple(config.model_copy(update={"out": out}) for config in configs)
    with runs.writing(out):
        say(f"reading {configs[0].data}, decoding its images and planning the runs")
        plans = [make_plan(config, task) for config in configs]
        jobs = {job.config.out: job for plan in plans for job in plan.jobs}
        say(f"{len(jobs)} runs: {', '.join(dict.fromkeys(job.name for job in jobs.values()))}")
        run_all(list(jobs.values()), configs[0])
        results = {
            name: summarise(plan.config, plan.members, plan.prepared.data, plan.notes)
            for name, plan in zip(names, plans, strict=True)
        }
        record = next(iter(results.values()))
        record = record if len(results) == 1 else {**record, "comparisons": results}
        write_json(out / COMPARISON, record)
        skipped = write_extras(plans, names if len(plans) > 1 else ())
        report(ReportConfig(dir=out))
    notes = dict.fromkeys(line for plan in plans for line in (*wrong_copies(plan.prepared.data.image_set), *plan.notes))
    unusable = dict.fromkeys(item for folder in jobs for item in runs.read_skipped(folder))
    return CompareResult(
        path=out,
        comparison=out / COMPARISON,
        report=out / PAGE,
        content=record,
        read_rows=partial(_arms, results),
        text="\n\n".join([comparison_tables(record), *notes]),
        skipped=(*unusable, *skipped),
    )


def _arms(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each arm of each comparison."""
    return [
        {
            "comparison": name,
            "arm": arm,
            "metric": record["metric"],
            "mean": facts["mean"],
            "low": facts["ci95"][0],
            "high": facts["ci95"][1],
            "seeds": len(facts["seeds"]),
            "seconds": facts["seconds"],
        }
        for name, record in results.items()
        for arm, facts in record["arms"].items()
    ]


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished comparison, as its first seed had it; ``name`` is empty where there is only one."""

    plan: Plan
    name: str

    @cached_property
    def data(self) -> TrainingData:
        """Training data of arms with text labels in the first seed."""
        config = self.plan.config
        return Regime.of(config).apply(self.plan.prepared.data, config.first_seed)

    @cached_property
    def predictions(self) -> Predictions:
        """Predictions from the texts of its training images."""
        config = self.plan.config
        names = find_class_names(config.embeddings, config.device, self.data.classes)
        return predict_training(self.data, config.first_seed, names.vectors)

    @property
    def has_text_labels(self) -> bool:
        """Whether it has the arm whose classes are predicted from texts, which contradict labels, not boxes."""
        return "text-labels" in self.plan.members and not self.data.task.boxes

    def labelled(self) -> int:
        """Return the number of training images with a label."""
        return int(annotation.known(self.data.labels[self.data.indices("train")]).sum())


def write_extras(plans: Sequence[Plan], names: Sequence[str] = ()) -> list[Skipped]:
    """Write beside comparison.json what the report shows, of the first plan that has it.

    Args:
        plans: finished comparisons of one folder.
        names: of the comparisons, where there are several.

    Returns:
        What could not be written.
    """
    finished = [Finished(plan, name) for plan, name in zip(plans, names or [""] * len(plans), strict=True)]
    out = plans[0].config.out
    for name in (EXAMPLES, DESCRIPTIONS, DOUBTFUL):  # of an earlier comparison in the folder
        (out / name).unlink(missing_ok=True)
    work: dict[str, Callable[[], None]] = {EXAMPLES: lambda: _examples(finished[0])}
    with_text = [one for one in finished if one.plan.prepared.data.text is not None]
    if with_text:
        work[DESCRIPTIONS] = lambda: _descriptions(with_text[0].plan)
    if any("text-labels" in one.plan.members for one in with_text):
        # Of those whose texts are read anyway or quickly, and may be read, the one with most labels.
        allowed = [one for one in with_text if not one.data.task.boxes and not one.plan.class_conditioned]
        cheap = [one for one in allowed if one.has_text_labels or one.labelled() <= FEW]
        if cheap:
            source = max(cheap, key=Finished.labelled)
            work[DOUBTFUL] = lambda: _suspected(source)
    return write_all(work)


def _descriptions(plan: Plan) -> None:
    text, table = plan.prepared.data.text, plan.prepared.config.embeddings
    if text is not None and table is not None:
        write_descriptions(plan.config.out / DESCRIPTIONS, read_manifest(table), text.described)


def _examples(first: Finished) -> None:
    plan, data, probabilities = first.plan, first.data, None
    if data.text is not None and first.has_text_labels:
        probabilities = scattered(first.predictions.probabilities, data.indices("train"), len(data.labels))
    answers = next((job.answers for job in plan.jobs if isinstance(job.answers, Answers)), None)
    write_examples(
        plan.config.out / EXAMPLES,
        data.image_set,
        data.usable,
        Said(data.text, probabilities, answers),
        run_dirs={name: member.folders[0] for name, member in plan.members.items()},
        comparison=first.name,
    )


def _suspected(source: Finished) -> None:
    plan, data, found = source.plan, source.data, source.predictions
    train = data.indices("train")
    rows, given = suspected_errors(found.probabilities, labels_of(data, train), found.out_of_fold).T
    write_suspected(
        plan.config.out / DOUBTFUL,
        data.image_set,
        train[rows],
        given,
        chosen(found.probabilities, rows),
        tables=manifests_of([plan.prepared.config.embeddings]),
        true=plan.config.label_noise > 0.0,
        comparison=source.name,
    )

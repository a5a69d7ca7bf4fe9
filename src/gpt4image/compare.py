"""Train all arms over several seeds with the same data, order and budget, and say what text bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpt4image import runs
from gpt4image.comparing.jobs import run_all
from gpt4image.comparing.planning import Job, Plan, make_plan
from gpt4image.comparing.regimes import Regime
from gpt4image.comparing.results import summarise
from gpt4image.config import CompareConfig
from gpt4image.files import write_json
from gpt4image.outcome import Outcome
from gpt4image.table import EmbeddingTable


def compare(*configs: CompareConfig, names: Sequence[str] = ("comparison",)) -> Outcome:
    """Run one comparison, or several into one folder, and write comparison.json and report.html.

    Finished runs are kept and not made again, so an interrupted comparison goes on where it stopped; comparisons that
    share a run (the oracle of one is the baseline of another) make it once.

    Args:
        configs: one per comparison; the folder and the number of jobs are those of the first.
        names: one per comparison.

    Raises:
        ConfigError, DataError, TableError, ModelError, RunError: before training starts.
    """
    from gpt4image.report import write_report
    from gpt4image.reporting.metric_tables import all_tables

    out = configs[0].out
    configs = tuple(config.model_copy(update={"out": out}) for config in configs)
    plans = [make_plan(config) for config in configs]
    jobs: dict[Path, Job] = {}
    for job in (job for plan in plans for job in plan.jobs):
        same = jobs.get(job.config.out, job)
        jobs[job.config.out] = replace(job, asked=job.asked | same.asked)
    run_all(list(jobs.values()), configs[0])
    results = {name: summarise(plan.config, plan.members) for name, plan in zip(names, plans, strict=True)}
    record = next(iter(results.values()))
    record = record if len(results) == 1 else {**record, "comparisons": results}
    write_json(out / "comparison.json", record)
    _write_examples(plans[0])
    report = write_report(out)
    set_aside = dict.fromkeys(item for folder in jobs for item in runs.read_set_aside(folder))
    return Outcome(
        path=out,
        summary={"comparison": str(out / "comparison.json"), "report": str(report)},
        record=record,
        text=all_tables(record),
        set_aside=tuple(set_aside),
    )


def _write_examples(plan: Plan) -> None:
    """Write example pictures with their texts, and what the text labels and the runs of the first seed say of them."""
    from gpt4image.labelling.teaching import read_training
    from gpt4image.reporting.examples import write_examples

    config, data = plan.config, Regime.of(plan.config).apply(plan.prepared.data, seed=0)
    in_train = data.image_set.splits == "train"
    candidates, probabilities = data.usable, None
    if data.text is not None:
        candidates = data.usable & (data.text.described | ~in_train)
    if "text-labels" in plan.members and data.text is not None:
        probabilities = np.zeros((len(in_train), len(data.classes)), np.float32)
        probabilities[data.indices("train")] = read_training(data, config, seed=0).probabilities
    write_examples(
        config.out / "examples.json",
        data.image_set,
        candidates,
        store=None if config.embeddings is None else Path(EmbeddingTable.open(config.embeddings).manifest.store),
        text_labels=probabilities,
        run_dirs={name: member.folders[0] for name, member in plan.members.items()},
    )

"""Train all arms over several seeds with the same data, order and budget, and measure what text adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.artifacts.run_records import COMPARISON
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.files import write_json
from gpt4image.base.progress import say
from gpt4image.comparing.examples import write_extras
from gpt4image.comparing.jobs import run_all
from gpt4image.comparing.planning import make_plan
from gpt4image.comparing.results import summarise
from gpt4image.config import CompareConfig, ReportConfig
from gpt4image.config.results import CompareResult
from gpt4image.data.splits import wrong_copies
from gpt4image.reporting.findings import comparison_tables
from gpt4image.reporting.report import PAGE, report
from gpt4image.tasks.base import Task


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

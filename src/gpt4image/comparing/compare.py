"""Train all arms over several seeds with the same data, order and budget, and measure what text adds.

The images and texts that the report shows are those of the first seed; see evaluating/examples.py.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.comparisons import COMPARISON
from gpt4image.artifacts.probabilities import scatter, take
from gpt4image.artifacts.table import read_manifest
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.comparing.arms import ArmInputs, training_data
from gpt4image.comparing.planning import Job, Plan, Regime, for_options, jobs_at_once, make_plan
from gpt4image.comparing.results import summarise
from gpt4image.config import CompareConfig, ReportConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.config.results import CompareResult
from gpt4image.data.splits import wrong_copies
from gpt4image.encoding.class_names import find_class_names
from gpt4image.evaluating.evaluate import lacked_names, measure_run
from gpt4image.evaluating.examples import (
    Said,
    manifests_of,
    write_all,
    write_descriptions,
    write_examples,
    write_suspected,
)
from gpt4image.labelling.evidence import AnsweredBoxes, Answers
from gpt4image.labelling.noise import suspected_errors
from gpt4image.labelling.sources import Predictions
from gpt4image.labelling.teaching import (
    judge_training,
    labels_of,
    pictures_of,
    predict_training,
    targets_of,
    taught_boxes,
)
from gpt4image.parallel.devices import cpu_threads, use_gpu
from gpt4image.parallel.local import run_jobs, worker_number
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES
from gpt4image.reporting.findings import comparison_tables
from gpt4image.reporting.report import PAGE, report
from gpt4image.tasks.base import Labels, Task
from gpt4image.training.loop import tidy
from gpt4image.training.prepare import Prepared, prepare, with_table
from gpt4image.training.run_model import with_features
from gpt4image.training.train import about, run
from gpt4image.training.training_data import TrainingData


def compare(*configs: CompareConfig, names: Sequence[str] = ("comparison",), task: Task | None = None) -> CompareResult:
    """Run one comparison, or several into one folder, and write comparison.json and report.html.

    Finished runs are kept and not made again, so an interrupted comparison goes on where it stopped; comparisons that
    share a run (the oracle of one is the baseline of another) make it once.

    Args:
        configs: one per comparison; the folder and the number of jobs are those of the first.
        names: one per comparison, no two the same.
        task: what to train for, where it is not one of the registry.

    Raises: Gpt4ImageError, before training starts.
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
        for plan in plans:
            if seeing := [job for job in plan.jobs if job.features != "none"]:
                pictures_of(plan.prepared.data, seeing[0].features, seeing[0].pictures)  # once, not in every job
        run_all(list(jobs.values()), configs[0])
        results = {
            name: summarise(plan.config, plan.members, plan.prepared.data, plan.notes)
            for name, plan in zip(names, plans, strict=True)
        }
        record = next(iter(results.values()))
        record = record if len(results) == 1 else {**record, "comparisons": results}
        write_json(out / COMPARISON, record)
        skipped = write_extras(plans[0], names[0] if len(plans) > 1 else "")
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


def write_extras(plan: Plan, comparison: str = "") -> list[Skipped]:
    """Write beside comparison.json what the report shows of a plan, and return what could not be written."""
    config, table, out = plan.config, plan.prepared.config.embeddings, plan.config.out
    data = Regime.of(config).apply(plan.prepared.data, config.first_seed)
    train, text = data.indices("train"), data.text
    by_text = text is not None and "text-labels" in plan.members and not data.task.boxes
    for name in (EXAMPLES, DESCRIPTIONS, DOUBTFUL):  # of an earlier comparison in the folder
        (out / name).unlink(missing_ok=True)

    @functools.cache
    def predictions() -> Predictions:
        names = find_class_names(config.embeddings, config.device, data.classes)
        return predict_training(data, config.first_seed, names.vectors)

    def examples() -> None:
        soft = scatter(predictions().probabilities, train, len(data.labels)) if by_text else None
        answers = next((job.answers for job in plan.jobs if isinstance(job.answers, Answers)), None)
        run_dirs = {name: member.folders[0] for name, member in plan.members.items()}
        said = Said(text, soft, answers)
        write_examples(out / EXAMPLES, data.image_set, data.usable, said, run_dirs=run_dirs, comparison=comparison)

    def suspected() -> None:
        found = predictions()
        rows, given = suspected_errors(found.probabilities, labels_of(data, train), found.out_of_fold).T
        write_suspected(
            out / DOUBTFUL,
            data.image_set,
            train[rows],
            given,
            take(found.probabilities, rows),
            tables=manifests_of([table]),
            true=config.label_noise > 0.0,
            comparison=comparison,
        )

    work: dict[str, Callable[[], None]] = {EXAMPLES: examples}
    if text is not None and table is not None:
        described = text.described
        work[DESCRIPTIONS] = lambda: write_descriptions(out / DESCRIPTIONS, read_manifest(table), described)
    if by_text:
        work[DOUBTFUL] = suspected
    return write_all(work)


def run_all(jobs: list[Job], config: CompareConfig) -> None:
    """Run what is not finished."""
    todo = [job for job in jobs if not _is_done(job)]
    names = [f"{job.name} seed {job.config.seed}" for job in todo]
    ended = list[float]()

    def tell(number: int, facts: dict[str, Any]) -> None:
        name = facts["metric"]
        ended.append(time.monotonic())
        done, at_once = len(ended), jobs_at_once(config)
        # Runs before the first has ended share what comes once, such as starting and decoding.
        left = (ended[-1] - ended[0]) / max(done - at_once, 1) * (len(todo) - done)
        after = f"; {about(left)} left" if at_once < done < len(todo) else ""
        score = f"{facts['titles'].get(name, name)} {facts[name]:.1%}"
        say(f"run {done} of {len(todo)}: {names[number]}, {todo[number].regime.name}: {score}{after}")

    run_jobs(run_job, todo, names, processes=jobs_at_once(config), title="compare", on_end=tell)


def _is_done(job: Job) -> bool:
    path = job.config.out / "evaluation-test.json"
    return path.is_file() and (job.class_names.vectors is None or not lacked_names(read_json(path)))


def run_job(job: Job, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Train one arm and seed, and read the test split once; return its facts. Runs in a worker process."""
    use_gpu(job.config.device, worker_number())
    with cpu_threads(job.config.threads):
        ready = for_options(_prepared(job.shared.model_dump_json(), job.task), job.config)
        described = None if ready.data.text is None else ready.data.text.described
        if job.config.embeddings != job.shared.embeddings and job.config.embeddings is not None:
            ready = with_table(ready, job.config.embeddings)
        measured = ready.data
        if not runs.is_finished(job.config.out):
            data = training_data(ARMS[job.arm], arm_inputs(job, ready.data, described, record=job.config.out))
            mine = with_features(replace(ready, chosen=job.chosen, data=data))
            if mine.config.freeze == "all":  # pooled features serve to measure, too
                measured = replace(ready.data, pixels=mine.data.pixels)
            run(mine, job.config.out, arm=job.arm, resume=True, on_step=progress, extra=asdict(job.regime))
        tidy(job.config.out)
        return measure_run(job.config.out, measured, "test", names=job.class_names)


@functools.lru_cache(maxsize=1)
def _prepared(options: str, task: Task | None) -> Prepared:
    """Prepare the data of a run; kept from job to job, since all jobs of a comparison share it."""
    return prepare(TrainConfig.model_validate_json(options), task=task)


def arm_inputs(
    job: Job, data: TrainingData, described: NDArray[np.bool_] | None = None, record: Path | None = None
) -> ArmInputs:
    """Return what the arm of a job is made from; ``record`` is the folder for how well texts find flipped labels."""
    seed = job.config.seed
    left = job.regime.apply(data, seed, described)

    def predicted() -> Labels:
        evidence = ARMS[job.arm].evidence or "fused"
        if isinstance(job.answers, AnsweredBoxes):
            return taught_boxes(left, seed, job.class_names.vectors, job.answers, evidence)
        predictions = predict_training(
            left,
            seed,
            job.class_names.vectors,
            answers=job.answers,
            evidence=evidence,
            pictures=pictures_of(left, job.features, job.pictures),
        )
        if record is not None and job.regime.label_noise > 0.0 and predictions.out_of_fold.any():
            write_json(record / runs.DOUBTFUL, judge_training(predictions, left))
        return targets_of(predictions, left, job.config.label_trust)

    return ArmInputs(
        data=left, true_labels=data.labels, class_names=job.class_names.vectors, targets=predicted, seed=seed
    )

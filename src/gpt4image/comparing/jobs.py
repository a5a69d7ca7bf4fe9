"""The jobs of a comparison: one arm and seed each, trained and measured in worker processes."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.base.files import write_json
from gpt4image.base.progress import say
from gpt4image.comparing.arms import Situation, training_data
from gpt4image.comparing.planning import Job, for_options, jobs_at_once
from gpt4image.config import CompareConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.evaluating.evaluate import measure_run, run_predictions
from gpt4image.evaluating.measures import lacked_names
from gpt4image.labelling.answers import AnsweredBoxes, Answers
from gpt4image.labelling.teaching import judge_training, predict_training, targets_of, taught_boxes
from gpt4image.parallel.devices import cpu_threads, use_gpu
from gpt4image.parallel.local import run_jobs, worker_number
from gpt4image.tasks.base import Labels, Task
from gpt4image.training.loop import tidy
from gpt4image.training.prepare import Prepared, prepare, with_table
from gpt4image.training.run_model import with_features
from gpt4image.training.train import about, run
from gpt4image.training.training_data import TrainingData


def run_all(jobs: list[Job], config: CompareConfig) -> None:
    """Run what is not finished: first what depends on nothing, then what needs the finished run of another arm."""
    todo = sorted((job for job in jobs if not _is_done(job)), key=lambda job: job.teacher is not None)
    names = [f"{job.name} seed {job.config.seed}" for job in todo]
    first = sum(job.teacher is None for job in todo)
    tell = _teller(todo, jobs_at_once(config))
    run_jobs(run_job, todo, names, processes=jobs_at_once(config), title="compare", first=first, on_end=tell)


def _teller(todo: list[Job], at_once: int) -> Callable[[int, dict[str, Any]], None]:
    """Return what is called when a run has ended: it prints its score and the time left, and the mean of each arm."""
    ended, scores = list[float](), dict[Path, list[float]]()
    runs_of = Counter(job.config.out.parent for job in todo)

    def tell(number: int, facts: dict[str, Any]) -> None:
        job, name, title = todo[number], facts["metric"], facts["titles"].get(facts["metric"], facts["metric"])
        found = scores.setdefault(job.config.out.parent, [])
        found.append(facts[name])
        done = sum(map(len, scores.values()))
        ended.append(time.monotonic())
        # Runs before the first has ended share what comes once, such as starting and decoding.
        left = about((ended[-1] - ended[0]) / (done - at_once) * (len(todo) - done)) if done > at_once else ""
        what = f"{job.name}, {job.regime.words}"
        say(
            f"run {done} of {len(todo)}: {what}, seed {job.config.seed}: {title} {facts[name]:.1%}"
            + (f"; {left} left" if left and done < len(todo) else "")
        )
        if 1 < len(found) == runs_of[job.config.out.parent]:
            say(f"{what}: mean {title} {sum(found) / len(found):.1%} over {len(found)} seeds")

    return tell


def _is_done(job: Job) -> bool:
    path = job.config.out / "evaluation-test.json"
    return path.is_file() and (job.class_names.vectors is None or not lacked_names(runs.read_evaluation(path)))


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
            data = training_data(ARMS[job.arm], situation(job, ready.data, described, record=job.config.out))
            mine = with_features(replace(ready, chosen=job.chosen, data=data))
            measured = replace(ready.data, pixels=mine.data.pixels)
            run(mine, job.config.out, arm=job.arm, resume=True, on_step=progress, extra=asdict(job.regime))
        tidy(job.config.out)
        return measure_run(job.config.out, measured, "test", names=job.class_names)


@functools.lru_cache(maxsize=1)
def _prepared(options: str, task: Task | None) -> Prepared:
    """Prepare the data of a run; kept from job to job, since all jobs of a comparison share it."""
    return prepare(TrainConfig.model_validate_json(options), task=task)


def situation(
    job: Job, data: TrainingData, described: NDArray[np.bool_] | None = None, record: Path | None = None
) -> Situation:
    """Return what the arm of a job is made from: the data that is left for its seed.

    Args:
        job: the job.
        data: of its comparison, with all labels.
        described: (N,) which images have a text in the table of the comparison, where that of ``data`` is another one.
        record: folder of the run, to record there how well the texts find the labels that were flipped.
    """
    seed = job.config.seed
    left = job.regime.apply(data, seed, described)
    if isinstance(job.answers, Answers) and job.answers.boxes is not None:
        left = replace(left, labels=left.labels.with_boxes(job.answers.boxes))

    def teacher(indices: NDArray[np.int64]) -> Any:
        if job.teacher is None:
            raise ValueError(f"the arm {job.arm} comes after no other")
        return run_predictions(job.teacher, data, indices)

    def predicted() -> Labels:
        evidence = ARMS[job.arm].evidence or "fused"
        if isinstance(job.answers, AnsweredBoxes):
            return taught_boxes(left, seed, job.class_names.vectors, job.answers, evidence)
        predictions = predict_training(left, seed, job.class_names.vectors, answers=job.answers, evidence=evidence)
        if record is not None and job.regime.label_noise > 0.0 and predictions.out_of_fold.any():
            write_json(record / runs.DOUBTFUL, judge_training(predictions, left))
        return targets_of(predictions, left, job.config.label_trust)

    return Situation(
        data=left,
        true_labels=data.labels,
        class_names=job.class_names.vectors,
        targets=predicted,
        teacher=teacher,
        teacher_run=job.teacher,
        seed=seed,
    )

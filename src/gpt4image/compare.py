"""Train all arms over several seeds with the same data, order and budget, and say what text bought."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image import arms, runs
from gpt4image.config import CompareConfig, TrainConfig, TrainOptions
from gpt4image.data.image_set import NO_LABEL
from gpt4image.data.splits import flip_labels, keep_labels_per_class
from gpt4image.engines.local import run_jobs
from gpt4image.errors import ConfigError, DataError
from gpt4image.evaluate import measure_run, run_probabilities
from gpt4image.files import fingerprint, read_json, write_json
from gpt4image.outcome import Outcome
from gpt4image.results import summarise
from gpt4image.table import EmbeddingTable
from gpt4image.training_data import Prepared, TrainingData, prepare

CLASS_NAME_PROMPT = "a photo of a {}"
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One arm and seed; everything a worker process needs to know.

    Attributes:
        arm: name in arms.ALL.
        config: resolved options of the run.
        chosen: options that were chosen from the set.
        labels_per_class: labels kept a class; None for all.
        label_noise: part of the labels flipped.
        baseline: folder of the baseline run of the same seed.
        class_names: (K, D) float32 text embeddings of the class names, where an arm needs them.
    """

    arm: str
    config: TrainConfig
    chosen: dict[str, Any]
    labels_per_class: int | None
    label_noise: float
    baseline: Path
    class_names: NDArray[np.float32] | None


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
    from gpt4image.findings import comparison_table
    from gpt4image.report import write_report

    out = configs[0].out
    configs = tuple(config.model_copy(update={"out": out}) for config in configs)
    plans = [_plan(config) for config in configs]
    jobs = {job.config.out: job for plan in plans for job in plan.jobs}
    _run(list(jobs.values()), configs[0])
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
        text=comparison_table(record),
        set_aside=tuple(set_aside),
    )


def _write_examples(plan: Plan) -> None:
    """Write example pictures with their texts, and what the text labels and the runs of the first seed say of them."""
    from gpt4image.examples import write_examples
    from gpt4image.text_labels import read_labels

    config, data = plan.config, plan.prepared.data
    in_train = data.image_set.splits == "train"
    candidates, probabilities = data.usable, None
    if data.text is not None:
        candidates = data.usable & (data.text.described | ~in_train)
    if "text-labels" in plan.members and data.text is not None:
        left = labels_left(data, config.labels_per_class, config.label_noise, seed=0)
        labels = np.where(in_train, left, NO_LABEL)
        vectors, described, _ = data.text.take(np.arange(len(labels)))
        reading = read_labels(vectors.numpy(), described.numpy(), labels, len(data.classes), seed=0, reference=in_train)
        probabilities = reading.probabilities
    write_examples(
        config.out / "examples.json",
        data.image_set,
        candidates,
        store=None if config.embeddings is None else Path(EmbeddingTable.open(config.embeddings).manifest.store),
        text_labels=probabilities,
        run_dirs={arm: folders[0] for arm, folders in plan.members.items()},
    )


# ---------------------------------------------------------------------------------------------------------------------
# Planning: everything that can be refused is refused here


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison that is ready to be run: its jobs, and the run folders of each arm in order of the seeds."""

    config: CompareConfig
    prepared: Prepared
    jobs: tuple[Job, ...]
    members: dict[str, list[Path]]


def _plan(config: CompareConfig) -> Plan:
    if config.text_labels is not None:
        raise ConfigError(
            f"--text-labels {config.text_labels} may have been read off labels that an arm must not see. Leave it out: "
            "the arms text-labels and text-labels-aligned read their own, per seed, off the labels that are left."
        )
    threads = config.threads or max(1, _cores() // _processes(config))
    config = config.model_copy(update={"threads": threads})
    ready = _resolved(config)
    scarce = config.labels_per_class is not None or config.label_noise > 0.0
    train = ready.data.indices("train")
    unlabelled = bool((ready.data.labels[train] == NO_LABEL).any())
    names = _chosen_arms(config, scarce=scarce, unlabelled=unlabelled)
    doubted = any(arms.ALL[name].scarce_only for name in names)
    _refuse_leak(config, names, scarce=scarce or unlabelled or doubted)
    for seed in range(config.seeds):
        labels_left(ready.data, config.labels_per_class, config.label_noise, seed)
    class_names = _class_name_vectors(config, ready.data) if any(arms.ALL[name].names for name in names) else None
    jobs: list[Job] = []
    members: dict[str, list[Path]] = {}
    for name in names:
        for seed in range(config.seeds):
            job = _job(config, ready, name, seed, class_names)
            jobs.append(job)
            members.setdefault(name, []).append(job.config.out)
    return Plan(config=config, prepared=ready, jobs=tuple(jobs), members=members)


def _resolved(config: CompareConfig) -> Prepared:
    """Prepare the data and choose what is left open; a comparison that goes on keeps what it had chosen."""
    from gpt4image.devices import cpu_threads
    from gpt4image.train import resolve

    # What is chosen depends on the set and the options of a run alone, not on which arms and seeds are asked for.
    asked = {"seeds", "arms", "jobs", "labels_per_class", "label_noise", *runs.NOT_IDENTITY}
    key = fingerprint(config.model_dump(mode="json", exclude=asked))[:12]
    path = config.out / PLAN
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    options = {name: value for name, value in known.get(key, {}).items() if name in CompareConfig.model_fields}
    with cpu_threads(config.threads):
        ready = resolve(prepare(config.model_copy(update=options)))
    if key not in known:
        write_json(path, known | {key: ready.chosen})
        return ready
    return replace(ready, chosen=known[key])


def _chosen_arms(config: CompareConfig, *, scarce: bool, unlabelled: bool) -> tuple[str, ...]:
    """Return the arms that are asked for, or all that mean something here; whoever doubts labels may ask for more."""
    described = config.embeddings is not None
    possible = [name for name in arms.applicable(described=described, scarce=True) if scarce or name != "oracle"]
    usual = arms.applicable(described=described, scarce=scarce or unlabelled)
    asked = tuple(filter(None, config.arms.split(","))) or tuple(name for name in usual if name in possible)
    refused = [name for name in asked if name not in possible]
    if refused:
        why = "need --embeddings" if config.embeddings is None else "need --labels-per-class or --label-noise"
        raise ConfigError(f"--arms {','.join(refused)} {why} here; possible now: {', '.join(possible)}.")
    return asked if "baseline" in asked else ("baseline", *asked)


def _refuse_leak(config: CompareConfig, names: Sequence[str], *, scarce: bool) -> None:
    """Refuse descriptions that were told the class where labels are meant to be scarce or wrong."""
    if config.embeddings is None or not scarce or not any(arms.ALL[name].text for name in names):
        return
    from gpt4image.label import open_tables

    open_tables((config.embeddings,))


def _class_name_vectors(config: CompareConfig, data: TrainingData) -> NDArray[np.float32]:
    from gpt4image.text_encoders import load_text_encoder

    if config.embeddings is None:
        raise ConfigError("Class names are embedded by the encoder of the descriptions: give --embeddings.")
    encoder = load_text_encoder(EmbeddingTable.open(config.embeddings).manifest.encoder, config.device)
    return encoder.encode([CLASS_NAME_PROMPT.format(name.replace("_", " ")) for name in data.classes])


def _job(config: CompareConfig, ready: Prepared, name: str, seed: int, class_names: NDArray[np.float32] | None) -> Job:
    # The oracle is the baseline that was given all labels, and zero-shot reads no label: comparisons share such runs.
    arm = "baseline" if name == "oracle" else name
    reads_left = name not in ("oracle", "zero-shot")
    kept, noise = (config.labels_per_class, config.label_noise) if reads_left else (None, 0.0)
    options: TrainOptions = ready.config
    shared = {key: value for key, value in options.model_dump().items() if key in TrainConfig.model_fields}
    setting = "all-labels" if kept is None else f"{kept}-labels"
    setting += f"-{noise:g}-wrong" if noise else ""
    version = runs.identity(_plain(shared) | {"seed": 0, "data_fingerprint": ready.fingerprint})[:8]
    folder = config.out / "runs" / version / setting
    return Job(
        arm=arm,
        config=TrainConfig(**shared | {"seed": seed, "out": folder / arm / f"seed-{seed}", "resume": True}),
        chosen=ready.chosen,
        labels_per_class=kept,
        label_noise=noise,
        baseline=folder / "baseline" / f"seed-{seed}",
        class_names=class_names if arms.ALL[arm].names else None,
    )


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Running


def _cores() -> int:
    from gpt4image.data.pixels import available_cores

    return available_cores()


def _processes(config: CompareConfig) -> int:
    import torch

    from gpt4image.devices import choose_device

    if config.jobs is not None:
        return config.jobs
    return torch.cuda.device_count() if choose_device(config.device).type == "cuda" else _cores()


def _run(jobs: list[Job], config: CompareConfig) -> None:
    """Run what is not finished: first what depends on nothing, then what needs the finished baseline."""
    todo = [job for job in jobs if not (job.config.out / "evaluation-test.json").is_file()]
    for wave in (False, True):
        part = [job for job in todo if arms.ALL[job.arm].after_baseline is wave]
        names = [f"{job.arm} seed {job.config.seed}" for job in part]
        run_jobs(run_job, part, names, processes=_processes(config), title="compare")


def run_job(job: Job, progress: Callable[[int, int, str], None]) -> None:
    """Train one arm and seed, and read the test split once. Runs in a worker process."""
    from gpt4image.devices import cpu_threads
    from gpt4image.train import run

    with cpu_threads(job.config.threads):
        ready = _prepared(job.config.model_copy(update={"seed": 0, "out": Path(), "resume": False}).model_dump_json())
        if not runs.is_finished(job.config.out):
            data = arms.ALL[job.arm].prepare(_situation(job, ready.data))
            mine = replace(ready, config=job.config, chosen=job.chosen, data=data)
            extra = {"labels_per_class": job.labels_per_class, "label_noise": job.label_noise}
            run(mine, job.config.out, arm=job.arm, resume=True, on_step=progress, extra=extra)
        measure_run(job.config.out, ready.data, "test")


@functools.lru_cache(maxsize=1)
def _prepared(options: str) -> Prepared:
    """Prepare the data of a run; kept from job to job, since all jobs of a comparison share it."""
    return prepare(TrainConfig.model_validate_json(options))


def _situation(job: Job, data: TrainingData) -> arms.Situation:
    seed = job.config.seed
    labels = labels_left(data, job.labels_per_class, job.label_noise, seed)

    def teacher(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return run_probabilities(job.baseline, data, indices)

    return arms.Situation(
        data=replace(data, labels=labels),
        true_labels=data.labels,
        class_names=job.class_names,
        text_labels=lambda: text_targets(data, labels, job.config.label_trust, seed),
        teacher=teacher,
        seed=seed,
    )


def labels_left(data: TrainingData, labels_per_class: int | None, label_noise: float, seed: int) -> NDArray[np.int64]:
    """Return the labels that a seed trains on: some kept, some flipped, only ever in train."""
    labels, train = data.labels, data.indices("train")
    if labels_per_class is not None:
        labels = keep_labels_per_class(labels, train, labels_per_class, seed, classes=data.classes)
    if label_noise > 0.0:
        labelled = train[labels[train] != NO_LABEL]
        labels = flip_labels(labels, labelled, label_noise, len(data.classes), seed)
    if not (labels[train] != NO_LABEL).any():
        raise DataError(f"No training image of {data.image_set.spec} has a label; label some.")
    return labels


def text_targets(data: TrainingData, labels: NDArray[np.int64], trust: float | None, seed: int) -> NDArray[np.float32]:
    """Return (N, K) float32 soft targets read off the descriptions of the training images by the labels left.

    Only training images take part: neither the texts nor the labels of other splits are read.
    """
    from gpt4image.text_labels import blend, read_labels

    train = data.indices("train")
    if data.text is None:
        raise ConfigError("Text labels need --embeddings.")
    vectors, described, _ = data.text.take(train)
    reading = read_labels(vectors.numpy(), described.numpy(), labels[train], len(data.classes), seed)
    targets = np.zeros((len(labels), len(data.classes)), np.float32)
    targets[train] = blend(reading.probabilities, labels[train], reading.noise, trust)
    return targets

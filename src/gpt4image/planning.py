"""The plan of a comparison: which arms and seeds to run, with which options; mistakes are refused here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image import arms, runs
from gpt4image.config import CompareConfig, TrainConfig, TrainOptions
from gpt4image.data.image_set import NO_LABEL
from gpt4image.errors import ConfigError
from gpt4image.files import fingerprint, read_json, write_json
from gpt4image.regimes import labels_left
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison that is ready to be run: its jobs, and the run folders of each arm in order of the seeds."""

    config: CompareConfig
    prepared: Prepared
    jobs: tuple[Job, ...]
    members: dict[str, list[Path]]


def make_plan(config: CompareConfig) -> Plan:
    """Return the plan of a comparison.

    Raises:
        ConfigError, DataError, TableError, ModelError: options that do not fit each other or the data.
    """
    if config.text_labels is not None:
        raise ConfigError(
            f"--text-labels {config.text_labels} may have been read off labels that an arm must not see. Leave it out: "
            "the arms text-labels and text-labels-aligned read their own, per seed, off the labels that are left."
        )
    threads = config.threads or max(1, _cores() // jobs_at_once(config))
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
    class_names = class_name_vectors(config, ready.data) if any(arms.ALL[name].names for name in names) else None
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


def class_name_vectors(config: CompareConfig, data: TrainingData) -> NDArray[np.float32]:
    """Return (K, D) float32 embeddings of the class names, by the encoder of the descriptions."""
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


def _cores() -> int:
    from gpt4image.data.pixels import available_cores

    return available_cores()


def jobs_at_once(config: CompareConfig) -> int:
    """Return how many runs go side by side."""
    import torch

    from gpt4image.devices import choose_device

    if config.jobs is not None:
        return config.jobs
    return torch.cuda.device_count() if choose_device(config.device).type == "cuda" else _cores()

"""The plan of a comparison: which arms and seeds to run, with which options.

What a run would refuse is refused here, by building each kind of run once: it must not be found after hours of others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, TableError
from gpt4image.base.files import fingerprint, read_json, write_json
from gpt4image.comparing.members import Member, members_of, require_names
from gpt4image.comparing.regimes import Regime, untagged
from gpt4image.comparing.setups import Setup, set_up, train_config
from gpt4image.config import CompareConfig, TrainConfig, TrainOptions
from gpt4image.config.arms import ARMS, Arm
from gpt4image.config.learning import OF_ALIGNMENT, OF_TEXT_LABELS
from gpt4image.data.pixels import available_cores
from gpt4image.encoding.class_names import ClassNames, not_read
from gpt4image.labelling.predictions import require_learnable
from gpt4image.labelling.teaching import AnyAnswers, answers_about, labels_of
from gpt4image.labelling.text_vectors import open_table
from gpt4image.parallel import devices
from gpt4image.tasks.base import Task
from gpt4image.training.prepare import Prepared, prepare, require_selectable
from gpt4image.training.tracking import require_trackers
from gpt4image.training.trainer import build
from gpt4image.training.training_data import TrainingData

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One arm and seed: everything that a worker process needs.

    Attributes:
        arm: name in ARMS.
        name: of the arm or variant, for people.
        config: resolved options of the run.
        shared: resolved options of the comparison, by which the data is prepared: the same for all its jobs.
        chosen: options that were chosen from the dataset.
        regime: what is left of the training set.
        teacher: folder of the run of the same seed that the arm needs, if it needs one.
        class_names: text embeddings of the class names, where the arm reads texts.
        answers: about the images, where the arm reads answers.
        task: what is trained for, where it is not one of the registry.
    """

    arm: str
    name: str
    config: TrainConfig
    shared: TrainConfig
    chosen: dict[str, Any]
    regime: Regime
    teacher: Path | None
    class_names: ClassNames
    answers: AnyAnswers | None = None
    task: Task | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison that is ready to be run.

    Attributes:
        config: its options.
        prepared: the data, before labels are taken away.
        jobs: what to run.
        members: arms and variants by name.
        class_conditioned: descriptions are of a prompt that names the class, so that they must not give labels.
        notes: what was left out or is not read, and why.
    """

    config: CompareConfig
    prepared: Prepared
    jobs: tuple[Job, ...]
    members: dict[str, Member]
    class_conditioned: bool
    notes: tuple[str, ...] = ()


def make_plan(config: CompareConfig, task: Task | None = None) -> Plan:
    """Return the plan of a comparison.

    Raises:
        ConfigError, DataError, TableError, ModelError: options that do not fit each other or the data.
    """
    require_trackers(config.trackers)
    # No more threads per job than torch would take (OMP_NUM_THREADS).
    threads = max(1, min(available_cores() // jobs_at_once(config), torch.get_num_threads()))
    config = config.model_copy(update={"threads": config.threads or threads})
    ready = _resolved(config, task)
    regime = Regime.of(config)
    train = ready.data.indices("train")
    unlabelled = not ready.data.task.known(ready.data.labels[train]).all()
    table = config.embeddings
    class_conditioned = table is not None and EmbeddingTable.open(table).manifest.class_conditioned
    first = regime.apply(ready.data, config.first_seed)
    _require_labels(config, ready.data, first)
    answers = None if config.answers is None else answers_about(ready.data, config.answers)
    members, notes = members_of(
        config,
        first,
        scarce=regime.scarce,
        unlabelled=unlabelled,
        class_conditioned=class_conditioned,
        truth=bool(ready.data.task.known(ready.data.labels[train]).any()),
        answered=None if answers is None else answers.given,
    )
    arms = [ARMS[member.arm] for member in members.values()]
    if regime.scarce or unlabelled or any(arm.scarce_only or arm.text_labels for arm in arms):
        for member, arm in zip(members.values(), arms, strict=True):
            if arm.text and config.embeddings is not None:
                open_table(member.options.get("embeddings", config.embeddings))  # refuses class-conditioned texts
    jobs = {name: _jobs(config, ready, name, members, answers, task) for name in members}
    every = tuple(job for several in jobs.values() for job in several)
    return Plan(
        config=config,
        prepared=ready,
        jobs=every,
        members={
            name: replace(member, folders=tuple(job.config.out for job in jobs[name]))
            for name, member in members.items()
        },
        class_conditioned=class_conditioned,
        notes=(*notes, *not_read(job.class_names for job in every if ARMS[job.arm].text_labels and ARMS[job.arm].text)),
    )


def _require_labels(config: CompareConfig, data: TrainingData, left: TrainingData) -> None:
    """Refuse data on which no arm could be measured, or none trained that needs a label. Raises DataError."""
    known = data.task.known
    if not known(data.labels[data.indices("test")]).any():
        raise DataError(
            f"{config.data}: no image of the test split has a label, so that no arm can be measured: label some, or "
            f"give another --test-fraction than {config.test_fraction}."
        )
    if config.labels_per_class != 0 and not known(left.labels[left.indices("train")]).any():
        raise DataError(f"No training image of {config.data} has a label; label some, or give --labels-per-class 0.")


def _resolved(config: CompareConfig, task: Task | None) -> Prepared:
    """Prepare the data and choose what is left open; a comparison that goes on keeps what it had chosen."""
    # What is chosen depends only on the images and the options of the baseline, not on the arms and seeds asked for or
    # on what some of them do with texts.
    asked = CompareConfig.model_fields.keys() - TrainOptions.model_fields.keys() | runs.NOT_IDENTITY
    asked |= OF_ALIGNMENT | OF_TEXT_LABELS
    key = fingerprint(config.model_dump(mode="json", exclude=asked))[:12]
    path = config.out / PLAN
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    options = {name: value for name, value in known.get(key, {}).items() if name in CompareConfig.model_fields}
    with devices.cpu_threads(config.threads):
        try:
            ready = prepare(config.model_copy(update=options), task=task)
        except DataError:  # a batch that was chosen for more images than there are now is too large
            if not options:
                raise
            ready = None
        if ready is None or known.get(key, {}).get(runs.DATA, ready.fingerprint) != ready.fingerprint:
            known, options = {name: value for name, value in known.items() if name != key}, {}  # chosen for others
            ready = prepare(config, task=task)
    chosen = {name: value for name, value in known.get(key, ready.chosen).items() if name != runs.DATA}
    if known.get(key) != (found := chosen | {runs.DATA: ready.fingerprint}):
        write_json(path, known | {key: found})
    return replace(ready, chosen=chosen)


def _jobs(
    config: CompareConfig,
    ready: Prepared,
    name: str,
    members: Mapping[str, Member],
    answers: AnyAnswers | None,
    task: Task | None,
) -> list[Job]:
    """Return the jobs of one arm or variant, one per seed."""
    member = members[name]
    # The oracle is the baseline with all labels, and zero-shot reads no label: comparisons share such runs.
    arm = "baseline" if member.arm == "oracle" else member.arm
    reads_labels = member.arm not in ("oracle", "zero-shot")
    regime = Regime.of(config) if reads_labels else Regime()
    workers = config.workers
    if workers is None:
        workers = max(1, available_cores() // jobs_at_once(config))  # of the processes that decode images
    teacher = taught_by = None
    with _naming(name, member):
        if (after := ARMS[arm].after) is not None:
            # The teacher of a variant is the variant of the teacher with the same options, where there is one.
            alike = any(other.arm == after and other.options == member.options for other in members.values())
            taught_by = set_up(ARMS[after], ready, member.options if alike else {}, answers=answers).key
            its = Regime.of(config)
            teacher = _folder(config, after, its, taught_by)
        own = set_up(ARMS[arm], ready, member.options, taught_by, answers)
        require_names(members, name, own.ready.config.embeddings, own.class_names)
        if member.options and own.ready.config == set_up(ARMS[arm], ready, {}).ready.config:
            given = ", ".join(f"{name} {value}" for name, value in member.options.items())
            raise ConfigError(
                f"with {given} it is {member.arm} once more, which has that already or does not read it: give other "
                "values, or leave the variant out."
            )
        _require_runnable(config, ready, name, members, own, regime)
    folder = _folder(config, arm, regime, own.key)
    return [
        Job(
            arm=arm,
            name=name,
            config=train_config(own.ready.config, seed=seed, out=folder / f"seed-{seed}", resume=True, workers=workers),
            shared=train_config(ready.config, workers=workers),
            chosen=own.ready.chosen,
            regime=regime,
            teacher=None if teacher is None else teacher / f"seed-{seed}",
            class_names=own.class_names,
            answers=own.answers,
            task=task,
        )
        for seed in config.seed_range
    ]


def _folder(config: CompareConfig, arm: str, regime: Regime, key: str) -> Path:
    """Return the folder of the runs of an arm; the key tells those of other options or data apart."""
    return config.out / "runs" / f"{arm}-{regime.name}-{key}"


@contextlib.contextmanager
def _naming(name: str, member: Member) -> Generator[None]:
    """Name the variant in an error that its options cause."""
    try:
        yield
    except Gpt4ImageError as error:
        if not member.options:
            raise
        error.args = (f"variant {name!r}: {error}",)
        raise


def _require_runnable(
    config: CompareConfig,
    ready: Prepared,
    name: str,
    members: Mapping[str, Member],
    own: Setup,
    regime: Regime,
) -> None:
    """Refuse what an arm or variant cannot be run with, as the run itself would. Raises Gpt4ImageError."""
    arm, options = ARMS[members[name].arm], members[name].options
    require_selectable(own.ready.config, ready.data.image_set, ready.data.task)
    described = None if ready.data.text is None else ready.data.text.described
    for seed in config.seed_range if arm.text_labels or arm.known_texts else ():
        left = untagged(regime.apply(own.ready.data, seed, described))
        train = left.indices("train")
        has_text, labels = _described(left)[train], labels_of(left, train)
        if arm.known_texts and not (has_text & left.task.known(left.labels[train])).any():
            raise DataError(
                f"--arms {name} needs training images with both a label and a description, and none is left."
            )
        try:
            if arm.text_labels and (own.answers is None or (left.task.boxes and arm.evidence == "texts")):
                require_learnable(has_text, left.task.groups(labels) if left.task.boxes else labels)
        except TableError as error:
            after = f", after {regime.asked}" if regime.asked else ""
            raise TableError(f"--arms {name} with seed {seed}{after}: {error}") from None
    # Arms without options of their own are built alike, but for those that align.
    aligned = next((one for one, each in members.items() if ARMS[each.arm].aligns and not each.options), None)
    if options or arm.options or name in (next(iter(members)), aligned):
        _require_buildable(arm, own, regime.apply(own.ready.data, config.first_seed, described))


def _described(data: TrainingData) -> NDArray[np.bool_]:
    """Return (N,) which images have a text."""
    return np.zeros(len(data.labels), bool) if data.text is None else data.text.described


def _require_buildable(arm: Arm, own: Setup, data: TrainingData) -> None:
    """Build a run once; of the targets that an arm makes, only which images will have one is known."""
    plain = {"compile": False, "ema": 0.0, "device": "cpu"}
    if not arm.labels_alone:
        has_target = _described(data)
        if arm.text_labels:
            has_target = has_target | data.task.known(data.labels)
        if own.answers is not None:
            has_target = has_target | own.answers.given
        if arm.after is not None:
            has_target = np.ones(len(data.labels), bool)  # a run predicts every image
        if data.task.boxes:
            data = replace(data, labels=replace(data.labels, known=data.labels.known | has_target))
        else:
            data = replace(data, soft=data.task.placeholder(has_target, data.task.outputs(data.classes)))
    build(own.ready.config.model_copy(update=plain).resolved, data if arm.aligns else replace(data, text=None))


def jobs_at_once(config: CompareConfig) -> int:
    """Return how many runs go side by side."""
    if config.jobs is not None:
        return config.jobs
    device = devices.choose_device(config.device)
    if device.type == "cpu":
        return available_cores()
    return torch.cuda.device_count() if str(device) == "cuda" else 1

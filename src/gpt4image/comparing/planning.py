"""The plan of a comparison: which arms and seeds to run, with which options.

What a run would refuse is refused here, by building each kind of run once: it must not be found after hours of others.
Options that an arm does not read have their defaults, so that comparisons which differ in nothing else share its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.probabilities import from_blocks
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, TableError
from gpt4image.base.files import file_digest
from gpt4image.comparing.arms import applicable, lacking
from gpt4image.config import CompareConfig, TrainConfig, TrainOptions
from gpt4image.config.arms import ARMS, Arm
from gpt4image.config.base import listed
from gpt4image.config.learning import OF_ALIGNMENT, OF_TEXT_LABELS, TextOptions
from gpt4image.data import annotation
from gpt4image.data.dataset import NO_LABEL
from gpt4image.data.pixels import available_cores
from gpt4image.data.splits import flip_labels, keep_labels_per_class, some_images
from gpt4image.encoding.class_names import ClassNames, find_class_names, not_read
from gpt4image.labelling.evidence import AnsweredBoxes, Answers
from gpt4image.labelling.sources import require_learnable
from gpt4image.labelling.teaching import AnyAnswers, answers_about, labels_of
from gpt4image.labelling.texts import open_table
from gpt4image.parallel import devices
from gpt4image.tasks.base import Task
from gpt4image.tasks.registry import with_options
from gpt4image.training import auto
from gpt4image.training.prepare import Prepared, check, check_selectable, prepare, with_table
from gpt4image.training.train import check_trackers
from gpt4image.training.trainer import build
from gpt4image.training.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class Regime:
    """A harder setting: labels that stay, and labels that are flipped, by the options of these names in CompareConfig.

    Everything drawn depends on the seed of the run and concerns only the train split.
    """

    labels_per_class: int | None = None
    labelled_images: int | None = None
    label_noise: float = 0.0
    noise_kind: str = "uniform"

    @classmethod
    def of(cls, config: CompareConfig) -> Regime:
        """Return the one that a comparison asks for."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    @property
    def is_label_scarce(self) -> bool:
        """Whether labels are missing or wrong."""
        return self.labels_per_class is not None or self.labelled_images is not None or self.label_noise > 0.0

    @property
    def name(self) -> str:
        """Name of a folder of runs."""
        name = "all-labels" if self.labels_per_class is None else f"{self.labels_per_class}-labels"
        if self.labelled_images is not None:
            name = f"{self.labelled_images}-images"
        if self.label_noise:
            kind = "-by-class" if self.noise_kind == "class-dependent" else ""
            name += f"-{str(float(self.label_noise)).removesuffix('.0')}-wrong{kind}"
        return name

    def apply(self, data: TrainingData, seed: int, described: NDArray[np.bool_] | None = None) -> TrainingData:
        """Return what is left for one seed.

        ``described``, (N,), is which images have a text in the table of the comparison, where the arm reads another
        one: all arms lose the same labels. Raises DataError: no label would be taken away, or none would be wrong;
        ConfigError: the task has no classes that could be mixed up.
        """
        if not data.task.exclusive and self.label_noise > 0.0:
            raise ConfigError(
                f"--label-noise needs one class per image, which the task {data.task.name} does not have: leave it out."
            )
        if described is None and data.text is not None:
            described = data.text.described  # these keep their labels first: text labels are fitted on both
        labels, train = data.labels, data.indices("train")
        if self.labelled_images is not None:
            chosen = some_images(train[annotation.known(labels[train])], self.labelled_images, seed, first=described)
            labels = annotation.hidden(labels, np.isin(np.arange(len(labels)), np.setdiff1d(train, chosen)))
        if self.labels_per_class is not None:
            groups, k = annotation.groups(labels), self.labels_per_class
            kept = keep_labels_per_class(groups, train, k, seed, first=described, classes=data.classes)
            gone = np.zeros(len(groups), bool)
            gone[train[kept[train] == NO_LABEL]] = True
            labels = annotation.hidden(labels, gone)
        if self.label_noise > 0.0:
            given, by_class = labels, self.noise_kind == "class-dependent"
            labels = flip_labels(given, train, self.label_noise, len(data.classes), seed, class_dependent=by_class)
            count = int((given[train] != NO_LABEL).sum())
            if count and np.array_equal(labels, given):
                raise DataError(
                    f"--label-noise {self.label_noise:g} of {count} labels flips none: give at least {1 / count:.2g}."
                )
        return replace(data, labels=annotation.untagged(labels))  # no arm reads tags of images without an annotation


@dataclass(frozen=True, kw_only=True)
class Member:
    """A row of a comparison: an arm as it is, or a variant with other options; run folders in order of the seeds."""

    arm: str
    options: Mapping[str, Any]
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One arm and seed: everything that a worker process needs.

    ``name`` is that of the arm or variant. ``shared`` are the options of the comparison, by which the data is prepared.
    ``task`` is one that the registry lacks.
    """

    arm: str
    name: str
    config: TrainConfig
    shared: TrainConfig
    chosen: dict[str, Any]
    regime: Regime
    class_names: ClassNames
    answers: AnyAnswers | None = None
    features: str = "none"
    task: Task | None = None

    @property
    def pictures(self) -> Path:
        """Folder of the features of the pictures, which the jobs of a comparison share."""
        return self.config.out.parents[2] / "pictures.features"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison that is ready to be run; ``prepared`` is the data, before labels are taken away."""

    config: CompareConfig
    prepared: Prepared
    jobs: tuple[Job, ...]
    members: dict[str, Member]
    notes: tuple[str, ...] = ()


def make_plan(config: CompareConfig, task: Task | None = None) -> Plan:
    """Return the plan of a comparison. Raises Gpt4ImageError: options that do not fit each other or the data."""
    check_trackers(config.trackers)
    # No more threads per job than torch would take (OMP_NUM_THREADS).
    threads = max(1, min(available_cores() // jobs_at_once(config), torch.get_num_threads()))
    config = config.model_copy(update={"threads": config.threads or threads})
    with devices.cpu_threads(config.threads):
        ready = prepare(config, task=task)
    left = Regime.of(config).apply(ready.data, config.first_seed)
    if not annotation.known(ready.data.labels[ready.data.indices("test")]).any():
        raise DataError(
            f"{config.data}: no image of the test split has a label: raise --test-fraction {config.test_fraction}."
        )
    if config.labels_per_class != 0 and not _known(left).any():
        raise DataError(f"No training image of {config.data} has a label; label some, or give --labels-per-class 0.")
    table = config.embeddings
    class_conditioned = table is not None and EmbeddingTable.open(table).manifest.class_conditioned
    answers = None if config.answers is None else answers_about(ready.data, config.answers)
    members, notes = members_of(config, ready.data, left, class_conditioned=class_conditioned)
    arms = [ARMS[member.arm] for member in members.values()]
    scarce = Regime.of(config).is_label_scarce or not _known(ready.data).all()
    if table is not None and (scarce or any(arm.scarce_only or arm.predicts_targets for arm in arms)):
        for member, arm in zip(members.values(), arms, strict=True):
            if arm.text:
                open_table(member.options.get("embeddings", table))  # refuses class-conditioned texts
    jobs = {name: _jobs(config, ready, name, members, answers, task) for name in members}
    every = tuple(job for several in jobs.values() for job in several)
    reading = (job.class_names for job in every if ARMS[job.arm].predicts_targets and ARMS[job.arm].text)
    folders = {name: tuple(job.config.out for job in several) for name, several in jobs.items()}
    return Plan(
        config=config,
        prepared=ready,
        jobs=every,
        members={name: replace(member, folders=folders[name]) for name, member in members.items()},
        notes=(*notes, *not_read(reading)),
    )


def jobs_at_once(config: CompareConfig) -> int:
    """Return how many runs go side by side."""
    if config.jobs is not None:
        return config.jobs
    device = devices.choose_device(config.device)
    if device.type == "cpu":
        return available_cores()
    return torch.cuda.device_count() if str(device) == "cuda" else 1


def _known(data: TrainingData) -> NDArray[np.bool_]:
    """Return which training images have a label."""
    return annotation.known(data.labels[data.indices("train")])


def _described(data: TrainingData) -> NDArray[np.bool_]:
    """Return (N,) which images have a text."""
    return np.zeros(len(data.labels), bool) if data.text is None else data.text.described


def members_of(
    config: CompareConfig, data: TrainingData, left: TrainingData, *, class_conditioned: bool
) -> tuple[dict[str, Member], list[str]]:
    """Return arms and variants, and notes; ``left`` are the labels that the first seed trains on, ``data`` has all."""
    scarce, known, some = Regime.of(config).is_label_scarce, _known(left), _known(data)
    there: dict[str, Any] = {
        "described": config.embeddings is not None,
        "answered": config.answers is not None,
        "labelled": bool(known.any()),
        "unlabelled": not known.all(),
        "task": left.task,
    }

    def lacks(name: str) -> str:
        if name == "oracle":
            return lacking(ARMS[name], **there, scarce=scarce) if some.any() else "labels"
        return lacking(ARMS[name], **there, scarce=True)

    possible = [name for name in ARMS if not lacks(name)]
    asked, notes = listed(config.arms), []
    if not asked:
        usual = applicable(scarce=scarce or not some.all(), class_conditioned=class_conditioned, **there)
        asked = tuple(name for name in usual if name in possible)
        named = [name for name in asked if ARMS[name].names]
        if named and (names := find_class_names(config.embeddings, config.device, left.classes)).missing:
            notes = [f"Left out: {', '.join(named)}: {_need_names(config.embeddings, names)}"]
            asked = tuple(name for name in asked if name not in named)
    wanted = {**dict.fromkeys(asked), **{table["arm"]: None for table in config.variants.values()}}
    if lacked := [f"{name} needs {what}" for name in wanted if (what := lacks(name))]:
        raise ConfigError(f"--arms: {'; '.join(lacked)}; possible now: {', '.join(possible)}.")
    reference = ["baseline"] if there["labelled"] else []
    plain = dict.fromkeys((*reference, *asked))
    members = {name: Member(arm=name, options={}) for name in plain}
    for name, table in config.variants.items():
        members[name] = Member(arm=table["arm"], options={key: table[key] for key in table if key != "arm"})
    return members, notes


def _need_names(table: Path | None, names: ClassNames) -> str:
    return f"it needs the names of the classes in the space of {table}: {names.missing}"


class Setup(NamedTuple):
    """Data and options of the runs of an arm; ``key`` differs where any of them does."""

    ready: Prepared
    class_names: ClassNames
    key: str
    answers: AnyAnswers | None = None
    features: str = "none"


def set_up(
    arm: Arm, ready: Prepared, options: Mapping[str, Any], answers: AnyAnswers | None = None, features: str = "none"
) -> Setup:
    """Return how the runs of an arm are set up, with ``options`` that make a variant of it.

    ``answers`` and ``features`` that it does not read are left out.
    """
    own = _with_options(ready, {**arm.options, **options})
    unread = {*(() if arm.aligns else OF_ALIGNMENT), *(() if arm.predicts_targets else OF_TEXT_LABELS)}
    config = own.config.model_copy(update={name: TextOptions.model_fields[name].default for name in unread})
    names = find_class_names(config.embeddings, config.device, own.data.classes) if arm.text else ClassNames()
    content: dict[str, Any] = {
        runs.DATA: own.fingerprint,
        "class_names": [names.revision] if arm.names or arm.predicts_targets else [],  # revision of the encoder
    }
    if not (arm.answers or (arm.predicts_targets and isinstance(answers, AnsweredBoxes))):
        answers = None
    if answers is not None:
        content |= {"evidence": arm.evidence, "answers": answers.content()}
    if not isinstance(answers, Answers) or arm.evidence != "fused":
        features = "none"
    if features != "none":
        content["features"] = features
    if (weights := Path(config.init)).is_file():
        content["init_digest"] = file_digest(weights)
    key = runs.identity(train_config(config).model_dump(mode="json") | content)[:8]
    return Setup(replace(own, config=config), names, key, answers, features)


def train_config(options: TrainOptions, **more: Any) -> TrainConfig:
    """Return the options of a run: those that it shares with the comparison, and ``more``."""
    shared = {key: value for key, value in options.model_dump().items() if key in TrainConfig.model_fields}
    values: dict[str, Any] = {**shared, "seed": 0, "out": Path(), **more}
    return TrainConfig(**values)


def _with_options(ready: Prepared, options: Mapping[str, Any]) -> Prepared:
    """Return the same data, ready for a run with other options; what follows from them is chosen anew."""
    if options.get("embeddings", "") is None:
        raise ConfigError(
            "embeddings null would leave the texts of the comparison in place: name a table, or leave it out."
        )
    config = train_config(ready.config, **options)
    if options.keys() & {"init", "optimizer"}:
        follows = {"optimizer", "lr", "weight_decay"} & ready.chosen.keys() - options.keys()
        config = config.model_copy(update=dict.fromkeys(follows))
    config, chosen = auto.choose(config, ready.data.image_set)
    kept = {name: value for name, value in ready.chosen.items() if name not in options}
    own = for_options(replace(ready, chosen=kept | chosen), config)
    if config.embeddings is None or config.embeddings == ready.config.embeddings:
        return own
    return with_table(own, config.embeddings)


def for_options(ready: Prepared, config: TrainOptions) -> Prepared:
    """Return the same data for a run with other options, of which some are of the task."""
    return replace(ready, config=config, data=replace(ready.data, task=with_options(ready.data.task, config)))


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
    regime = Regime() if member.arm in ("oracle", "zero-shot") else Regime.of(config)
    workers = config.workers
    if workers is None:
        workers = max(1, available_cores() // jobs_at_once(config))  # of the processes that decode images
    try:
        own = set_up(ARMS[arm], ready, member.options, answers, config.features)
        if ARMS[arm].names and own.class_names.vectors is None:
            need = _need_names(own.ready.config.embeddings, own.class_names)
            raise ConfigError(f"--arms {arm}: {need} Give a table of another encoder, by `gpt4image encode`.")
        if member.options and own.ready.config == set_up(ARMS[arm], ready, {}).ready.config:
            given = ", ".join(f"{name} {value}" for name, value in member.options.items())
            raise ConfigError(f"with {given} it is {member.arm} once more, which has that or does not read it.")
        _require_runnable(config, ready, name, members, own, regime)
    except Gpt4ImageError as error:
        if member.options:
            error.args = (f"variant {name!r}: {error}",)
        raise
    place = config.out / "runs" / f"{arm}-{regime.name}-{own.key}"
    return [
        Job(
            arm=arm,
            name=name,
            config=train_config(own.ready.config, seed=seed, out=place / f"seed-{seed}", resume=True, workers=workers),
            shared=train_config(ready.config, workers=workers),
            chosen=own.ready.chosen,
            regime=regime,
            class_names=own.class_names,
            answers=own.answers,
            features=own.features,
            task=task,
        )
        for seed in config.seed_range
    ]


def _require_runnable(
    config: CompareConfig, ready: Prepared, name: str, members: Mapping[str, Member], own: Setup, regime: Regime
) -> None:
    """Refuse what an arm or variant cannot be run with, as the run itself would. Raises Gpt4ImageError."""
    arm, options = ARMS[members[name].arm], members[name].options
    by_class_name = arm.aligned_to == "names"
    check_selectable(own.ready.config, ready.data.all_labels[ready.data.indices("val")])
    described = None if ready.data.text is None else ready.data.text.described
    for seed in config.seed_range if arm.predicts_targets or by_class_name else ():
        left = regime.apply(own.ready.data, seed, described)
        train = left.indices("train")
        has_text, labels = _described(left)[train], labels_of(left, train)
        if by_class_name and not (has_text & _known(left)).any():
            raise DataError(f"--arms {name} needs training images with a label and a description, and none is left.")
        try:
            if arm.predicts_targets and (own.answers is None or (left.task.boxes and arm.evidence == "texts")):
                require_learnable(has_text, annotation.groups(labels) if left.task.boxes else labels)
        except TableError as error:
            raise TableError(f"--arms {name} with seed {seed}, {regime.name}: {error}") from None
    # Arms without options of their own are built alike, except those that align.
    aligned = next((one for one, each in members.items() if ARMS[each.arm].aligns and not each.options), None)
    if options or arm.options or name in (next(iter(members)), aligned):
        _require_buildable(arm, own, regime.apply(own.ready.data, config.first_seed, described))


def _require_buildable(arm: Arm, own: Setup, data: TrainingData) -> None:
    """Build a run once; of the targets that an arm makes, only which images will have one is known."""
    if arm.predicts_targets or arm.evidence == "names":
        has = _described(data) & arm.text
        if arm.predicts_targets:
            has = has | annotation.known(data.labels)
        if own.answers is not None:
            has = has | own.answers.given
        if data.task.boxes:
            data = replace(data, labels=replace(data.labels, known=data.labels.known | has))
        else:
            half, nothing = np.float32(0.5), np.float32(data.task.no_target)
            outputs = data.task.outputs(data.classes)
            data = replace(
                data, soft=from_blocks(len(has), outputs, lambda rows: np.where(has[rows, None], half, nothing))
            )
    check(own.ready.config.resolved, data.task)
    plain = {"compile": False, "ema": 0.0, "device": "cpu"}
    build(own.ready.config.model_copy(update=plain).resolved, data if arm.aligns else replace(data, text=None))

"""The plan of a comparison: which arms and seeds to run, with which options; mistakes are refused here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image import runs
from gpt4image.comparing import arms
from gpt4image.comparing.class_names import ClassNames, embed_class_names, find_class_names
from gpt4image.comparing.measures import Measures
from gpt4image.comparing.regimes import Regime
from gpt4image.comparing.transfer import choose_images, identity
from gpt4image.config import ARMS, CompareConfig, TrainConfig, TrainOptions
from gpt4image.config.base import listed
from gpt4image.data.image_set import NO_LABEL
from gpt4image.errors import ConfigError, DataError, Gpt4ImageError
from gpt4image.files import fingerprint, read_json, write_json
from gpt4image.labelling.reading import require_two_classes
from gpt4image.labelling.teaching import described_by
from gpt4image.table import EmbeddingTable
from gpt4image.text_encoders.weight_files import file_digest
from gpt4image.training import auto
from gpt4image.training.tracking import require_trackers
from gpt4image.training.training_data import (
    Prepared,
    TrainingData,
    prepare,
    require_batch,
    require_selectable,
    with_table,
)

PLAN = "plan.json"
OF_DATA = "data_fingerprint"  # key in it, beside what was chosen for these data


@dataclass(frozen=True, kw_only=True)
class Job:
    """One arm and seed; everything a worker process needs to know.

    Attributes:
        arm: name in arms.ALL.
        name: of the arm or variant, for people.
        config: resolved options of the run.
        shared: resolved options of the comparison, by which the data is prepared: the same for all its jobs.
        chosen: options that were chosen from the set.
        regime: what is left of the training set.
        teacher: folder of the run of the same seed that the arm comes after; None where it comes after none.
        class_names: text embeddings of the class names, where the arm reads texts.
        asked: what to measure besides the accuracy of the test split.
    """

    arm: str
    name: str
    config: TrainConfig
    shared: TrainConfig
    chosen: dict[str, Any]
    regime: Regime
    teacher: Path | None
    class_names: ClassNames
    asked: Measures


@dataclass(frozen=True, kw_only=True)
class Member:
    """An arm of a comparison: as it is, or a variant with other options.

    Attributes:
        arm: name in arms.ALL.
        options: options of train that make it a variant; those of the arm itself are in arms.ALL.
        folders: run folders in order of the seeds.
    """

    arm: str
    options: Mapping[str, Any]
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison that is ready to be run.

    Attributes:
        config: its options.
        prepared: the data, before labels are taken away.
        jobs: what to run.
        members: arms and variants by name.
        class_conditioned: descriptions were told the class, so that no labels may be read off them.
    """

    config: CompareConfig
    prepared: Prepared
    jobs: tuple[Job, ...]
    members: dict[str, Member]
    class_conditioned: bool


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
    if config.consistency > 0.0:
        raise ConfigError(
            f"--consistency {config.consistency:g} would make every arm another one. Leave it out: the arms fixmatch "
            "and text-labels-fixmatch have it, with weight 1; for another weight give a variant of one of them."
        )
    if config.seed:
        raise ConfigError(f"--seed {config.seed}: arms run over several seeds; --first-seed names the first of them.")
    if config.noise_kind != "uniform" and not config.label_noise:
        raise ConfigError(f"--noise-kind {config.noise_kind} says how labels are wrong: give --label-noise too.")
    if config.described_fraction < 1.0 and config.embeddings is None:
        raise ConfigError(
            f"--described-fraction {config.described_fraction:g} is a part of the descriptions: give --embeddings too."
        )
    require_trackers(config.trackers)
    asked = Measures(
        corruptions=config.corruptions, transfer={spec: identity(choose_images(spec)) for spec in config.transfer_sets}
    )
    config = config.model_copy(update={"threads": config.threads or _threads_a_job(config)})
    ready = _resolved(config)
    regime = Regime.of(config)
    train = ready.data.indices("train")
    unlabelled = bool((ready.data.labels[train] == NO_LABEL).any())
    told = _class_conditioned(config)
    first = regime.apply(ready.data, config.first_seed)
    members = _members(config, first, scarce=regime.scarce, unlabelled=unlabelled, class_conditioned=told)
    doubted = any(arms.ALL[member.arm].scarce_only or arms.ALL[member.arm].text_labels for member in members.values())
    if regime.scarce or unlabelled or doubted:
        _refuse_leak(config, members.values())
    for seed in config.seed_range if regime.imbalance > 1.0 else ():
        require_batch(len(regime.apply(ready.data, seed).indices("train")), ready.config.batch_size)
    jobs = {name: _jobs(config, ready, name, members, asked) for name in members}
    return Plan(
        config=config,
        prepared=ready,
        jobs=tuple(job for several in jobs.values() for job in several),
        members={
            name: replace(member, folders=tuple(job.config.out for job in jobs[name]))
            for name, member in members.items()
        },
        class_conditioned=told,
    )


def _resolved(config: CompareConfig) -> Prepared:
    """Prepare the data and choose what is left open; a comparison that goes on keeps what it had chosen."""
    from gpt4image.devices import cpu_threads
    from gpt4image.train import resolve

    # What is chosen depends on the images and the options of a run alone, not on which arms and seeds are asked for.
    asked = CompareConfig.model_fields.keys() - TrainOptions.model_fields.keys() - {"imbalance"} | runs.NOT_IDENTITY
    key = fingerprint(config.model_dump(mode="json", exclude=asked))[:12]
    path = config.out / PLAN
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    options = {name: value for name, value in known.get(key, {}).items() if name in CompareConfig.model_fields}
    with cpu_threads(config.threads):
        ready: Prepared | None = None
        # A batch that was chosen for more images than there are now is too large.
        with contextlib.suppress(DataError) if options else contextlib.nullcontext():
            ready = prepare(config.model_copy(update=options))
        if ready is None or known.get(key, {}).get(OF_DATA, ready.fingerprint) != ready.fingerprint:
            known, options = {name: value for name, value in known.items() if name != key}, {}  # chosen for others
            ready = prepare(config)
        if config.imbalance > 1.0:  # fewer images take more epochs
            left = np.flatnonzero(Regime(imbalance=config.imbalance).apply(ready.data, seed=0).usable)
            given = config.model_copy(update={"image_size": ready.config.image_size, **options})
            resolved, chosen = auto.choose(given, ready.data.image_set.select(left))
            ready = replace(ready, config=resolved, chosen=ready.chosen | chosen)
        ready = resolve(ready)
    chosen = {name: value for name, value in known.get(key, ready.chosen).items() if name != OF_DATA}
    if known.get(key) != (found := chosen | {OF_DATA: ready.fingerprint}):
        write_json(path, known | {key: found})
    return replace(ready, chosen=chosen)


def _members(
    config: CompareConfig, left: TrainingData, *, scarce: bool, unlabelled: bool, class_conditioned: bool
) -> dict[str, Member]:
    """Return the arms that are asked for, or all that mean something here, and the variants.

    Whoever doubts labels may ask for more. ``left`` is what the first seed trains on.
    """
    train = left.indices("train")
    without = left.labels[train] == NO_LABEL
    untold = without & ~described_by(left, (config.embeddings, *config.label_embeddings))[train]
    there: dict[str, bool] = {
        "described": config.embeddings is not None,
        "unlabelled": bool(without.any()),
        "untold": bool(untold.any()),
    }
    means_something = {*arms.applicable(scarce=True, **there), *arms.applicable(scarce=False, **there)}
    possible = [name for name in ARMS if name in means_something and (scarce or name != "oracle")]
    if config.centre == "class":  # one text a class, minus the mean of the class, is nothing
        possible = [name for name in possible if name not in ("class-name", "class-mean")]
    usual = arms.applicable(scarce=scarce or unlabelled, class_conditioned=class_conditioned, **there)
    asked = listed(config.arms) or tuple(name for name in usual if name in possible)
    wanted = {**dict.fromkeys(asked), **{table["arm"]: None for table in config.variants.values()}}
    if refused := [name for name in wanted if name not in possible]:
        lacking: dict[str, list[str]] = {}
        for name in refused:
            lacking.setdefault(_lacks(arms.ALL[name], config, scarce), []).append(name)
        why = "; ".join(f"{','.join(names)} need {what}" for what, names in lacking.items())
        raise ConfigError(f"--arms: {why}; possible now: {', '.join(possible)}.")
    first = (arms.ALL[name].after for name in wanted)
    plain = dict.fromkeys(("baseline", *filter(None, first), *asked))
    members = {name: Member(arm=name, options={}) for name in plain}
    for name, table in config.variants.items():
        members[name] = Member(arm=table["arm"], options={key: table[key] for key in table if key != "arm"})
    return members


def _lacks(arm: arms.Arm, config: CompareConfig, scarce: bool) -> str:
    """Return what an arm that is not possible would need."""
    if arm.text and config.embeddings is None:
        return "--embeddings"
    if arm.consistent and scarce:
        return "training images without a label (with text labels, without a description too)"
    if config.centre == "class" and arm.known_texts:
        return "another --centre than class"
    return "--labels-per-class or --label-noise"


def _class_conditioned(config: CompareConfig) -> bool:
    """Return whether a table of the comparison holds descriptions that were told the class."""
    tables = (config.embeddings, *config.label_embeddings)
    return any(EmbeddingTable.open(path).manifest.class_conditioned for path in tables if path is not None)


def _refuse_leak(config: CompareConfig, members: Iterable[Member]) -> None:
    """Refuse descriptions that were told the class where labels are meant to be scarce or wrong."""
    from gpt4image.label import open_tables

    for member in members:
        if arms.ALL[member.arm].text:
            first = member.options.get("embeddings", config.embeddings)
            further = member.options.get("label_embeddings", config.label_embeddings)
            open_tables([path for path in (first, *further) if path is not None])


def _jobs(
    config: CompareConfig, ready: Prepared, name: str, members: Mapping[str, Member], asked: Measures
) -> list[Job]:
    """Return the jobs of one arm or variant, one per seed."""
    member = members[name]
    # The oracle is the baseline that was given all labels, and zero-shot reads no label: comparisons share such runs.
    arm = "baseline" if member.arm == "oracle" else member.arm
    reads_labels = member.arm not in ("oracle", "zero-shot")
    regime = Regime.of(config).read_by(labels=reads_labels, texts=arms.ALL[arm].text)
    workers = _workers_a_job(config)
    shared, own = _train_config(ready.config, workers=workers), ready
    with _said_of(name, member):
        if options := {**arms.ALL[arm].options, **member.options}:
            own = _with_options(ready, options)
            require_selectable(own.config, ready.data.image_set)
        described = None if ready.data.text is None else ready.data.text.described
        for seed in config.seed_range if arms.ALL[arm].text_labels else ():
            left = regime.apply(own.data, seed, described)
            train, tables = left.indices("train"), (own.config.embeddings, *own.config.label_embeddings)
            require_two_classes(described_by(left, tables)[train], left.labels[train])
        for seed in config.seed_range if arms.ALL[arm].known_texts else ():
            _require_known_texts(name, regime.apply(own.data, seed, described))
        if member.options or name == "baseline":
            _require_buildable(arm, own, regime.apply(own.data, config.first_seed, described))
    teacher = taught_by = None
    if (after := arms.ALL[arm].after) is not None:
        seen = Regime.of(config).read_by(labels=True, texts=arms.ALL[after].text)
        # The teacher of a variant is the variant of the teacher with the same options, where there is one.
        alike = any(other.arm == after and other.options == member.options for other in members.values())
        taught = _with_options(ready, {**arms.ALL[after].options, **member.options}) if alike else ready
        teacher = config.out / "runs" / _version(taught) / seen.name / after
        taught_by = _version(taught) if alike and member.options else None
    folder = config.out / "runs" / _version(own, taught_by) / regime.name / arm
    names = ClassNames()
    if arms.ALL[arm].text:
        find = embed_class_names if arms.ALL[arm].names else find_class_names
        names = find(own.config.embeddings, config.device, ready.data.classes)
    return [
        Job(
            arm=arm,
            name=name,
            config=_train_config(own.config, seed=seed, out=folder / f"seed-{seed}", resume=True, workers=workers),
            shared=shared,
            chosen=own.chosen,
            regime=regime,
            teacher=None if teacher is None else teacher / f"seed-{seed}",
            class_names=names,
            asked=asked,
        )
        for seed in config.seed_range
    ]


@contextlib.contextmanager
def _said_of(name: str, member: Member) -> Iterator[None]:
    """Name the variant in an error that its options bring about."""
    try:
        yield
    except Gpt4ImageError as error:
        if not member.options:
            raise
        error.args = (f"variant {name!r}: {error}",)
        raise


def _require_known_texts(name: str, data: TrainingData) -> None:
    """Refuse an arm that tells classes apart by described images with a label, where there are none.

    Raises:
        DataError: naming the arm.
    """
    train = data.indices("train")
    if data.text is None or not (data.text.described[train] & (data.labels[train] != NO_LABEL)).any():
        raise DataError(f"--arms {name} needs training images with both a label and a description, and none is left.")


def _require_buildable(arm: str, own: Prepared, data: TrainingData) -> None:
    """Build a run once and throw it away: what does not fit is not to be found after hours of other runs.

    Targets are the given labels here. Whether those of an arm that makes others leave images for consistency training
    is seen when it runs.
    """
    from gpt4image.training.trainer import build

    plain: dict[str, Any] = {"compile": False, "ema": 0.0, "device": "cpu"}
    if arms.ALL[arm].text_labels or arm in ("zero-shot", "self-training"):
        plain["consistency"] = 0.0
    build(own.config.model_copy(update=plain), data if arms.ALL[arm].text else replace(data, text=None))


def _with_options(ready: Prepared, options: Mapping[str, Any]) -> Prepared:
    """Return the same data, ready for a run with other options; what follows from them is chosen anew."""
    config: TrainOptions = type(ready.config).model_validate(ready.config.model_dump() | dict(options))
    if options.keys() & {"init", "optimizer"}:
        follows = {"optimizer", "lr", "weight_decay"} & ready.chosen.keys() - options.keys()
        config = config.model_copy(update=dict.fromkeys(follows))
    config, chosen = auto.choose(config, ready.data.image_set)
    kept = {name: value for name, value in ready.chosen.items() if name not in options}
    own = replace(ready, config=config, chosen=kept | chosen)
    if config.embeddings is None or config.embeddings == ready.config.embeddings:
        return own
    return with_table(own, config.embeddings)


def _train_config(options: TrainOptions, **more: Any) -> TrainConfig:
    shared = {key: value for key, value in options.model_dump().items() if key in TrainConfig.model_fields}
    return TrainConfig(**{**shared, "seed": 0, "out": Path(), **more})


def _version(ready: Prepared, taught_by: str | None = None) -> str:
    """Return what tells runs of other options or data apart in a folder.

    Args:
        ready: options and data.
        taught_by: version of the variant that a run learns from; None where it learns from none, or from a plain arm.
    """
    options = _train_config(ready.config).model_dump(mode="json")
    content: dict[str, Any] = {"data_fingerprint": ready.fingerprint}
    if ready.config.label_embeddings:
        further = [EmbeddingTable.open(path).manifest.to_json() for path in ready.config.label_embeddings]
        content["label_embeddings_fingerprint"] = fingerprint(further)
    if (weights := Path(ready.config.init)).is_file():
        content["init_digest"] = file_digest(weights)
    if taught_by is not None:
        content["taught_by"] = taught_by
    return runs.identity(options | content)[:8]


def _cores() -> int:
    from gpt4image.data.pixels import available_cores

    return available_cores()


def _workers_a_job(config: CompareConfig) -> int:
    """Return each job's part of the processes that decode images."""
    return max(1, _cores() // jobs_at_once(config)) if config.workers is None else config.workers


def _threads_a_job(config: CompareConfig) -> int:
    """Return each job's part of the cores, but no more threads than torch would take (OMP_NUM_THREADS)."""
    import torch

    return max(1, min(_cores() // jobs_at_once(config), torch.get_num_threads()))


def jobs_at_once(config: CompareConfig) -> int:
    """Return how many runs go side by side."""
    import torch

    from gpt4image.devices import choose_device

    if config.jobs is not None:
        return config.jobs
    device = choose_device(config.device)
    if device.type == "cpu":
        return _cores()
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1

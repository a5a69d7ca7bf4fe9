"""From the options of a run to what it reads: images, splits, pixels, texts and text labels that fit together."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.targets import BoxLabels
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.base.files import fingerprint
from gpt4image.config import TrainConfig, TrainOptions
from gpt4image.config.base import flag_of
from gpt4image.config.learning import ResolvedOptions
from gpt4image.data import annotation, load_with_splits
from gpt4image.data.dataset import NO_LABEL, SPLITS, Dataset
from gpt4image.data.labels import note_other_classes
from gpt4image.data.pixels import load_pixels
from gpt4image.data.regions import Boxes
from gpt4image.data.splits import wrong_copies
from gpt4image.models.aligner import Headed
from gpt4image.tasks.base import Labels, Task
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.registry import find_task, task_of
from gpt4image.training import auto
from gpt4image.training.augment import Policy
from gpt4image.training.batches import NO_TARGET, all_have_targets, own_rows
from gpt4image.training.targets import check_fitting, targets_at, with_file
from gpt4image.training.trainer import augmentation_of, make_model, make_optimizer
from gpt4image.training.training_data import TextTargets, TrainingData

OPTIONS_OF = {"presence_weight": "segmentation", "pretrain": "pretrain"}
"""Options that only one task reads."""
OF_CLASSES = ("reject_share",)
OF_CLIPS = ("frames", "frame_order", "frame_differences")


def load_dataset(config: TrainOptions) -> tuple[Dataset, EmbeddingTable | None]:
    """Load the image set with its splits and the embedding table, and check that they belong together."""
    table = None if config.embeddings is None else EmbeddingTable.open(config.embeddings)
    if table is None and config.only_described:
        raise TableError("--only-described needs --embeddings: the table says which images are described.")
    image_set = load_with_splits(
        config.data,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        keep_in_train=partial(_described, table) if table is not None and config.only_described else None,
        unlabelled=bool(config.pretraining),
    )
    if table is not None:
        table.require_own(image_set)
        if config.only_described:
            described = _described(table, image_set.digests)
            image_set = image_set.select(np.flatnonzero(described | (image_set.splits != "train")))
    if isinstance(config, TrainConfig) and config.train_on_val:
        image_set = image_set.revised(splits=np.where(image_set.splits == "val", "train", image_set.splits))
    return image_set, table


def _described(table: EmbeddingTable, digests: Sequence[str]) -> NDArray[np.bool_]:
    return TextTargets.of(table, digests).described


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A run that is ready to be built: its resolved options, those ``chosen`` from the set, and what it reads.

    Attributes:
        sizes: images per split of the whole set, whether or not the run reads them.
        fingerprint: identity of the data's content: digests, labels, splits, embedding table and text labels.
        images: identity of its images, labels and splits only.
        notes: what is wrong with equal pictures of the whole dataset.
    """

    config: Any
    chosen: dict[str, Any]
    data: TrainingData
    sizes: dict[str, int]
    fingerprint: str
    images: str = ""
    notes: tuple[str, ...] = ()


def prepare(
    config: TrainOptions,
    splits: Sequence[str] = ("train", "val", "test"),
    *,
    to_train: bool = True,
    task: Task | None = None,
    loaded: tuple[Dataset, EmbeddingTable | None] | None = None,
    labelled: str = "",
    targets: bool = False,
) -> Prepared:
    """Load what a run reads and choose the options left open; broken images are skipped by name.

    ``splits`` are those whose pixels are read; not ``to_train``, a finished run may be asked about any images. ``task``
    is one that the registry lacks, ``loaded`` what ``load_dataset`` returned. Before pixels are read it is said if no
    image of the split ``labelled`` has a label, or if there are no ``targets``.
    """
    if task is None and config.task != "auto":
        task = find_task(config.task, config)
    taught = targets_at(config.targets)
    image_set, table = loaded or load_dataset(config)
    as_loaded = image_set
    if taught is not None:
        image_set = _with_room_for(taught, image_set, config)
    task = task or task_of(image_set, config)
    named = {"task": task.name} if config.task == "auto" else {}
    config = config.model_copy(update={"task": task.name})
    if taught is not None:
        check_fitting(taught, config, image_set, task)
    if not (task.boxes and isinstance(taught, BoxLabels)):
        _require_annotations(image_set, task, config.data)
    sizes = {split: len(image_set.indices(split)) for split in SPLITS}
    # In `compare` text may name the classes of images, if there are classes.
    unnamed = to_train and taught is None and (targets or not image_set.classes)
    _check_splits(image_set, task, ("train",) if to_train else splits, labelled=labelled, targets=unnamed)
    config, chosen = auto.choose(config, image_set)
    chosen = {**named, **chosen}
    if to_train:
        check(config.resolved, task, image_set, targets=targets)
        try_build(config.resolved, task, image_set.classes)
    image_set = image_set.select(np.flatnonzero(np.isin(image_set.splits, splits)))
    data = _read(config, task, image_set, table)
    if taught is not None:
        data = with_file(data, config, taught)
    # Broken images are known before training where pixels are in memory: such a run has other batches.
    identity = identity_of(image_set, table, data.soft, np.flatnonzero(~data.usable).tolist())
    if isinstance(taught, BoxLabels):
        identity = fingerprint([identity, data.labels.content()])
    return Prepared(
        config=config,
        chosen=chosen,
        data=data,
        sizes=sizes,
        fingerprint=identity,
        images=identity_of(as_loaded.select(np.flatnonzero(np.isin(as_loaded.splits, splits))), None, None, []),
        notes=tuple(wrong_copies(as_loaded)),
    )


def _read(config: TrainOptions, task: Task, image_set: Dataset, table: EmbeddingTable | None) -> TrainingData:
    """Load the pixels of a set, or open what loads them, beside its labels and texts."""
    pixels, broken, usable = load_pixels(
        image_set, memory_limit_gb=config.memory_limit_gb, workers=config.workers, **auto.stored_as(config, task)
    )
    return TrainingData(
        image_set=image_set,
        pixels=pixels,
        usable=usable,
        task=task,
        labels=task.annotations(image_set),
        text=None if table is None else TextTargets.of(table, image_set.digests),
        skipped=(*image_set.skipped, *broken),
    )


def _with_room_for(taught: Any, image_set: Dataset, config: TrainOptions) -> Dataset:
    """Return the set with the classes of targets, of which no image may have a label, and with boxes if they are."""
    if set(image_set.classes) <= set(taught.classes):
        note_other_classes(f"--targets {config.targets}", taught.classes, image_set.classes, config.data)
        image_set = image_set.with_classes(taught.classes)
    if isinstance(taught, BoxLabels) and config.task in ("auto", Detection.name):
        image_set = with_room_for_boxes(image_set)
    return image_set


def _require_annotations(image_set: Dataset, task: Task, spec: str) -> None:
    """Refuse a set that lacks what the task learns, and say what was skipped: often all annotations were."""
    try:
        task.require(task.annotations(image_set), image_set.classes, spec)
    except DataError as error:
        skipped = "; ".join(f"{item.name}: {item.reason}" for item in image_set.skipped[:3])
        raise DataError(f"{error} Skipped were: {skipped}." if skipped else str(error)) from None


def _check_splits(image_set: Dataset, task: Task, splits: Sequence[str], *, labelled: str, targets: bool) -> None:
    """Refuse splits without an image, the split ``labelled`` without a label and, if asked, no target to train on."""
    there = ", ".join(f"{split} {len(image_set.indices(split)):,}" for split in SPLITS)
    if not any(len(image_set.indices(split)) for split in splits):
        advice = "there is nothing to train on" if splits == ("train",) else "give another --split"
        raise DataError(f"{image_set.spec}: no image is in {' or '.join(splits)} ({there}); {advice}.")
    labels = task.annotations(image_set)
    if labelled:
        check_labelled(labels[image_set.indices(labelled)], image_set.spec, labelled)
    if targets and not task.has_target(labels[image_set.indices("train")], None).any():
        raise DataError(NO_TARGET)


def with_room_for_boxes(image_set: Dataset) -> Dataset:
    """Return a set of images without any regions as one with boxes of which none is known."""
    if image_set.regions is not None or image_set.clips:
        return image_set
    nothing = np.full((len(image_set), len(image_set.classes)), NO_LABEL, np.int8)
    return replace(image_set, labels=nothing, regions=Boxes.of_images([None] * len(image_set)))


def identity_of(image_set: Dataset, table: EmbeddingTable | None, soft: Probabilities | None, broken: list[int]) -> str:
    """Return what tells the data of a run from others: its images, labels and splits, its texts, what is skipped."""
    content = [image_set.digests, image_set.labels.tolist(), image_set.splits.tolist(), image_set.classes]
    if image_set.regions is not None:
        content.append(image_set.regions.content())
    content.append(None if table is None else asdict(table.manifest))
    content.append(None if soft is None else hashlib.sha256(np.ascontiguousarray(soft).data).hexdigest())
    return fingerprint([*content, broken] if broken else content)


def with_table(ready: Prepared, embeddings: Path) -> Prepared:
    """Return the same images with the text targets of another embedding table."""
    table = EmbeddingTable.open(embeddings)
    table.require_own(ready.data.image_set)
    data = replace(ready.data, text=TextTargets.of(table, ready.data.image_set.digests))
    return replace(ready, data=data, fingerprint=fingerprint([ready.fingerprint, asdict(table.manifest)]))


def check(config: ResolvedOptions, task: Task, images: Dataset | None = None, *, targets: bool = False) -> None:
    """Refuse options that no run of a task has; with ``images``, the whole set, also those that do not fit them."""
    name, output = task.name, task.output
    of_others = [
        option
        for option, own in OPTIONS_OF.items()
        if name != own and getattr(config, option) != TrainOptions.model_fields[option].default
    ]
    of_others += [] if task.exclusive else [name for name in OF_CLASSES if name in TrainOptions.changed(dict(config))]
    of_others += [option for option in OF_CLIPS if task.frames is None and getattr(config, option)]
    for wrong, message in (
        (config.mixes and not task.mixes, f"--mixup and --cutmix average targets, which task {name} does not allow"),
        (
            config.auto_augment is not None and output in ("boxes", "mask"),
            f"--auto-augment {config.auto_augment} may turn and shear pictures, and the {output} of --task {name} "
            "would stay; --colour changes colours",
        ),
        (
            config.consistency > 0.0 and not task.exclusive,
            f"--consistency takes the most probable class for a label: task {name} has no such one",
        ),
        (of_others, f"{', '.join(map(flag_of, of_others))}: not for --task {name}"),
    ):
        if wrong:
            raise ConfigError(f"{message}: leave it out.")
    if images is not None:
        _check_images(config, task, images, targets=targets)


def _check_images(config: ResolvedOptions, task: Task, images: Dataset, *, targets: bool) -> None:
    labels, train, val = task.annotations(images), images.indices("train"), images.indices("val")
    size, parts = config.batch_size, config.grad_accumulation
    if size * parts > len(train):  # an epoch would be several passes
        step = f"--batch-size {size}" + (f" times --grad-accumulation {parts}" if parts > 1 else "")
        raise DataError(f"{step} is larger than the train split ({len(train)} images); give at most {len(train)}.")
    check_selectable(config, labels[val])
    if targets and config.consistency > 0.0 and task.has_target(labels[train], None).all():
        raise ConfigError(all_have_targets(f"--consistency {config.consistency:g}", len(train)))


def check_selectable(config: TrainOptions, held_out: Labels) -> None:
    """Refuse to select weights by validation images that are not there; pretraining has their loss."""
    by_loss = bool(config.pretraining) and len(held_out)
    if config.select == "best" and not by_loss and not annotation.known(held_out).any():
        raise ConfigError(
            "--select best needs labelled validation images, and there are none: raise --val-fraction, or leave it out."
        )


def check_labelled(labels: Labels, spec: str, split: str) -> None:
    """Refuse to measure where no image has a label."""
    if not annotation.known(labels).any():
        raise DataError(f"The {split} split of {spec} has no labelled image; give another --split.")


def try_build(config: ResolvedOptions, task: Task, classes: Sequence[str]) -> None:
    """Build what needs no image, and drop it: mistakes are told before all pictures are decoded."""
    backbone, _, new_layers = make_model(config, task, classes)
    make_optimizer(Headed(backbone), config, new_layers)
    if config.auto_augment is not None:
        Policy(config.auto_augment, augmentation_of(config, backbone).mean)
    if not config.consistency:  # else it depends on the images
        own_rows(config.batch_size, 0, mixing=config.mixes, apart=False)

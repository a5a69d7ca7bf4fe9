"""Image sets: what stages read images, labels and splits from.

`load_image_set` turns a SPEC string into an image set; `load_with_splits` also cuts the splits that the set lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from gpt4image.base.errors import ConfigError, first_few, nearest
from gpt4image.data.file_source import expanded
from gpt4image.data.image_set import NO_LABEL, SPLITS, ImageSet, ImageSource, MemorySource
from gpt4image.data.labels import differing_in_case, note_once, require_trained
from gpt4image.data.splits import KeepInTrain, with_splits

# SPEC name -> module and function; modules are imported when asked for, as some need heavy or optional packages.
LOADERS = {
    "folder": ("gpt4image.data.folder", "load_folder"),
    "manifest": ("gpt4image.data.manifest", "load_manifest"),
    "hf": ("gpt4image.data.hf", "load_hf"),
    "cifar10": ("gpt4image.data.torchvision_sets", "load_cifar10"),
    "cifar100": ("gpt4image.data.torchvision_sets", "load_cifar100"),
    "webdataset": ("gpt4image.data.webdataset", "load_webdataset"),
    "openmoji": ("gpt4image.data.openmoji", "load_openmoji"),
}


def load_image_set(spec: str) -> ImageSet:
    """Load the image set that a SPEC string names.

    Args:
        spec: ``folder:PATH``, ``manifest:FILE.csv|parquet``, ``hf:NAME_OR_PATH``, ``cifar10[:ROOT]``,
            ``cifar100[:ROOT]``, ``webdataset:PATTERN`` or ``openmoji``.

    Raises:
        ConfigError: the SPEC has an unknown name, or lacks what must follow it.
        DataError: the set cannot be read as asked.
        MissingExtraError: the set needs an optional dependency.
    """
    name, _, argument = spec.partition(":")
    if name not in LOADERS:
        if meant := _spec_of(spec):
            raise ConfigError(f"--data {spec!r}: an image set is given as NAME:WHERE. Did you mean {meant!r}?")
        raise ConfigError(f"--data {spec!r}: an image set is given as NAME:WHERE, and {nearest(name, LOADERS)}")
    module, function = LOADERS[name]
    load: Callable[[str], ImageSet] = getattr(importlib.import_module(module), function)
    images = load(argument)
    require_trained(images.classes, images.labels, images.splits, spec)
    _note_classes_alike(spec, images.classes)
    return images


def _note_classes_alike(spec: str, classes: tuple[str, ...]) -> None:
    """Say on standard error which class names differ in case alone: a slip as a rule, but not in every set."""
    for names in differing_in_case(classes):
        note_once(f"{spec} has the classes {first_few(names)}; if they are one class, give them one name.")


def _spec_of(path: str) -> str | None:
    """Return the SPEC of a path that was given in its place; None where no image set is found there."""
    kinds = {".csv": "manifest", ".parquet": "manifest", ".tar": "webdataset"}
    place = expanded(path)
    kind = "folder" if path and place.is_dir() else kinds.get(place.suffix) if place.is_file() else None
    return None if kind is None else f"{kind}:{path}"


def load_with_splits(
    spec: str, *, val_fraction: float, test_fraction: float, keep_in_train: KeepInTrain | None = None
) -> ImageSet:
    """Load an image set and cut the validation and test splits that it lacks from train; see `splits.with_splits`."""
    return with_splits(
        load_image_set(spec), val_fraction=val_fraction, test_fraction=test_fraction, keep_in_train=keep_in_train
    )


__all__ = [
    "NO_LABEL",
    "SPLITS",
    "ImageSet",
    "ImageSource",
    "MemorySource",
    "load_image_set",
    "load_with_splits",
]

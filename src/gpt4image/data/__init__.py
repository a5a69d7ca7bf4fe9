"""Datasets: images, labels and splits.

`load_image_set` turns a SPEC string into a dataset; `load_with_splits` also cuts the splits that it lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.data.file_source import expanded
from gpt4image.data.image_set import NO_LABEL, SPLITS, ImageSet, ImageSource, MemorySource
from gpt4image.data.labels import note_same_but_case, require_trained
from gpt4image.data.splits import KeepInTrain, with_splits

# SPEC name -> module and function; imported when asked for, as some need heavy or optional packages.
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
    """Load the dataset that a SPEC string names.

    Args:
        spec: ``folder:PATH``, ``manifest:FILE.csv|parquet``, ``hf:NAME_OR_PATH``, ``cifar10[:ROOT]``,
            ``cifar100[:ROOT]``, ``webdataset:PATTERN`` or ``openmoji``.

    Raises:
        ConfigError: the SPEC has an unknown name, or lacks what must follow it.
        DataError: the dataset cannot be read as asked.
        MissingExtraError: it needs an optional dependency.
    """
    name, _, argument = spec.partition(":")
    if name not in LOADERS:
        meant = _spec_of(spec)
        hint = f"Did you mean {meant!r}?" if meant else f"and {nearest(name, LOADERS)}"
        raise ConfigError(f"--data {spec!r}: a dataset is given as NAME:WHERE{'.' if meant else ','} {hint}")
    module, function = LOADERS[name]
    load: Callable[[str], ImageSet] = getattr(importlib.import_module(module), function)
    images = load(argument)
    require_trained(images.classes, images.labels, images.splits, spec)
    note_same_but_case(images.classes, spec)
    return images


def _spec_of(path: str) -> str | None:
    """Return the SPEC that was meant by a mere path; None if no dataset is found there."""
    kinds = {".csv": "manifest", ".parquet": "manifest", ".tar": "webdataset"}
    place = expanded(path)
    kind = "folder" if path and place.is_dir() else kinds.get(place.suffix) if place.is_file() else None
    return None if kind is None else f"{kind}:{path}"


def load_with_splits(
    spec: str, *, val_fraction: float, test_fraction: float, keep_in_train: KeepInTrain | None = None
) -> ImageSet:
    """Load a dataset and cut the validation and test splits that it lacks from train; see `splits.with_splits`."""
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

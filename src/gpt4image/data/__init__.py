"""Datasets: images, labels and splits, loaded by a SPEC string."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4image.base import plugins
from gpt4image.base.errors import DataError
from gpt4image.data.dataset import NO_LABEL, SPLITS, Dataset, ImageSource, MemorySource
from gpt4image.data.file_source import FileSource
from gpt4image.data.labels import note_alike, note_once, require_trained
from gpt4image.data.spec import PACKAGED, READERS, Spec, full_spec, parse, require_apart, require_there
from gpt4image.data.splits import with_splits, wrong_copies


def load_dataset(spec: str | Path, *, aside: Path | None = None) -> Dataset:
    """Load the dataset that a SPEC string names.

    Args:
        spec: a path of a folder or a table, or NAME:WHERE with one of ``READERS``, such as ``folder:PATH``,
            ``manifest:FILE.csv|parquet``, ``hf:NAME_OR_PATH``, ``coco:FILE.json`` or ``clips:PATH``, and its options:
            ``hf:NAME,image=img,label=fine_label``.
        aside: a table that does not decide what a folder is, as ``review`` writes it there itself.

    Raises ConfigError, DataError, MissingExtraError.
    """
    own = parse(require_there(str(spec), aside))
    if own.name in READERS:
        reader = READERS[own.name]
        load: Callable[[Spec], Dataset] = getattr(
            importlib.import_module(f"gpt4image.data.{reader.module}"), reader.function
        )
        images = load(own)
    else:
        images = _from_plugin(own)
    require_trained(images.classes, images.labels, images.splits, own.text)
    note_alike(images.classes, own.text)
    return images


def _from_plugin(spec: Spec) -> Dataset:
    read = plugins.find("readers", spec.name)
    assert read is not None  # noqa: S101  (full_spec has found it)
    who = f"the reader {spec.name!r}"
    with plugins.guarded(f"{spec}: {who}", kind=DataError):
        images = read(spec.where)
        if not isinstance(images, Dataset):  # what a call in Python may give as ``data``
            given = importlib.import_module("gpt4image.data.given")
            images = given.load_given(parse(given.dataset(images)))
        own = isinstance(images.source, FileSource | MemorySource)
        source: Any = images.source if own else plugins.Guarded(who, images.source, OSError)
        return replace(images, spec=spec.text, source=source)


def load_with_splits(spec: str, **how: Any) -> Dataset:
    """Load a dataset, cut the splits that it lacks, ``how`` as for ``with_splits``; note pictures on two sides."""
    images = with_splits(load_dataset(spec), **how)
    for wrong in wrong_copies(images):
        note_once(f"{spec}: {wrong}")
    return images


__all__ = [
    "NO_LABEL", "PACKAGED", "READERS", "SPLITS", "Dataset", "ImageSource", "MemorySource", "full_spec", "load_dataset",
    "load_with_splits", "require_apart", "require_there",
]  # fmt: skip

"""Datasets: images, labels and splits, loaded by a SPEC string."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, DataError, nearest
from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.dataset import (
    NO_LABEL,
    SPLITS,
    Dataset,
    ForeignSource,
    ImageSource,
    MemorySource,
    note_alike,
    note_once,
    require_trained,
)
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import IMAGES, FileSource, expanded, table_in
from gpt4image.data.splits import with_splits, wrong_copies
from gpt4image.data.video import VIDEO_EXTENSIONS

LOADERS = {
    "folder": ("folder", "load_folder", "PATH"),
    "clips": ("folder", "load_clips", "PATH"),
    "manifest": ("manifest", "load_manifest", "FILE.csv, FILE.parquet or a folder with one"),
    "coco": ("coco", "load_coco", "FILE.json"),
    "coco-masks": ("coco", "load_coco_masks", "FILE.json"),
    "label-studio": ("label_studio", "load_label_studio", "FILE.json"),
    "yolo": ("yolo", "load_yolo", "DIR"),
    "voc": ("voc", "load_voc", "DIR"),
    "masks": ("masks", "load_masks", "DIR or masks:IMAGES,MASKS"),
    "hf": ("hf", "load_hf", ""),
    "python": ("given", "load_given", ""),
    "cifar10": ("known_sets", "load_cifar10", ""),
    "cifar100": ("known_sets", "load_cifar100", ""),
    "clothes": ("known_sets", "load_clothes", ""),
    "clothes-unlabelled": ("known_sets", "load_clothes_unlabelled", ""),
    "openmoji": ("known_sets", "load_openmoji", ""),
}
"""Name in a SPEC: module and function, which need heavy or optional packages, and what follows if it is a path."""
PACKAGED = ("clothes", "clothes-unlabelled", "openmoji")
ALONE = ("cifar10", "cifar100", *PACKAGED)  # names that are a whole SPEC; another name alone is a path
ON_DISK = {name: follows for name, (*_, follows) in LOADERS.items() if follows}
KINDS = {**dict.fromkeys((".csv", ".parquet"), "manifest"), ".json": "coco", **dict.fromkeys((".yaml", ".yml"), "yolo")}
"""What a file at a path is, by its extension."""
FILES_LOOKED_AT = 1000  # of a folder, to find out whether it holds pictures or videos


def load_dataset(spec: str | Path, *, aside: Path | None = None) -> Dataset:
    """Load the dataset that a SPEC string names.

    Args:
        spec: a path of a folder or a table, or NAME:WHERE with one of ``LOADERS``, such as ``folder:PATH``,
            ``manifest:FILE.csv|parquet``, ``hf:NAME_OR_PATH``, ``coco:FILE.json`` or ``clips:PATH``.
        aside: a table that does not decide what a folder is, as ``review`` writes it there itself.

    Raises ConfigError, DataError, MissingExtraError.
    """
    spec = require_there(str(spec), aside)
    name, _, argument = spec.partition(":")
    if IMAGE_ROOT in argument and name not in ("manifest", "clips", "label-studio"):
        raise ConfigError(f"--image-root is for tables of images, manifest:FILE.csv or .parquet; {spec} is none.")
    if name in LOADERS:
        module, function, _ = LOADERS[name]
        load: Callable[..., Dataset] = getattr(importlib.import_module(f"gpt4image.data.{module}"), function)
        images = load() if name in PACKAGED else load(argument)
    else:
        read = plugins.find("readers", name)
        assert read is not None  # noqa: S101  (full_spec has found it)
        with plugins.guarded(f"{spec}: the reader {name!r}", kind=DataError):
            images = read(argument)
            if not isinstance(images, Dataset):  # what a call in Python may give as ``data``
                given = importlib.import_module("gpt4image.data.given")
                images = given.load_given(given.dataset(images).partition(":")[2])
            images = replace(images, spec=spec, source=_guarded(images.source, f"the reader {name!r}"))
    require_trained(images.classes, images.labels, images.splits, spec)
    note_alike(images.classes, spec)
    return images


def _guarded(source: ImageSource, who: str) -> ImageSource:
    return source if isinstance(source, FileSource | MemorySource) else ForeignSource(source, who)


def full_spec(spec: str, aside: Path | None = None) -> str:
    """Return a SPEC with the name of its format; a path gets that of what is there. Raises ConfigError."""
    place, sign, root = spec.partition(IMAGE_ROOT)
    name, colon, _ = place.partition(":")
    there = expanded(place).exists()
    if place in PACKAGED and there:
        raise ConfigError(
            f"--data {place!r} is the name of a packaged dataset and of a file or folder here: give ./{place} for "
            f"that, {place}: for the packaged one."
        )
    if name in LOADERS and (colon or name in ALONE or not there):
        return spec
    if colon and not there and plugins.find("readers", name):
        return spec
    return spec_of(place, aside) + sign + root


def require_there(spec: str, aside: Path | None = None) -> str:
    """Return the ``full_spec`` of a dataset, of which nothing is read; refuse a place where there is nothing."""
    spec = full_spec(spec, aside)
    name, _, argument = spec.partition(IMAGE_ROOT)[0].partition(":")
    if name in PACKAGED and argument:
        raise ConfigError(f"{spec!r}: {name} is packaged and takes nothing after its name.")
    if not argument and (follows := {**ON_DISK, "hf": "NAME_OR_PATH"}.get(name)):
        raise ConfigError(f"--data '{name}:' lacks {follows}.")
    places = argument.split(",") if name == "masks" and not expanded(argument).exists() else [argument]
    if name in ON_DISK and not all(expanded(place).exists() for place in places):
        raise DataError(f"{spec}: there is no such file or folder.")
    return spec


def spec_of(path: str, aside: Path | None = None) -> str:
    """Return the SPEC of a path, by what is there; a table ``aside`` counts as if it were not. Raises ConfigError."""
    place = expanded(path)
    if place.is_file() and place.suffix == ".json" and place.open("rb").read(100).lstrip()[:1] == b"[":
        return f"label-studio:{path}"
    if place.is_file() and place.suffix in KINDS:
        return f"{KINDS[place.suffix]}:{path}"
    if path and place.is_dir():
        return _spec_of_folder(path, place, aside)
    name, colon, _ = path.partition(":")
    what = "" if colon else "there is no such file or folder; "
    what = f"a table ends with {', '.join(KINDS)}; " if place.is_file() else what
    known = sorted([*LOADERS, *plugins.names("readers")])
    one_of = f"NAME is one of {', '.join(known)}." if "/" in name else nearest(name, known)
    raise ConfigError(f"--data {path!r}: {what}give a folder or a table of images, or NAME:WHERE; {one_of}")


def _spec_of_folder(path: str, place: Path, aside: Path | None) -> str:
    if any((place / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return f"hf:{path}"
    if (kind := _kind_of_regions(place)) is not None:
        return f"{kind}:{path}"
    is_here = aside is not None and aside.parent.resolve() == place.resolve()
    ignored = (aside.name, aside.with_suffix(IMAGES).name) if aside is not None and is_here else ()
    if (table := table_in(place, ignored)) is not None:
        return f"manifest:{path if table_in(place) == table else table}"
    children = [child for child in place.iterdir() if child.name not in ignored]
    folders = [child for child in children if child.is_dir() and not child.name.startswith(".")]
    files = itertools.islice((Path(name) for _, _, names in os.walk(place) for name in names), FILES_LOOKED_AT)
    kinds = (file.suffix.lower() for file in files)
    first = next((kind for kind in kinds if kind in EXTENSIONS or kind in VIDEO_EXTENSIONS), "")
    if first in VIDEO_EXTENSIONS:
        return f"clips:{path}"
    shards = any(child.suffix == ".tar" for child in children)
    return f"{'hf' if shards and not folders else 'folder'}:{path}"


def _kind_of_regions(place: Path) -> str | None:
    """Return the SPEC name of a folder of images with boxes or masks; None where it does not look like one."""
    folders = {child.name for child in place.iterdir() if child.is_dir()}

    def holds(suffix: str, *names: str) -> bool:
        return any(next((place / name).glob(f"*{suffix}"), None) is not None for name in names if name in folders)

    if any((place / name).is_file() for name in ("data.yaml", "data.yml")) or {"images", "labels"} <= folders:
        return "yolo"
    if {"images", "masks"} <= folders:
        return "masks"
    if holds(".xml", "Annotations", "annotations", "train"):
        return "voc"
    coco = holds(".json", "annotations") or holds("_annotations.coco.json", "train")
    return "coco" if coco or (place / "train.json").is_file() or any(place.glob("instances*.json")) else None


def load_with_splits(spec: str, **how: Any) -> Dataset:
    """Load a dataset, cut the splits that it lacks, ``how`` as for ``with_splits``; note pictures on two sides."""
    images = with_splits(load_dataset(spec), **how)
    for wrong in wrong_copies(images):
        note_once(f"{spec}: {wrong}")
    return images


def require_apart(config: Any) -> None:
    """Refuse an --out that the next command would read as --data, or as one of its classes. Raises ConfigError."""
    out, spec = getattr(config, "out", None), getattr(config, "data", None) or ""
    if spec in PACKAGED and out == Path(spec):
        raise ConfigError(
            f"--out {out} has the name of the packaged dataset, which the next command could not tell from it: give "
            f"another one, such as --out {out}-out."
        )
    with contextlib.suppress(ConfigError, OSError):
        spec = full_spec(spec)
    name, _, place = spec.partition(":")
    if isinstance(out, Path) and name in ("folder", "clips", "manifest") and place:
        folder = expanded(place).resolve()
        if folder.is_dir() and out.resolve().is_relative_to(folder):
            raise ConfigError(
                f"--out {out} lies inside of {place}, the folder of the images, and would be read as one of its "
                f"classes or images: give a place outside, such as --out {folder.parent / out.name}."
            )


__all__ = ["NO_LABEL", "SPLITS", "Dataset", "ImageSource", "MemorySource", "load_dataset", "load_with_splits"]

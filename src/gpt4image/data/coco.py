"""`coco:FILE.json`: boxes of a COCO file; `coco-masks:FILE.json`: its polygons and run lengths as masks.

    shop/train.json                  coco/annotations/instances_train2017.json     set/train/_annotations.coco.json
    shop/test.json                   coco/annotations/instances_val2017.json       set/valid/_annotations.coco.json
    shop/images/1.jpg                coco/train2017/1.jpg                          set/train/1.jpg

The file of train brings those beside it that differ only in the name of the split. Another file stands alone: its
images are of the split that it is named after, else of train. A folder stands for the file of train in it.

Images lie beside the file, in ``images`` or a folder named after the split; above, if the file is in ``annotations``.
Every image of a file is annotated, unless the file has no entry ``annotations``. A crowd (``iscrowd``) has weight 0.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.box_checks import (
    Corners,
    Faults,
    Listed,
    checked,
    from_sides,
    number,
    require_sides,
    sizes_of_pictures,
    weight_of,
)
from gpt4image.data.coco_segments import Segment, SegmentSource, bounds, box_segment, reach, segment
from gpt4image.data.decode import MAX_PIXELS
from gpt4image.data.file_source import FileSource, expanded, locate_all
from gpt4image.data.image_set import SPLIT_OF, ImageSet, split_named, split_of_file
from gpt4image.data.labels import MAX_SEVERAL
from gpt4image.data.regions import VOID, Masks, Regions

COCO = "coco:"
BACKGROUND = "background"
FOLDERS = ("", "images", "data", "JPEGImages")
"""Where images lie, from the folder of the file or of the dataset."""
SPLIT_WORDS = {**SPLIT_OF, "unlabeled": "train", "unlabelled": "train"}
_ABOVE = ("annotations", "annotation", "labels", *SPLIT_WORDS)
"""Folders of files of annotations whose images may lie beside the folder."""


def load_coco(argument: str) -> ImageSet:
    """Load images and the boxes of their objects; keys are paths of images from the folder of the dataset.

    Skipped by name: images that cannot be found or lie outside, annotations that cannot be used.

    Raises:
        ConfigError: no file is given.
        DataError: there is none, it is no COCO file, or it lists no image that can be found.
    """
    return _Files(f"coco:{argument}", argument).image_set(masks=False)


def load_coco_masks(argument: str) -> ImageSet:
    """Load images and masks of their objects; see ``load_coco``. The first class is the background.

    A crowd, and an object of which only the box can be used, count for nothing.
    """
    return _Files(f"coco-masks:{argument}", argument).image_set(masks=True)


Id = int | float | str


class Ids(NamedTuple):
    """The id of an image, and the ids of categories by name, in the file that lists the image."""

    image: Id
    categories: Mapping[str, Id]


def coco_ids(argument: str) -> dict[str, Ids]:
    """Return the ids of a COCO dataset, by the real path of each image that can be found.

    Raises:
        ConfigError, DataError: as ``load_coco``, except that the list may be empty.
    """
    return _Files(f"coco:{argument}", argument).ids()


def categories_of(ids: Iterable[Ids | None]) -> dict[str, Id]:
    """Return the ids of categories by name; of several files the first that has a name counts."""
    files = {id(one.categories): one.categories for one in ids if one is not None}
    return {name: number for one in reversed(files.values()) for name, number in one.items()}


def category_ids(classes: Sequence[str], known: Mapping[str, Id]) -> dict[str, Id]:
    """Return an id for each class: the one that is known, others follow the largest; from 1 where none is known."""
    return dict(zip(classes, numbered([known.get(name) for name in classes]), strict=True))


def numbered(wanted: Sequence[Id | None]) -> list[Id]:
    """Return different ids: the one that is wanted where no earlier place has it, others follow the largest, from 1."""
    numbers = [math.floor(one) for one in wanted if isinstance(one, int | float)]
    following, taken = itertools.count(max(numbers, default=0) + 1), set[Id]()
    found: list[Id] = []
    for one in wanted:
        found.append(next(following) if one is None or one in taken else one)
        taken.add(found[-1])
    return found


def coco_files(place: Path) -> list[Path]:
    """Return the file of train in a folder, those of other splits if there is none, else a single JSON file.

    Raises:
        DataError: which file is meant cannot be told.
    """
    if place.is_file():
        return [place]
    found = sorted(
        file
        for folder in ("", "annotations", *SPLIT_WORDS)
        for file in (place / folder).glob("*.json")
        if file.is_file()
    )
    named = [file for file in found if file.name.startswith("instances")] or found
    train = [file for file in named if "train" in (split_named(file.stem), file.parent.name.lower())] or named
    if len(train) != 1:
        seen = f"there are {first_few(str(file.relative_to(place)) for file in found)}" if found else "there is none"
        raise DataError(f"{place}: which JSON file lists the objects cannot be told: {seen}; give coco:FILE.json.")
    return train


@dataclass(kw_only=True)
class _Content:
    """What files of one dataset say together."""

    keys: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    sizes: list[tuple[float, float]] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    listed: Listed = field(default_factory=Listed)
    segments: list[list[Segment]] = field(default_factory=list)
    present: list[tuple[int, int]] = field(default_factory=list)
    unsure: list[tuple[int, int]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class _Files:
    """The files of one dataset and the folder of its images."""

    def __init__(self, spec: str, argument: str) -> None:
        self.spec = spec
        if not argument:
            raise ConfigError(f"--data {spec!r} lacks a file: {spec}FILE.json.")
        place = expanded(argument)
        if not place.exists():
            raise DataError(f"{spec}: there is no such file or folder.")
        file = coco_files(place)[0]
        self.files = [file, *_siblings(file)]
        folder = file.absolute().parent
        self.root = folder.parent if folder.name.lower() in _ABOVE else folder

    def image_set(self, *, masks: bool) -> ImageSet:
        """Read all files; ``masks`` asks for these in place of boxes."""
        content = _Content(classes=[BACKGROUND] if masks else [])
        for file in self.files:
            self._read(file, content, masks=masks)
        if not content.keys:
            first = "".join(f" {item.name}: {item.reason}." for item in content.skipped[:3])
            raise DataError(
                f"{self.spec}: none of its images can be found below {self.root}.{first} Their file_name is relative "
                "to the folder of the file, to 'images' in it, or to a folder named after the split."
            )
        limit = VOID if masks else MAX_SEVERAL
        if len(content.classes) > limit:
            raise DataError(f"{self.spec}: {len(content.classes):,} classes; up to {limit:,} are possible.")
        regions = self._masks(content) if masks else self._boxes(content)
        return ImageSet(
            spec=self.spec,
            classes=tuple(content.classes),
            keys=tuple(content.keys),
            labels=regions.presence(len(content.classes)),
            splits=np.array(content.splits),
            source=FileSource(self.root, content.keys),
            rows=np.arange(len(content.keys)),
            skipped=tuple(content.skipped),
            regions=regions,
        )

    def ids(self) -> dict[str, Ids]:
        """Return what ``coco_ids`` does."""
        content, found = _Content(), dict[str, Ids]()
        for file in self.files:
            whole, classes = _parsed(file, self.spec), list[str]()
            categories: dict[str, Id] = {}
            for identity, label in _add_classes(whole.get("categories"), classes, Faults()).items():
                categories.setdefault(classes[label], identity)
            for identity, row in self._add_images(file, whole, content).items():
                found.setdefault(os.path.realpath(self.root / content.keys[row]), Ids(identity, categories))
        return found

    def _boxes(self, content: _Content) -> Regions:
        faults = Faults()
        sizes, classes = np.array(content.sizes), len(content.classes)
        require_sides(content.listed, sizes, self.spec)
        boxes = checked(content.listed, sizes, content.known, classes, faults, self.spec)
        content.skipped += faults.skipped(self.files[0].name)
        return boxes

    def _masks(self, content: _Content) -> Regions:
        drawn = np.array([bool(some) for some in content.segments])
        known = content.listed.still_known(content.known, drawn) & (np.array(content.sizes) >= 1).all(axis=1)
        present = np.zeros((len(content.keys), len(content.classes)), np.int8)
        present[tuple(zip(*content.unsure, strict=True)) or ([], [])] = -1
        present[tuple(zip(*content.present, strict=True)) or ([], [])] = 1
        present[known, 0] = 1
        present[~known] = -1
        return Masks(
            source=SegmentSource(np.array(content.sizes), content.segments),
            rows=np.where(known, np.arange(len(known)), -1),
            presence_of_classes=present,
        )

    def _read(self, file: Path, content: _Content, *, masks: bool) -> None:
        whole = _parsed(file, self.spec)
        faults, first = Faults(), len(content.keys)
        rows = self._add_images(file, whole, content)
        self._measure(whole.get("annotations"), rows, content, first)
        label_of = _add_classes(whole.get("categories"), content.classes, faults)
        for position, one in enumerate(_tables(whole.get("annotations"), faults), 1):
            row, label = rows.get(_hashable(one.get("image_id"))), label_of.get(_hashable(one.get("category_id")))
            name = f"annotation {one.get('id', position)!s:.50}"
            if row is None:
                faults.add(name, "it is of an image that is not listed, or that was skipped")
            elif label is None:
                faults.add(f"{content.keys[row]}, {name}", "its category is not listed")
                content.listed.lost.add(row)
            elif masks:
                _add_segment(one, content, row, label, f"{content.keys[row]}, {name}", faults)
            else:
                _add_box(one, content, row, label, f"{content.keys[row]}, {name}", faults)
        content.skipped += faults.skipped(file.name)

    def _measure(self, annotations: object, rows: Mapping[Any, int], content: _Content, first: int) -> None:
        """Replace the stated sizes of the images from ``first`` on by those of the pictures that annotations are in."""
        if not isinstance(annotations, list):
            return
        seen = Listed()
        for one in _tables(annotations, Faults()):
            row = rows.get(_hashable(one.get("image_id")))
            if row is not None:
                seen.add(row - first, _extent(one), 0, 1.0, "")
        stated = np.array(content.sizes[first:], np.float64).reshape(-1, 2)
        sizes = sizes_of_pictures(seen, stated, FileSource(self.root, content.keys[first:]).read)
        content.sizes[first:] = [(width, height) for width, height in sizes.tolist()]

    def _add_images(self, file: Path, whole: Mapping[str, Any], content: _Content) -> dict[Any, int]:
        """Add the images of a file that can be found; return their rows by id."""
        images = [one for one in whole["images"] if isinstance(one, dict) and isinstance(one.get("file_name"), str)]
        for _ in range(len(whole["images"]) - len(images)):
            content.skipped.append(Skipped(name=file.name, reason="an entry of 'images' has no file_name"))
        split = split_of_file(file.absolute())
        located = _located(self.root, list(_folders(self.root, file, split)), [one["file_name"] for one in images])
        row_of = {key: row for row, key in enumerate(content.keys)}
        own: set[str] = set()
        rows: dict[Any, int] = {}
        for one, (key, fault) in zip(images, located, strict=True):
            identity = _hashable(one.get("id"))
            if not fault and identity is None:
                fault = "has no id"
            elif not fault and identity in rows:
                fault = f"has the id {identity!s:.50}, which another image has"
            elif not fault and key in row_of and key not in own:
                fault = f"is listed in {content.splits[row_of[key]]} already"
            if fault:
                content.skipped.append(Skipped(name=one["file_name"], reason=fault))
                continue
            if key not in row_of:
                row_of[key] = len(content.keys)
                own.add(key)
                content.keys.append(key)
                content.splits.append(split)
                content.sizes.append(_size(one))
                content.known.append(isinstance(whole.get("annotations"), list))
                content.segments.append([])
            rows[identity] = row_of[key]
        return rows


def _parsed(file: Path, spec: str) -> dict[str, Any]:
    """Return the content of a COCO file; NaN and infinities in it become None, as they belong to one annotation."""
    with parsing(f"{spec}: {file.name} is no JSON that can be read"), _without_collection():
        whole = json.loads(file.read_bytes(), parse_constant=lambda _: None)
    if not isinstance(whole, dict) or not isinstance(whole.get("images"), list):
        raise DataError(
            f"{spec}: {file.name} is no COCO file: it has no list 'images'. Predictions alone, a list of boxes, need "
            "the file that lists their images."
        )
    return whole


@contextlib.contextmanager
def _without_collection() -> Generator[None]:
    """Switch garbage collection off: it would look through millions of new objects again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _siblings(file: Path) -> list[Path]:
    """Return the files beside that of train which differ only in the name of the split."""
    folder, name = file.absolute().parent, file.name
    in_name = re.search(r"(?i)(?<![a-z])train(?![a-z])", name)
    if in_name:
        found = [folder / f"{name[: in_name.start()]}{word}{name[in_name.end() :]}" for word in SPLIT_WORDS]
    elif folder.name.lower() == "train":
        found = [folder.parent / word / name for word in SPLIT_WORDS]
    else:
        return []
    return [other for other in found if other.is_file() and other != file.absolute()]


def _folders(root: Path, file: Path, split: str) -> Iterator[str]:
    """Yield the folders in which images may lie, from the root: of the file, of the dataset, of the split."""
    bases = list(dict.fromkeys((file.absolute().parent, root)))
    for base in bases:
        for name in FOLDERS:
            if (base / name).is_dir():
                yield (base / name).relative_to(root).as_posix()
    for base in bases:
        for name in FOLDERS:
            inside = sorted((base / name).iterdir()) if (base / name).is_dir() else []
            for folder in inside:
                if folder.is_dir() and SPLIT_WORDS.get(split_named(folder.name) or "") == split:
                    yield folder.relative_to(root).as_posix()


def _located(root: Path, folders: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return for each image the file below ``root`` in the first folder that has it, or else why it cannot be used."""
    found = [("", "cannot be found")] * len(names)
    relative = [name.replace("\\", "/").removeprefix(f"{root.as_posix()}/") for name in names]
    for folder in folders:
        missing = [place for place, (_, fault) in enumerate(found) if fault]
        tried = locate_all(root, [f"{folder}/{relative[place]}" for place in missing])
        for place, (key, fault) in zip(missing, tried, strict=True):
            if not fault or "cannot be found" not in fault:
                found[place] = (Path(key).as_posix(), fault)
    return found


def _size(image: Mapping[str, Any]) -> tuple[float, float]:
    """Return width and height as the file has them; of more pixels than are decoded, no numbers."""
    width, height = number(image.get("width")), number(image.get("height"))
    return (math.nan, math.nan) if width * height > MAX_PIXELS else (width, height)


def _hashable(value: object) -> object:
    """Return an id that is a number or a text; None for anything else."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _tables(values: object, faults: Faults) -> Iterator[dict[str, Any]]:
    for position, value in enumerate(values if isinstance(values, list) else [], 1):
        if isinstance(value, dict):
            yield value
        else:
            faults.add(f"entry {position}", "it is no table of image_id, category_id and bbox")


def _add_classes(categories: object, classes: list[str], faults: Faults) -> dict[Any, int]:
    """Add the classes of a file, in the order of their ids; return class numbers by id."""
    named: dict[Any, str] = {}
    for one in _tables(categories, faults):
        identity, name = _hashable(one.get("id")), one.get("name")
        if identity is None or not isinstance(name, str) or not name.strip() or len(name) > 1000:
            faults.add(f"category {one.get('id')!s:.50}", "it has no id or no name")
        else:
            named.setdefault(identity, name.strip())
    in_order = sorted(named, key=lambda identity: (isinstance(identity, str), identity))
    label_of = {name: label for label, name in enumerate(classes)}
    for identity in in_order:
        if named[identity] not in label_of:
            label_of[named[identity]] = len(classes)
            classes.append(named[identity])
    return {identity: label_of[name] for identity, name in named.items()}


def _is_ignored(one: Mapping[str, Any]) -> bool:
    return bool(one.get("iscrowd")) or bool(one.get("ignore"))


def _extent(one: Mapping[str, Any]) -> Corners:
    """Return corners that say how far an annotation reaches in its picture."""
    value = one.get("segmentation")
    return from_sides(one["bbox"]) if "bbox" in one and not isinstance(value, dict) else (0.0, 0.0, *reach(value))


def _add_box(one: Mapping[str, Any], content: _Content, row: int, label: int, name: str, faults: Faults) -> None:
    corners = from_sides(one.get("bbox"))
    if "bbox" not in one:
        found = bounds(one.get("segmentation"), content.sizes[row])
        if isinstance(found, str):
            faults.add(name, f"it has no bbox, and {found}")
            content.listed.lost.add(row)
            return
        corners = found
    content.listed.add(row, corners, label, weight_of(_is_ignored(one), one.get("score")), name)


def _add_segment(one: Mapping[str, Any], content: _Content, row: int, label: int, name: str, faults: Faults) -> None:
    value, size = one.get("segmentation"), content.sizes[row]
    found = segment(value, size, VOID if _is_ignored(one) else label)
    if isinstance(found, str):
        # An object is there, but which pixels show it is not known: those of its box are not background.
        around = box_segment(from_sides(one["bbox"]), size) if "bbox" in one else found
        if value or "bbox" not in one:
            faults.add(name, found)
        elif isinstance(around, str):
            faults.add(name, around)
        found = around
    if isinstance(found, str):
        content.listed.lost.add(row)
        content.unsure.append((row, label))
    else:
        content.segments[row].append(found)
        content.present.append((row, label))

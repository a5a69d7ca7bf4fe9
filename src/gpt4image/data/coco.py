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

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset, split_named, split_of_file
from gpt4image.data.decode import MAX_PIXELS
from gpt4image.data.file_source import FileSource, expanded, locate_all
from gpt4image.data.records import (
    NO_CORNERS,
    UNKNOWN_SIZE,
    Corners,
    Faults,
    Object,
    Record,
    from_sides,
    number,
    picture_sizes,
    require_few,
    require_some,
    still_known,
    to_dataset,
    weight_of,
    with_boxes,
)
from gpt4image.data.regions import VOID, Masks

COCO = "coco:"
BACKGROUND = "background"
FOLDERS = ("", "images", "data", "JPEGImages")
"""Where images lie, from the folder of the file or of the dataset."""
SPLIT_WORDS = {**SPLIT_OF, "unlabeled": "train", "unlabelled": "train"}
_ABOVE = ("annotations", "annotation", "labels", *SPLIT_WORDS)
"""Folders of files of annotations whose images may lie beside the folder."""
MAX_OUTLINE = 2_000_000
"""Pixels that the outline of one object may be long; drawing takes time and memory by them."""
_REFUSED = (RuntimeError, ValueError, IndexError, TypeError, OverflowError, MemoryError, KeyError)
"""What faster-coco-eval raises for what it cannot read."""


def load_coco(argument: str) -> Dataset:
    """Load images and the boxes of their objects; keys are paths of images from the folder of the dataset.

    Skipped by name: images that cannot be found or lie outside, annotations that cannot be used.
    """
    files = _Files(f"{COCO}{argument}", argument)
    files.read()
    source = FileSource(files.root, [record.key for record in files.records])
    where = files.files[0].name
    return with_boxes(files.spec, files.records, source, files.classes, files.faults, where, files.skipped, "sides")


def load_coco_masks(argument: str) -> Dataset:
    """Load images and masks of their objects; see ``load_coco``. The first class is the background.

    A crowd, and an object of which only the box can be used, count for nothing.
    """
    files = _Files(f"coco-masks:{argument}", argument)
    files.read([BACKGROUND])
    require_few(files.classes, files.spec, VOID)
    records, faults = files.records, files.faults
    source = FileSource(files.root, [record.key for record in records])
    sizes = picture_sizes(records, source.read)
    segments: list[list[Segment]] = [[] for _ in records]
    present = np.zeros((len(records), len(files.classes)), np.int8)
    for row, (record, (width, height)) in enumerate(zip(records, sizes.tolist(), strict=True)):
        shown, unsure = list[int](), list[int]()
        for one in record.objects or ():
            found, fault = (None, one.fault) if one.fault else _drawn(one, (width, height))
            if fault:
                faults.add(f"{record.key}, {one.name}", fault)
            if found is not None:
                segments[row].append(found)
            (unsure if found is None else shown).extend([int(one.label)] if int(one.label) >= 0 else [])
        present[row, unsure] = -1
        present[row, shown] = 1
    known = still_known(records, np.array([bool(some) for some in segments])) & (sizes >= 1).all(axis=1)
    present[known, 0] = 1
    present[~known] = -1
    rows = np.where(known, np.arange(len(known)), -1)
    masks = Masks(source=SegmentSource(sizes, segments), rows=rows, presence_of_classes=present)
    skipped = [*files.skipped, *faults.skipped(files.files[0].name)]
    return to_dataset(files.spec, records, source, classes=files.classes, regions=masks, skipped=skipped)


Id = int | float | str


class Ids(NamedTuple):
    """The id of an image, and the ids of categories by name, in the file that lists the image."""

    image: Id
    categories: Mapping[str, Id]


def coco_ids(argument: str) -> dict[str, Ids]:
    """Return the ids of a COCO dataset, by the real path of each image that can be found. Raises DataError."""
    files, found = _Files(f"{COCO}{argument}", argument), dict[str, Ids]()
    for file in files.files:
        whole, classes, categories = _parsed(file, files.spec), list[str](), dict[str, Id]()
        for identity, label in _add_classes(whole.get("categories"), classes, Faults()).items():
            categories.setdefault(classes[label], identity)
        for identity, record in files.add_images(file, whole).items():
            found.setdefault(os.path.realpath(files.root / record.key), Ids(identity, categories))
    return found


def ids_of(images: Dataset) -> list[Ids | None]:
    """Return the ids of the images of a dataset in its COCO files; None for those of other formats."""
    if not (images.spec.startswith(COCO) and isinstance(images.source, FileSource)):
        return [None] * len(images)
    known, file_of = coco_ids(images.spec.removeprefix(COCO)), images.source.path
    return [known.get(os.path.realpath(file_of(row))) for row in images.rows.tolist()]


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


def _train_file(place: Path) -> Path:
    if place.is_file():
        return place
    folders = ("", "annotations", *SPLIT_WORDS)
    found = sorted(file for folder in folders for file in (place / folder).glob("*.json") if file.is_file())
    named = [file for file in found if file.name.startswith("instances")] or found
    train = [file for file in named if "train" in (split_named(file.stem), file.parent.name.lower())] or named
    if len(train) != 1:
        seen = f"there are {first_few(str(file.relative_to(place)) for file in found)}" if found else "there is none"
        raise DataError(f"{place}: which JSON file lists the objects cannot be told: {seen}; give coco:FILE.json.")
    return train[0]


class _Files:
    def __init__(self, spec: str, argument: str) -> None:
        self.spec = spec
        self.files = [file := _train_file(expanded(argument)), *_siblings(file)]
        folder = file.absolute().parent
        self.root = folder.parent if folder.name.lower() in _ABOVE else folder
        self.records: list[Record] = []
        self.classes: list[str] = []
        self.skipped: list[Skipped] = []
        self.faults = Faults()

    def read(self, classes: Sequence[str] = ()) -> None:
        """Read all files; with ``classes``, which come before theirs, for masks."""
        self.classes = list(classes)
        for file in self.files:
            whole = _parsed(file, self.spec)
            by_id = self.add_images(file, whole)
            label_of = _add_classes(whole.get("categories"), self.classes, self.faults)
            for position, one in enumerate(_tables(whole.get("annotations"), self.faults), 1):
                record, name = by_id.get(_hashable(one.get("image_id"))), f"annotation {one.get('id', position)!s:.50}"
                if record is None or record.objects is None:
                    self.faults.add(name, "it is of an image that is not listed, or that was skipped")
                else:
                    label = label_of.get(_hashable(one.get("category_id")), -1)
                    record.objects.append(_object(name, one, label, record, masks=bool(classes)))
        where = "relative to the folder of the file, to 'images' in it, or to a folder named after the split"
        none = f"{self.spec}: none of its images can be found below {self.root}; their file_name is {where}."
        require_some(self.records, none, self.skipped)

    def add_images(self, file: Path, whole: Mapping[str, Any]) -> dict[Any, Record]:
        """Add the images of a file that can be found; return their records by id."""
        images = [one for one in whole["images"] if isinstance(one, dict) and isinstance(one.get("file_name"), str)]
        for _ in range(len(whole["images"]) - len(images)):
            self.skipped.append(Skipped(name=file.name, reason="an entry of 'images' has no file_name"))
        split, annotated = split_of_file(file.absolute()), isinstance(whole.get("annotations"), list)
        located = _located(self.root, list(_folders(self.root, file, split)), [one["file_name"] for one in images])
        earlier = {record.key: record for record in self.records}
        own: dict[str, Record] = {}
        by_id: dict[Any, Record] = {}
        for one, (key, fault) in zip(images, located, strict=True):
            identity = _hashable(one.get("id"))
            if not fault and identity is None:
                fault = "has no id"
            elif not fault and identity in by_id:
                fault = f"has the id {identity!s:.50}, which another image has"
            elif not fault and key in earlier:
                fault = f"is listed in {earlier[key].split} already"
            if fault:
                self.skipped.append(Skipped(name=one["file_name"], reason=fault))
                continue
            if key not in own:
                sides = number(one.get("width")), number(one.get("height"))
                size = UNKNOWN_SIZE if sides[0] * sides[1] > MAX_PIXELS else sides
                own[key] = Record(key=key, split=split, objects=[] if annotated else None, size=size)
                self.records.append(own[key])
            by_id[identity] = own[key]
        return by_id


def _parsed(file: Path, spec: str) -> dict[str, Any]:
    """Return the content of a COCO file; NaN and infinities in it become None, as they belong to one annotation."""
    with parsing(f"{spec}: {file.name} is no JSON that can be read"):
        whole = json.loads(file.read_bytes(), parse_constant=lambda _: None)
    if not isinstance(whole, dict) or not isinstance(whole.get("images"), list):
        raise DataError(
            f"{spec}: {file.name} is no COCO file: it has no list 'images'. Predictions alone, a list of boxes, need "
            "the file that lists their images."
        )
    return whole


def _siblings(file: Path) -> list[Path]:
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
    bases = dict.fromkeys((file.absolute().parent, root))
    places = [base / name for base in bases for name in FOLDERS if (base / name).is_dir()]
    yield from (place.relative_to(root).as_posix() for place in places)
    for place in places:
        for folder in sorted(place.iterdir()):
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


def _hashable(value: object) -> object:
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
    label_of = {name: label for label, name in enumerate(classes)}
    for identity in sorted(named, key=lambda identity: (isinstance(identity, str), identity)):
        if named[identity] not in label_of:
            label_of[named[identity]] = len(classes)
            classes.append(named[identity])
    return {identity: label_of[name] for identity, name in named.items()}


def _object(name: str, one: Mapping[str, Any], label: int, record: Record, *, masks: bool) -> Object:
    """Return an annotation as an object; one without a box gets that of its segmentation."""
    outline, fault = one.get("segmentation"), "" if label >= 0 else "its category is not listed"
    found = from_sides(one["bbox"]) if "bbox" in one else bounds(outline, record.size)
    if isinstance(found, str):
        found, fault = NO_CORNERS, fault or f"it has no bbox, and {found}"
    if masks and isinstance(outline, dict) and outline.get("size") != [*reversed(record.size)]:
        record.size = UNKNOWN_SIZE  # that of the picture counts
    ignored = bool(one.get("iscrowd")) or bool(one.get("ignore"))
    return Object(name, label, found, weight_of(ignored, one.get("score")), fault, outline if masks else None)


# Segmentations, polygons and run lengths: checked before a library sees them, drawn when asked for ----------------


class Segment(NamedTuple):
    """The region of one object: the number that its pixels get, VOID for one that counts for nothing, and its shape.

    The shape is compressed run lengths, or polygons: corners x, y, x, y and so on, in pixels.
    """

    label: int
    shape: bytes | tuple[NDArray[np.float32], ...]


def _drawn(one: Object, size: tuple[float, float]) -> tuple[Segment | None, str]:
    """Return the region of an object, and what cannot be used of it."""
    found = segment(one.outline, size, VOID if one.weight == 0 else int(one.label))
    if isinstance(found, Segment):
        return found, ""
    left, top, right, bottom = one.corners
    around = segment([[left, top, right, top, right, bottom, left, bottom]], size, VOID)
    if isinstance(around, Segment) and not (np.ptp(np.reshape(around.shape, (-1, 2)), axis=0) > 0).all():
        around = "its box has no area, or is outside of its picture"
    if isinstance(around, str):
        return None, found if one.outline else around
    return around, found if one.outline else ""


def segment(value: object, size: tuple[float, float], label: int) -> Segment | str:
    """Return a segmentation as COCO writes it, or else why it cannot be used; ``size`` is that of its picture."""
    width, height = size
    if not 1 <= width * height <= MAX_PIXELS:
        return f"the size of its picture is missing or above {MAX_PIXELS:,} pixels"
    if isinstance(value, dict):
        runs = _runs(value, width, height)
        return runs if isinstance(runs, str) else Segment(label, runs["counts"])
    polygons = _polygons(value)
    if isinstance(polygons, str):
        return polygons
    limits = np.array([width, height])
    inside = tuple(np.clip(one, 0, limits).astype(np.float32) for one in polygons)
    # Each corner is in the picture: many are needed for a long outline, and only then is it measured.
    is_long = sum(map(np.size, inside)) * (width + height) > MAX_OUTLINE
    if is_long and sum(float(np.abs(np.diff(one, axis=0)).sum()) for one in inside) > MAX_OUTLINE:
        return "its outline is too long"
    return Segment(label, tuple(one.reshape(-1) for one in inside))


def bounds(value: object, size: tuple[float, float]) -> Corners | str:
    """Return left, top, right, bottom in pixels of a segmentation, or why it cannot be used."""
    if isinstance(value, dict):
        from faster_coco_eval.core import mask

        width, height = size
        if not 1 <= width * height <= MAX_PIXELS:
            given: Any = value.get("size")
            height, width = map(number, given) if isinstance(given, list) and len(given) == 2 else UNKNOWN_SIZE
        runs = _runs(value, width, height)
        return runs if isinstance(runs, str) else from_sides(mask.toBbox(runs).tolist())
    polygons = _polygons(value)
    if isinstance(polygons, str):
        return polygons
    points = np.concatenate(polygons)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return left, top, right, bottom


def _runs(value: dict[Any, Any], width: float, height: float) -> dict[str, Any] | str:
    """Return run lengths as the library takes them, or why they cannot be used."""
    from faster_coco_eval.core import mask

    if not 1 <= width * height <= MAX_PIXELS or value.get("size") != [height, width]:
        return "its run lengths are of another size than its picture"
    counts: Any = value.get("counts")
    runs: Any = {"size": [int(height), int(width)], "counts": counts}
    try:
        if isinstance(counts, str):
            runs["counts"] = counts.encode()
        else:
            runs = mask.frPyObjects(runs, int(height), int(width))
        mask.decode(runs)
    except _REFUSED:
        return "its run lengths do not add up to its picture"
    return runs


def _polygons(value: object) -> list[NDArray[np.float64]] | str:
    if not isinstance(value, list) or not value:
        return "there is no segmentation"
    found: list[NDArray[np.float64]] = []
    for corners in value:
        try:
            values = np.array(corners if isinstance(corners, list) else [], np.float64)
        except (ValueError, TypeError, OverflowError):
            return "a coordinate is missing or no number"
        if values.ndim != 1 or len(values) < 6 or len(values) % 2:
            return "a polygon has not three corners or more, x and y each"
        if not np.isfinite(values).all():
            return "a coordinate is missing or no number"
        found.append(values.reshape(-1, 2))
    return found


class SegmentSource:
    """Masks drawn from the segments of N pictures of ``sizes`` (N, 2), see ``MaskSource``: small objects over large."""

    def __init__(self, sizes: NDArray[np.float64], segments: Sequence[Sequence[Segment]]) -> None:
        self._sizes, self._segments = sizes, segments

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the classes of the pixels: (height, width) uint8, 0 where there is no object."""
        from faster_coco_eval.core import mask

        width, height = (int(side) for side in self._sizes[row])
        pixels = np.zeros((height, width), np.uint8)
        # Objects are sorted by their run lengths, and drawn one at a time: a picture may have hundreds.
        encoded: list[tuple[int, Any]] = []
        for one in self._segments[row]:
            runs: Any = [{"size": [height, width], "counts": one.shape}]
            if not isinstance(one.shape, bytes):
                runs = mask.frPyObjects([polygon.tolist() for polygon in one.shape], height, width)
            encoded.append((one.label, mask.merge(runs)))
        for label, runs in sorted(encoded, key=lambda pair: (pair[0] != VOID, -int(mask.area(pair[1])))):
            pixels[mask.decode(runs).astype(np.bool_)] = label
        return pixels

    def digest(self, row: int) -> str:
        """Return the sha256 hex digest of the segments."""
        content = hashlib.sha256(self._sizes[row].tobytes())
        for one in self._segments[row]:
            parts = [one.shape] if isinstance(one.shape, bytes) else [polygon.tobytes() for polygon in one.shape]
            content.update(repr((one.label, [len(part) for part in parts])).encode() + b"".join(parts))
        return content.hexdigest()

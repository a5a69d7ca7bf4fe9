"""`coco:FILE.json`: boxes of a COCO file; `coco-masks:FILE.json`: its polygons and run lengths as masks.

The file of train brings those beside it that differ only in the name of the split. Another file stands alone: its
images are of the split that it is named after, else of train. A folder stands for the file of train in it.

Images lie beside the file. Those of ``annotations/instances_NAME.json`` lie in ``NAME`` beside ``annotations``. An
option ``images=FOLDER`` says otherwise. Every image of a file is annotated, unless the file has no entry
``annotations``. A crowd (``iscrowd``) has weight 0.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset, split_named
from gpt4image.data.decode import MAX_PIXELS
from gpt4image.data.file_source import FileSource, expanded, is_below, locate_all
from gpt4image.data.labels import MAX_LABEL_LETTERS, require_few
from gpt4image.data.records import (
    Faults,
    Object,
    Record,
    from_sides,
    number,
    picture_sizes,
    require_some,
    still_known,
    to_dataset,
    weight_of,
    with_boxes,
)
from gpt4image.data.regions import VOID, Masks
from gpt4image.data.spec import Spec, parse

COCO = "coco:"
BACKGROUND = "background"
SPLIT_WORDS = (*SPLIT_OF, "unlabeled", "unlabelled")
IN_FOLDER = ("train.json", "annotations/instances_train*.json", "train/_annotations.coco.json")
"""Where the file of train may lie in a folder."""
MAX_OUTLINE = 2_000_000  # pixels that the outline of one object may be long; drawing takes time and memory by them
_REFUSED = (RuntimeError, ValueError, IndexError, TypeError, OverflowError, MemoryError, KeyError)
"""What faster-coco-eval raises for what it cannot read."""


def load_coco(spec: Spec) -> Dataset:
    """Load images and boxes of their objects; keys are paths of images from the folder of the dataset."""
    files = _Files(spec)
    source = files.read()
    where = files.files[0].name
    return with_boxes(spec.text, files.records, source, files.classes, files.faults, where, files.skipped)


def load_coco_masks(spec: Spec) -> Dataset:
    """Load images and masks, the first class of which is the background; a crowd and a box alone count for nothing."""
    files = _Files(spec)
    files.classes.append(BACKGROUND)
    source = files.read(masks=True)
    require_few(files.classes, spec, VOID)
    records = files.records
    sizes = picture_sizes(records, source)
    regions: list[list[Region]] = [[] for _ in records]
    present = np.zeros((len(records), len(files.classes)), np.int8)
    for row, (record, (width, height)) in enumerate(zip(records, sizes.tolist(), strict=True)):
        for one in record.objects or ():
            found, fault = (None, one.fault) if one.fault else _region(one, (width, height))
            if fault:
                files.faults.add(f"{record.key}, {one.name}", fault)
            if found is not None:
                regions[row].append(found)
            if (label := int(one.label)) >= 0:
                present[row, label] = 1 if found is not None else present[row, label] or -1
    known = still_known(records, np.array([bool(some) for some in regions])) & (sizes >= 1).all(axis=1)
    present[known, 0] = 1
    present[~known] = -1
    rows = np.where(known, np.arange(len(known)), -1)
    masks = Masks(source=RegionSource(sizes, regions), rows=rows, presence_of_classes=present)
    skipped = [*files.skipped, *files.faults.skipped(files.files[0].name)]
    return to_dataset(spec.text, records, source, classes=files.classes, regions=masks, skipped=skipped)


Id = int | float | str
Region = tuple[int, bytes]
"""The number that pixels get, VOID for one that counts for nothing, and compressed run lengths."""


class Ids(NamedTuple):
    """The id of an image, and the ids of categories by name, in the file that lists the image."""

    image: Id
    categories: Mapping[str, Id]


def coco_ids(argument: str) -> dict[str, Ids]:
    """Return the ids of a COCO dataset, by the real path of each image that can be found. Raises DataError."""
    files, found = _Files(parse(f"{COCO}{argument}")), dict[str, Ids]()
    for file in files.files:
        whole, categories = files.parsed(file), dict[str, Id]()
        for identity, name in files.categories(whole).items():
            categories.setdefault(name, identity)
        for identity, record in files.add_images(file, whole).items():
            found.setdefault(os.path.realpath(files.root / record.key), Ids(identity, categories))
    return found


def category_ids(classes: Sequence[str], known: Mapping[str, Id]) -> dict[str, Id]:
    """Return an id for each class: the one that is known, others follow the largest; from 1 where none is known."""
    numbers = [math.floor(one) for name in classes if not isinstance(one := known.get(name, 0), str)]
    following = itertools.count(max(numbers, default=0) + 1)
    return {name: known[name] if name in known else next(following) for name in classes}


class _Files:
    """The files of a dataset, and what was read of them."""

    def __init__(self, spec: Spec) -> None:
        self.spec, place = spec, spec.path.absolute()
        named = [place] if place.is_file() else [file for name in IN_FOLDER for file in sorted(place.glob(name))]
        if not named:
            raise DataError(f"{spec}: there is none of {', '.join(IN_FOLDER)} in {place}; give coco:FILE.json.")
        self.files = [named[0], *_siblings(named[0])]
        folder = self.files[0].parent
        self.root = folder.parent if folder.name in ("annotations", *SPLIT_WORDS) else folder
        images = spec.options.get("images")
        self.images = None if images is None else self.root / expanded(images)
        if self.images is not None and not is_below(os.path.realpath(self.images), os.path.realpath(self.root)):
            self.root = self.images
        self.records: list[Record] = []
        self.classes: list[str] = []
        self.skipped: list[Skipped] = []
        self.faults = Faults()

    def read(self, *, masks: bool = False) -> FileSource:
        """Read all files; return where the images are. Raises DataError."""
        for file in self.files:
            whole = self.parsed(file)
            by_id, names = self.add_images(file, whole), self.categories(whole)
            self.classes += [name for name in dict.fromkeys(names.values()) if name not in self.classes]
            label_of = {name: label for label, name in enumerate(self.classes)}
            for position, one in enumerate(self._tables(whole.get("annotations")), 1):
                record, name = by_id.get(_id(one, "image_id")), f"annotation {one.get('id', position)!s:.50}"
                if record is None or record.objects is None:
                    self.faults.add(name, "it is of an image that is not listed, or that was skipped")
                    continue
                label = label_of.get(names.get(_id(one, "category_id"), ""), -1)
                fault = "" if label >= 0 else "its category is not listed"
                weight = weight_of(bool(one.get("iscrowd") or one.get("ignore")), one.get("score"))
                outline = one.get("segmentation") if masks else None
                record.objects.append(Object(name, label, from_sides(one.get("bbox")), weight, fault, outline))
        where = self.images or "beside the file, or in NAME for annotations/instances_NAME.json"
        none = f"{self.spec}: none of its images is {where}; give {self.spec.having('images')}."
        require_some(self.records, none, self.skipped)
        return FileSource(self.root, [record.key for record in self.records])

    def parsed(self, file: Path) -> dict[str, Any]:
        """Return the content of a file; NaN and infinities in it become None, as they belong to one annotation."""
        with parsing(f"{self.spec}: {file.name} is no JSON that can be read"):
            whole = json.loads(file.read_bytes(), parse_constant=lambda _: None)
        if not isinstance(whole, dict) or not isinstance(whole.get("images"), list):
            raise DataError(f"{self.spec}: {file.name} is no COCO file: it has no list 'images'.")
        return whole

    def categories(self, whole: Mapping[str, Any]) -> dict[Any, str]:
        """Return the names of classes by id, in the order of their ids."""
        named: dict[Any, str] = {}
        for one in self._tables(whole.get("categories")):
            identity, name = _id(one, "id"), one.get("name")
            if identity is None or not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_LABEL_LETTERS:
                self.faults.add(f"category {one.get('id')!s:.50}", "it has no id or no name")
            else:
                named.setdefault(identity, name.strip())
        return dict(sorted(named.items(), key=lambda item: (isinstance(item[0], str), item[0])))

    def _tables(self, values: object) -> Iterator[dict[str, Any]]:
        for position, value in enumerate(values if isinstance(values, list) else [], 1):
            if isinstance(value, dict):
                yield value
            else:
                self.faults.add(f"entry {position}", "it is no table")

    def add_images(self, file: Path, whole: Mapping[str, Any]) -> dict[Any, Record]:
        """Add the images of a file that can be found; return their records by id."""
        images = [one for one in self._tables(whole["images"]) if isinstance(one.get("file_name"), str)]
        split = split_named(file.stem) or SPLIT_OF.get(file.parent.name, "train")
        annotated = isinstance(whole.get("annotations"), list)
        of_file = file.stem.removeprefix("instances_") if file.parent.name == "annotations" else ""
        folder = self.images or (self.root / of_file if of_file else file.parent)
        located = locate_all(self.root, [f"{folder}/{one['file_name']}" for one in images])
        earlier, by_id = {record.key: record for record in self.records}, dict[Any, Record]()
        for one, (path, fault) in zip(images, located, strict=True):
            key, identity = Path(path).as_posix(), _id(one, "id")
            if not fault and (identity is None or identity in by_id):
                fault = f"has the id {one.get('id')!s:.50}, which is none, or that of another image"
            elif not fault and key in earlier:
                fault = f"is listed in {earlier[key].split} already"
            if fault:
                self.skipped.append(Skipped(one["file_name"], fault))
                continue
            size = number(one.get("width")), number(one.get("height"))
            by_id[identity] = Record(key=key, split=split, objects=[] if annotated else None, size=size)
            earlier[key] = by_id[identity]
            self.records.append(by_id[identity])
        return by_id


def _id(one: Mapping[str, Any], name: str) -> Any:
    value = one.get(name)
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _siblings(file: Path) -> list[Path]:
    """Return the files beside the one of train that differ only in the name of the split."""
    folder, name = file.parent, file.name
    in_name = re.search(r"(?<![a-z])train(?![a-z])", name)
    if in_name:
        found = [folder / f"{name[: in_name.start()]}{word}{name[in_name.end() :]}" for word in SPLIT_WORDS]
    else:
        found = [folder.parent / word / name for word in SPLIT_WORDS if folder.name == "train"]
    return [other for other in found if other.is_file() and other != file]


def _region(one: Object, size: tuple[float, float]) -> tuple[Region | None, str]:
    """Return the region of an object, that of its box without a usable one, and what cannot be used of it."""
    found = encoded(one.outline, size)
    if isinstance(found, bytes):
        return (VOID if one.weight == 0 else int(one.label), found), ""
    left, top, right, bottom = one.corners
    inside = min(right, size[0]) > max(left, 0) and min(bottom, size[1]) > max(top, 0)
    around = encoded([[left, top, right, top, right, bottom, left, bottom]], size) if inside else found
    return (None, found) if isinstance(around, str) else ((VOID, around), found if one.outline else "")


def encoded(outline: Any, size: tuple[float, float]) -> bytes | str:
    """Return compressed run lengths of polygons or run lengths as COCO writes them; a text says why there are none."""
    from faster_coco_eval.core import mask

    if not 1 <= size[0] * size[1] <= MAX_PIXELS:
        return f"the size of its picture is missing or above {MAX_PIXELS:,} pixels"
    width, height = map(int, size)
    try:
        if isinstance(outline, dict):
            counts = outline["counts"]
            if outline["size"] != [height, width]:
                return "its run lengths are of another size than its picture"
            text: Any = {"size": [height, width], "counts": counts.encode()} if isinstance(counts, str) else None
            runs: Any = text or mask.frPyObjects(outline, height, width)
            mask.decode(runs)  # it fails where they do not add up
            return runs["counts"]
        corners = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in outline]
        if not corners or not all(len(one) > 2 and np.isfinite(one).all() for one in corners):
            return "its segmentation has no polygon of three corners, each two numbers"
        inside = [np.clip(one, 0, size).astype(np.float32) for one in corners]
        # Each corner is in the picture: many are needed for a long outline, and only then is it measured.
        is_long = sum(map(len, inside)) * 2 * (width + height) > MAX_OUTLINE
        if is_long and sum(float(np.abs(np.diff(one, axis=0)).sum()) for one in inside) > MAX_OUTLINE:
            return "its outline is too long"
        polygons: Any = mask.frPyObjects([one.reshape(-1).tolist() for one in inside], height, width)
        return mask.merge(polygons)["counts"]
    except _REFUSED:
        return "its segmentation cannot be read"


class RegionSource:
    """Masks drawn from the regions of N pictures of ``sizes`` (N, 2), see ``MaskSource``: small objects over large."""

    def __init__(self, sizes: NDArray[np.float64], regions: Sequence[Sequence[Region]]) -> None:
        self._sizes, self._regions = sizes, regions

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the classes of the pixels: (height, width) uint8, 0 where there is no object."""
        from faster_coco_eval.core import mask

        width, height = map(int, self._sizes[row])
        pixels = np.zeros((height, width), np.uint8)
        each: list[tuple[int, Any]] = [
            (label, {"size": [height, width], "counts": counts}) for label, counts in self._regions[row]
        ]
        for label, runs in sorted(each, key=lambda pair: (pair[0] != VOID, -int(mask.area(pair[1])))):
            pixels[mask.decode(runs).astype(np.bool_)] = label
        return pixels

    def content(self, row: int) -> bytes:
        """Return the regions, which decide the mask."""
        return repr((self._sizes[row].tolist(), self._regions[row])).encode()

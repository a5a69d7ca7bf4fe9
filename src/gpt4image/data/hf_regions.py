"""Columns of boxes and of masks in the tables of `datasets`.

Boxes are a column ``objects`` of structs, or a struct of lists, with ``bbox`` (left, top, width, height in pixels, as
in the documentation of `datasets`) and ``category``. Masks are a second column of images, with one number per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, parsing
from gpt4image.data.arrow_source import ArrowSource, cells_of
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
from gpt4image.data.labels import MAX_CLASSES, MAX_SEVERAL
from gpt4image.data.mask_files import MaskFiles, masks_of
from gpt4image.data.regions import Boxes, Masks

if TYPE_CHECKING:
    from datasets import Dataset

OBJECTS = ("objects", "annotations")
BOX_NAMES = ("bbox", "bboxes", "boxes")
CLASS_NAMES = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_label", "type")
IGNORED = ("iscrowd", "is_crowd", "difficult")
SCORE = "score"
MASK_NAMES = ("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "semantic_mask")


def objects_column(part: Dataset) -> tuple[str, str, str] | None:
    """Return the names of the column of objects, and in it those of boxes and classes; None without."""
    for name in OBJECTS:
        fields = _fields(part.features[name]) if name in part.features else {}
        box, label = (next((one for one in names if one in fields), None) for names in (BOX_NAMES, CLASS_NAMES))
        if box and label:
            return name, box, label
    return None


def _fields(kind: Any) -> dict[str, Any]:
    """Return the features of the fields of one object, of a list of structs or of a struct of lists."""
    inner = getattr(kind, "feature", kind)
    return dict(inner) if isinstance(inner, dict) else {}


def boxes_of(
    parts: Sequence[tuple[str, Dataset]], keys: Sequence[str], pictures: ArrowSource, faults: Faults, spec: str
) -> tuple[Boxes, tuple[str, ...]]:
    """Return the boxes of all rows and the class names. An empty cell is an image that is not annotated.

    Numbers of a ClassLabel are those of the names of its own split.

    Raises:
        DataError: splits differ in their column of objects, or there are too many classes.
    """
    names = objects_column(parts[0][1])
    if names is None or any(names[0] in part.features and objects_column(part) != names for _, part in parts):
        raise DataError(f"{spec}: the column of objects has other fields in some splits; cast it to the same type.")
    column, box, label = names
    objects: list[list[tuple[Corners, Any, float]] | None] = []
    sizes: list[tuple[float, float]] = []
    for _, part in parts:
        empty = [None] * len(part)
        cells, own = cells_of(part, column) if column in part.features else empty, _own_names(part, column, label)
        objects += [None if cell is None else _objects(cell, box, label, own) for cell in cells]
        sides = [cells_of(part, side) if side in part.features else empty for side in ("width", "height")]
        sizes += [(number(wide), number(high)) for wide, high in zip(*sides, strict=True)]
    of_splits = [_own_names(part, column, label) for _, part in parts]
    classes = tuple(dict.fromkeys(name for own in of_splits for name in own)) or _names_in_use(objects)
    if len(classes) > MAX_SEVERAL:
        raise DataError(f"{spec}: {len(classes):,} classes of objects; up to {MAX_SEVERAL:,} are possible.")
    place = {name: position for position, name in enumerate(classes)}
    listed = Listed()
    for row, some in enumerate(objects):
        for position, (corners, given, weight) in enumerate(some or [], 1):
            found = classes[given] if isinstance(given, int) and 0 <= given < len(classes) else given
            if not isinstance(found, str) or found not in place:
                faults.add(f"{keys[row]}, object {position}", "its category is missing or unknown")
                listed.lost.add(row)
                continue
            listed.add(row, corners, place[found], weight, f"{keys[row]}, object {position}")
    known = [some is not None for some in objects]
    space = sizes_of_pictures(listed, np.array(sizes), pictures.read)
    require_sides(listed, space, spec)
    return checked(listed, space, known, len(classes), faults, spec), classes


def _objects(cell: Any, box: str, label: str, own: Sequence[str]) -> list[tuple[Corners, Any, float]]:
    """Return box, class and weight of each object of a cell; ``own`` names the class numbers."""
    if isinstance(cell, dict):
        names = [name for name in (box, label, SCORE, *IGNORED) if isinstance(cell.get(name), list)]
        count = max((len(cell[name]) for name in names), default=0)
        cell = [{name: cell[name][place] for name in names if place < len(cell[name])} for place in range(count)]
    found: list[tuple[Corners, Any, float]] = []
    for one in cell:
        values = one if isinstance(one, dict) else {}
        given = values.get(label)
        given = int(given) if isinstance(given, float) and given.is_integer() else given
        if own and isinstance(given, int):
            given = own[given] if 0 <= given < len(own) else None
        weight = weight_of(any(values.get(name) for name in IGNORED), values.get(SCORE))
        found.append((from_sides(values.get(box)), given, weight))
    return found


def _own_names(part: Dataset, column: str, label: str) -> Sequence[str]:
    """Return the names of the ClassLabel of a split; none where its classes are no ClassLabel."""
    kind = _fields(part.features[column])[label] if column in part.features else None
    return getattr(getattr(kind, "feature", kind), "names", None) or ()


def _names_in_use(objects: Sequence[Any]) -> tuple[str, ...]:
    """Return the class names that objects have, else the numbers up to the largest."""
    given = {one[1] for some in objects for one in some or []}
    texts = sorted(name for name in given if isinstance(name, str) and name.strip())
    largest = max((value for value in given if isinstance(value, int) and value < MAX_CLASSES), default=-1)
    return tuple(texts) if texts else tuple(map(str, range(largest + 1)))


def mask_column(parts: Sequence[tuple[str, Dataset]], image: str) -> str | None:
    """Return the name of the column of masks: of images besides ``image``, in every split; None without."""
    import datasets

    features = [part.features for _, part in parts]
    return next(
        (
            name
            for name in MASK_NAMES
            if name != image and all(isinstance(each.get(name), datasets.Image) for each in features)
        ),
        None,
    )


def masks_from(
    source: ArrowSource,
    pictures: ArrowSource,
    keys: Sequence[str],
    faults: Faults,
    spec: str,
) -> tuple[Masks, tuple[str, ...]]:
    """Return the masks of all rows and the names of their classes, which are their numbers."""
    rows: NDArray[np.int64] = np.arange(len(keys))
    with parsing(f"{spec}: the column of masks is damaged"):
        rows[list(source.faults())] = -1
    return masks_of(MaskFiles(source, rows), rows, pictures, np.arange(len(keys)), keys, None, faults, spec)

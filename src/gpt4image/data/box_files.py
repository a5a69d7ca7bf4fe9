"""Boxes and masks as files that others read: COCO JSON, folders of YOLO and Pascal VOC, tables of `datasets`, masks.

Names of pictures are paths with forward slashes, such as ``train/1.jpg``; nothing is written outside of the folder.
Images that are not annotated get no file, and are not listed. What these functions write, the loaders of this package
read again, within the rounding of each format.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError, MissingExtraError, first_line
from gpt4image.base.files import row_groups, staging_folder, write_json, write_row_groups
from gpt4image.base.outcome import Skipped
from gpt4image.data.coco import Ids, categories_of, category_ids, numbered
from gpt4image.data.dataset import SPLIT_OF, SPLITS, Dataset
from gpt4image.data.decode import sides
from gpt4image.data.regions import Boxes, palette
from gpt4image.data.voc import CORNERS

Size = tuple[int, int]
"""Width and height in pixels."""
IMAGES_IN_GROUP = 100
"""Pictures of a table that are in memory at once."""


def write_coco(
    path: Path,
    names: Sequence[str],
    sizes: Sequence[Size],
    boxes: Boxes,
    classes: Sequence[str],
    ids: Sequence[Ids | None] = (),
) -> None:
    """Write a COCO file, atomically; ``names`` are relative to its folder.

    A weight of 0 becomes ``iscrowd``, one below 1 ``score``. Images keep their ``ids``, and classes those of the first
    image that has them. Where two images have one id, and where there is none, the ids follow the largest, from 1.
    """
    category = list(category_ids(classes, categories_of(ids)).values())
    number = numbered([None if one is None else one.image for one in ids or [None] * len(names)])
    annotations, images = list[dict[str, Any]](), list[dict[str, Any]]()
    for image in np.flatnonzero(boxes.known).tolist():
        width, height = sizes[image]
        images.append({"id": number[image], "file_name": names[image], "width": width, "height": height})
        for corners, label, weight in _boxes(boxes, image, sizes[image]):
            box = [round(value, 3) for value in _sides(corners)]
            one = {"id": len(annotations) + 1, "image_id": number[image], "category_id": category[label], "bbox": box}
            one |= {"area": round(box[2] * box[3], 3), "iscrowd": int(weight == 0)}
            annotations.append(one | ({"score": round(weight, 6)} if 0 < weight < 1 else {}))
    categories = [{"id": one, "name": name} for one, name in zip(category, classes, strict=True)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories}, checksum=False)


def write_yolo(folder: Path, names: Sequence[str], boxes: Boxes, classes: Sequence[str]) -> None:
    """Write ``labels`` and ``data.yaml`` of a folder whose pictures lie in ``images``; ``names`` are relative to that.

    A line has five values, as trainers of YOLO require. So a box of weight 0, an ignore region, is left out, and other
    weights are not written. ``data.yaml`` has no ``path``, since others take one from where their program runs.
    """
    import yaml

    tops = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    entries = {split: f"images/{name}" for name, split in SPLIT_OF.items() if name in tops} or {"train": "images"}
    with staging_folder(folder) as staging:
        for image, file in _annotated(boxes, staging / "labels", names, ".txt"):
            lines: dict[str, None] = {}  # a line comes once
            for corners, label, weight in _boxes(boxes, image, (1, 1)):
                left, top, width, height = _sides(corners)
                values = [left + width / 2, top + height / 2, width, height]
                if weight > 0:
                    lines[" ".join([str(label), *(f"{value:.6f}" for value in values)]) + "\n"] = None
            file.write_text("".join(lines), encoding="utf-8")
        text = yaml.safe_dump({**entries, "names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True)
        (staging / "data.yaml").write_text(text, encoding="utf-8")


def write_voc(folder: Path, names: Sequence[str], sizes: Sequence[Size], boxes: Boxes, classes: Sequence[str]) -> None:
    """Write ``Annotations`` of a folder whose pictures lie in ``JPEGImages``; ``names`` are relative to that.

    Pixels are whole and counted from 1. A weight of 0 becomes ``difficult``, one below 1 ``score``. A single pixel
    becomes two: loaders take a box of one for a click.
    """

    def node(parent: ElementTree.Element, name: str, value: object = None) -> ElementTree.Element:
        found = ElementTree.SubElement(parent, name)
        found.text = None if value is None else str(value)
        return found

    with staging_folder(folder) as staging:
        for image, file in _annotated(boxes, staging / "Annotations", names, ".xml"):
            root = ElementTree.Element("annotation")
            node(root, "filename", PurePosixPath(names[image]).name)
            size = node(root, "size")
            for side, value in zip(("width", "height", "depth"), (*sizes[image], 3), strict=True):
                node(size, side, value)
            for corners, label, weight in _boxes(boxes, image, sizes[image]):
                one = node(root, "object")
                node(one, "name", classes[label])
                node(one, "difficult", int(weight == 0))
                if 0 < weight < 1:
                    node(one, "score", f"{weight:.6f}")
                box = node(one, "bndbox")
                for name, value in zip(CORNERS, _voc_corners(corners, sizes[image]), strict=True):
                    node(box, name, value)
            ElementTree.indent(root)
            file.write_bytes(ElementTree.tostring(root, encoding="utf-8"))


def _voc_corners(corners: Sequence[float], size: Size) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(round, corners)
    left, top = min(left + 1, size[0]), min(top + 1, size[1])
    right, bottom = max(left, right), max(top, bottom)
    if (left, top) == (right, bottom):
        left, right = (left, right + 1) if right < size[0] else (left - 1, right)
    return left, top, right, bottom


def write_hf(folder: Path, images: Dataset) -> tuple[Skipped, ...]:
    """Write a Parquet file per split, with the pictures and a column ``objects``, as `datasets` reads it.

    Boxes are left, top, width and height in pixels of the upright picture. A weight of 0 becomes ``iscrowd``, one below
    1 ``score``; ``objects`` of an image that is not annotated is null. See ``write_tables``; a dataset card is written
    too. Raises DataError, MissingExtraError.
    """
    if not isinstance(images.regions, Boxes):
        raise DataError(f"{images.spec} has no boxes.")
    boxes, labels = images.regions, list(images.classes)

    def columns(datasets: Any) -> dict[str, Any]:
        number, box = datasets.Value("int64"), datasets.List(datasets.Value("float64"), length=4)
        one = {"bbox": box, "category": datasets.ClassLabel(names=labels)}
        one |= {"iscrowd": datasets.Value("bool"), "score": datasets.Value("float64")}
        return {"width": number, "height": number, "objects": datasets.List(one)}

    def row(image: int, picture: bytes) -> dict[str, Any]:
        width, height = sides(picture)
        objects = [
            {
                **{"bbox": _sides(corners), "category": label, "iscrowd": weight == 0},
                "score": weight if 0 < weight < 1 else None,
            }
            for corners, label, weight in _boxes(boxes, image, (width, height))
        ]
        return {"width": width, "height": height, "objects": objects if boxes.known[image] else None}

    from huggingface_hub import DatasetCardData

    about = DatasetCardData(license="unknown", task_categories=["object-detection"], tags=["gpt4image"]).to_yaml()
    counts = ", ".join(f"{len(images.indices(split))} {split}" for split in SPLITS)
    card = (
        f"---\n{about}\n---\n\n# Images with boxes\n\n{counts}. {len(images.classes)} classes. "
        "`objects` has the boxes of an image: left, top, width and height in pixels; it is null where nobody looked. "
        "`score` is the weight of a box that a model found.\n\n"
        "Written by gpt4image. Who owns the pictures, and what they may be used for, is not known here: add it.\n"
    )
    return write_tables(folder, images, columns, row, card)


def write_tables(
    folder: Path,
    images: Dataset,
    columns: Callable[[Any], Mapping[str, Any]],
    row: Callable[[int, bytes], Mapping[str, Any]],
    card: str = "",
) -> tuple[Skipped, ...]:
    """Write a Parquet file per split, with keys, pictures and other columns, as `datasets` reads it.

    Args:
        folder: gets ``data/train.parquet``, ``validation.parquet`` and ``test.parquet``.
        images: dataset whose pictures are copied as they are.
        columns: gives the features of the other columns, from the module `datasets`.
        row: gives the other cells of an image, from its position and bytes; may raise DecodeError.
        card: text of a dataset card, if there is one.

    Returns the images that cannot be read, and are left out. Raises MissingExtraError.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("Writing tables of datasets", "hf") from None
    import pyarrow as pa

    first = {"key": datasets.Value("string"), "image": datasets.Image()}
    schema, skipped = datasets.Features({**first, **columns(datasets)}).arrow_schema, list[Skipped]()

    def table(chosen: NDArray[np.int64], group: slice) -> pa.Table:  # pyright: ignore[reportUnknownParameterType]
        rows: list[dict[str, Any]] = []
        for image in chosen[group].tolist():
            try:
                picture = images.read(image)
                cells = row(image, picture)
            except (DecodeError, OSError) as error:
                skipped.append(Skipped(name=images.keys[image], reason=first_line(error)))
                continue
            rows.append({"key": images.keys[image], "image": {"bytes": picture, "path": None}, **cells})
        return pa.Table.from_pylist(rows, schema=schema)

    with staging_folder(folder) as staging:
        (staging / "data").mkdir()
        for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
            chosen = images.indices(split)
            file, groups = staging / "data" / f"{name}.parquet", row_groups(len(chosen), IMAGES_IN_GROUP)
            if len(chosen):
                write_row_groups(file, groups, functools.partial(table, chosen))
        if card:
            (staging / "README.md").write_text(card, encoding="utf-8")
    return tuple(skipped)


def readable(images: Dataset) -> tuple[list[int], list[Size], list[Skipped]]:
    """Return the positions of images that can be read, width and height of each, and the other images."""
    rows, sizes, skipped = list[int](), list[Size](), list[Skipped]()
    for row in range(len(images)):
        try:
            sizes.append(sides(images.read(row)))
            rows.append(row)
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
    return rows, sizes, skipped


def write_masks(folder: Path, names: Sequence[str], masks: Iterable[NDArray[np.uint8]], classes: Sequence[str]) -> None:
    """Write ``masks``, PNG files with a palette, and ``classes.txt`` of a folder whose pictures lie in ``images``.

    ``names`` are paths of the pictures in ``images``; ``masks`` have (height, width) class numbers of each, and are
    taken one after the other.
    """
    from PIL import Image

    with staging_folder(folder) as staging:
        for file, mask in zip(_files(staging / "masks", names, ".png"), masks, strict=True):
            picture = Image.fromarray(mask.astype(np.uint8, copy=False))
            picture.putpalette(palette().tobytes())
            picture.save(file)
        (staging / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def _boxes(boxes: Boxes, image: int, size: Size) -> Iterable[tuple[list[float], int, float]]:
    corners, labels, weights = boxes.image(image)
    pixels = corners.astype(np.float64) * np.tile(size, 2)
    return zip(pixels.tolist(), labels.tolist(), weights.astype(np.float64).tolist(), strict=True)


def _sides(corners: Sequence[float]) -> list[float]:
    left, top, right, bottom = corners
    return [left, top, right - left, bottom - top]


def _annotated(boxes: Boxes, folder: Path, names: Sequence[str], suffix: str) -> Iterable[tuple[int, Path]]:
    known = np.flatnonzero(boxes.known).tolist()
    return zip(known, _files(folder, [names[image] for image in known], suffix), strict=True)


def _files(folder: Path, names: Sequence[str], suffix: str) -> list[Path]:
    """Return a file for each picture; their folders are made."""
    files: list[Path] = []
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.name:
            raise DataError(f"The key {name!r} is no path below a folder; give the images keys such as 'train/1.jpg'.")
        files.append(folder / path.with_suffix(suffix))
    if len(set(files)) < len(files):
        twice = next(name for name, file in zip(names, files, strict=True) if files.count(file) > 1)
        raise DataError(f"{twice!r} and another key differ only in their ending, so that their files would be one.")
    folder.mkdir(parents=True, exist_ok=True)
    for parent in {file.parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    return files

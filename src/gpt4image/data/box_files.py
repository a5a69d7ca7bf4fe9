"""Datasets as files that others read: COCO JSON, YOLO and Pascal VOC, tables of `datasets`, images beside a table.

Names of pictures are paths with forward slashes, such as ``train/1.jpg``; nothing is written outside of the folder.
Images that are not annotated get no file, and are not listed.
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError, Gpt4ImageError, MissingExtraError, first_line
from gpt4image.base.files import atomic_path, make_folder, row_groups, staging_folder, write_json, write_row_groups
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.decode import EXTENSIONS, sides
from gpt4image.data.file_source import IMAGES, FileSource
from gpt4image.data.regions import Boxes
from gpt4image.data.voc import CORNERS

_NOT_XML = re.compile("[\x00-\x1f\ufffe\uffff]")  # and a line break becomes a space
Size = tuple[int, int]  # width and height in pixels
IMAGES_IN_GROUP = 100  # pictures of a table that are in memory at once


def write_coco(path: Path, names: Sequence[str], sizes: Sequence[Size], boxes: Boxes, classes: Sequence[str]) -> None:
    """Write a COCO file, atomically; ids count from 1. A weight of 0 becomes ``iscrowd``, one below 1 ``score``."""
    annotations, images = list[dict[str, Any]](), list[dict[str, Any]]()
    for image in np.flatnonzero(boxes.known).tolist():
        width, height = sizes[image]
        images.append({"id": image + 1, "file_name": names[image], "width": width, "height": height})
        for (left, top, right, bottom), label, weight in _boxes(boxes, image, sizes[image]):
            box = [round(value, 3) for value in (left, top, right - left, bottom - top)]
            one = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": label + 1, "bbox": box}
            one |= {"area": round(box[2] * box[3], 3), "iscrowd": int(weight == 0)}
            annotations.append(one | ({"score": round(weight, 6)} if 0 < weight < 1 else {}))
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})


def write_yolo(folder: Path, names: Sequence[str], boxes: Boxes, classes: Sequence[str]) -> None:
    """Write ``labels`` and ``data.yaml`` of a folder whose pictures lie in ``images``; ``names`` are relative to that.

    Lines have five values, as trainers of YOLO require: boxes of weight 0 are left out, and weights are not written.
    """
    import yaml

    tops = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    entries = {split: f"images/{name}" for name, split in SPLIT_OF.items() if name in tops} or {"train": "images"}
    note = ""
    if "val" not in entries and "train" in entries:  # trainers refuse a file without
        entries |= {"val": entries["train"]}
        note = "# No image of val is annotated, so 'val' repeats 'train': scores on it are not those on new images.\n"
    with staging_folder(folder) as staging:
        for image, file in _annotated(boxes, staging / "labels", names, ".txt"):
            lines: dict[str, None] = {}  # a line comes once
            for (left, top, right, bottom), label, weight in _boxes(boxes, image, (1, 1)):
                values = [left + (right - left) / 2, top + (bottom - top) / 2, right - left, bottom - top]
                if weight > 0:
                    lines[" ".join([str(label), *(f"{value:.6f}" for value in values)]) + "\n"] = None
            file.write_text("".join(lines), encoding="utf-8")
        text = yaml.safe_dump({**entries, "names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True)
        (staging / "data.yaml").write_text(note + text, encoding="utf-8")


def write_voc(folder: Path, names: Sequence[str], sizes: Sequence[Size], boxes: Boxes, classes: Sequence[str]) -> None:
    """Write ``Annotations`` of a folder whose pictures lie in ``JPEGImages``; ``names`` are relative to that.

    Pixels are whole and counted from 1. A weight of 0 becomes ``difficult``, one below 1 ``score``.
    """
    if odd := next((name for name in (*classes, *names) if _NOT_XML.search(name)), None):
        raise DataError(f"XML cannot hold the control characters of {odd!r}; rename it, or give another format.")
    with staging_folder(folder) as staging:
        for image, file in _annotated(boxes, staging / "Annotations", names, ".xml"):
            width, height = sizes[image]
            lines = [_element("size", {"width": width, "height": height, "depth": 3})]
            for corners, label, weight in _boxes(boxes, image, (width, height)):
                left, top, right, bottom = map(round, corners)
                left, top = min(left + 1, width), min(top + 1, height)
                right, bottom = max(left, right), max(top, bottom)
                if (left, top) == (right, bottom):  # loaders take a box of one pixel for a click
                    left, right = (left, right + 1) if right < width else (left - 1, right)
                one: dict[str, object] = {"name": classes[label], "difficult": int(weight == 0)}
                one |= {"score": f"{weight:.6f}"} if 0 < weight < 1 else {}
                box = _element("bndbox", dict(zip(CORNERS, (left, top, right, bottom), strict=True)))
                lines.append(_element("object", one, box))
            parts = {"filename": PurePosixPath(names[image]).name}
            file.write_text(_element("annotation", parts, "\n".join(lines)) + "\n", encoding="utf-8")


def _element(tag: str, texts: Mapping[str, object], inside: str = "") -> str:
    each = "".join(f"<{name}>{escape(str(text))}</{name}>" for name, text in texts.items())
    return f"<{tag}>{each}{inside}</{tag}>"


def write_hf(folder: Path, images: Dataset) -> tuple[Skipped, ...]:
    """Write a Parquet file per split with pictures and ``objects``, as `datasets` reads it; return skipped images.

    Boxes are left, top, width and height in pixels; ``objects`` of an image that is not annotated is null.
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
        objects: list[dict[str, Any]] = [
            {"bbox": [left, top, right - left, bottom - top], "category": label, "iscrowd": weight == 0}
            | {"score": weight if 0 < weight < 1 else None}
            for (left, top, right, bottom), label, weight in _boxes(boxes, image, (width, height))
        ]
        return {"width": width, "height": height, "objects": objects if boxes.known[image] else None}

    return write_tables(folder, images, columns, row)


def write_tables(
    folder: Path,
    images: Dataset,
    columns: Callable[[Any], Mapping[str, Any]],
    row: Callable[[int, bytes], Mapping[str, Any]],
) -> tuple[Skipped, ...]:
    """Write a Parquet file per split, with keys, pictures and other columns, as `datasets` reads it.

    ``columns`` gives the features of the others from the module `datasets`, ``row`` the cells of an image by its
    position and bytes. Returns the images that cannot be read. Raises MissingExtraError.
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
                skipped.append(Skipped(images.keys[image], first_line(error)))
                continue
            rows.append({"key": images.keys[image], "image": {"bytes": picture, "path": None}, **cells})
        return pa.Table.from_pylist(rows, schema=schema)

    with staging_folder(folder) as staging:
        (staging / "data").mkdir()
        for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
            if len(chosen := images.indices(split)):
                groups = row_groups(len(chosen), IMAGES_IN_GROUP)
                write_row_groups(staging / "data" / f"{name}.parquet", groups, functools.partial(table, chosen))
    return tuple(skipped)


def readable(images: Dataset) -> tuple[list[int], list[Size], list[Skipped]]:
    """Return the positions of images that can be read, width and height of each, and the other images."""
    rows, sizes, skipped = list[int](), list[Size](), list[Skipped]()
    for row in range(len(images)):
        try:
            sizes.append(sides(images.read(row)))
            rows.append(row)
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(images.keys[row], first_line(error)))
    return rows, sizes, skipped


def _boxes(boxes: Boxes, image: int, size: Size) -> Iterable[tuple[list[float], int, float]]:
    corners, labels, weights = boxes.image(image)
    pixels = corners.astype(np.float64) * np.tile(size, 2)
    return zip(pixels.tolist(), labels.tolist(), weights.astype(np.float64).tolist(), strict=True)


def _annotated(boxes: Boxes, folder: Path, names: Sequence[str], suffix: str) -> Iterator[tuple[int, Path]]:
    """Yield the images that are annotated, and a file for each; its folder is made."""
    seen: set[Path] = set()
    folder.mkdir(parents=True)
    for image in np.flatnonzero(boxes.known).tolist():
        name, path = names[image], PurePosixPath(names[image])
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.name:
            raise DataError(f"The key {name!r} is no path below a folder; give the images keys such as 'train/1.jpg'.")
        file = folder / path.with_suffix(suffix)
        if file in seen:
            raise DataError(f"{name!r} and another key differ only in their ending, so that their files would be one.")
        seen.add(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        yield image, file


def write_beside(table: Path, images: Dataset) -> tuple[list[str], dict[int, Skipped]]:
    """Write images to a folder beside a table; return their paths from it, and the rows that cannot be read.

    They are hard links where the disk allows it, else copies. A name is a digest, so that one that is there stays.
    """
    folder = table.with_suffix(IMAGES)
    places, unread = list[str](), dict[int, Skipped]()
    with progress_bar() as progress:
        for row in progress.track(range(len(images)), description=f"writing images to {folder}"):
            suffix = Path(images.keys[row]).suffix.lower()
            file = folder / (images.digests[row] + (suffix if suffix in EXTENSIONS else ""))
            places.append(f"{folder.name}/{file.name}")
            if isinstance(images.source, FileSource):
                with contextlib.suppress(OSError):  # it is there, or on another disk
                    make_folder(folder)
                    os.link(os.path.realpath(images.source.path(int(images.rows[row]))), file)
            if not file.is_file():
                try:
                    content = images.read(row)
                except (OSError, Gpt4ImageError) as error:
                    unread[row] = Skipped(name=images.keys[row], reason=str(error))
                    continue
                with atomic_path(file) as temporary:
                    temporary.write_bytes(content)
    return places, unread

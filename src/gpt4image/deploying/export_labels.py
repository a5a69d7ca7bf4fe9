"""The stage export-labels: targets as labels that other programs read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.artifacts.box_table import BoxLabels, holds_boxes
from gpt4image.artifacts.text_labels import TextLabels
from gpt4image.base.errors import ConfigError, DataError, DecodeError, MissingExtraError, first_line
from gpt4image.base.files import make_folder, row_groups, staging_folder, write_json, write_row_groups, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import csv_cell
from gpt4image.config import ExportLabelsConfig
from gpt4image.config.results import ExportLabelsResult
from gpt4image.data import ImageSet, load_image_set
from gpt4image.data.box_files import IMAGES_IN_GROUP, write_coco, write_hf, write_voc, write_yolo
from gpt4image.data.decode import EXTENSIONS, sides
from gpt4image.data.file_source import FileSource
from gpt4image.data.labels import SEPARATOR
from gpt4image.data.regions import Boxes

PRESENT = 0.5  # probability from which on one of several classes is written
LONGEST = 200  # characters of a file name
LOCAL_FILES = "/data/local-files/?d="  # how Label Studio names files of its own machine
FORMATS = {
    "classification": ("csv", "folder", "hf", "label-studio"),
    "multilabel": ("csv", "hf", "label-studio"),
    "boxes": ("csv", "coco", "yolo", "voc", "hf", "label-studio"),
}


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """N images with what the targets say of each: its classes, best first, with their probabilities; or boxes."""

    images: ImageSet
    classes: tuple[str, ...]
    kind: str
    named: Sequence[Sequence[tuple[int, float]]] = ()
    boxes: Boxes | None = None


def export_labels(config: ExportLabelsConfig) -> ExportLabelsResult:
    """Write the targets of a dataset's images as labels in a format of other programs.

    An image without a target, or with one less sure than ``least_confidence``, is left out; a box likewise.

    Raises:
        ConfigError: the format cannot hold these targets, or ``out`` is there already.
        DataError: the dataset cannot be read, or no image has a target that is sure enough.
        TableError: the targets cannot be read.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise ConfigError(f"--out {config.out} exists already; give a new name.")
    images = load_image_set(config.data)
    found = (_boxes if holds_boxes(config.targets) else _classes)(config, images)
    if config.format not in FORMATS[found.kind]:
        allowed = ", ".join(FORMATS[found.kind])
        raise ConfigError(f"--format {config.format} cannot hold targets of {found.kind}; give one of {allowed}.")
    make_folder(config.out.parent)
    skipped = _WRITERS[config.format](config.out, found)
    return ExportLabelsResult(
        path=config.out,
        format=config.format,
        images=len(found.images) - len(skipped),
        left_out=len(images) - len(found.images),
        boxes=None if found.boxes is None else len(found.boxes.labels),
        skipped=(*images.skipped, *skipped),
    )


def _classes(config: ExportLabelsConfig, images: ImageSet) -> Labelled:
    targets = TextLabels.load(config.targets)
    probabilities = np.nan_to_num(targets.of(images.digests)[:])
    several = targets.facts.task == "multilabel"
    least = max(config.least_confidence, PRESENT if several else np.finfo(np.float32).tiny)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    named = [
        [(k, float(row[k])) for k in best.tolist() if row[k] >= least]
        for row, best in zip(probabilities, order if several else order[:, :1], strict=True)
    ]
    kept = _some([row for row, names in enumerate(named) if names], config)
    return Labelled(
        images=images.select(kept),
        classes=targets.classes,
        kind="multilabel" if several else "classification",
        named=[named[row] for row in kept],
    )


def _boxes(config: ExportLabelsConfig, images: ImageSet) -> Labelled:
    file = BoxLabels.load(config.targets)
    found = file.by_digest(images.digests)
    kept = _some(np.flatnonzero(found.known).tolist(), config)
    boxes = found[kept]
    sure: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    for corners, labels, weights in map(boxes.image, range(len(kept))):
        enough = weights >= config.least_confidence
        sure.append((corners[enough], labels[enough], weights[enough]))
    return Labelled(images=images.select(kept), classes=file.classes, kind="boxes", boxes=Boxes.of_images(sure))


def _some(rows: list[int], config: ExportLabelsConfig) -> list[int]:
    """Return these rows. Raises DataError: there are none."""
    if not rows:
        least = f"{config.least_confidence:g}"
        raise DataError(f"{config.targets}: no image of {config.data} has a target of {least} or more.")
    return rows


def _copied(folder: Path, found: Labelled, name_of: Callable[[int], str]) -> tuple[list[int], list[Skipped]]:
    """Write the images of which ``name_of`` gives a path below a folder; return the rows of these, and the others."""
    rows, skipped, images = list[int](), list[Skipped](), found.images
    with progress_bar() as progress:
        for row in progress.track(range(len(images)), description=f"copying images to {folder.name}"):
            place = folder / name_of(row)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                if isinstance(images.source, FileSource):
                    _link(images.source.path(int(images.rows[row])), place)
                else:
                    place.write_bytes(images.read(row))
                rows.append(row)
            except (DecodeError, OSError) as error:
                skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
    return rows, skipped


def _link(file: str, place: Path) -> None:
    """Give a file a second name, or copy it to another disk."""
    try:
        os.link(os.path.realpath(file), place)
    except OSError:
        place.write_bytes(Path(file).read_bytes())


def _file_name(images: ImageSet, row: int) -> str:
    """Return the name of an image as a file: its key without folders, or its digest where that is no name."""
    name = images.keys[row].replace("/", "__").replace("\\", "__")
    if name.startswith(".") or len(name) > LONGEST or not name.isprintable():
        name = images.digests[row] + PurePosixPath(name).suffix
    if PurePosixPath(name).suffix.lower() not in EXTENSIONS:
        try:
            with Image.open(io.BytesIO(images.read(row))) as picture:
                name += f".{(picture.format or 'png').lower()}"
        except (OSError, ValueError, Image.DecompressionBombError):  # it is skipped when it is decoded
            name += ".png"
    return name


def _in_split(images: ImageSet, row: int) -> str:
    return f"{images.splits[row]}/{_file_name(images, row)}"


def _write_csv(out: Path, found: Labelled) -> list[Skipped]:
    """Write a table: of classes one that ``manifest:`` reads, where the images are files; of boxes a row per box."""
    images, lines = found.images, list[list[str]]()
    if found.boxes is not None:
        lines.append(["key", "digest", "class", "left", "top", "right", "bottom", "weight"])
        for row in range(len(images)):
            for corners, label, weight in zip(*found.boxes.image(row), strict=True):
                numbers = [f"{value:.6f}" for value in (*corners.tolist(), float(weight))]
                lines.append([images.keys[row], images.digests[row], found.classes[label], *numbers])
    else:
        column = "labels" if found.kind == "multilabel" else "label"
        files = isinstance(images.source, FileSource)
        lines.append([*(["path"] if files else []), "key", column, "split", "digest", "confidence"])
        for row, names in enumerate(found.named):
            label = SEPARATOR.join(found.classes[k] for k, _ in names)
            shares = SEPARATOR.join(f"{share:.4f}" for _, share in names)
            path = [_path(out, images, row)] if files else []
            lines.append([*path, images.keys[row], label, str(images.splits[row]), images.digests[row], shares])
    write_text(out, "".join(",".join(map(_cell, line)) + "\n" for line in lines))
    return []


def _cell(text: str) -> str:
    text = csv_cell(text)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n\r') else text


def _path(out: Path, images: ImageSet, row: int) -> str:
    """Return the path of an image from the folder of a file; its key where it is no file."""
    if not isinstance(images.source, FileSource):
        return images.keys[row]
    return os.path.relpath(images.source.path(int(images.rows[row])), out.parent.absolute())


def _write_folder(out: Path, found: Labelled) -> list[Skipped]:
    """Write ``train/CLASS/IMAGE`` and so on, as ``folder:`` and torchvision's ImageFolder read it."""
    if strange := next((name for name in found.classes if "/" in name or name.startswith(".")), None):
        raise DataError(f"The class {strange!r} cannot be a folder; give another --format.")

    def name_of(row: int) -> str:
        images = found.images
        return f"{images.splits[row]}/{found.classes[found.named[row][0][0]]}/{_file_name(images, row)}"

    with staging_folder(out) as staging:
        return _copied(staging, found, name_of)[1]


def _write_hf(out: Path, found: Labelled) -> list[Skipped]:
    """Write a Parquet file per split, with the pictures, as `datasets` reads it."""
    images = found.images
    if found.boxes is not None:
        present = np.zeros((len(images), len(found.classes)), np.int8)
        for row in range(len(images)):
            present[row, found.boxes.image(row)[1]] = 1
        return list(write_hf(out, replace(images, regions=found.boxes, classes=found.classes, labels=present)))
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("Writing tables of datasets", "hf") from None
    several, label = found.kind == "multilabel", datasets.ClassLabel(names=list(found.classes))
    number = datasets.Value("float32")
    columns = {"key": datasets.Value("string"), "image": datasets.Image()}
    columns |= (
        {"labels": datasets.List(label), "confidences": datasets.List(number)}
        if several
        else {"label": label, "confidence": number}
    )
    schema, skipped = datasets.Features(columns).arrow_schema, list[Skipped]()

    def table(chosen: NDArray[np.int64], group: slice) -> Any:
        import pyarrow as pa

        rows: list[dict[str, Any]] = []
        for row in chosen[group].tolist():
            try:
                picture = {"bytes": images.read(row), "path": _file_name(images, row)}
            except OSError as error:
                skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
                continue
            numbers, shares = zip(*found.named[row], strict=True)
            said = (
                {"labels": numbers, "confidences": shares}
                if several
                else {"label": numbers[0], "confidence": shares[0]}
            )
            rows.append({"key": images.keys[row], "image": picture, **said})
        return pa.Table.from_pylist(rows, schema=schema)

    with staging_folder(out) as staging:
        (staging / "data").mkdir()
        for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
            if len(chosen := images.indices(split)):
                file = staging / "data" / f"{name}.parquet"
                write_row_groups(file, row_groups(len(chosen), IMAGES_IN_GROUP), partial(table, chosen))
    return skipped


def _write_coco(out: Path, found: Labelled) -> list[Skipped]:
    rows, sizes, skipped = _sizes(found.images)
    write_coco(out, [_path(out, found.images, row) for row in rows], sizes, _of(found, rows), found.classes)
    return skipped


def _write_yolo(out: Path, found: Labelled) -> list[Skipped]:
    rows, skipped = _copied(out / "images", found, partial(_in_split, found.images))
    write_yolo(out, [_in_split(found.images, row) for row in rows], _of(found, rows), found.classes)
    return skipped


def _write_voc(out: Path, found: Labelled) -> list[Skipped]:
    rows, sizes, skipped = _sizes(found.images)
    names = [_in_split(found.images, row) for row in rows]
    _copied(out / "JPEGImages", replace(found, images=found.images.select(rows)), names.__getitem__)
    write_voc(out, names, sizes, _of(found, rows), found.classes)
    return skipped


def _write_tasks(out: Path, found: Labelled) -> list[Skipped]:
    """Write tasks of Label Studio, whose predictions are choices or rectangles."""
    rows, sizes, skipped = _sizes(found.images) if found.boxes is not None else ([*range(len(found.images))], [], [])
    tasks: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        if found.boxes is not None:
            width, height = sizes[place]
            size = {"original_width": width, "original_height": height, "image_rotation": 0}
            results = [
                {
                    "from_name": "label", "to_name": "image", "type": "rectanglelabels", "score": float(weight), **size,
                    "value": {"x": 100 * left, "y": 100 * top, "width": 100 * (right - left),
                              "height": 100 * (bottom - top), "rotation": 0, "rectanglelabels": [found.classes[label]]},
                }
                for (left, top, right, bottom), label, weight in zip(
                    *(part.tolist() for part in found.boxes.image(row)), strict=True
                )
            ]  # fmt: skip
            score = float(found.boxes.image(row)[2].min(initial=1.0))
        else:
            names = [found.classes[k] for k, _ in found.named[row]]
            results = [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": names}}]
            score = min(share for _, share in found.named[row])
        data = {"image": f"{LOCAL_FILES}{quote(_path(out, found.images, row))}", "key": found.images.keys[row]}
        prediction = {"result": results, "score": score, "model_version": "gpt4image"}
        tasks.append({"data": {**data, "digest": found.images.digests[row]}, "predictions": [prediction]})
    write_json(out, tasks, checksum=False)
    return skipped


def _of(found: Labelled, rows: list[int]) -> Boxes:
    """Return the boxes of some images of targets that are boxes, as ``FORMATS`` says."""
    assert found.boxes is not None  # noqa: S101
    return found.boxes[rows]


def _sizes(images: ImageSet) -> tuple[list[int], list[tuple[int, int]], list[Skipped]]:
    """Return the rows of images that can be read, width and height of each, and the others."""
    rows, sizes, skipped = list[int](), list[tuple[int, int]](), list[Skipped]()
    for row in range(len(images)):
        try:
            sizes.append(sides(images.read(row)))
            rows.append(row)
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
    return rows, sizes, skipped


_WRITERS: dict[str, Callable[[Path, Labelled], list[Skipped]]] = {
    "csv": _write_csv,
    "folder": _write_folder,
    "hf": _write_hf,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
    "label-studio": _write_tasks,
}

"""The stage export-labels: targets as labels that other programs read."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.artifacts.targets import BoxLabels, Targets, holds_boxes
from gpt4image.base.errors import ConfigError, DataError, first_line
from gpt4image.base.files import make_folder, staging_folder, write_json, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import csv_line
from gpt4image.config import ExportLabelsConfig
from gpt4image.config.results import ExportLabelsResult
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.box_files import readable, write_coco, write_hf, write_tables, write_voc, write_yolo
from gpt4image.data.dataset import SEPARATOR
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import FileSource
from gpt4image.data.regions import Boxes

PRESENT = 0.5  # probability from which on one of several classes is written
LONGEST = 200  # characters of a file name


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """N images with what the targets say of each: ``named`` classes, best first, with their probabilities; or boxes."""

    images: Dataset
    classes: tuple[str, ...]
    kind: str
    named: Sequence[Sequence[tuple[int, float]]] = ()
    boxes: Boxes = field(default_factory=lambda: Boxes.of_images([]))


def export_labels(config: ExportLabelsConfig) -> ExportLabelsResult:
    """Write the targets of a dataset's images as labels in a format of other programs.

    An image without a target, or with one less sure than ``least_confidence``, is left out; a box likewise. Raises
    ConfigError: the format cannot hold these targets, or ``out`` is there already; DataError, TableError: what is to be
    read cannot be, or no image has a target that is sure enough.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise ConfigError(f"--out {config.out} exists already; give a new name.")
    images = load_dataset(config.data)
    found = (_boxes if holds_boxes(config.targets) else _classes)(config, images)
    write, kinds = _WRITERS[config.format]
    if found.kind not in kinds:
        allowed = ", ".join(name for name, (_, others) in _WRITERS.items() if found.kind in others)
        raise ConfigError(f"--format {config.format} cannot hold targets of {found.kind}; give one of {allowed}.")
    make_folder(config.out.parent)
    skipped = write(config.out, found)
    return ExportLabelsResult(
        path=config.out,
        format=config.format,
        images=len(found.images) - len(skipped),
        left_out=len(images) - len(found.images),
        boxes=len(found.boxes.labels) if found.kind == "boxes" else None,
        skipped=(*images.skipped, *skipped),
    )


def _kept(config: ExportLabelsConfig, images: Dataset, rows: NDArray[np.int64]) -> Dataset:
    if not len(rows):
        least = f"{config.least_confidence:g}"
        raise DataError(f"{config.targets}: no image of {config.data} has a target of {least} or more.")
    return images.select(rows)


def _classes(config: ExportLabelsConfig, images: Dataset) -> Labelled:
    targets = Targets.load(config.targets)
    probabilities = np.nan_to_num(targets.of(images.digests)[:])
    several = targets.facts.task == "multilabel"
    least = max(config.least_confidence, PRESENT if several else np.finfo(np.float32).tiny)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    named = [
        [(k, float(row[k])) for k in best.tolist() if row[k] >= least]
        for row, best in zip(probabilities, order if several else order[:, :1], strict=True)
    ]
    return Labelled(
        images=_kept(config, images, np.flatnonzero([bool(names) for names in named])),
        classes=targets.classes,
        kind="multilabel" if several else "classification",
        named=[names for names in named if names],
    )


def _boxes(config: ExportLabelsConfig, images: Dataset) -> Labelled:
    file = BoxLabels.load(config.targets)
    found = file.by_digest(images.digests)
    kept = np.flatnonzero(found.known)
    boxes = found[kept]
    sure = boxes.only(boxes.weights >= config.least_confidence)
    return Labelled(images=_kept(config, images, kept), classes=file.classes, kind="boxes", boxes=sure)


def _copied(folder: Path, images: Dataset, names: Sequence[str]) -> tuple[list[int], list[Skipped]]:
    """Write images under their names below a folder; return the positions of these, and the others."""
    rows, skipped = list[int](), list[Skipped]()
    with progress_bar() as progress:
        for row in progress.track(range(len(images)), description=f"copying images to {folder.name}"):
            place = folder / names[row]
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                if isinstance(images.source, FileSource):
                    with contextlib.suppress(OSError):  # a second name takes no room; another disk gets a copy
                        os.link(os.path.realpath(images.source.path(int(images.rows[row]))), place)
                if not place.exists():
                    place.write_bytes(images.read(row))
                rows.append(row)
            except OSError as error:
                skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
    return rows, skipped


def _file_names(images: Dataset, folders: Sequence[str] = ()) -> list[str]:
    """Return SPLIT/FOLDER/NAME of each image, of which no two differ only in their ending."""
    found: dict[str, str] = {}
    for row in range(len(images)):
        path = PurePosixPath(images.splits[row], *folders[row : row + 1], _file_name(images, row))
        stem = path.with_suffix("").as_posix()
        while stem in found:
            stem += "_"
        found[stem] = stem + path.suffix
    return list(found.values())


def _file_name(images: Dataset, row: int) -> str:
    """Return the key of an image without folders, or its digest where that is no name."""
    name = images.keys[row].replace("/", "__").replace("\\", "__")
    if name.startswith(".") or len(name) > LONGEST or not name.isprintable():
        name = images.digests[row] + PurePosixPath(name).suffix
    if PurePosixPath(name).suffix.lower() not in EXTENSIONS:
        kind = "png"
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError):  # skipped when it is decoded
            kind = Image.open(io.BytesIO(images.read(row))).format or kind
        name += f".{kind.lower()}"
    return name


def _write_csv(out: Path, found: Labelled) -> list[Skipped]:
    """Write a table: of classes one that ``manifest:`` reads, where the images are files; of boxes a row per box."""
    images, lines = found.images, list[list[str]]()
    if found.kind == "boxes":
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
    write_text(out, "".join(map(csv_line, lines)))
    return []


def _path(out: Path, images: Dataset, row: int) -> str:
    """Return the path of an image from the folder of a file; its key where it is no file."""
    if not isinstance(images.source, FileSource):
        return images.keys[row]
    return os.path.relpath(images.source.path(int(images.rows[row])), out.parent.absolute())


def _write_folder(out: Path, found: Labelled) -> list[Skipped]:
    """Write ``train/CLASS/IMAGE`` and so on, as ``folder:`` and torchvision's ImageFolder read it."""
    if strange := next((name for name in found.classes if "/" in name or name.startswith(".")), None):
        raise DataError(f"The class {strange!r} cannot be a folder; give another --format.")

    images = found.images
    names = _file_names(images, [found.classes[named[0][0]] for named in found.named])
    with staging_folder(out) as staging:
        return _copied(staging, images, names)[1]


def _write_hf(out: Path, found: Labelled) -> list[Skipped]:
    """Write a Parquet file per split, with the pictures, as `datasets` reads it."""
    images = found.images
    if found.kind == "boxes":
        present = found.boxes.presence(len(found.classes))
        return list(write_hf(out, replace(images, regions=found.boxes, classes=found.classes, labels=present)))
    several = found.kind == "multilabel"

    def columns(datasets: Any) -> dict[str, Any]:
        label, number = datasets.ClassLabel(names=list(found.classes)), datasets.Value("float32")
        if several:
            return {"labels": datasets.List(label), "confidences": datasets.List(number)}
        return {"label": label, "confidence": number}

    def cells(image: int, _picture: bytes) -> dict[str, Any]:
        numbers, shares = zip(*found.named[image], strict=True)
        if several:
            return {"labels": numbers, "confidences": shares}
        return {"label": numbers[0], "confidence": shares[0]}

    return list(write_tables(out, images, columns, cells))


def _write_coco(out: Path, found: Labelled) -> list[Skipped]:
    rows, sizes, skipped = readable(found.images)
    names = [_path(out, found.images, row) for row in rows]
    write_coco(out, names, sizes, found.boxes[rows], found.classes)
    return skipped


def _write_yolo(out: Path, found: Labelled) -> list[Skipped]:
    names = _file_names(found.images)
    rows, skipped = _copied(out / "images", found.images, names)
    write_yolo(out, [names[row] for row in rows], found.boxes[rows], found.classes)
    return skipped


def _write_voc(out: Path, found: Labelled) -> list[Skipped]:
    rows, sizes, skipped = readable(found.images)
    images = found.images.select(rows)
    names = _file_names(images)
    _copied(out / "JPEGImages", images, names)
    write_voc(out, names, sizes, found.boxes[rows], found.classes)
    return skipped


def _write_tasks(out: Path, found: Labelled) -> list[Skipped]:
    """Write tasks of Label Studio, whose predictions are choices or rectangles."""
    images, skipped, tasks, said = found.images, list[Skipped](), list[dict[str, Any]](), list[list[dict[str, Any]]]()
    named: dict[str, Any] = {"from_name": "label", "to_name": "image"}
    if found.kind == "boxes":
        rows, sizes, skipped = readable(images)
        for row, (width, height) in zip(rows, sizes, strict=True):
            about = {"type": "rectanglelabels", "original_width": width, "original_height": height, "image_rotation": 0}
            said.append([])
            for (left, top, right, bottom), label, weight in zip(
                *map(np.ndarray.tolist, found.boxes.image(row)), strict=True
            ):
                place = {"x": 100 * left, "y": 100 * top, "width": 100 * (right - left), "height": 100 * (bottom - top)}
                value = {**place, "rotation": 0, "rectanglelabels": [found.classes[label]]}
                said[-1].append(named | about | {"score": weight, "value": value})
        scores = [float(found.boxes.image(row)[2].min(initial=1.0)) for row in rows]
    else:
        rows = range(len(images))
        choices = ([found.classes[k] for k, _ in names] for names in found.named)
        said = [[named | {"type": "choices", "value": {"choices": names}}] for names in choices]
        scores = [min(share for _, share in names) for names in found.named]
    for row, result, score in zip(rows, said, scores, strict=True):
        place = f"/data/local-files/?d={quote(_path(out, images, row))}"  # on the machine of Label Studio
        data = {"image": place, "key": images.keys[row], "digest": images.digests[row]}
        guess = {"result": result, "score": score, "model_version": "gpt4image"}
        tasks.append({"data": data, "predictions": [guess]})
    write_json(out, tasks, checksum=False)
    return skipped


_EVERY = ("classification", "multilabel", "boxes")
_WRITERS: dict[str, tuple[Callable[[Path, Labelled], list[Skipped]], tuple[str, ...]]] = {
    "csv": (_write_csv, _EVERY),
    "folder": (_write_folder, ("classification",)),
    "hf": (_write_hf, _EVERY),
    "coco": (_write_coco, ("boxes",)),
    "yolo": (_write_yolo, ("boxes",)),
    "voc": (_write_voc, ("boxes",)),
    "label-studio": (_write_tasks, _EVERY),
}
"""Formats: what writes them, and the kinds of targets that they hold."""

"""The stage export-labels: targets, or predictions of a model, as labels that other programs read."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.artifacts.answers import apart
from gpt4image.artifacts.targets import BoxLabels, Facts, Targets, load_targets
from gpt4image.base.errors import ConfigError, DataError, DecodeError, first_line
from gpt4image.base.files import make_folder, staging_folder, write_json, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import csv_line
from gpt4image.config import ExportLabelsConfig
from gpt4image.config.results import ExportLabelsResult
from gpt4image.data import Dataset, annotation, load_with_splits
from gpt4image.data.box_files import readable, write_beside, write_coco, write_hf, write_tables, write_voc, write_yolo
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import FileSource, is_below
from gpt4image.data.label_studio import LABEL_STUDIO, LOCAL_FILES
from gpt4image.data.labels import SEPARATOR
from gpt4image.data.manifest import BOXES
from gpt4image.data.regions import Boxes, ImageBoxes
from gpt4image.deploying.preprocessing import as_images
from gpt4image.reviewing.labels_file import boxes_value

FOLDERS = ("coco", "folder", "hf", "voc", "yolo")
"""Formats that are a folder."""
PRESENT = 0.5  # probability from which on one of several classes is written
LONGEST = 200  # characters of a file name
BATCH = 16  # images that a model predicts at a time
LEAST_SCORE, MOST_OVERLAP = 0.3, 0.6  # of predicted boxes, as in `predict`


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """N images with what is said of each: ``named`` classes, best first, with their probabilities; or boxes.

    ``human`` (N,) says of which this is the label that people gave, ``told`` (N,) of which anything is said.
    """

    images: Dataset
    classes: tuple[str, ...]
    human: NDArray[np.bool_]
    told: NDArray[np.bool_]
    kind: str = "boxes"
    named: Sequence[Sequence[tuple[int, float]]] = ()
    boxes: Boxes = field(default_factory=lambda: Boxes.of_images([]))


def export_labels(config: ExportLabelsConfig) -> ExportLabelsResult:
    """Write the targets of a dataset's images, or what a model predicts, as labels in a format of other programs.

    Images of val and test have the labels that people gave, and so have others without a target. An image without both
    is left out (of Label Studio's tasks: has no prediction), and a target or box less sure than ``least_confidence``.
    Raises ConfigError: the format cannot hold these targets, or ``out`` is there already; DataError, TableError,
    ModelError: what is to be read cannot be, or nothing is left.
    """
    made = [config.out, *([config.out.with_suffix(".xml")] if config.format == LABEL_STUDIO else [])]
    if there := next((out for out in made if out.exists() and (not out.is_dir() or any(out.iterdir()))), None):
        raise ConfigError(f"--out {there} exists already; give a new name.")
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    if config.model is not None:
        file, unread = _predictions(config.model, images, config.least_confidence)
    else:
        file, unread = load_targets(cast(Path, config.targets)), []
    found = _boxes(config, images, file) if isinstance(file, BoxLabels) else _classes(config, images, file)
    write, kinds = _WRITERS[config.format]
    if found.kind not in kinds:
        allowed = ", ".join(name for name, (_, others) in _WRITERS.items() if found.kind in others)
        raise ConfigError(f"--format {config.format} cannot hold targets of {found.kind}; give one of {allowed}.")
    if config.format in FOLDERS:  # moved into place as a whole
        with staging_folder(config.out.parent) as staging:
            skipped = write(staging / config.out.name, found)
    else:
        make_folder(config.out.parent)
        skipped = write(config.out, found)
    return ExportLabelsResult(
        path=config.out,
        wrote=tuple(made),
        format=config.format,
        images=len(found.images) - len(skipped),
        human_labels=int(found.human.sum()),
        left_out=len(images) - len(found.images),
        boxes=len(found.boxes.labels) if found.kind == "boxes" else None,
        skipped=(*images.skipped, *{item.name: item for item in (*unread, *skipped)}.values()),
    )


def _predictions(path: Path, images: Dataset, least: float) -> tuple[Targets | BoxLabels, list[Skipped]]:
    """Return what a model predicts in the form of targets, and the images that cannot be decoded.

    An image that is none of the classes has no target. Of boxes that overlap the best is kept, as ``predict`` does.
    """
    from gpt4image.deploying.loading import load_classifier

    model, skipped = load_classifier(path), list[Skipped]()
    facts = Facts(task=model.task.name, classes=model.classes)
    if model.task.output == "mask":
        raise ConfigError(f"= {path}: masks cannot be written; `predict --draw DIR` writes them.", field="model")
    is_boxes, reject = model.task.output == "boxes", model.task.decision.reject
    found: list[Any] = [None] * len(images)
    with progress_bar() as progress:
        for start in progress.track(range(0, len(images), BATCH), description="predicting"):
            rows, pixels = list[int](), list[NDArray[np.uint8]]()
            for row in range(start, min(start + BATCH, len(images))):
                try:
                    pixels.append(model.preprocessing.pixels(images.read(row)))
                    rows.append(row)
                except (DecodeError, OSError) as error:
                    skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
            if not rows:
                continue
            outputs, *known = model.read(as_images(np.stack(pixels)))
            strange = known[0] < reject.share if known and reject else np.zeros(len(rows), np.bool_)
            for row, output, is_none in zip(rows, outputs, strange.tolist(), strict=True):
                found[row] = None if is_none else _best(output, least or LEAST_SCORE) if is_boxes else output
    same: dict[str, Any] = {"keys": images.keys, "digests": images.digests, "facts": facts}
    if is_boxes:
        return BoxLabels(**same, boxes=Boxes.of_images(found), human=np.zeros(len(images), np.bool_)), skipped
    nothing = np.full(len(facts.classes), np.nan, np.float32)
    shares = np.stack([nothing if one is None else one for one in found])
    labels = images.with_classes(facts.classes, f"--model {path}").labels
    nobody = np.zeros(len(images), np.bool_)
    return Targets(**same, splits=images.splits, labels=labels, probabilities=shares, out_of_fold=nobody), skipped


def _best(rows: NDArray[np.float32], least: float) -> ImageBoxes:
    """Return the boxes (n, 6) of an image that are sure enough, without those that overlap a better one."""
    rows = rows[rows[:, 4] >= least]
    kept = apart(rows[:, :4], MOST_OVERLAP)
    return rows[kept, :4], rows[kept, 5].astype(np.int64), rows[kept, 4]


def _among(config: ExportLabelsConfig, images: Dataset, classes: tuple[str, ...], sure: NDArray[np.bool_]) -> Labelled:
    """Return the images with a target that is ``sure`` (N,) enough, or a label of people: in train, where none is.
    Of Label Studio's tasks all images, since people label the others there."""
    source = f"--targets {config.targets}" if config.model is None else f"--model {config.model}"
    own = images.with_classes(classes, source)
    known = annotation.known(own.labels if own.regions is None else own.regions)
    human = known & ((own.splits != "train") | ~sure)
    told = human | sure
    if not told.any():
        least = f"{config.least_confidence:g}"
        raise DataError(f"{source}: no image of {config.data} has a target of {least} or more.")
    rows = np.arange(len(own)) if config.format == LABEL_STUDIO else np.flatnonzero(told)
    return Labelled(images=own.select(rows), classes=classes, human=human[rows], told=told[rows])


def _classes(config: ExportLabelsConfig, images: Dataset, targets: Targets) -> Labelled:
    several = targets.facts.task == "multilabel"
    least = max(config.least_confidence, PRESENT if several else np.finfo(np.float32).tiny)

    def shares(of: Dataset) -> NDArray[np.float32]:
        return np.nan_to_num(targets.of(of.digests)[:])

    found = _among(config, images, targets.classes, np.asarray((shares(images) >= least).any(axis=1)))
    number, named = {name: k for k, name in enumerate(targets.classes)}, list[list[tuple[int, float]]]()
    for row, probabilities in enumerate(shares(found.images)):
        if found.human[row]:
            named.append([(number[name], 1.0) for name in found.images.label_names(row)])
            continue
        order = np.argsort(-probabilities, kind="stable")[: None if several else 1].tolist()
        named.append([(k, float(probabilities[k])) for k in order if probabilities[k] >= least])
    return replace(found, kind="multilabel" if several else "classification", named=named)


def _boxes(config: ExportLabelsConfig, images: Dataset, file: BoxLabels) -> Labelled:
    found = _among(config, images, file.classes, file.by_digest(images.digests).known)
    boxes, own = file.by_digest(found.images.digests), found.images.regions
    boxes = boxes.only(boxes.weights >= config.least_confidence)
    if isinstance(own, Boxes):
        rows = np.flatnonzero(found.human)
        boxes = boxes.replaced(rows, own[rows])
    return replace(found, boxes=boxes)


def _copied(folder: Path, images: Dataset, names: Sequence[str]) -> tuple[list[int], list[Skipped]]:
    """Write images under their names below a folder; return the positions of these, and the others."""
    rows, skipped = list[int](), list[Skipped]()
    with progress_bar() as progress:
        for row in progress.track(range(len(images)), description=f"copying images to {folder.name}"):
            place = folder / names[row]
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(images.source, FileSource):
                with contextlib.suppress(OSError):  # a second name takes no room; another disk gets a copy
                    os.link(os.path.realpath(images.source.path(int(images.rows[row]))), place)
            if not place.exists():
                try:
                    content = images.read(row)
                except OSError as error:
                    skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
                    continue
                place.write_bytes(content)
            rows.append(row)
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
    """Write a table that ``manifest:`` reads; labels of people have no confidence."""
    images, column = found.images, {"classification": "label", "multilabel": "labels"}.get(found.kind, BOXES)
    paths, skipped = _placed(out, images)
    lines = [["path", "key", column, "split", "digest", "confidence"]]
    for row, path in paths.items():
        if found.kind == "boxes":
            label, shares = json.dumps(boxes_value(found.boxes, row, found.classes), ensure_ascii=False), []
        else:
            label = SEPARATOR.join(found.classes[k] for k, _ in found.named[row]) or SEPARATOR
            shares = [] if found.human[row] else [f"{share:.4f}" for _, share in found.named[row]]
        split, digest = str(images.splits[row]), images.digests[row]
        lines.append([path, images.keys[row], label, split, digest, SEPARATOR.join(shares)])
    write_text(out, "".join(map(csv_line, lines)))
    return skipped


def _placed(out: Path, images: Dataset) -> tuple[dict[int, str], list[Skipped]]:
    """Return where each image lies, from the folder of a file; images from elsewhere are written beside the file."""
    root = os.path.realpath(out.parent)
    if isinstance(images.source, FileSource):
        files = [os.path.realpath(images.source.path(row)) for row in images.rows.tolist()]
        if all(is_below(file, root) for file in files):
            return {row: Path(file).relative_to(root).as_posix() for row, file in enumerate(files)}, []
    paths, unread = write_beside(out, images)
    return {row: path for row, path in enumerate(paths) if row not in unread}, [*unread.values()]


def _write_folder(out: Path, found: Labelled) -> list[Skipped]:
    """Write ``train/CLASS/IMAGE`` and so on, as ``folder:`` and torchvision's ImageFolder read it."""
    if strange := next((name for name in found.classes if "/" in name or "\0" in name or name[:1] in ".\n"), None):
        raise DataError(f"The class {strange!r} cannot be a folder; give another --format.")

    images = found.images
    names = _file_names(images, [found.classes[named[0][0]] for named in found.named])
    return _copied(out, images, names)[1]


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
            return {"label": datasets.List(label), "confidence": datasets.List(number)}
        return {"label": label, "confidence": number}

    def cells(image: int, _picture: bytes) -> dict[str, Any]:
        numbers, shares = [k for k, _ in found.named[image]], [share for _, share in found.named[image]]
        by_people = bool(found.human[image])
        if several:
            return {"label": numbers, "confidence": None if by_people else shares}
        return {"label": numbers[0], "confidence": None if by_people else shares[0]}

    return list(write_tables(out, images, columns, cells))


def _write_coco(out: Path, found: Labelled) -> list[Skipped]:
    """Write a file per split beside the folder ``images``."""
    rows, sizes, skipped = readable(found.images)
    images, boxes = found.images.select(rows), found.boxes[rows]
    names = _file_names(images)
    _copied(out / "images", images, names)
    for split in dict.fromkeys(images.splits.tolist()):
        own = images.indices(split)
        places, of_each = [f"images/{names[row]}" for row in own], [sizes[row] for row in own]
        write_coco(out / f"{split}.json", places, of_each, boxes[own], found.classes)
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
    """Write tasks of Label Studio and, as XML beside them, its labelling configuration.

    Labels of people are annotations; others are predictions, which a person accepts or corrects.
    """
    paths, skipped = _placed(out, found.images)
    rows, sizes = [*paths], list[tuple[int, int]]()
    if found.kind == "boxes":
        places, sizes, unread = readable(found.images.select(rows))
        rows, skipped = [rows[place] for place in places], [*skipped, *unread]
    tasks = list[dict[str, Any]]()
    for row, (width, height) in zip(rows, sizes or [(0, 0)] * len(rows), strict=True):
        result = list[dict[str, Any]]()
        if found.kind == "boxes":
            size = {"original_width": width, "original_height": height, "image_rotation": 0}
            for (left, top, right, bottom), k, weight in zip(
                *map(np.ndarray.tolist, found.boxes.image(row)), strict=True
            ):
                place = {"x": 100 * left, "y": 100 * top, "width": 100 * (right - left), "height": 100 * (bottom - top)}
                value = {**place, "rotation": 0, "rectanglelabels": [found.classes[k]]}
                if weight > 0:
                    result.append({"type": "rectanglelabels", **size, "score": weight, "value": value})
            score = min((one["score"] for one in result), default=1.0)
        else:
            names = [found.classes[k] for k, _ in found.named[row]]
            result += [{"type": "choices", "value": {"choices": names}}] if names else []
            score = min((share for _, share in found.named[row]), default=1.0)
        said: dict[str, Any] = {"result": [{"from_name": "label", "to_name": "image", **one} for one in result]}
        data = {"image": f"{LOCAL_FILES}{quote(paths[row])}", "key": found.images.keys[row], "kind": found.kind}
        data |= {"split": str(found.images.splits[row]), "digest": found.images.digests[row]}
        said |= {} if found.human[row] else {"score": score, "model_version": "gpt4image"}
        about = "annotations" if found.human[row] else "predictions"
        tasks.append({"data": data, about: [said] if found.told[row] else []})
    tag, one, more = {
        "boxes": ("RectangleLabels", "Label", ""),
        "multilabel": ("Choices", "Choice", ' choice="multiple"'),
        "classification": ("Choices", "Choice", ' choice="single"'),
    }[found.kind]
    named = "".join(f"    <{one} value={quoteattr(name)}/>\n" for name in found.classes)
    inside = f'  <Image name="image" value="$image"/>\n  <{tag} name="label" toName="image"{more}>\n{named}  </{tag}>\n'
    write_text(out.with_suffix(".xml"), f"<View>\n{inside}</View>\n")
    write_json(out, tasks)
    return skipped


_EVERY = ("classification", "multilabel", "boxes")
_WRITERS: dict[str, tuple[Callable[[Path, Labelled], list[Skipped]], tuple[str, ...]]] = {
    "csv": (_write_csv, _EVERY),
    "folder": (_write_folder, ("classification",)),
    "hf": (_write_hf, _EVERY),
    "coco": (_write_coco, ("boxes",)),
    "yolo": (_write_yolo, ("boxes",)),
    "voc": (_write_voc, ("boxes",)),
    LABEL_STUDIO: (_write_tasks, _EVERY),
}
"""Formats: what writes them, and the kinds of targets that they hold."""

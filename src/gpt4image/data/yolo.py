"""`yolo:DIR`: images and text files of boxes in the layout of Ultralytics.

    set/data.yaml                    names: {0: cat, 1: dog}, train: images/train, val: images/val
    set/images/train/1.jpg           set/labels/train/1.txt

A line of a label file is ``class x y width height``, the centre and the sides as parts of the picture, and may end with
a confidence; or a class and the corners of a polygon, of which the surrounding box is taken. With ``kpt_shape`` in
``data.yaml``, keypoints follow the box instead, and are not read. The label file of an image lies in ``labels`` where
its path has ``images``, or beside it. An empty one says that there is no object; an image without one is not annotated.
Entries of ``data.yaml`` may be folders, lists of images (``.txt``), or several. Without ``data.yaml``, splits are the
folders below ``images``, and ``classes.txt`` names the classes.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gpt4image.base.errors import DataError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset, split_in_folders
from gpt4image.data.file_source import FileSource, expanded, is_below, locate_all, pictures_below, read_bounded, usable
from gpt4image.data.labels import MAX_SEVERAL, note_once
from gpt4image.data.records import Corners, Faults, Object, Record, boxes_of, require_few, to_dataset, weight_of

MAX_YAML = 1_000_000
MAX_DIGITS = 50
"""Characters of a number in YAML. Long ones in base 60 (``1:30:00``) and base 16 take minutes to read or to write."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASSES = "classes.txt"
"""Class names, one per line; some tools write it among the label files."""


def load_yolo(argument: str) -> Dataset:
    """Load images and their boxes; keys are paths of images from the folder of ``data.yaml``.

    Skipped by name: images that cannot be found or lie outside, label files without an image, and lines of label files
    that cannot be used.
    """
    spec = f"yolo:{argument}"
    place = expanded(argument)
    file = place if place.is_file() else next((place / name for name in NAMES if (place / name).is_file()), None)
    root = place.parent if place.is_file() else place
    settings = {} if file is None else _settings(file, spec)
    skipped: list[Skipped] = []
    listed_in = _images(root, settings, skipped, spec)
    keys, broken = usable(root, list(listed_in))
    skipped += broken
    if not keys:
        first = f" The first: {skipped[0].name}, {skipped[0].reason}." if skipped else ""
        raise DataError(f"{spec}: there are no images; they lie in images/train, or where data.yaml says.{first}")
    faults, records = Faults(), [Record(key=key, split=listed_in[key]) for key in keys]
    keypoints = bool(settings.get("kpt_shape"))
    for record, (path, fault) in zip(records, _label_files(root, keys), strict=True):
        if not fault:
            record.objects = _objects(root / path, faults, keypoints=keypoints)
        elif "cannot be found" not in fault:
            faults.add(path or record.key, f"its label file {fault}")
    for path in _without_image(root, keys):
        faults.add(path, "there is no image of its name")
    numbers = [int(one.label) for record in records for one in record.objects or () if not one.fault]
    classes = _classes(settings, root, numbers, spec)
    _require_from_zero(numbers, classes, spec)
    boxes = boxes_of(records, classes, faults, spec)
    skipped += faults.skipped("label files")
    return to_dataset(spec, records, FileSource(root, keys), classes=classes, regions=boxes, skipped=skipped)


def _settings(file: Path, spec: str) -> dict[str, Any]:
    """Return what data.yaml says: plain values only; nothing in it makes objects, long numbers or ever more entries."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_scalar(self, node: Any) -> Any:
            if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
                raise DataError(
                    f"{spec}: {file.name} has a number of {len(node.value):,} characters, {node.value[:20]!r}...; "
                    "write a text in quotes."
                )
            return super().construct_scalar(node)

        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise DataError(f"{spec}: {file.name} merges entries by '<<'; write them out.")

    with parsing(f"{spec}: {file.name} is no YAML that can be read"):
        found = yaml.load(read_bounded(str(file), MAX_YAML).decode("utf-8-sig"), Loader)
    if not isinstance(found, dict):
        raise DataError(f"{spec}: {file.name} has no entries; it needs 'names', 'train' and 'val'.")
    return found


def _images(root: Path, settings: Mapping[str, Any], skipped: list[Skipped], spec: str) -> dict[str, str]:
    """Return the split of each image by its path from the root, train first; skip entries that lead to nothing."""
    stated = settings.get("path")
    base = stated if isinstance(stated, str) else ""
    found: dict[str, str] = {}
    for name, split in SPLIT_OF.items():
        entry = settings.get(name)
        for one in entry if isinstance(entry, list) else [entry]:
            place = _place(root, base, one) if isinstance(one, str) else None
            if place is not None:
                for path in _images_of(root, base, place, spec):
                    found.setdefault(path, split)
            elif one is not None:
                given = one[:100] if isinstance(one, str) else type(one).__name__  # aliases may make others endless
                reason = f"its entry {name!r}, {given!r}, is no folder or list below {root}"
                skipped.append(Skipped(name="data.yaml", reason=reason))
    if found or any(settings.get(name) for name in SPLIT_OF):
        return found
    top = root / "images" if (root / "images").is_dir() else root
    return {path: split_in_folders(path) or "train" for path in pictures_below(root, top)}


def _place(root: Path, base: str, entry: str) -> Path | None:
    tries = [Path(base) / entry, Path(entry), Path(entry.lstrip("./"))]
    return next((root / one for one in tries if _is_inside(root, root / one)), None)


def _images_of(root: Path, base: str, place: Path, spec: str) -> Iterator[str]:
    if place.is_dir():
        yield from pictures_below(root, place)
        return
    with parsing(f"{spec}: {place.name} is no list of images that can be read"):
        lines = read_bounded(str(place)).decode("utf-8-sig").splitlines()
    for line in filter(None, map(str.strip, lines)):
        beside = place.parent / line
        yield os.path.relpath(beside if os.path.exists(beside) else root / base / line, root)  # noqa: PTH110


def _is_inside(root: Path, place: Path) -> bool:
    if not os.path.exists(place):  # noqa: PTH110  (Path.exists raises where a name is too long)
        return False
    real, real_root = os.path.realpath(place), os.path.realpath(root)
    return real == real_root or is_below(real, real_root)


def _label_files(root: Path, keys: Sequence[str]) -> list[tuple[str, str]]:
    apart = [_below_labels(PurePosixPath(key).with_suffix(".txt").as_posix()) for key in keys]
    beside = locate_all(root, [PurePosixPath(key).with_suffix(".txt").as_posix() for key in keys])
    return [one if not one[1] else other for one, other in zip(locate_all(root, apart), beside, strict=True)]


def _below_labels(path: str) -> str:
    above, images, inside = f"/{path}".rpartition("/images/")
    return f"{above}/labels/{inside}".lstrip("/") if images else inside.lstrip("/")


def _without_image(root: Path, keys: Sequence[str]) -> Iterator[str]:
    """Yield the label files in ``labels`` that belong to no file in the folder of images, whichever split it has."""
    for folder in sorted({PurePosixPath(key).parent.as_posix() for key in keys}):
        labels = _below_labels(f"{folder}/").rstrip("/")
        if labels == folder or not _is_inside(root, root / labels) or not (root / labels).is_dir():
            continue
        images = {path.stem for path in (root / folder).iterdir()}
        for path in sorted((root / labels).iterdir()):
            if path.suffix == ".txt" and path.name != CLASSES and path.stem not in images:
                yield f"{labels}/{path.name}"


def _objects(file: Path, faults: Faults, *, keypoints: bool) -> list[Object] | None:
    """Return the boxes of a label file; None where it cannot be read."""
    try:
        text = read_bounded(str(file)).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.add(file.name, f"the label file cannot be read ({type(error).__name__})")
        return None
    found: list[Object] = []
    for position, line in enumerate(text.splitlines(), 1):
        if line.strip():
            values = _box(line, keypoints=keypoints)
            label, corners, score = (-1, (0.0, 0.0, 0.0, 0.0), 1.0) if isinstance(values, str) else values
            fault = values if isinstance(values, str) else ""
            found.append(Object(f"line {position}", label, corners, weight_of(False, score), fault))
    return found


def _box(line: str, *, keypoints: bool) -> tuple[int, Corners, float] | str:
    """Return class, corners and confidence of a line, or why it cannot be used; ``keypoints`` may follow the box."""
    try:
        label, *values = map(float, line.split())
    except ValueError:
        return "a value is no number"
    if not label.is_integer() or not 0 <= label < MAX_SEVERAL:
        return "its class is no number from 0 on"
    if keypoints and len(values) > 5:
        values = values[:4]
    if len(values) in (4, 5):
        x, y, width, height, score = (*values, 1.0)[:5]
        return int(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), score
    if len(values) < 6 or len(values) % 2:
        return "it has not 5 values: class, x, y, width, height"
    if not all(map(math.isfinite, values)):
        return "a coordinate is missing or no number"
    return int(label), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])), 1.0


def _require_from_zero(numbers: Sequence[int], classes: Sequence[str], spec: str) -> None:
    """Refuse class numbers that begin at 1. Where they may, but need not, a note on standard error says so."""
    if min(numbers, default=0) != 1 or not classes:
        return
    what = f"{spec}: no box has the class 0, {classes[0]!r}; class numbers of YOLO begin at 0"
    if max(numbers) == len(classes):
        raise DataError(
            f"{what}, and here they go from 1 to {len(classes)}, which has no name: subtract 1 from the first number "
            "of each line."
        )
    note_once(f"{what}. If yours begin at 1, subtract 1 from the first number of each line.")


def _classes(settings: Mapping[str, Any], root: Path, used: Sequence[int], spec: str) -> tuple[str, ...]:
    """Return the class names: of data.yaml, of classes.txt, else the numbers up to the largest that is used."""
    names = settings.get("names")
    if isinstance(names, Mapping):
        numbers = sorted(number for number in names if isinstance(number, int))
        if len(numbers) < len(names) or numbers != list(range(len(numbers))):
            raise DataError(
                f"{spec}: 'names' of data.yaml are not numbered 0 to {len(names) - 1}: {first_few(map(str, names))}."
            )
        names = [names[number] for number in numbers]
    if names is None and (root / CLASSES).is_file():
        with parsing(f"{spec}: {CLASSES} is no list of names that can be read"):
            names = [name for name in (root / CLASSES).read_text(encoding="utf-8-sig").splitlines() if name.strip()]
    if names is None:
        names = list(range(max(used, default=-1) + 1))
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{spec}: 'names' of data.yaml is no list of class names.")
    found = tuple(str(name).strip() for name in names)
    require_few(found, spec)
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise DataError(f"{spec}: a class name comes twice: {first_few(twice)}; give each class a name of its own.")
    return found

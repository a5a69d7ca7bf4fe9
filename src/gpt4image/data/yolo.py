"""`yolo:DIR`: images and text files of boxes in the layout of Ultralytics; docs/boxes-and-masks.md describes it.

A line of a label file is ``class x y width height``, the centre and the sides as parts of the picture, and may end with
a confidence; or a class and the corners of a polygon, of which the surrounding box is taken. The label file of an image
lies in ``labels`` where its path has ``images``, or beside it.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gpt4image.base.errors import DataError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import MAX_SEVERAL, SPLIT_OF, Dataset, split_in_folders
from gpt4image.data.file_source import FileSource, expanded, files_below, is_below, lines_of, locate_all, read_bounded
from gpt4image.data.records import Faults, Object, Record, require_some, weight_of, with_boxes

MAX_YAML = 1_000_000
NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASSES = "classes.txt"  # class names, one per line; some tools write it among the label files


def load_yolo(argument: str) -> Dataset:
    """Load images and their boxes; keys are paths of images from the folder of ``data.yaml``."""
    spec, place = f"yolo:{argument}", expanded(argument)
    file = place if place.is_file() else next((place / name for name in NAMES if (place / name).is_file()), None)
    root = place.parent if place.is_file() else place
    settings = {} if file is None else _settings(file, spec)
    skipped: list[Skipped] = []
    split_of = _images(root, settings, skipped, spec)
    records = list[Record]()
    for path, (_, fault) in zip(split_of, locate_all(root, split_of), strict=True):
        if fault:
            skipped.append(Skipped(path, fault))
        else:
            records.append(Record(key=path, split=split_of[path]))
    require_some(records, f"{spec}: there are no images; they lie in images/train, or where data.yaml says.", skipped)
    texts = [PurePosixPath(record.key).with_suffix(".txt").as_posix() for record in records]
    apart, beside = locate_all(root, map(_below_labels, texts)), locate_all(root, texts)
    bad = Faults()
    for record, one, other in zip(records, apart, beside, strict=True):
        path, fault = other if one[1] else one
        if not fault:
            record.objects = _objects(root / path, bad, keypoints=bool(settings.get("kpt_shape")))
        elif "cannot be found" not in fault:
            bad.add(record.key, f"its label file {fault}")
    numbers = [int(one.label) for record in records for one in record.objects or () if not one.fault]
    classes = _classes(settings, root, numbers, spec)
    source = FileSource(root, [record.key for record in records])
    return with_boxes(spec, records, source, classes, bad, "label files", skipped, "parts")


def _settings(file: Path, spec: str) -> dict[str, Any]:
    """Return what data.yaml says, as texts: so nothing in it makes objects, endless numbers or ever more entries."""
    import yaml

    with parsing(f"{spec}: {file.name} is no YAML that can be read"):
        found = yaml.load(read_bounded(str(file), MAX_YAML).decode("utf-8-sig"), yaml.BaseLoader)
    if not isinstance(found, dict):
        raise DataError(f"{spec}: {file.name} has no entries; it needs 'names', 'train' and 'val'.")
    return found


def _images(root: Path, settings: Mapping[str, Any], skipped: list[Skipped], spec: str) -> dict[str, str]:
    """Return the split of each image by its path from the root, train first; skip entries that lead to nothing."""
    stated = settings.get("path")
    base = stated if isinstance(stated, str) else ""
    entries = [(name, settings[name]) for name in SPLIT_OF if settings.get(name)]
    found: dict[str, str] = {}
    for name, one in ((name, one) for name, some in entries for one in (some if isinstance(some, list) else [some])):
        tries = [Path(base) / one, Path(one), Path(one.lstrip("./"))] if isinstance(one, str) else []
        place = next((root / each for each in tries if _is_inside(root, root / each)), None)
        if place is None:
            given = one[:100] if isinstance(one, str) else type(one).__name__  # aliases may make others endless
            skipped.append(Skipped("data.yaml", f"its entry {name!r}, {given!r}, is no folder or list below {root}"))
            continue
        if place.is_dir():
            files, faults = files_below(root, place)
            skipped += faults
        else:
            lines = filter(None, lines_of(place, f"{spec}: {place.name} is no list of images"))
            both = [(place.parent / line, root / base / line) for line in lines]
            files = [os.path.relpath(near if os.path.exists(near) else far, root) for near, far in both]  # noqa: PTH110
        for path in files:
            found.setdefault(path, SPLIT_OF[name])
    if not entries:
        files, faults = files_below(root, root / "images" if (root / "images").is_dir() else root)
        skipped += faults
        found = {path: split_in_folders(path) or "train" for path in files}
    return found


def _is_inside(root: Path, place: Path) -> bool:
    if not os.path.exists(place):  # noqa: PTH110  (Path.exists raises where a name is too long)
        return False
    real, real_root = os.path.realpath(place), os.path.realpath(root)
    return real == real_root or is_below(real, real_root)


def _below_labels(path: str) -> str:
    above, images, inside = f"/{path}".rpartition("/images/")
    return f"{above}/labels/{inside}".lstrip("/") if images else inside.lstrip("/")


def _objects(file: Path, faults: Faults, *, keypoints: bool) -> list[Object] | None:
    """Return the boxes of a label file; None where it cannot be read."""
    try:
        text = read_bounded(str(file)).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.add(file.name, f"the label file cannot be read ({type(error).__name__})")
        return None
    lines = enumerate(text.splitlines(), 1)
    return [_object(f"line {place}", line, keypoints=keypoints) for place, line in lines if line.strip()]


def _object(name: str, line: str, *, keypoints: bool) -> Object:
    try:
        label, *values = map(float, line.split())
    except ValueError:
        return Object(name, -1, fault="a value is no number")
    if not label.is_integer() or not 0 <= label < MAX_SEVERAL:
        return Object(name, -1, fault="its class is no number from 0 on")
    if keypoints and len(values) > 5:
        values = values[:4]
    if len(values) in (4, 5):
        x, y, width, height, score = (*values, 1.0)[:5]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Object(name, int(label), corners, weight_of(False, score))
    if len(values) < 6 or len(values) % 2:
        return Object(name, -1, fault="it has not 5 values: class, x, y, width, height")
    if not all(map(math.isfinite, values)):
        return Object(name, -1, fault="a coordinate is missing or no number")
    x, y = values[::2], values[1::2]
    return Object(name, int(label), (min(x), min(y), max(x), max(y)))


def _classes(settings: Mapping[str, Any], root: Path, used: Sequence[int], spec: str) -> tuple[str, ...]:
    """Return the class names: of data.yaml, of classes.txt, else the numbers up to the largest that is used."""
    names = settings.get("names")
    if isinstance(names, Mapping):
        numbered = {int(number): name for number, name in names.items() if re.fullmatch(r"\d{1,9}", number)}
        if sorted(numbered) != list(range(len(names))):
            listed = first_few(names)
            raise DataError(f"{spec}: 'names' of data.yaml are not numbered 0 to {len(names) - 1}: {listed}.")
        names = [numbered[number] for number in range(len(names))]
    file = next((file for file in (root / CLASSES, root / "labels" / CLASSES) if file.is_file()), None)
    if names is None and file is not None:
        names = [name for name in lines_of(file, f"{spec}: {CLASSES} is no list of names") if name]
    if names is None:
        names = [str(number) for number in range(max(used, default=-1) + 1)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{spec}: 'names' of data.yaml is no list of class names.")
    found = tuple(name.strip() for name in names)
    if twice := first_few(name for name, count in Counter(found).items() if count > 1):
        raise DataError(f"{spec}: a class name comes twice: {twice}.")
    if found and min(used, default=0) == 1 and max(used) == len(found):
        wrong = f"no box has the class 0, {found[0]!r}, and the numbers go from 1 to {len(found)}, which has no name"
        raise DataError(f"{spec}: {wrong}: subtract 1 from the first number of each line.")
    return found

"""`yolo:DIR`: images and text files of boxes in the layout of Ultralytics; docs/boxes-and-masks.md describes it.

A line of a label file is ``class x y width height``, the centre and the sides as parts of the picture, and may end with
a confidence; or a class and the corners of a polygon, of which the surrounding box is taken. The label file of an image
lies in ``labels`` where its path has ``images``, else beside it. Options of the SPEC replace entries of ``data.yaml``.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from gpt4image.base.errors import DataError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset, split_in_folders
from gpt4image.data.file_source import FileSource, files_below, lines_of, locate_all, read_bounded
from gpt4image.data.labels import MAX_SEVERAL
from gpt4image.data.records import Faults, Object, Record, require_some, weight_of, with_boxes
from gpt4image.data.spec import Spec

MAX_YAML = 1_000_000
DATA, CLASSES = "data.yaml", "classes.txt"


def load_yolo(spec: Spec) -> Dataset:
    """Load images and their boxes; keys are paths of images from the folder of ``data.yaml``."""
    file = spec.path if spec.path.is_file() else spec.path / DATA
    root, settings = file.parent, {**_settings(file, spec), **spec.options}
    skipped, faults = list[Skipped](), Faults()
    split_of = _images(root, settings, skipped, spec)
    records = list[Record]()
    for path, (_, fault) in zip(split_of, locate_all(root, split_of), strict=True):
        if fault:
            skipped.append(Skipped(path, fault))
        else:
            records.append(Record(key=path, split=split_of[path]))
    where = f"{root / 'images'} or where data.yaml says; give {spec.having('train')}"
    require_some(records, f"{spec}: there are no images in {where}.", skipped)
    texts = [PurePosixPath(_in_labels(record.key)).with_suffix(".txt").as_posix() for record in records]
    for record, (path, fault) in zip(records, locate_all(root, texts), strict=True):
        if not fault:
            record.objects = _objects(root / path, faults, keypoints=bool(settings.get("kpt_shape")))
        elif "cannot be found" not in fault:
            faults.add(record.key, f"its label file {fault}")
    source, classes = FileSource(root, [record.key for record in records]), _classes(settings, root, spec)
    return with_boxes(spec.text, records, source, classes, faults, "label files", skipped, "parts")


def _settings(file: Path, spec: Spec) -> dict[str, Any]:
    """Return what data.yaml says, as texts: so nothing in it makes objects, endless numbers or ever more entries."""
    import yaml

    if not file.is_file():
        return {}
    with parsing(f"{spec}: {file.name} is no YAML that can be read"):
        found = yaml.load(read_bounded(str(file), MAX_YAML).decode("utf-8-sig"), yaml.BaseLoader)
    if not isinstance(found, dict):
        raise DataError(f"{spec}: {file.name} has no entries; it needs 'names', 'train' and 'val'.")
    return found


def _images(root: Path, settings: Mapping[str, Any], skipped: list[Skipped], spec: Spec) -> dict[str, str]:
    """Return the split of each image by its path from the root, train first. Raises DataError that names the option."""
    stated = settings.get("path")
    base, real_root = root / (stated if isinstance(stated, str) else ""), os.path.realpath(root)
    found: dict[str, str] = {}
    entries = [(name, settings[name]) for name in SPLIT_OF if settings.get(name)]
    for name, one in ((name, one) for name, some in entries for one in (some if isinstance(some, list) else [some])):
        place = base / one if isinstance(one, str) else base
        real = os.path.realpath(place)
        if not isinstance(one, str) or not os.path.exists(real) or not f"{real}/".startswith(f"{real_root}/"):  # noqa: PTH110
            origin = "the SPEC" if name in spec.options else "data.yaml"
            below = "" if stated is None else f" below path {_shown(stated)!r}"
            said = f"{name!r} of {origin}, {_shown(one)!r}{below},"
            example = spec.having(name) if stated is None else f"{spec.having(name)},path=."
            raise DataError(f"{spec}: {said} is no folder or list in {root}; give {example}.")
        if place.is_dir():
            files, faults = files_below(root, place)
            skipped += faults
        else:  # lists are relative to the folder
            lines = filter(None, lines_of(place, f"{spec}: {place.name} is no list of images"))
            files = [os.path.relpath(base / line, root) for line in lines]
        for path in files:
            found.setdefault(path, SPLIT_OF[name])
    if not entries and (root / "images").is_dir():
        files, faults = files_below(root, root / "images")
        skipped += faults
        found = {path: split_in_folders(path) or "train" for path in files}
    return found


def _shown(value: object) -> str:
    """Return a text of data.yaml for messages; of a list only its type, as aliases may make it endless."""
    return value[:100] if isinstance(value, str) else type(value).__name__


def _in_labels(path: str) -> str:
    above, images, inside = f"/{path}".rpartition("/images/")
    return f"{above}/labels/{inside}".lstrip("/") if images else path


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


def _classes(settings: Mapping[str, Any], root: Path, spec: Spec) -> tuple[str, ...]:
    """Return the class names by number: of data.yaml, else the lines of classes.txt. Raises DataError."""
    names = settings.get("names")
    if isinstance(names, dict):
        numbered = cast("dict[str, Any]", names)
        names = [numbered.get(str(number)) for number in range(len(numbered))]
    elif names is None and (root / CLASSES).is_file():
        names = lines_of(root / CLASSES, f"{spec}: {CLASSES} is no list of names")
    listed = cast("list[Any]", names) if isinstance(names, list) else []
    found = tuple(name.strip() for name in listed if isinstance(name, str))
    if not found or len(found) < len(listed) or len(set(found)) < len(found):
        raise DataError(
            f"{spec}: 'names' of data.yaml or the lines of {CLASSES} are the classes from 0 on, each once; got "
            f"{first_few(map(_shown, listed))}."
        )
    return found

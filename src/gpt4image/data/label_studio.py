"""`label-studio:FILE.json`: what Label Studio exports as JSON of tasks that ``export-labels`` made, or of others.

The last annotation of a task that was not cancelled is its label: a choice, several, or rectangles. Predictions only
name classes. A task without an annotation is an image without a label.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from gpt4image.base.errors import parsing
from gpt4image.base.files import parse_json
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.file_source import FileSource, expanded, locate_all, read_bounded
from gpt4image.data.records import Faults, Object, Record, from_sides, number, require_some, to_dataset, with_boxes
from gpt4image.data.spec import Spec

LABEL_STUDIO = "label-studio"
LOCAL_FILES = "/data/local-files/?d="
"""How addresses of files on the machine of Label Studio begin."""
CHOICES, RECTANGLES = "choices", "rectanglelabels"


def load_label_studio(spec: Spec) -> Dataset:
    """Load the images of tasks, whose paths are relative to the folder of the file, and their labels."""
    file, faults = spec.path, Faults()
    with parsing(f"{spec}: no JSON that can be read"):
        tasks = parse_json(read_bounded(str(file)))
    every = [task for task in tasks if _table(task, "data").get("image")] if isinstance(tasks, list) else []
    none = f"{spec}: no task names an image that can be used; export as JSON, not JSON-MIN, and give images=FOLDER."
    root, about = file.parent / expanded(spec.options.get("images", "")), [task["data"] for task in every]
    located = locate_all(root, [unquote(str(one["image"]).removeprefix(LOCAL_FILES)) for one in about])
    records, files, names = list[Record](), list[str](), set[str]()
    kinds, given = {str(one.get("kind")) for one in about}, [_result(task, "annotations") for task in every]
    found = [[*_values(result or ())] for result in given]
    boxes = "boxes" in kinds or any(kind == RECTANGLES for values in found for kind, *_ in values)
    several = "multilabel" in kinds or any(len(values) > 1 for values in found)
    for task, one, (path, fault), result, values in zip(every, about, located, given, found, strict=True):
        if fault:
            faults.add(str(one["image"])[:200], fault)
            continue
        record = Record(key=str(one.get("key") or path), split=SPLIT_OF.get(str(one.get("split")), "train"))
        own = [name for kind, name, _ in values if (kind == RECTANGLES) == boxes]
        if len(own) < len(result or ()):
            faults.add(record.key, f"a result is none of {RECTANGLES if boxes else CHOICES}")
        names |= {*own, *(name for _, name, _ in _values(_result(task, "predictions") or ()))}
        if boxes and result is not None:
            record.objects = [_object(*each) for each in enumerate(values, 1)]
        elif result is not None:
            record.label = own if several else next(iter(own), None)
        records.append(record)
        files.append(path)
    require_some(records, none, faults.skipped(file.name))
    source, classes = FileSource(root, files), sorted(names)
    if boxes:
        return with_boxes(spec.text, records, source, classes, faults, file.name, unit="parts")
    return to_dataset(spec.text, records, source, classes=classes, skipped=faults.skipped(file.name))


def _table(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _result(task: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return the result of the last annotation or prediction that was not cancelled; None without one."""
    some = task.get(name)
    found = [one for one in some if isinstance(one, dict) and not one.get("was_cancelled")] if some else []
    result = found[-1].get("result") if found else None
    return result if isinstance(result, list) else None


def _values(result: Sequence[Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the kind and the name of each class that a result names, and its value."""
    for one in result:
        value = _table(one, "value")
        for kind in (CHOICES, RECTANGLES):
            listed = value.get(kind)
            yield from ((kind, name, value) for name in listed or () if isinstance(listed, list) and str(name).strip())


def _object(place: int, found: tuple[str, str, Mapping[str, Any]]) -> Object:
    _, name, value = found
    sides = [number(value.get(side)) / 100 for side in ("x", "y", "width", "height")]
    return Object(f"region {place}", name, from_sides(sides), fault="it is rotated" if value.get("rotation") else "")

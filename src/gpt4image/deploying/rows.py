"""Predictions as `predict` writes them: lines of a table, rows of CSV, objects of JSON lines, results of COCO."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.visible import csv_cell, in_one_line
from gpt4image.data import full_spec
from gpt4image.data.coco import COCO, Id, Ids, categories_of, category_ids, coco_ids
from gpt4image.data.labels import note_once

if TYPE_CHECKING:
    from gpt4image.deploying.loading import Classifier

SIDES = ("left", "top", "right", "bottom")
CLASS_WIDTH = 30  # longest class name that the table makes room for


class Prediction(NamedTuple):
    """The prediction of one image: its most probable classes, best first, with what ``Task.value`` names.

    ``present`` has the classes that count as present, if an image may have several, else None. ``boxes`` has left, top,
    right and bottom of each object in pixels of the upright picture, in the order of ``classes``, else None. ``mask``
    is the file of its mask, if it is drawn.
    """

    image: str
    classes: Sequence[str]
    probabilities: Sequence[float]
    present: Sequence[str] | None = None
    boxes: Sequence[Sequence[float]] | None = None
    mask: str | None = None

    def in_pixels(self, size: tuple[int, int], least: float) -> Prediction:
        """Return the prediction with boxes in pixels of a picture of that width and height, none below a score."""
        if self.boxes is None:
            return self
        count = sum(score >= least for score in self.probabilities)
        boxes = [[round(part * side, 2) for part, side in zip(box, (*size, *size), strict=True)] for box in self.boxes]
        return self._replace(
            classes=self.classes[:count], probabilities=self.probabilities[:count], boxes=boxes[:count]
        )

    def fields(self, value: str) -> list[dict[str, Any]]:
        """Return the rows of the image as tables have them; ``value`` is that of the task.

        One row has image, class, value, class_2 and so on; of boxes each has one, with its sides.
        """
        best = list(zip(self.classes, self.probabilities, strict=True))
        if self.boxes is not None:
            sides = (dict(zip(SIDES, box, strict=True)) for box in self.boxes)
            each = zip(best, sides, strict=True)
            return [{"image": self.image, "class": name, value: score, **box} for (name, score), box in each]
        row: dict[str, Any] = {"image": self.image}
        row |= {} if self.present is None else {"present": list(self.present)}
        for rank, (name, number) in enumerate(best, 1):
            row |= {_ranked("class", rank): name, _ranked(value, rank): number}
        return [row if self.mask is None else {**row, "mask": self.mask}]


Write = Callable[[Prediction], None]


def _ranked(name: str, rank: int) -> str:
    """Return the name of a column of the class of a rank: class, class_2, ..."""
    return name if rank == 1 else f"{name}_{rank}"


def table(stream: TextIO, classifier: Classifier, _top: int) -> Write:
    """Write one line per image, or per box: probabilities before names, the path last."""
    width = min(CLASS_WIDTH, max(len(in_one_line(name)) for name in classifier.classes))

    def write(row: Prediction) -> None:
        best = zip(row.classes, row.probabilities, strict=True)
        if row.boxes is not None:
            for (name, probability), box in zip(best, row.boxes, strict=True):
                place = " ".join(f"{number:7.1f}" for number in box)
                stream.write(f"{probability:.3f} {in_one_line(name):{width}}  {place}  {in_one_line(row.image)}\n")
            return
        columns = [f"{probability:.3f} {in_one_line(name):{width}}" for name, probability in best]
        stream.write("  ".join([*columns, in_one_line(row.image)]) + "\n")

    return write


def csv_rows(stream: TextIO, classifier: Classifier, top: int) -> Write:
    """Write a header and one row per image: image, class, probability (as ``Task.value`` says), class_2, ...

    Where an image may have several classes, ``present`` comes first: those present, separated by "|". Boxes have a row
    each: image, class, probability, left, top, right, bottom.
    """
    value = classifier.task.value
    if classifier.task.output == "boxes":
        columns = ["image", "class", value, *SIDES]
    else:
        ranks = range(1, top + 1)
        several = [] if classifier.task.exclusive else ["present"]
        columns = ["image", *several, *(_ranked(name, rank) for rank in ranks for name in ("class", value))]
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()

    def cell(name: str, content: Any) -> Any:
        if isinstance(content, float) and name not in SIDES:
            return f"{content:.6f}"
        if isinstance(content, float):
            return content
        names: list[str] = content if isinstance(content, list) else [content]
        return csv_cell("|".join(map(in_one_line, names)))

    def write(row: Prediction) -> None:
        for fields in row.fields(value):
            writer.writerow({name: cell(name, content) for name, content in fields.items()})

    return write


def json_lines(stream: TextIO, classifier: Classifier, _top: int) -> Write:
    """Write one object per image; in ASCII, so that every name is exact and harmless, even one that is not UTF-8."""

    def write(row: Prediction) -> None:
        best = zip(row.classes, row.probabilities, strict=True)
        found: list[dict[str, Any]] = [{"class": name, classifier.task.value: round(value, 6)} for name, value in best]
        for entry, box in zip(found, row.boxes or (), strict=False):
            entry["box"] = box
        present = {} if row.present is None else {"present": list(row.present)}
        mask = {} if row.mask is None else {"mask": row.mask}
        stream.write(json.dumps({"image": row.image, **present, **mask, "predictions": found}) + "\n")

    return write


def image_id(path: str) -> int | str:
    """Return the name of a file without its ending, a number where it is one, as in COCO."""
    stem = Path(path).stem
    return int(stem) if stem.isascii() and stem.isdigit() else stem


def ids_of_run(run_dir: Path) -> dict[str, Ids]:
    """Return the ids of the COCO dataset that a run learned from, see ``coco_ids``; none where it is not here."""
    spec = str(runs.read_config(run_dir).get("data", ""))
    try:
        spec = full_spec(spec)
        return coco_ids(spec.removeprefix(COCO)) if spec.startswith(COCO) else {}
    except (ConfigError, DataError):
        if spec.startswith(COCO):
            note_once(
                f"{spec}, the dataset of {run_dir}, is not found from this folder, so its category and image ids are "
                "not known: categories count from 1. To keep the ids, name the COCO file of the images: coco:FILE.json."
            )
        return {}


class CocoResults:
    """A JSON array of COCO's results, written as predictions come.

    An image that a COCO file lists has the ids of that file. For another, ``image_id`` is that of the function of that
    name, and ``category_id`` that of the dataset, or counts from 1. Pictures without a box have no entry.
    """

    def __init__(self, stream: TextIO, classifier: Classifier, ids: Mapping[str, Ids]) -> None:
        said = classifier.source.get("category_ids")
        known = categories_of(ids.values())
        if not known and isinstance(said, dict) and all(isinstance(one, int | str) for one in said.values()):
            known = said
        self._stream, self._classes, self._ids = stream, classifier.classes, ids
        self._number = category_ids(self._classes, known)
        self._of_file: tuple[Mapping[str, Id], Mapping[str, Id]] = ({}, self._number)
        self._empty = True

    def write(self, row: Prediction) -> None:
        """Write the boxes of a picture."""
        listed = self._ids.get(os.path.realpath(row.image))
        image, number = (image_id(row.image), self._number) if listed is None else (listed.image, self._in(listed))
        for name, score, (left, top, right, bottom) in zip(
            row.classes, row.probabilities, row.boxes or (), strict=True
        ):
            box = [round(number, 2) for number in (left, top, right - left, bottom - top)]
            entry = {"image_id": image, "category_id": number[name], "bbox": box, "score": round(score, 6)}
            self._stream.write(("[\n" if self._empty else ",\n") + json.dumps(entry))
            self._empty = False

    def _in(self, listed: Ids) -> Mapping[str, Id]:
        """Return the ids of classes in the file that lists an image."""
        if listed.categories is not self._of_file[0]:
            self._of_file = (listed.categories, category_ids(self._classes, listed.categories))
        return self._of_file[1]

    def end(self) -> None:
        """Close the array."""
        self._stream.write("[]\n" if self._empty else "\n]\n")

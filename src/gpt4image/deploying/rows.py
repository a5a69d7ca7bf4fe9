"""What `predict` writes of an image: a line of a table, rows of CSV, an object of JSON lines, or results of COCO."""

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


Write = Callable[[Prediction], None]


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
    writer = csv.writer(stream, lineterminator="\n")
    if classifier.task.output == "boxes":
        writer.writerow(["image", "class", "probability", "left", "top", "right", "bottom"])

        def write_boxes(row: Prediction) -> None:
            image = csv_cell(in_one_line(row.image))
            for name, score, box in zip(row.classes, row.probabilities, row.boxes or (), strict=True):
                writer.writerow([image, csv_cell(in_one_line(name)), f"{score:.6f}", *box])

        return write_boxes
    each = ("class", classifier.task.value)
    names = [f"{name}{'' if rank == 1 else f'_{rank}'}" for rank in range(1, top + 1) for name in each]
    several = [] if classifier.task.exclusive else ["present"]
    writer.writerow(["image", *several, *names])

    def write(row: Prediction) -> None:
        names = (csv_cell(in_one_line(name)) for name in row.classes)
        best = zip(names, (f"{value:.6f}" for value in row.probabilities), strict=True)
        present = [] if row.present is None else [csv_cell("|".join(map(in_one_line, row.present)))]
        writer.writerow([csv_cell(in_one_line(row.image)), *present, *(cell for pair in best for cell in pair)])

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

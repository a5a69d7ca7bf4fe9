"""The file of labels: a CSV manifest of all images of a dataset, written anew as a whole at every action.

Its column ``review`` says which labels a person gave or confirmed, and which images were too hard to say. Labels belong
to pictures: the column ``digest`` finds them again where keys have moved to other pictures. The column ``sampled`` says
why a person was asked, for labels that were in doubt must not measure.
"""

import contextlib
import json
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, first_few
from gpt4image.base.files import make_folder, parse_json, write_text
from gpt4image.base.locks import acquire_lock
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import csv_line
from gpt4image.data import Dataset
from gpt4image.data.box_files import write_beside
from gpt4image.data.dataset import SAMPLED
from gpt4image.data.file_source import FileSource, is_below
from gpt4image.data.labels import SEPARATOR
from gpt4image.data.manifest import BOXES, DIGEST, REVIEW, WHY, read_table
from gpt4image.data.regions import Boxes, Masks
from gpt4image.data.splits import representatives

Kind = Literal["classification", "multilabel", "detection"]
"""What a person gives an image: one class, several, or boxes."""
Note = Literal["", "checked", "unsure"]
NOTES: tuple[Note, ...] = ("", "unsure", "checked")
MOST_BOXES = 2000
"""Boxes of one image."""
COLUMN: Mapping[Kind, str] = {"classification": "label", "multilabel": "labels", "detection": BOXES}


class Mark(NamedTuple):
    """Label of an image as its cell in the file, empty for none; whether a person gave or confirmed it, and why that
    person was asked, one of ``SAMPLED``."""

    label: str = ""
    note: Note = ""
    sampled: str = ""


class _Saved(NamedTuple):
    """A row of the file; the digest is empty where a person removed the column, so that names count."""

    path: str
    key: str
    label: str
    split: str
    note: Note
    sampled: str
    digest: str

    @property
    def mark(self) -> Mark:
        return Mark(self.label.strip(), self.note, self.sampled)


def kind_of(images: Dataset) -> Kind:
    """Return what the labels of a dataset are. Raises ConfigError: masks."""
    if isinstance(images.regions, Masks):
        raise ConfigError(f"--data {images.spec} has masks, which cannot be looked at here; boxes and classes can.")
    return "detection" if images.regions is not None else "multilabel" if images.labels.ndim == 2 else "classification"


def value_of(kind: Kind, cell: str) -> Any:
    """Return what a cell says: a class name; a list of names; a list of [name, left, top, right, bottom].

    An empty cell is an empty name, or None.
    """
    if kind == "classification":
        return cell
    if not cell:
        return None
    return parse_json(cell) if kind == "detection" else [name for name in cell.split(SEPARATOR) if name]


def cell_of(kind: Kind, value: Any, name_of: Callable[[str], str] = str) -> str:
    """Return the cell of what ``value_of`` returns; ``name_of`` gives the class of a name."""
    if kind == "classification" and isinstance(value, str):
        return name_of(value) if value else ""
    if kind != "classification" and value is None:
        return ""
    if kind == "multilabel" and isinstance(value, list) and all(isinstance(name, str) for name in value):
        return SEPARATOR.join(dict.fromkeys(map(name_of, value))) or SEPARATOR
    if kind == "detection" and isinstance(value, list) and len(value) <= MOST_BOXES and all(map(_is_box, value)):
        boxes = [[name_of(name), *(round(float(side), 5) for side in sides)] for name, *sides in value]
        return json.dumps(boxes, ensure_ascii=False)
    raise ConfigError(f"{str(value)[:80]!r} is no label for {kind}: load the page anew.")


def _is_box(box: Any) -> bool:
    """Return whether a value is a name, four sides from 0 to 1 in their order, and perhaps a weight."""
    if not isinstance(box, list) or len(box) not in (5, 6) or not isinstance(box[0], str):
        return False
    numbers = all(isinstance(side, int | float) and 0 <= side <= 1 for side in box[1:])
    return numbers and box[1] < box[3] and box[2] < box[4]


def boxes_value(boxes: Boxes, row: int, classes: Sequence[str]) -> list[list[Any]]:
    """Return the boxes of an image as ``value_of`` does; weights only where they are below 1."""
    found = zip(*(part.tolist() for part in boxes.image(row)), strict=True)
    return [[classes[k], *corners, *([] if weight == 1 else [weight])] for corners, k, weight in found]


class LabelsFile:
    """The labels of the images of a dataset, and the file that holds them. Close it to let others write.

    ``copies`` are the rows of each distinct image, one with a label first; ``paths`` where each image lies, relative to
    the folder of the file, or would lie if it could be read; ``skipped`` those that cannot be read.
    """

    def __init__(self, path: Path, images: Dataset, kind: Kind | None = None, *, fresh: bool = False) -> None:
        """Take the lock, read the labels that the file has, and those of the dataset for other images; write all.

        ``kind`` is what labels are, where it is not as in the dataset. With ``fresh``, labels of the dataset are not
        taken over; those of another kind never are.
        """
        own = None if kind and fresh else kind_of(images)
        self.path, self.images = path, images
        self.kind: Kind = kind or kind_of(images)
        self._columns = ("path", "key", COLUMN[self.kind], "split", REVIEW, WHY, DIGEST)
        make_folder(path.parent)
        advice, lock = "go on there, end it, or give another file.", path.with_name(f".{path.name}.lock")
        self._lock = acquire_lock(lock, 0, lambda who: ConfigError(f"--labels {path} is written by {who}: {advice}"))
        try:
            self._marks = [Mark("" if fresh or self.kind != own else self._given(row)) for row in range(len(images))]
            self._state = _state(path)
            others = self._read() if path.exists() else []
            self.paths, unread = _paths(path, images)
            self.skipped, self._unread = tuple(unread.values()), frozenset(unread)
            self._lines = [self._line(row) for row in range(len(images))]
            self._others = self._kept(others)
            self._write()
            rows: dict[int, list[int]] = {}
            unlabelled = np.array([not mark.label for mark in self._marks])
            for row, first in enumerate(representatives(images.digests, unlabelled).tolist()):
                rows.setdefault(first, [first]).extend([row] * (row != first))
            self.copies = list(rows.values())
        except BaseException:
            self._lock.release()
            raise

    @property
    def distinct(self) -> Dataset:
        """The images without copies of the same bytes; ``copies`` has the rows of each."""
        return self.images.select([rows[0] for rows in self.copies])

    def labels(self) -> list[str]:
        """Return the class names that images have, sorted."""
        values = (value_of(self.kind, cell) for cell in {mark.label for mark in self._marks} if cell)
        if self.kind == "classification":
            return sorted(values)
        return sorted({one if isinstance(one, str) else one[0] for value in values for one in value})

    def close(self) -> None:
        """Let others write the file."""
        self._lock.release()

    def __getitem__(self, row: int) -> Mark:
        return self._marks[row]

    def set(self, marks: Mapping[int, Mark]) -> None:
        """Change what is known of some images; when this returns, it is on disk. Where it raises, nothing changed."""
        before = {row: self._marks[row] for row in marks}
        try:
            self._change(marks)
            self._write()
        except BaseException:
            self._change(before)
            raise

    def _given(self, row: int) -> str:
        images = self.images
        if isinstance(images.regions, Boxes):
            known = images.regions.known[row]
            return cell_of("detection", boxes_value(images.regions, row, images.classes) if known else None)
        if images.labels.ndim == 2 and (images.labels[row] < 0).all():
            return ""
        names = images.label_names(row)
        return cell_of(self.kind, "".join(names) if self.kind == "classification" else list(names))

    def _change(self, marks: Mapping[int, Mark]) -> None:
        for row, self._marks[row] in marks.items():
            self._lines[row] = self._line(row)

    def _write(self) -> None:
        """Write all rows except those of images that cannot be read and of which nothing is known."""
        if _state(self.path) not in (self._state, None):
            raise ConfigError(
                f"--labels {self.path} was changed by another program, and would be overwritten. End with Finish, and "
                "give the command again: it reads what is there now."
            )
        rows = (line for row, line in enumerate(self._lines) if row not in self._unread or self._marks[row] != Mark())
        write_text(self.path, "".join([csv_line(self._columns), *rows, *self._others]))
        self._state = _state(self.path)

    def _line(self, row: int) -> str:
        images, mark = self.images, self._marks[row]
        split, digest = str(images.splits[row]), images.digests[row]
        return csv_line((self.paths[row], images.keys[row], mark.label, split, mark.note, mark.sampled, digest))

    def _read(self) -> list[_Saved]:
        """Take over what the file says of each picture; return the rows of pictures that are not there."""
        saved, images = self._saved(), self.images
        row_of, there = {key: row for row, key in enumerate(images.keys)}, set(images.digests)
        in_place: dict[int, Mark] = {}
        others: list[_Saved] = []
        for one in saved:
            row = row_of.get(one.key)
            if row is not None and one.digest in ("", images.digests[row]):
                in_place[row] = one.mark
            elif one.digest not in there:
                others.append(one)
        if others and len(others) == len(saved):
            raise DataError(
                f"--labels {self.path} is of other images than {images.spec}: none of its images is there. Give a new "
                f"file. If they are the same pictures, saved anew, remove the column {DIGEST!r} from the file."
            )
        # What a person said comes last, and so counts where copies of a picture have several rows. What nobody
        # confirmed gives way to a label of the dataset: the file may have moved to another class.
        by_digest = {one.digest: one.mark for one in sorted(saved, key=lambda one: NOTES.index(one.note))}
        for row, digest in enumerate(images.digests):
            moved = by_digest.get(digest, Mark())
            if row in in_place:
                self._marks[row] = in_place[row]
            elif moved.note or not self._marks[row].label:
                self._marks[row] = moved
        return others

    def _saved(self) -> list[_Saved]:
        """Return the rows of a file that this stage wrote. Raises DataError: another wrote it."""
        spec = f"--labels {self.path}"
        table = read_table(self.path, spec)
        if odd := ({*table} ^ {*self._columns}) - {DIGEST}:
            raise DataError(
                f"{spec} was not written by review of these images, by its columns ({first_few(sorted(odd))}), and "
                "would be replaced; give a new file. Labels of a manifest are read by --data manifest:FILE."
            )
        empty = [""] * len(table["path"])
        saved = [_Saved(*cells) for cells in zip(*(table.get(name, empty) for name in self._columns), strict=True)]
        for one in saved:
            for name, value, allowed in ((REVIEW, one.note, NOTES), (WHY, one.sampled, SAMPLED)):
                if value not in allowed:
                    raise DataError(f"{spec}: {name} is {value!r} for {one.key!r}; it is one of {allowed}.")
            try:
                cell_of(self.kind, value_of(self.kind, one.mark.label))
            except (ValueError, ConfigError):
                raise DataError(f"{spec}: {one.label[:80]!r} of {one.key!r} is no label for {self.kind}.") from None
        return saved

    def _kept(self, others: Sequence[_Saved]) -> list[str]:
        """Return the lines of pictures that are not there, which count again when the pictures are back.

        They have no path where another picture has it now, so that nobody reads them as its label.
        """
        usable = [row for row in range(len(self.images)) if row not in self._unread]
        keys, paths = {self.images.keys[row] for row in usable}, {self.paths[row] for row in usable}
        lines: list[str] = []
        for one in others:
            taken = bool(one.digest) and (one.key in keys or one.path in paths)
            if not taken or one.mark != Mark():
                lines.append(csv_line(one._replace(path="") if taken else one))
        return lines


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of the content of a file; None where there is none."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return None


def _paths(path: Path, images: Dataset) -> tuple[Sequence[str], dict[int, Skipped]]:
    """Return where each image lies, relative to the folder of the labels, and the rows that cannot be read.

    Images that are no files are written to a folder beside the labels.
    """
    if isinstance(images.source, FileSource):
        root = os.path.realpath(path.parent)
        files = [images.source.path(row) for row in images.rows.tolist()]
        real_folder = {folder: os.path.realpath(folder) for folder in {posixpath.dirname(file) for file in files}}
        places = [posixpath.join(real_folder[posixpath.dirname(file)], posixpath.basename(file)) for file in files]
        if outside := next((place for place in places if not is_below(place, root)), None):
            raise DataError(
                f"--labels {path}: it names files below its own folder, and images lie elsewhere, such as {outside!r}; "
                f"give a file there: --labels {Path(os.path.commonpath(list(real_folder.values())), path.name)}"
            )
        return [os.path.relpath(place, root) for place in places], {}
    return write_beside(path, images)

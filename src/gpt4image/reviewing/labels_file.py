"""The file of labels: a CSV manifest of all images of a dataset, written anew as a whole at every label.

Its column ``review`` says which labels a person gave or confirmed, and which images were too hard to say.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, first_few
from gpt4image.base.files import atomic_path, make_folder, write_text
from gpt4image.base.locks import FileLock, LockedError, acquire_lock
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import csv_cell
from gpt4image.data import ImageSet
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import FileSource, is_below
from gpt4image.data.manifest import REVIEW, read_table
from gpt4image.data.splits import representatives

Note = Literal["", "checked", "unsure"]
NOTES: tuple[Note, ...] = get_args(Note)
_HEADER = ("path", "key", "label", "split", REVIEW)


class Mark(NamedTuple):
    """What is known of an image: its class, empty for none, and whether a person gave or confirmed it."""

    label: str = ""
    note: Note = ""


class LabelsFile:
    """The labels of the images of a dataset, and the file that holds them. Close it to let others write.

    Attributes:
        copies: rows of each distinct image, one with a label first.
        paths: where each image lies, relative to the folder of the file; empty where it cannot be read.
        skipped: images that cannot be read.
    """

    def __init__(self, path: Path, images: ImageSet) -> None:
        """Take the lock, read the labels that the file has, and those of the dataset for other images; write all.

        Raises:
            ConfigError: the file is that of the dataset, or another server writes it.
            DataError: the file is none of this stage, or of other images; images lie elsewhere.
            OSError: it cannot be written.
        """
        self.path, self.images = path, images
        if images.labels.ndim != 1:
            raise ConfigError(f"--data {images.spec}: images have several classes each; review takes one per image.")
        kind, _, place = images.spec.partition(":")
        if kind == "manifest" and Path(place).expanduser().resolve() == path.resolve():
            raise ConfigError(f"--labels {path} is the file that --data reads, and would be replaced: give another.")
        make_folder(path.parent)
        self._lock = _locked(path)
        try:
            self._marks = [Mark("".join(images.label_names(row))) for row in range(len(images))]
            self._others: list[str] = []
            if path.exists():
                self._read()
            self.paths, self.skipped = _paths(path, images)
            self._lines = [self._line(row) for row in range(len(images))]
            self._write()
            self.copies = self._copies()
        except BaseException:
            self._lock.release()
            raise

    @property
    def distinct(self) -> ImageSet:
        """The images without copies of the same bytes; ``copies`` has the rows of each."""
        return self.images.select([rows[0] for rows in self.copies])

    def labels(self) -> list[str]:
        """Return the class names that images have, sorted."""
        return sorted({mark.label for mark in self._marks if mark.label})

    def close(self) -> None:
        """Let others write the file."""
        self._lock.release()

    def __getitem__(self, row: int) -> Mark:
        """Return what is known of an image."""
        return self._marks[row]

    def set(self, marks: Mapping[int, Mark]) -> None:
        """Change what is known of some images; when this returns, it is on disk. Raises OSError: nothing changed."""
        before = {row: self._marks[row] for row in marks}
        try:
            self._change(marks)
            self._write()
        except BaseException:
            self._change(before)
            raise

    def _copies(self) -> list[list[int]]:
        """Return the rows of each distinct image, one with a label first."""
        unlabelled = np.array([not mark.label for mark in self._marks])
        rows: dict[int, list[int]] = {}
        for row, first in enumerate(representatives(self.images.digests, unlabelled).tolist()):
            rows.setdefault(first, [first])
            if row != first:
                rows[first].append(row)
        return list(rows.values())

    def _change(self, marks: Mapping[int, Mark]) -> None:
        for row, mark in marks.items():
            self._marks[row] = mark
            self._lines[row] = self._line(row)

    def _write(self) -> None:
        usable = (line for line, path in zip(self._lines, self.paths, strict=True) if path)
        write_text(self.path, "".join([_row(_HEADER), *usable, *self._others]))

    def _line(self, row: int) -> str:
        images, mark = self.images, self._marks[row]
        return _row((self.paths[row], images.keys[row], mark.label, str(images.splits[row]), mark.note))

    def _read(self) -> None:
        """Take over what the file says; rows of images that are gone are kept as they are."""
        spec = f"--labels {self.path}"
        table = read_table(self.path, spec)
        if lacks := [name for name in _HEADER if name not in table]:
            raise DataError(
                f"{spec} was not written by review, as it has no column {first_few(lacks)}, and would be replaced; "
                "give a new file. Labels of a manifest are read by --data manifest:FILE."
            )
        row_of, known = {key: row for row, key in enumerate(self.images.keys)}, 0
        for cells in zip(*(table[name] for name in _HEADER), strict=True):
            _, key, label, _, note = cells
            if note not in NOTES:
                raise DataError(f"{spec}: review is {note!r} for {key!r}; it is one of {', '.join(map(repr, NOTES))}.")
            if (row := row_of.get(key)) is None:
                self._others.append(_row(cells))
            else:
                self._marks[row] = Mark(label.strip(), note)
                known += 1
        if self._others and not known:
            raise DataError(
                f"{spec} is of other images than {self.images.spec}: none of its keys is there. Give a new file."
            )


def _locked(path: Path) -> FileLock:
    try:
        return acquire_lock(path.with_name(f".{path.name}.lock"), wait_s=0.0)
    except LockedError as error:
        raise ConfigError(
            f"--labels {path} is written by {error}: go on there, end it, or give another file."
        ) from None


def _row(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([csv_cell(cell) if cell else "" for cell in cells])
    return buffer.getvalue()


def _paths(path: Path, images: ImageSet) -> tuple[Sequence[str], tuple[Skipped, ...]]:
    """Return where each image lies, relative to the folder of the labels, and the images that cannot be read.

    Images that are no files of their own are written to a folder beside the labels.
    """
    root = os.path.realpath(path.parent)
    if not isinstance(images.source, FileSource):
        return _copied(path, images)
    files = [images.source.path(row) for row in images.rows.tolist()]
    real_folder = {folder: os.path.realpath(folder) for folder in {posixpath.dirname(file) for file in files}}
    places = [posixpath.join(real_folder[posixpath.dirname(file)], posixpath.basename(file)) for file in files]
    if outside := next((place for place in places if not is_below(place, root)), None):
        raise DataError(
            f"--labels {path}: it names files below its own folder, and images lie elsewhere, such as {outside!r}; "
            f"give a file there: --labels {Path(os.path.commonpath(list(real_folder.values())), path.name)}"
        )
    return [os.path.relpath(place, root) for place in places], ()


def _copied(path: Path, images: ImageSet) -> tuple[Sequence[str], tuple[Skipped, ...]]:
    folder = path.with_suffix(".images")
    places, skipped = [], []
    with progress_bar() as progress:
        for row in progress.track(range(len(images)), description=f"writing images to {folder}"):
            suffix = Path(images.keys[row]).suffix.lower()
            file = folder / (images.digests[row] + (suffix if suffix in EXTENSIONS else ""))
            try:
                if not file.is_file():
                    content = images.read(row)
                    with atomic_path(file) as temporary:
                        temporary.write_bytes(content)
                places.append(f"{folder.name}/{file.name}")
            except (OSError, Gpt4ImageError) as error:
                places.append("")
                skipped.append(Skipped(name=images.keys[row], reason=str(error)))
    return places, tuple(skipped)

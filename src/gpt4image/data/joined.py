"""`joined:FILE.parquet`: images of several datasets as one, such as those of a first model and those that came later.

The file names the SPEC, the digest and the split of each image. Labels are read anew from the datasets, so that those
that a person has given meanwhile join; images that the file does not name do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpt4image.base.errors import DataError
from gpt4image.base.files import damaged, parquet_rows, write_parquet
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SAMPLED, SPLITS, Dataset, ImageSource
from gpt4image.data.labels import note_once
from gpt4image.data.spec import Spec

NAME = "joined"
COLUMNS = ("data", "digest", "split")


@dataclass(frozen=True)
class JoinedSource:
    """Bytes of images of several sources, one after the other."""

    parts: Sequence[tuple[ImageSource, NDArray[np.int64]]]
    starts: NDArray[np.int64]

    def read(self, row: int) -> bytes:
        """Return the bytes of one image. Raises OSError."""
        part = int(np.searchsorted(self.starts, row, "right")) - 1
        source, rows = self.parts[part]
        return source.read(int(rows[row - self.starts[part]]))


def rows_of(spec: str, digests: Sequence[str], splits: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a joined file for images of one dataset."""
    return [
        dict(zip(COLUMNS, (spec, digest, str(split)), strict=True))
        for digest, split in zip(digests, splits, strict=True)
    ]


def write_joined(file: Path, rows: Sequence[dict[str, str]]) -> str:
    """Write a joined file; return its SPEC."""
    columns = {name: pa.array([row[name] for row in rows]) for name in COLUMNS}
    write_parquet(file, pa.table(columns | {"data": columns["data"].dictionary_encode()}))
    return f"{NAME}:{file}"


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a joined file. Raises DataError, DamagedError."""
    if not file.is_file():
        raise DataError(f"{NAME}:{file}: there is no such file; `gpt4image improve` writes one.")
    rows = parquet_rows(file)
    if not rows or not all({*COLUMNS} <= row.keys() and row["split"] in SPLITS for row in rows):
        raise damaged(file, "it does not hold what improve writes")
    return rows


def load_joined(spec: Spec) -> Dataset:
    """Load the images that a joined file names. Raises DataError, and what the readers of its datasets raise."""
    from gpt4image.data import load_dataset

    splits: dict[str, dict[str, str]] = {}
    for row in read_rows(spec.path):
        splits.setdefault(row["data"], {})[row["digest"]] = row["split"]
    skipped, parts = list[Skipped](), list[Dataset]()
    for own, split_of in splits.items():
        images = load_dataset(own)
        places = np.array([row for row, digest in enumerate(images.digests) if digest in split_of], np.int64)
        if gone := split_of.keys() - {*images.digests}:
            note_once(f"{spec}: {len(gone):,} images of {own} are not there any more, or were changed.")
        skipped += images.skipped
        if len(places):
            chosen = images.select(places)
            parts.append(chosen.revised(splits=np.array([split_of[digest] for digest in chosen.digests])))
    if not parts:
        raise DataError(f"{spec}: none of its images is there any more.")
    return replace_digests(_joined(spec.text, parts, tuple(dict.fromkeys(skipped))), parts)


def replace_digests(images: Dataset, parts: Sequence[Dataset]) -> Dataset:
    """Return a dataset that knows the digests of its parts, so that none is read again."""
    images.__dict__["digests"] = tuple(digest for part in parts for digest in part.digests)
    return images


def _joined(spec: str, parts: Sequence[Dataset], skipped: tuple[Skipped, ...]) -> Dataset:
    kinds = {(part.labels.ndim if part.classes else 0, type(part.regions), part.clips) for part in parts}
    if len({kind for kind in kinds if kind[0]}) > 1 or len({kind[1:] for kind in kinds}) > 1:
        raise DataError(f"{spec}: its datasets have labels of different kinds; join those of one kind.")
    if any(part.regions is not None for part in parts):
        raise DataError(f"{spec}: boxes and masks are not joined; only labels are.")
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    several = any(part.labels.ndim == 2 for part in parts)
    parts = [
        replace(part, labels=np.zeros((len(part), 0), np.int8)) if several and part.labels.ndim == 1 else part
        for part in parts
    ]
    labels = [part.with_classes(classes).labels for part in parts]
    sizes = [len(part) for part in parts]
    sampled = [
        np.full(size, SAMPLED[0]) if part.sampled is None else part.sampled
        for size, part in zip(sizes, parts, strict=True)
    ]
    return Dataset(
        spec=spec,
        classes=classes,
        keys=_keys([part.keys for part in parts]),
        labels=np.concatenate(labels),
        splits=np.concatenate([part.splits for part in parts]),
        source=JoinedSource([(part.source, part.rows) for part in parts], np.cumsum([0, *sizes[:-1]])),
        rows=np.arange(sum(sizes)),
        skipped=skipped,
        clips=parts[0].clips,
        sampled=np.concatenate(sampled) if any(part.sampled is not None for part in parts) else None,
    )


def _keys(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return keys of all parts; one that an earlier part has gets the number of its part."""
    taken, found = set[str](), list[str]()
    for number, keys in enumerate(parts, 1):
        own = [key if key not in taken else f"{key} ({number})" for key in keys]
        taken.update(own)
        found += own
    return tuple(found)

"""The dataset: keys, digests, labels and splits of images whose bytes stay where they are."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.data.file_source import FileSource, file_digests, is_unicode
from gpt4image.data.labels import NO_LABEL, rarest_classes
from gpt4image.data.regions import Regions

SPLITS = ("train", "val", "test")
RANDOM, DOUBT = "random", "doubt"
SAMPLED = ("", RANDOM, DOUBT)
"""Why a person was asked about an image: nobody was, or it is not known; at random; as its label was in doubt.

What was in doubt teaches and never measures, for it is harder than the others.
"""
# Names that folders, manifests and published datasets use for them.
SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_named(name: str) -> str | None:
    """Return the split named in a word of a name, such as train of ``instances_train2017``; None without."""
    return next((SPLIT_OF[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_OF), None)


def split_in_folders(path: str) -> str | None:
    """Return the split of the first folder with a split name; None without."""
    return next(filter(None, map(split_named, PurePosixPath(path).parts[:-1])), None)


class ImageSource(Protocol):
    """Where the bytes of images are."""

    def read(self, row: int) -> bytes:
        """Return the bytes of one image, in a format that Pillow reads. Raises OSError."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """N images of one dataset. Immutable; selecting images shares the source.

    Attributes:
        spec: the SPEC string it was loaded from.
        classes: K class names; a label is a position in it.
        keys: N unique stable names (relative path, dataset id).
        labels: (N,) int64, one class per image, NO_LABEL where there is none; or (N, K) int8, several classes per
            image: 1 present, 0 absent, -1 not known.
        splits: (N,) str, each one of SPLITS.
        source: gives the bytes of image i as ``source.read(rows[i])``.
        rows: (N,) int64, position of each image in the source.
        skipped: skipped images, with the reason.
        regions: boxes or masks of the N images, of which ``labels`` say which classes are present; None without.
        clips: whether the bytes are those of videos; see ``data.video``.
        sampled: (N,) str, why a person was asked about each image, one of ``SAMPLED``; None where nothing says it.
    """

    spec: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: NDArray[Any]
    splits: NDArray[np.str_]
    source: ImageSource
    rows: NDArray[np.int64]
    skipped: tuple[Skipped, ...] = ()
    regions: Regions | None = None
    clips: bool = False
    sampled: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        """Check lengths, keys, labels and splits. Raises DataError."""
        images, classes = len(self.keys), len(self.classes)
        parts = (self.keys, self.labels, self.splits, self.rows, self.regions, self.sampled)
        lengths = {len(part) for part in parts if part is not None}
        several = self.labels.ndim == 2
        wrong, fault = (self.labels < NO_LABEL) | (self.labels >= (2 if several else classes)), ""
        if len(lengths) > 1:
            fault = f"keys, labels, splits, rows and regions of {lengths} images; one of each per image is needed"
        elif not images:
            fault = "there are no images"
        elif twice := first_few(key for key, count in Counter(self.keys).items() if count > 1):
            fault = f"keys must be unique, but these come twice: {twice}"
        elif self.labels.shape[1:] not in ((), (classes,)):
            fault = f"labels have the shape {self.labels.shape}; ({images},) or ({images}, {classes}) is needed"
        elif wrong.any():
            keys = (self.keys[i] for i in np.unique(np.nonzero(wrong)[0]))
            allowed = "0 (absent), 1 (present) or -1 (not known)" if several else f"in 0..{classes - 1}, or -1 for none"
            fault = f"labels must be {allowed}; got {self.labels[wrong][0]} for {first_few(keys)}"
        elif broken := [name for name in (*self.classes, *self.keys) if not is_unicode(name)]:
            fault = f"the name {broken[0]!a} holds half a character (of a surrogate pair), which no file can hold"
        elif strange := sorted(set(np.unique(self.splits).tolist()) - set(SPLITS)):
            fault = f"splits are {', '.join(SPLITS)}; got {first_few(strange)}"
        if fault:
            raise DataError(f"{self.spec}: {fault}.")

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """Return the bytes of image ``index``."""
        return self.source.read(int(self.rows[index]))

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """N sha256 hex digests of the image bytes: descriptions belong to these. Equal images share one.

        One that cannot be read gets a digest of its own, which no content has; decoding it later gives the reason.
        """
        if isinstance(self.source, FileSource):
            return file_digests([self.source.path(row) for row in self.rows.tolist()])
        return tuple(_digest(self.source, row) for row in self.rows.tolist())

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) which images have a label; of several classes, one at least that is known to be present or absent."""
        known = self.labels != NO_LABEL
        return known.any(axis=1) if known.ndim == 2 else known

    def was_sampled(self, why: str) -> NDArray[np.bool_]:
        """Return (N,) which images a person was asked about for one reason of ``SAMPLED``."""
        return np.zeros(len(self), bool) if self.sampled is None else self.sampled == why

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the class by which splits are cut: the label, of several classes the rarest one that is present.

        K where all known classes are absent; NO_LABEL without a label, or without the boxes or masks of a dataset of
        these.
        """
        if self.labels.ndim == 1:
            return self.labels
        rarest = rarest_classes(self.labels)
        groups = np.where(self.labelled & (rarest == NO_LABEL), len(self.classes), rarest)
        return groups if self.regions is None else np.where(self.regions.known, groups, NO_LABEL)

    def label_names(self, index: int) -> tuple[str, ...]:
        """Return the names of the classes of image ``index``; none where it has no label."""
        label = self.labels[index]
        present = np.flatnonzero(label == 1) if self.labels.ndim == 2 else [label] if label != NO_LABEL else []
        return tuple(self.classes[k] for k in present)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of one split, in order."""
        return np.flatnonzero(self.splits == split)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Dataset:
        """Return the images at ``indices``, in that order; digests that are known stay known."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self.revised(
            chosen,
            keys=tuple(self.keys[i] for i in chosen),
            labels=self.labels[chosen],
            splits=self.splits[chosen],
            rows=self.rows[chosen],
            regions=None if self.regions is None else self.regions[chosen],
            sampled=None if self.sampled is None else self.sampled[chosen],
        )

    def revised(self, chosen: NDArray[np.int64] | None = None, **changes: Any) -> Dataset:
        """Return the same images, or those ``chosen``, with other fields; digests that are known stay known."""
        other = replace(self, **changes)
        if "digests" in self.__dict__:
            own = self.digests
            other.__dict__["digests"] = own if chosen is None else tuple(own[i] for i in chosen)
        return other

    def with_classes(self, names: Sequence[str], where: str = "the list of classes") -> Dataset:
        """Return the same images among more classes; ``names`` are those of ``where``, and hold all. DataError."""
        if tuple(names) == self.classes:
            return self
        if lost := sorted(set(self.classes) - set(names)):
            others = set(names) - set(self.classes)
            close = {name: difflib.get_close_matches(name, others, n=1) for name in lost[:5]}
            slips = "".join(f" Is {near[0]!r} meant to be {name!r}?" for name, near in close.items() if near)
            known = f"; other classes there are {first_few(sorted(others))}" if others else ""
            raise DataError(
                f"{self.spec} has images of {first_few(lost)}, which {where} lacks{known}.{slips} If a class was "
                "renamed or split, give both the same names. If the folders are no classes, put the images into one "
                "folder without others."
            )
        number_of = {name: number for number, name in enumerate(names)}
        place = [number_of[name] for name in self.classes]
        if self.labels.ndim == 1:
            labels = np.array([*place, NO_LABEL], np.int64)[self.labels]
        else:
            labels = np.full((len(self), len(names)), NO_LABEL, np.int8)
            labels[:, place] = self.labels
        regions = None if self.regions is None else self.regions.with_classes(place, len(names))
        return self.revised(classes=tuple(names), labels=labels, regions=regions)


class MemorySource:
    """Image bytes held in a list."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self._images = images

    def read(self, row: int) -> bytes:
        """Return the bytes of one image."""
        return self._images[row]


def _digest(source: ImageSource, row: int) -> str:
    try:
        return hashlib.sha256(source.read(row)).hexdigest()
    except OSError:
        return hashlib.sha256(b"unreadable image\0%d" % row).hexdigest()

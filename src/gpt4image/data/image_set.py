"""The image set: keys, digests, labels and splits of images whose bytes stay where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few
from gpt4image.base.outcome import SetAside

NO_LABEL = -1
SPLITS = ("train", "val", "test")
# Names that folders, manifests and published sets use for them.
SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class ImageSource(Protocol):
    """Where the bytes of images are."""

    def read(self, row: int) -> bytes:
        """Return the bytes of one image, in a format that Pillow reads. Raises OSError where they cannot be read."""
        ...

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image; many at once, so that sources can be quick."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """N images of one set. Immutable; selecting images shares the source.

    Attributes:
        spec: the SPEC string it was loaded from.
        classes: class names; a label is a position in it.
        keys: N unique stable names (relative path, dataset id).
        labels: (N,) int64, NO_LABEL where there is none.
        splits: (N,) str, each one of SPLITS.
        source: gives the bytes of image i as ``source.read(rows[i])``.
        rows: (N,) int64, position of each image in the source.
        set_aside: images of the set that cannot be used, with the reason.
    """

    spec: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    source: ImageSource
    rows: NDArray[np.int64]
    set_aside: tuple[SetAside, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no later stage could mend: lengths that differ, duplicate keys, labels out of range."""
        if not len(self.keys) == len(self.labels) == len(self.splits) == len(self.rows):
            raise DataError(
                f"{self.spec}: {len(self.keys)} keys, {len(self.labels)} labels, {len(self.splits)} splits and "
                f"{len(self.rows)} rows; one of each per image is needed."
            )
        if not self.keys:
            raise DataError(f"{self.spec}: there are no images.")
        if len(set(self.keys)) != len(self.keys):
            seen: set[str] = set()
            twice = dict.fromkeys(key for key in self.keys if key in seen or seen.add(key))
            raise DataError(f"{self.spec}: keys must be unique, but these come twice: {first_few(twice)}.")
        wrong = np.flatnonzero((self.labels < NO_LABEL) | (self.labels >= len(self.classes)))
        if len(wrong):
            raise DataError(
                f"{self.spec}: labels must be in 0..{len(self.classes) - 1}, or {NO_LABEL} for none; got "
                f"{self.labels[wrong[0]]} for {first_few(self.keys[i] for i in wrong)}."
            )
        strange = sorted(set(np.unique(self.splits).tolist()) - set(SPLITS))
        if strange:
            raise DataError(f"{self.spec}: splits are {', '.join(SPLITS)}; got {first_few(strange)}.")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """Return the bytes of image ``index``."""
        return self.source.read(int(self.rows[index]))

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """N sha256 hex digests of the image bytes: what descriptions belong to. Equal images share one."""
        return self.source.digests(self.rows)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of one split, in order."""
        return np.flatnonzero(self.splits == split)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """Return the set of the images at ``indices``, in that order; digests that are known stay known."""
        chosen = np.asarray(indices, dtype=np.int64)
        part = replace(
            self,
            keys=tuple(self.keys[i] for i in chosen),
            labels=self.labels[chosen],
            splits=self.splits[chosen],
            rows=self.rows[chosen],
        )
        if "digests" in self.__dict__:
            part.__dict__["digests"] = tuple(self.digests[i] for i in chosen)
        return part

    def revised(self, *, labels: NDArray[np.int64] | None = None, splits: NDArray[np.str_] | None = None) -> ImageSet:
        """Return the set of the same images with other labels or splits; digests that are known stay known."""
        other = replace(
            self,
            labels=self.labels if labels is None else labels,
            splits=self.splits if splits is None else splits,
        )
        if "digests" in self.__dict__:
            other.__dict__["digests"] = self.digests
        return other


class MemorySource:
    """Image bytes held in a list."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self._images = images

    def read(self, row: int) -> bytes:
        """Return the bytes of one image."""
        return self._images[row]

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image."""
        return tuple(hashlib.sha256(self._images[row]).hexdigest() for row in rows)

"""`cifar10`, `cifar100`: the original 32 x 32 arrays, by torchvision.

`cifar10:ROOT` reads a folder that torchvision knows as root; without ROOT the set is downloaded to the user's cache.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError
from gpt4image.base.files import user_cache
from gpt4image.data.dataset import Dataset
from gpt4image.data.file_source import expanded
from gpt4image.data.records import Record, to_dataset

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def load_cifar10(root: str = "") -> Dataset:
    """Load CIFAR-10; see `_load`."""
    from torchvision.datasets import CIFAR10

    return _load("cifar10", CIFAR10, root)


def load_cifar100(root: str = "") -> Dataset:
    """Load CIFAR-100 with its 100 fine classes; see `_load`."""
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, root)


def _load(name: str, kind: type[CIFAR10], root: str) -> Dataset:
    """Load both splits. Key of the k-th image of a class, in the official order: ``bird/000k``, ``test/bird/000k``.

    torchvision unpickles the archive's files, which is safe only for these: it first compares the md5 of each file
    with the official one (`CIFAR10._check_integrity`, which its constructor calls) and refuses others.

    Raises:
        DataError: the folder lacks the official files, or they cannot be downloaded.
    """
    spec = f"{name}:{root}" if root else name
    folder = expanded(root) if root else user_cache() / "torchvision"
    try:
        train, test = (kind(folder, train=is_train, download=not root) for is_train in (True, False))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{spec}: {folder} does not hold the official files ({kind.base_folder}/...): {error}. "
            f"Give the root of a torchvision download, {name}:ROOT; without ROOT it is downloaded."
        ) from None
    records = [
        Record(key=f"{prefix}{label}/{number:04d}", split=split, label=label)
        for part, split, prefix in ((train, "train", ""), (test, "test", "test/"))
        for label, number in _numbered(part)
    ]
    source = PpmSource(np.concatenate([train.data, test.data]))
    return to_dataset(spec, records, source, classes=train.classes)


def _numbered(part: CIFAR10) -> Iterator[tuple[str, int]]:
    """Yield the class name of each image, and how many of that class were before it."""
    count: dict[int, itertools.count[int]] = defaultdict(itertools.count)
    yield from ((part.classes[label], next(count[label])) for label in part.targets)


class PpmSource:
    """Arrays (N, H, W, 3) uint8 as binary PPM files (P6): so each image has bytes and a stable digest."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def read(self, row: int) -> bytes:
        """Return one image as a PPM file."""
        height, width = self._images.shape[1:3]
        return f"P6\n{width} {height}\n255\n".encode() + self._images[row].tobytes()

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the PPM file of each image."""
        return tuple(hashlib.sha256(self.read(row)).hexdigest() for row in rows)

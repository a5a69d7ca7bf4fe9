"""`cifar10`, `cifar100`: the original 32 x 32 arrays, by torchvision.

`cifar10:ROOT` reads a folder that torchvision knows as root; without ROOT the set is downloaded to the user's cache.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpt4image.base.errors import DataError
from gpt4image.base.files import user_cache
from gpt4image.data.dataset import Dataset, MemorySource
from gpt4image.data.file_source import expanded
from gpt4image.data.records import Record, to_dataset

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def load_cifar10(root: str = "") -> Dataset:
    """Load CIFAR-10."""
    from torchvision.datasets import CIFAR10

    return _load("cifar10", CIFAR10, root)


def load_cifar100(root: str = "") -> Dataset:
    """Load CIFAR-100 with its 100 fine classes."""
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, root)


def _load(name: str, kind: type[CIFAR10], root: str) -> Dataset:
    """Load both splits. Key of the k-th image of a class, in the official order: ``bird/000k``, ``test/bird/000k``."""
    spec = f"{name}:{root}" if root else name
    folder = expanded(root) if root else user_cache() / "torchvision"
    try:
        train, test = (kind(folder, train=is_train, download=not root) for is_train in (True, False))
    except (RuntimeError, OSError) as error:
        files = f"{folder} does not hold the official files ({kind.base_folder}/...): {error}"
        raise DataError(
            f"{spec}: {files}. Give {name}:ROOT of a torchvision download, or none to download it."
        ) from None
    records, count = list[Record](), Counter[str]()
    for part, split, prefix in ((train, "train", ""), (test, "test", "test/")):
        for label in map(part.classes.__getitem__, part.targets):
            key = f"{prefix}{label}"
            records.append(Record(key=f"{key}/{count[key]:04d}", split=split, label=label))
            count[key] += 1
    head = b"P6\n32 32\n255\n"  # binary PPM files: so each image has bytes and a stable digest
    source = MemorySource([head + image.tobytes() for part in (train, test) for image in part.data])
    return to_dataset(spec, records, source, classes=train.classes)

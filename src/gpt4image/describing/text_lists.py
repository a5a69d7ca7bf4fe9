"""Lists of texts that others released, in the order of their images, read without running code that is in them.

``torch.save`` writes pickles, and a pickle is a program: such files are read by torch's own weights-only reader.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt4image.base.errors import DataError, first_line, parsing
from gpt4image.data.image_set import SPLITS, ImageSet

SUFFIXES = (".json", ".pt", ".pth", ".txt")


def read_texts(path: Path) -> Iterable[Any]:
    """Return the items of a list in SUFFIXES, or ``{"key": ..., "description": ...}`` from a dictionary of texts.

    ``*.txt`` has one text per line, an empty one for an image without a text. Items that are no texts are returned as
    they are.

    Raises:
        DataError: the file would run code, is damaged, or holds neither a list nor a dictionary.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None
        return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
    if suffix == ".json":
        with parsing(f"{path}: not JSON; JSON lines are named *.jsonl"):
            value = json.loads(path.read_text(encoding="utf-8-sig"))
    else:
        value = _load_torch(path)
    if isinstance(value, Mapping):
        return [{"key": key, "description": text} if isinstance(text, str) else text for key, text in value.items()]
    if not isinstance(value, list | tuple):  # not printed: nested data may be endless
        raise DataError(
            f"{path}: a list of texts, or a dictionary from keys to texts, is needed; found a {type(value).__name__}."
        )
    return value


def require_one_each(file: Path, rows: int, images: ImageSet, expect: int) -> None:
    """Raise DataError unless rows to be paired with images by place are as many as the images and as expected."""
    if not rows == len(images) == expect:
        fits = [split for split in SPLITS if len(images.indices(split)) == rows]
        hint = (
            f" Its split {fits[0]!r} has {rows}: give a SPEC of only this split, as folder:PATH/train." if fits else ""
        )
        raise DataError(
            f"--expect {expect}: {file} has {rows} rows and {images.spec} has {len(images)} images "
            f"({len(images.skipped)} skipped); all must be equal, or texts would shift to other images.{hint}"
        )


def _load_torch(path: Path) -> Any:
    import torch

    with parsing(f"{path}: damaged, or not what its name says"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange pickles, which end as an error or are fine
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            raise DataError(
                f"{path}: this pickle holds more than texts and numbers, or is damaged ({first_line(error)}); loading "
                "it could run code, so it is refused. Ask its publisher for JSON lines, or convert it where that does "
                "no harm."
            ) from None

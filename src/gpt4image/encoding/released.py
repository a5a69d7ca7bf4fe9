"""Released lists of texts and matrices of embeddings, read without running code that is in them.

A pickle is a program, and `torch.save` writes pickles. They are read by an unpickler that builds lists, dictionaries,
texts and numbers and looks up no names; files of torch by its own weights-only reader.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, first_line, parsing
from gpt4image.data.image_set import SPLITS, ImageSet

if TYPE_CHECKING:
    from torch import Tensor

TEXT_SUFFIXES = (".json", ".pt", ".pth", ".pkl", ".pickle", ".npy", ".txt")
MATRIX_SUFFIXES = (".pt", ".pth", ".npy", ".safetensors")


def read_texts(path: Path) -> Iterable[Any]:
    """Return the items of a list in TEXT_SUFFIXES, or ``{"key": ..., "description": ...}`` from a dictionary of texts.

    ``*.npy`` is an array of texts; ``*.txt`` has one text per line, an empty one for an image without a text. Items
    that are no texts are returned as they are.

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
    if suffix == ".npy":
        array = _load_npy(path)
        if array.dtype.kind == "U" and array.nbytes:
            letters = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
            if letters.max() > sys.maxunicode:
                raise DataError(f"{_damaged(path)}: it holds numbers that are no letters.")
        return array.tolist()
    if suffix == ".json":
        with parsing(f"{path}: not JSON; JSON lines are named *.jsonl"):
            value = json.loads(path.read_text(encoding="utf-8-sig"))
    elif suffix in (".pt", ".pth"):
        value = _load_torch(path)
    else:
        with parsing(_damaged(path)), _refusing(path), path.open("rb") as file:
            value = _NothingButData(file).load()
    if isinstance(value, Mapping):
        return [{"key": key, "description": text} if isinstance(text, str) else text for key, text in value.items()]
    if not isinstance(value, list | tuple):
        raise DataError(f"{path}: a list of texts, or a dictionary from keys to texts, is needed; {_found(value)}.")
    return value


def read_matrix(path: Path) -> Tensor:
    """Return the (N, D) float tensor in a file of MATRIX_SUFFIXES, memory-mapped if the format allows it.

    Raises:
        ConfigError: the file is missing or of unknown kind.
        DataError: the file would run code, is damaged, or holds something else.
    """
    import torch

    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in MATRIX_SUFFIXES:
        what = f"unknown kind of file {suffix!r}" if path.is_file() else "there is no such file"
        raise ConfigError(f"{path}: {what}; give one matrix of embeddings as *{', *'.join(MATRIX_SUFFIXES)}.")
    if suffix == ".safetensors":
        from safetensors.torch import load_file

        with parsing(_damaged(path)):
            tensors = load_file(path)
        value: Any = next(iter(tensors.values())) if len(tensors) == 1 else tensors
    elif suffix == ".npy":
        array = _load_npy(path)
        native = array.dtype.newbyteorder("=")
        value = torch.from_numpy(array.astype(native, copy=False)) if array.dtype.kind == "f" else array
    else:
        value = _load_torch(path)
    if not isinstance(value, torch.Tensor) or value.ndim != 2 or not value.is_floating_point() or not value.numel():
        raise DataError(f"{path}: one matrix of floats, a row an image, is needed; {_found(value)}.")
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
            f"({len(images.set_aside)} skipped); all must be equal, or texts would shift to other images.{hint}"
        )


class _NothingButData(pickle._Unpickler):  # pyright: ignore
    """Builds only objects without a class or function: lists, tuples, dictionaries, texts, numbers.

    The unpickler in C takes memory for the largest number of an object that is named, 2 GB for a damaged one.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def _load_torch(path: Path) -> Any:
    import torch

    with parsing(_damaged(path)), _refusing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange pickles, which end as an error or are fine
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _load_npy(path: Path) -> np.ndarray[Any, Any]:
    with parsing(_damaged(path)):
        return np.lib.format.open_memmap(path, mode="c")  # refuses objects; np.load would open other kinds too


@contextlib.contextmanager
def _refusing(path: Path) -> Generator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: this pickle holds more than texts and numbers, or is damaged ({first_line(error)}); loading it "
            "could run code, so it is refused. Ask its publisher for JSON lines, or convert it where that does no harm."
        ) from None


def _damaged(path: Path) -> str:
    return f"{path}: damaged, or not what its name says"


def _found(value: Any) -> str:
    """Describe the content of a file without printing it: nested data may be endless."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"found an array of shape {tuple(shape)}, {value.dtype}"
    if isinstance(value, list | tuple | Mapping):
        return f"found a {type(value).__name__} of {len(value)} items"
    return f"found a {type(value).__name__}"

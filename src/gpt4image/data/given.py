"""`python:NAME`: images and labels that a call in Python was given: lists, arrays, or a table of pandas.

They become a table in a folder that this process and those that it starts know, and that goes when it ends. Its name is
made of the content. Pictures in memory are written without compression (PPM): no library's version changes the digest.
"""

import atexit
import hashlib
import io
import os
import shutil
from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from gpt4image.base.errors import DataError, DecodeError
from gpt4image.base.files import fingerprint, write_parquet
from gpt4image.data.dataset import Dataset
from gpt4image.data.decode import upright_rgb
from gpt4image.data.labels import class_name
from gpt4image.data.manifest import ROLES, load_manifest
from gpt4image.data.spec import Spec

FOLDER = "GPT4IMAGE_GIVEN"
"""The variable that names the folder, so that worker processes find it."""
FORMS = (
    "data takes a SPEC or a path; a pair (images, labels) of equal length, where labels may be None; or a DataFrame "
    "with a column path, and perhaps key, label (or labels: lists) and split"
)


def dataset(data: Any) -> str:
    """Return the SPEC of images and labels that are given as objects; they are on disk when this returns.

    Args:
        data: a pair of images and labels, or a table with columns. Images are paths, PIL pictures or arrays of uint8,
            (H, W, 3), (H, W, 4) or (H, W). A label is a name or number, None without, or a list of several.

    Raises DataError.
    """
    columns = _columns(data)
    images = columns.pop("path")
    if odd := next((name for name, cells in columns.items() if len(cells) != len(images)), None):
        raise DataError(f"data: {len(images)} images, but {len(columns[odd])} in {odd!r}; {FORMS}.")
    if not images:
        raise DataError(f"data: there are no images; {FORMS}.")
    folder = Path(os.environ.get(FOLDER) or _made())
    paths = [as_file(image, folder, f"data: image {row}") for row, image in enumerate(images)]
    ours = [path.startswith(f"{folder}{os.sep}") for path in paths]
    keys = [f"{row:07d}" if own else Path(images[row]).as_posix() for row, own in enumerate(ours)]
    table = {"key": keys, **{name: [_plain(cell) for cell in cells] for name, cells in columns.items()}}
    identity = [Path(path).name if own else path for path, own in zip(paths, ours, strict=True)]
    name = fingerprint({**table, "path": identity})[:16]
    write_parquet(folder / f"{name}.parquet", pa.table({**table, "path": paths}))
    return f"python:{name}"


def load_given(spec: Spec) -> Dataset:
    """Load what ``dataset`` has kept under a name. Raises DataError: another process was given it."""
    file = Path(os.environ.get(FOLDER, os.devnull)) / f"{spec.where}.parquet"
    if not spec.where.isalnum() or not file.is_file():
        raise DataError(
            f"{spec} is data that a call in Python was given, in a process that has ended: give the same images and "
            "labels as data= again."
        )
    return replace(load_manifest(Spec(spec.text, "manifest", str(file), {"images": file.anchor})), spec=spec.text)


@contextmanager
def as_files(images: Sequence[Any]) -> Generator[tuple[tuple[str, ...], Mapping[str, str]]]:
    """Yield paths of images to predict (paths, pictures, tables), and the numbers of those that were in memory."""
    given = list[Any]()
    for one in images:
        table = _columns(one)["path"] if hasattr(one, "columns") else None
        given += table or (list(one) if getattr(one, "ndim", 0) == 4 else [one])
    with TemporaryDirectory(prefix="gpt4image-") as folder:
        paths = [
            os.fspath(image) if _is_path(image) else as_file(image, Path(folder) / str(row), f"images: image {row}")
            for row, image in enumerate(given)
        ]
        yield tuple(paths), {path: str(row) for row, path in enumerate(paths) if not _is_path(given[row])}


def as_file(image: Any, folder: Path, what: str) -> str:
    """Return the path of an image; one in memory is written to a folder. Raises DataError naming ``what``."""
    if _is_path(image):
        return os.path.abspath(image)  # noqa: PTH100
    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        is_picture = pixels.ndim in (2, 3) and pixels.shape[2:] in ((), (1,), (3,), (4,)) and pixels.size
        if pixels.dtype != np.uint8 or not is_picture:
            raise DataError(
                f"{what} is a {type(image).__name__} of {pixels.dtype} {pixels.shape}; give a path, a PIL picture, or "
                "an array of uint8 with the shape (H, W, 3), (H, W, 4) or (H, W)."
            )
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    content = io.BytesIO()
    try:
        upright_rgb(image).save(content, "PPM")
    except (DecodeError, OSError) as error:
        raise DataError(f"{what} cannot be taken: {error}.") from None
    folder.mkdir(exist_ok=True)
    file = folder / f"{hashlib.sha256(content.getvalue()).hexdigest()}.ppm"
    file.write_bytes(content.getvalue())
    return str(file)


def _made() -> str:
    os.environ[FOLDER] = place = mkdtemp(prefix="gpt4image-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _is_path(image: Any) -> bool:
    return isinstance(image, str | os.PathLike)


def _columns(data: Any) -> dict[str, list[Any]]:
    """Return the columns that count. Raises DataError: there are none of images."""
    if hasattr(data, "columns"):
        found = {name: list(data[name]) for name in ROLES if name in data.columns}
        if "path" not in found:
            raise DataError(f"The table has the columns {', '.join(map(str, data.columns))}; {FORMS}.")
        return found
    if not isinstance(data, tuple) or len(data) != 2:
        raise DataError(f"data is a {type(data).__name__}; {FORMS}.")
    images, labels = data
    for part in (images, () if labels is None else labels):  # a mapping or a set has no order to pair them by
        if isinstance(part, str | bytes | os.PathLike | Mapping | Set) or not hasattr(part, "__iter__"):
            raise DataError(f"data: {type(part).__name__} is no list of images or labels; {FORMS}.")
    if (axes := getattr(labels, "ndim", 1)) != 1:
        raise DataError(f"data: the labels are an array of {axes} axes; give one number or a list of names per image.")
    cells = [] if labels is None else list(labels)
    if any(isinstance(label, list | tuple | Set) for label in cells):
        cells = [one if one is None or isinstance(one, list | tuple | Set) else [one] for one in cells]
        return {"path": list(images), "labels": cells}
    return {"path": list(images), **({} if labels is None else {"label": cells})}


def _plain(cell: Any) -> Any:
    """Return a cell as text, or as a list of texts."""
    if isinstance(cell, Set):
        cell = sorted(cell, key=str)
    if isinstance(cell, list | tuple | np.ndarray):
        return [_plain(each) for each in cell]
    return class_name(cell.item() if hasattr(cell, "item") else cell)  # a number of numpy or torch

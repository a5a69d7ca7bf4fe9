"""`python:NAME`: images and labels that a call in Python was given: lists, arrays, or a table of pandas.

They become a dataset in the user's cache, under a name made of their content, so that worker processes and later ones
find them. Pictures in memory are written without compression (PPM), whose digest no version of a library changes.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Generator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from gpt4image.base.errors import DataError, DecodeError
from gpt4image.base.files import fingerprint, make_folder, read_json, user_cache, write_json
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.decode import upright_rgb
from gpt4image.data.file_source import FileSource, locate_all
from gpt4image.data.manifest import LABEL_COLUMNS, SYNONYMS
from gpt4image.data.records import Record, require_some, to_dataset

KIND = "python"
TABLE = "table.json"
FORMS = (
    "data takes a SPEC or a path; a pair (images, labels) of equal length, where labels may be None; or a DataFrame "
    "with a column path or image, and perhaps key, label (or labels: lists) and split"
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
    table: dict[str, Any] = {name: [_plain(cell) for cell in cells] for name, cells in columns.items()}
    pictures = [not isinstance(image, str | os.PathLike) for image in images]
    in_memory = any(pictures)
    if in_memory and not all(pictures):
        row = pictures.index(True)
        kind = type(images[row]).__name__
        raise DataError(f"data: image {row} is a {kind}, and others are paths; give paths for all, or for none.")
    if in_memory:
        encoded = (ppm(image, f"data: image {row}") for row, image in enumerate(images))
        table["digest"] = [hashlib.sha256(picture).hexdigest() for picture in encoded]
        table.setdefault("key", [f"{row:07d}" for row in range(len(images))])
    else:
        table["path"] = [os.path.abspath(image) for image in images]  # noqa: PTH100
        table.setdefault("key", [Path(image).as_posix() for image in images])
    folder = _folder(name := fingerprint(table)[:16])
    if not (folder / TABLE).is_file():
        make_folder(folder)
        for row, image in enumerate(images if in_memory else ()):
            (folder / f"{row:07d}.ppm").write_bytes(ppm(image, "data"))
        write_json(folder / TABLE, table)  # last: it says that the pictures are there
    return f"{KIND}:{name}"


def load_given(argument: str) -> Dataset:
    """Load what ``dataset`` has kept under a name. Raises DataError: it is not there, or its table has a fault."""
    spec, folder = f"{KIND}:{argument}", _folder(argument)
    if not argument.isalnum() or not (folder / TABLE).is_file():
        where = f"and it is not in {folder.parent}: give the same images and labels as data= again"
        raise DataError(f"{spec} is data that a call in Python was given, {where}.")
    table: dict[str, Any] = read_json(folder / TABLE)
    name, nothing = next((name for name in LABEL_COLUMNS if name in table), ""), [None] * len(table["key"])
    records = [
        Record(key=key, split=split or "train", label=label)
        for key, split, label in zip(table["key"], table.get("split", nothing), table.get(name, nothing), strict=True)
    ]
    paths = table.get("path") or [str(folder.absolute() / f"{row:07d}.ppm") for row in range(len(records))]
    located = locate_all(Path("/"), paths)
    found = [(one, file) for one, (file, fault) in zip(records, located, strict=True) if not fault]
    skipped = [Skipped(one.key, why) for one, (_, why) in zip(records, located, strict=True) if why]
    require_some(found, f"{spec}: none of its {len(records)} paths leads to an image.", skipped)
    source = FileSource(Path("/"), [file for _, file in found])
    return to_dataset(spec, [one for one, _ in found], source, skipped=skipped)


@contextmanager
def as_files(images: Any) -> Generator[tuple[tuple[str, ...], Mapping[str, str]]]:
    """Yield paths of images to predict (paths, pictures, or a table), and the numbers of those that were in memory."""
    if hasattr(images, "columns"):
        if "path" not in (found := _named(images)):
            names = ", ".join(map(str, images.columns))
            raise DataError(f"images: the table has the columns {names}, and none is path or image.")
        images = found["path"]
    elif isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) in (2, 3):
        images = [images]
    elif not hasattr(images, "__iter__"):
        raise DataError(f"images is a {type(images).__name__}; give paths, pictures, or a table with a column path.")
    with TemporaryDirectory(prefix="gpt4image-") as folder:
        paths, names = list[str](), dict[str, str]()
        for row, image in enumerate(images):
            if not isinstance(image, str | os.PathLike):
                path = Path(folder) / f"{row:07d}.ppm"
                path.write_bytes(ppm(image, f"images: image {row}"))
                names[str(path)] = str(row)
                image = path
            paths.append(os.fspath(image))
        yield tuple(paths), names


def ppm(image: Any, what: str) -> bytes:
    """Return a picture in memory as the bytes of a file without compression. Raises DataError naming ``what``."""
    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        is_picture = pixels.ndim in (2, 3) and pixels.shape[2:] in ((), (1,), (3,), (4,)) and pixels.size
        if pixels.dtype != np.uint8 or not is_picture:
            raise DataError(
                f"{what} is a {type(image).__name__} of {pixels.dtype} {pixels.shape}; give a path, a PIL picture, or "
                "an array of uint8 with the shape (H, W, 3), (H, W, 4) or (H, W)."
            )
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    file = io.BytesIO()
    try:
        upright_rgb(image).save(file, "PPM")
    except (DecodeError, OSError) as error:
        raise DataError(f"{what} cannot be taken: {error}.") from None
    return file.getvalue()


def _columns(data: Any) -> dict[str, list[Any]]:
    """Return the columns that count, by their usual names. Raises DataError: there are none of images."""
    if hasattr(data, "columns"):
        found = _named(data)
        if "path" not in found:
            raise DataError(f"The table has the columns {', '.join(map(str, data.columns))}; {FORMS}.")
        if strange := sorted({str(cell) for cell in found.get("split", ())} - SPLIT_OF.keys()):
            raise DataError(f"data: the split {strange[0]!r} is none of {', '.join(SPLIT_OF)}.")
        if "split" in found:
            found["split"] = [SPLIT_OF[str(cell)] for cell in found["split"]]
        if "key" in found:
            found["key"] = list(map(str, found["key"]))
        return {name: found[name] for name in ("path", "key", "split", *LABEL_COLUMNS) if name in found}
    if not isinstance(data, tuple) or len(data) != 2:
        raise DataError(f"data is a {type(data).__name__}; {FORMS}.")
    images, labels = data
    for part in (images, () if labels is None else labels):  # a mapping or a set has no order to pair them by
        if isinstance(part, str | bytes | os.PathLike | Mapping | Set) or not hasattr(part, "__iter__"):
            raise DataError(f"data: {type(part).__name__} is no list of images or labels; {FORMS}.")
    if (axes := getattr(labels, "ndim", 1)) != 1:
        raise DataError(f"data: the labels are an array of {axes} axes; give one number or a list of names per image.")
    cells = [] if labels is None else list(labels)
    several = any(isinstance(label, list | tuple | Set) for label in cells)
    return {"path": list(images), **({} if labels is None else {"labels" if several else "label": cells})}


def _named(table: Any) -> dict[str, list[Any]]:
    """Return the columns of a table by their usual names; of several with one meaning, the first."""
    found: dict[str, list[Any]] = {}
    for name in table.columns:
        found.setdefault(SYNONYMS.get(str(name).lower(), str(name).lower()), list(table[name]))
    return found


def _plain(cell: Any) -> Any:
    if isinstance(cell, Set):
        cell = sorted(cell, key=str)
    if isinstance(cell, list | tuple | np.ndarray):
        return [_plain(each) for each in cell]
    cell = cell.item() if hasattr(cell, "item") else cell  # a number of numpy or torch
    return None if str(cell) in ("nan", "<NA>", "NaT", "None") else cell if isinstance(cell, int | float) else str(cell)


def _folder(name: str) -> Path:
    return user_cache() / "given" / name

"""`hf:NAME_OR_PATH`: a dataset of the Hugging Face hub, or a local one (Parquet, Arrow, tar shards, `save_to_disk`).

Images stay undecoded in the memory-mapped Arrow files of `datasets`. Boxes are a column ``objects`` of structs, or a
struct of lists, with ``bbox`` (left, top, width, height in pixels) and ``category``. Masks are a second column of
images, with one number per pixel.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, MissingExtraError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import LABEL_NAMES, LIST_NAMES, MAX_CLASSES, NO_LABEL, SPLIT_OF, Dataset
from gpt4image.data.file_source import expanded, file_digests, is_below, read_bounded
from gpt4image.data.masks import MaskFiles, masks_of
from gpt4image.data.records import (
    Faults,
    Object,
    Record,
    from_sides,
    number,
    require_some,
    to_dataset,
    weight_of,
    with_boxes,
)

if TYPE_CHECKING:
    from datasets import Dataset as Table

IMAGE_NAMES = ("image", "img", "picture", "jpg", "png")
# Types of the two fields of an image; "null" where no row has one.
IMAGE_FIELDS = {"bytes": ("binary", "large_binary", "null"), "path": ("string", "large_string", "null")}
KEY_NAMES = ("key", "__key__")  # the second: of samples in tar shards, as WebDataset writes them
MAX_CAUSE = 400  # letters of what `datasets` says that are shown
OBJECTS = ("objects", "annotations")
BOX_NAMES = ("bbox", "bboxes", "boxes")
CLASS_NAMES = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_label", "type")
IGNORED, SCORE = ("iscrowd", "is_crowd", "difficult"), "score"
MASK_NAMES = ("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "semantic_mask")
Parts = Sequence[tuple[str, "Table"]]  # names of splits, as `datasets` has them, and their tables


def load_hf(argument: str) -> Dataset:
    """Load the splits of a dataset that `datasets` reads.

    Columns are found by type and usual names: objects with boxes come before masks, these before labels. Keys are the
    column ``key`` or ``__key__``, else ``SPLIT/ROW``.
    """
    spec = f"hf:{argument}"
    loaded = _load(argument, spec)
    import datasets
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    parts = [(name, loaded[name]) for name in SPLIT_OF if name in loaded]
    if len(loaded) == 1 and not parts:
        parts, loaded = [("train", next(iter(loaded.values())))], {}
    unknown = [name for name in loaded if name not in SPLIT_OF]
    if not parts:
        raise DataError(f"{spec}: none of its splits {first_few(unknown)} is train, validation or test.")
    tables, path = [part for _, part in parts], expanded(argument)
    features = [table.features for table in tables]
    images = [name for name in features[0] if all(_holds_image(kinds.get(name)) for kinds in features)]
    image = _first(images, IMAGE_NAMES)
    if image is None:
        raise DataError(
            f"{spec}: no column of {' and '.join(name for name, _ in parts)} holds images; the columns are "
            f"{first_few(dict.fromkeys(name for kinds in features for name in kinds), 20)}. Images are a column of the "
            "type Image, or of structs of 'bytes' (binary) and 'path' (text), in all splits the same."
        )
    own = [path if path.is_dir() else path.parent, HF_DATASETS_CACHE] if path.exists() else []
    folders = [os.path.realpath(folder) for folder in (*own, HF_HUB_CACHE)]
    source = ArrowSource(tables, image, folders)
    splits = np.repeat([SPLIT_OF[name] for name, _ in parts], [len(part) for part in tables]).tolist()
    records = [Record(key=key, split=split) for key, split in zip(_keys(parts, splits), splits, strict=True)]
    faults = source.faults(spec)
    rows = np.setdiff1d(np.arange(len(records)), list(faults))
    skipped = [Skipped(records[row].key, reason) for row, reason in faults.items()]
    require_some(rows, f"{spec}: none of its {len(records)} rows has an image that can be used.", skipped)
    skipped += [Skipped(f"split {name}", "is not one of train, validation and test") for name in unknown]
    dropped = Faults()
    masks = [name for name in images if name != image and isinstance(features[0][name], datasets.Image)]
    if names := _objects_column(parts[0][1]):
        classes = _add_objects(parts, names, records, spec)
        found = with_boxes(spec, records, source, classes, dropped, spec, skipped, "sides")
    elif column := next((name for name in MASK_NAMES if name in masks), None):
        of_masks, numbers = ArrowSource(tables, column, folders), np.arange(len(records))
        numbers[list(of_masks.faults(spec))] = -1
        regions, classes = masks_of(MaskFiles(of_masks), numbers, records, source, None, dropped, spec)
        skipped += dropped.skipped(spec)
        found = to_dataset(spec, records, source, classes=classes, regions=regions, skipped=skipped)
    else:
        classes = _add_labels(parts, records, faults, spec)
        found = to_dataset(spec, records, source, classes=classes, skipped=skipped)
    return found.select(rows)


def _load(argument: str, spec: str) -> Mapping[str, Table]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("A dataset of the kind hf", "hf") from None
    path = expanded(argument)
    local = path.exists()
    if not local and (path.is_absolute() or argument.startswith((".", "~"))):
        raise DataError(f"{spec}: there is no such file or folder.")
    if path.is_file() and path.suffix not in (".parquet", ".arrow"):
        raise DataError(f"{spec}: a single file is .parquet or .arrow, got {path.suffix or 'no extension'!r}.")
    loaded: Any
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file():
            # load_dataset("parquet", ...) would report its use over the network, and wait where there is none.
            read = datasets.Dataset.from_parquet if path.suffix == ".parquet" else datasets.Dataset.from_file
            loaded = read(str(path))
        else:
            loaded = datasets.load_dataset(str(path) if local else argument)
        if isinstance(loaded, datasets.Dataset):
            loaded = {str(loaded.split or "train"): loaded}
        return {name: part.flatten_indices() if part._indices is not None else part for name, part in loaded.items()}
    except Exception as error:  # what `datasets` raises on damaged or foreign files has no common base
        where = "could not be read" if local else "is neither a local path nor could it be loaded from the hub"
        why = f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:MAX_CAUSE]}"
        raise DataError(f"{spec} {where}: {why.rstrip('.')}. The library `datasets` itself must load it.") from error


def _holds_image(kind: Any) -> bool:
    import datasets

    if not isinstance(kind, dict) or set(kind) != {"bytes", "path"}:
        return isinstance(kind, datasets.Image)
    return all(getattr(kind[name], "dtype", "") in IMAGE_FIELDS[name] for name in kind)


def _first(names: Sequence[str], preferred: Sequence[str]) -> str | None:
    return next((name for name in preferred if name in names), next(iter(names), None))


def _keys(parts: Parts, splits: Sequence[str]) -> list[str]:
    column = next((name for name in KEY_NAMES if all(name in part.features for _, part in parts)), None)
    if column is None:
        return [f"{name}/{row:07d}" for name, part in parts for row in range(len(part))]
    keys = [str(key) for _, part in parts for key in _cells(part, column)]
    if len(set(keys)) == len(keys):
        return keys
    return [key if split == "train" else f"{split}/{key}" for key, split in zip(keys, splits, strict=True)]


def _add_labels(parts: Parts, records: Sequence[Record], faults: Mapping[int, str], spec: str) -> Sequence[str] | None:
    """Give the records without a fault their labels; return the class names of ClassLabels, None without."""
    import datasets

    features = parts[0][1].features
    named_so = [name for name in LIST_NAMES if name in features and (name in LABEL_NAMES or _is_list(features[name]))]
    class_columns = [name for name, kind in features.items() if isinstance(_element(kind), datasets.ClassLabel)]
    name = _first([*named_so, *class_columns], LIST_NAMES)
    if name is None:
        return ()
    kinds = [part.features.get(name) for _, part in parts]
    names: list[list[str] | None] = [getattr(_element(kind), "names", None) for kind in kinds]
    if len({(own is None, _is_list(kind)) for kind, own in zip(kinds, names, strict=True) if kind is not None}) > 1:
        raise DataError(
            f"{spec}: the label column {name!r} has another type in some splits; cast it to the same in all."
        )
    cells = list[Any]()
    for (split, part), own in zip(parts, names, strict=True):
        # A split without the column has no labels, as the test splits of some published sets.
        found = _cells(part, name)
        if own:
            name_of: dict[Any, Any] = {**dict(enumerate(own)), None: None, NO_LABEL: None}
            try:
                found = [[name_of[each] for each in one] if isinstance(one, list) else name_of[one] for one in found]
            except (LookupError, TypeError) as error:
                allowed = f"0..{len(own) - 1}, or {NO_LABEL} for none"
                raise DataError(f"{spec}: split {split!r}: labels must be in {allowed}; got {error}.") from None
        cells += found
    for row, (record, cell) in enumerate(zip(records, cells, strict=True)):
        record.label = None if row in faults else cell
    return [*dict.fromkeys(one for own in names for one in own or ())] if any(names) else None


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "feature")  # List, LargeList and Sequence of `datasets`


def _element(kind: Any) -> Any:
    return kind.feature if _is_list(kind) else kind


def _cells(part: Table, name: str) -> list[Any]:
    """Return the cells of a column; None for each where there is no such column."""
    if name not in part.features:
        return [None] * len(part)
    with parsing(f"the column {name!r} of the dataset is damaged"):
        column = part.data.column(name)
        column.validate(full=True)
        return column.to_pylist()


def _objects_column(part: Table) -> tuple[str, str, str] | None:
    for name in OBJECTS:
        fields = _fields(part, name)
        box, label = (next((one for one in names if one in fields), None) for names in (BOX_NAMES, CLASS_NAMES))
        if box and label:
            return name, box, label
    return None


def _fields(part: Table, column: str) -> dict[str, Any]:
    inner = _element(part.features.get(column))
    return dict(inner) if isinstance(inner, dict) else {}


def _add_objects(parts: Parts, names: tuple[str, str, str], records: Sequence[Record], spec: str) -> tuple[str, ...]:
    """Give the records their objects; return the class names. An empty cell is an image that is not annotated."""
    column, box, label = names
    if any(column in part.features and _objects_column(part) != names for _, part in parts):
        raise DataError(f"{spec}: the column of objects has other fields in some splits; cast it to the same type.")
    following, classes = iter(records), dict[str, None]()
    for _, part in parts:
        own: Sequence[str] = getattr(_element(_fields(part, column).get(label)), "names", None) or ()
        classes |= dict.fromkeys(own)
        for cell, width, height in zip(*(_cells(part, one) for one in (column, "width", "height")), strict=True):
            record = next(following)
            record.objects = None if cell is None else _objects(cell, box, label, own)
            record.size = number(width), number(height)
    objects = [one for record in records for one in record.objects or ()]
    if not classes:
        texts = {one.label for one in objects if isinstance(one.label, str) and one.label.strip()}
        largest = max((one.label for one in objects if isinstance(one.label, int)), default=-1)
        classes = dict.fromkeys(sorted(texts) or map(str, range(largest + 1)))
    for one in objects:
        known = one.label in classes if isinstance(one.label, str) else 0 <= one.label < len(classes)
        one.fault = "" if known else "its category is missing or unknown"
    return tuple(classes)


def _objects(cell: Any, box: str, label: str, own: Sequence[str]) -> list[Object]:
    """Return the objects of a cell, whose class numbers ``own`` names."""
    if isinstance(cell, dict):
        names = [name for name in (box, label, SCORE, *IGNORED) if isinstance(cell.get(name), list)]
        count = max((len(cell[name]) for name in names), default=0)
        cell = [{name: cell[name][place] for name in names if place < len(cell[name])} for place in range(count)]
    found: list[Object] = []
    for position, one in enumerate(cell, 1):
        values = one if isinstance(one, dict) else {}
        given = values.get(label)
        given = int(given) if isinstance(given, float) and given.is_integer() else given
        if not isinstance(given, int | str) or (isinstance(given, int) and not 0 <= given < MAX_CLASSES):
            given = -1
        if own and isinstance(given, int):
            given = own[given] if 0 <= given < len(own) else -1
        weight = weight_of(any(values.get(name) for name in IGNORED), values.get(SCORE))
        found.append(Object(f"object {position}", given, from_sides(values.get(box)), weight))
    return found


class ArrowSource:
    """Images of several tables, one after the other, without a copy in memory; files must lie in one of ``folders``."""

    def __init__(self, tables: Sequence[Table], column: str, folders: Sequence[str]) -> None:
        self._tables, self._column, self._folders = tables, column, folders

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open chunks: a worker process maps the files itself; pickled Arrow data would be copied."""
        return {name: self.__dict__[name] for name in ("_tables", "_column", "_folders")}

    def read(self, row: int) -> bytes:
        """Return the bytes of one image. Raises OSError where its file cannot be read, or the row has a fault."""
        data, path = self._cell(row)
        if data is not None:
            return data
        if fault := self._fault(path):
            raise OSError(fault)
        return read_bounded(self._file(path))

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image."""
        cells = map(self._cell, rows.tolist())
        found = [self._file(path) if data is None else hashlib.sha256(data) for data, path in cells]
        of_files = iter(file_digests([one for one in found if isinstance(one, str)]))
        return tuple(next(of_files) if isinstance(one, str) else one.hexdigest() for one in found)

    def faults(self, spec: str) -> dict[int, str]:
        """Return the rows that cannot be used, with the reason, without touching the image bytes. Raises DataError."""
        with parsing(f"{spec}: the column {self._column!r} is damaged"):
            data, paths = self._cells
            data.validate(full=True)
            paths.validate(full=True)
            without = np.flatnonzero(data.is_null().to_numpy()).tolist()
            return {row: fault for row in without if (fault := self._fault(paths[row].as_py()))}

    def _fault(self, path: str | None) -> str:
        if path is None:
            return "has no image"
        inside = any(is_below(os.path.realpath(self._file(path)), folder) for folder in self._folders)
        return "" if inside else "has no bytes, and its path leads out of the dataset"

    def _cell(self, row: int) -> tuple[bytes | None, Any]:
        data, paths = self._cells
        value = data[row].as_py()
        return value, None if value is not None else paths[row].as_py()

    def _file(self, path: str) -> str:
        return os.path.join(self._folders[0], path)  # noqa: PTH118

    @cached_property
    def _cells(self) -> tuple[Any, Any]:
        """All bytes, and all paths; `flatten` handles images that are null as a whole."""
        structs = [chunk for table in self._tables for chunk in table.data.column(self._column).chunks]

        def joined(name: str) -> Any:
            parts = [struct.flatten()[struct.type.get_field_index(name)] for struct in structs]
            kind = next((part.type for part in parts if not pa.types.is_null(part.type)), pa.string())
            return pa.chunked_array([part if part.type == kind else part.cast(kind) for part in parts], kind)

        return joined("bytes"), joined("path")

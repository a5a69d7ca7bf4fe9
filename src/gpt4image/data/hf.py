"""`hf:NAME_OR_PATH`: a dataset of the Hugging Face hub, or a local one (Parquet, Arrow, tar shards, `save_to_disk`).

Images stay undecoded in the memory-mapped Arrow files of `datasets`. Columns are called as in its guides: ``image``;
``label``, a class or a list of several; ``objects``, a struct of lists or a list of structs with ``bbox`` (left, top,
width, height in pixels) and ``category``; ``mask``, pictures with one number per pixel; ``key``. Options of the SPEC
give other names: ``hf:cifar100,image=img,label=fine_label``.
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
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.file_source import file_digests, is_below, read_bounded
from gpt4image.data.labels import NO_LABEL, sorted_names
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
from gpt4image.data.spec import Spec

if TYPE_CHECKING:
    from datasets import Dataset as Table

MAX_CAUSE = 400  # letters of what `datasets` says that are shown
IGNORED, SCORE = ("iscrowd", "difficult"), "score"
_BYTES, _PATHS = ("binary", "large_binary", "null"), ("string", "large_string", "null")  # "null" where no row has one


def load_hf(spec: Spec) -> Dataset:
    """Load the splits of a dataset that `datasets` reads; keys are the column ``key``, else ``SPLIT/ROW``."""
    loaded = _load(spec)
    parts = [(name, loaded[name]) for name in SPLIT_OF if name in loaded]
    if len(loaded) == 1 and not parts:
        parts, loaded = [("train", next(iter(loaded.values())))], {}
    unknown = [name for name in loaded if name not in SPLIT_OF]
    if not parts:
        raise DataError(f"{spec}: none of its splits {first_few(unknown)} is train, validation or test.")
    set_ = _Table(spec, parts)
    source = set_.pictures("image")
    splits = np.repeat([SPLIT_OF[name] for name, _ in parts], [len(part) for _, part in parts]).tolist()
    records = [Record(key=key, split=split) for key, split in zip(set_.keys(), splits, strict=True)]
    faults = source.faults(spec.text)
    rows = np.setdiff1d(np.arange(len(records)), list(faults))
    skipped = [Skipped(records[row].key, reason) for row, reason in faults.items()]
    require_some(rows, f"{spec}: none of its {len(records)} rows has an image that can be used.", skipped)
    skipped += [Skipped(f"split {name}", "is not one of train, validation and test") for name in unknown]
    dropped = Faults()
    if set_.has("objects"):
        classes = set_.add_objects(records)
        found = with_boxes(spec.text, records, source, classes, dropped, spec.text, skipped)
    elif set_.has("mask"):
        of_masks, numbers = set_.pictures("mask"), np.arange(len(records))
        numbers[list(of_masks.faults(spec.text))] = -1
        regions, classes = masks_of(MaskFiles(of_masks), numbers, records, source, None, dropped, spec.text)
        skipped += dropped.skipped(spec.text)
        found = to_dataset(spec.text, records, source, classes=classes, regions=regions, skipped=skipped)
    else:
        classes = set_.add_labels(records)
        for row in faults:
            records[row].label = None
        found = to_dataset(spec.text, records, source, classes=classes, skipped=skipped)
    return found.select(rows)


def _load(spec: Spec) -> Mapping[str, Table]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("A dataset of the kind hf", "hf") from None
    path = spec.path
    local = path.exists()
    if not local and (path.is_absolute() or spec.where.startswith((".", "~"))):
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
            loaded = datasets.load_dataset(str(path) if local else spec.where)
        if isinstance(loaded, datasets.Dataset):
            loaded = {str(loaded.split or "train"): loaded}
        return {name: part.flatten_indices() if part._indices is not None else part for name, part in loaded.items()}
    except Exception as error:  # what `datasets` raises on damaged or foreign files has no common base
        where = "could not be read" if local else "is neither a local path nor could it be loaded from the hub"
        why = f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:MAX_CAUSE]}"
        raise DataError(f"{spec} {where}: {why.rstrip('.')}. The library `datasets` itself must load it.") from error


class _Table:
    """The tables of all splits, and the columns that the SPEC names."""

    def __init__(self, spec: Spec, parts: Sequence[tuple[str, Table]]) -> None:
        self.spec, self.parts = spec, parts

    def column(self, role: str) -> str:
        """Return the name of a column."""
        return self.spec.options.get(role, role)

    def has(self, role: str) -> bool:
        """Return whether there is a column of a role, of which the SPEC names no other one."""
        others = self.spec.options.keys() & {"objects", "mask", "label"} - {role}
        return role in self.spec.options or (not others and any(role in part.features for _, part in self.parts))

    def missing(self, role: str, what: str) -> DataError:
        """Return the error that names the option of a column."""
        columns = first_few(dict.fromkeys(name for _, part in self.parts for name in part.features), 20)
        return DataError(
            f"{self.spec}: its column {self.column(role)!r} {what}; the columns are {columns}. Give "
            f"{self.spec.name}:{self.spec.where},{role}=COLUMN."
        )

    def kinds(self, role: str) -> list[Any]:
        """Return the type of a column in each split that has it. Raises DataError: no split has it."""
        found = [part.features[self.column(role)] for _, part in self.parts if self.column(role) in part.features]
        if not found:
            raise self.missing(role, "is missing")
        return found

    def cells(self, role: str) -> list[list[Any]]:
        """Return the cells of a column by split; None for each where there is no such column."""
        name, found = self.column(role), list[list[Any]]()
        for _, part in self.parts:
            with parsing(f"the column {name!r} of the dataset is damaged"):
                if name in part.features:
                    part.data.column(name).validate(full=True)
                found.append(part.data.column(name).to_pylist() if name in part.features else [None] * len(part))
        return found

    def pictures(self, role: str) -> ArrowSource:
        """Return the pictures of a column. Raises DataError that names the option."""
        from datasets.config import HF_DATASETS_CACHE
        from huggingface_hub.constants import HF_HUB_CACHE

        kinds = self.kinds(role)
        if len(kinds) < len(self.parts) or not all(map(_holds_image, kinds)):
            raise self.missing(role, "holds no images, the type Image or structs of 'bytes' and 'path', in all splits")
        path = self.spec.path
        own = [path if path.is_dir() else path.parent, HF_DATASETS_CACHE] if path.exists() else []
        folders = [os.path.realpath(folder) for folder in (*own, HF_HUB_CACHE)]
        return ArrowSource([part for _, part in self.parts], self.column(role), folders)

    def keys(self) -> list[str]:
        """Return a unique name for each row."""
        if not self.has("key") and "key" not in self.parts[0][1].features:
            return [f"{name}/{row:07d}" for name, part in self.parts for row in range(len(part))]
        self.kinds("key")
        keys = [[str(key) for key in cells] for cells in self.cells("key")]
        if len({key for own in keys for key in own}) == sum(map(len, keys)):
            return [key for own in keys for key in own]
        return [
            key if SPLIT_OF.get(name) == "train" else f"{SPLIT_OF[name]}/{key}"
            for (name, _), own in zip(self.parts, keys, strict=True)
            for key in own
        ]

    def add_labels(self, records: Sequence[Record]) -> Sequence[str] | None:
        """Give the records their labels; return the class names of ClassLabels, None without."""
        if self.spec.options.get("label") == "":
            return ()
        names = [list(getattr(_element(kind), "names", None) or ()) for kind in self.kinds("label")]
        if any(names) and not all(names):
            raise self.missing("label", "has another type in some splits")
        if len({_is_list(kind) for kind in self.kinds("label")}) > 1:
            raise self.missing("label", "is a list in some splits only")
        following, of_split = iter(records), iter(names)
        for (split, part), cells in zip(self.parts, self.cells("label"), strict=True):
            own = next(of_split) if self.column("label") in part.features else []
            name_of: dict[Any, Any] = {**dict(enumerate(own)), None: None, NO_LABEL: None}
            for cell, record in zip(cells, following, strict=False):
                try:
                    record.label = cell
                    if own:
                        record.label = [name_of[one] for one in cell] if isinstance(cell, list) else name_of[cell]
                except (LookupError, TypeError) as error:
                    allowed = f"0..{len(own) - 1}, or {NO_LABEL} for none"
                    raise DataError(
                        f"{self.spec}: split {split!r}: labels must be in {allowed}; got {error}."
                    ) from None
        return [*dict.fromkeys(one for own in names for one in own)] if any(names) else None

    def add_objects(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Give the records their objects; return the class names. An empty cell is an image that is not annotated."""
        fields = [dict(inner) if isinstance(inner := _element(kind), dict) else {} for kind in self.kinds("objects")]
        box, label = self.column("bbox"), self.column("category")
        for role in ("bbox", "category"):
            if any(self.column(role) not in own for own in fields):
                raise DataError(
                    f"{self.spec}: the objects have no field {self.column(role)!r} in all splits; the fields are "
                    f"{first_few(fields[0])}. Give {self.spec.name}:{self.spec.where},{role}=FIELD."
                )
        names = iter([list(getattr(_element(own[label]), "names", None) or ()) for own in fields])
        following, classes = iter(records), dict[str, None]()
        every = [self.cells(name) for name in ("objects", "width", "height")]
        for (_, part), *columns in zip(self.parts, *every, strict=True):
            own = next(names) if self.column("objects") in part.features else []
            classes |= dict.fromkeys(own)
            for cell, width, height, record in zip(*columns, following, strict=False):
                record.objects = None if cell is None else _objects(cell, box, label, own)
                record.size = number(width), number(height)
        objects = [one for record in records for one in record.objects or ()]
        classes = classes or dict.fromkeys(sorted_names(str(one.label) for one in objects if str(one.label).strip()))
        for one in objects:
            one.fault = "" if one.label in classes else "its category is missing or unknown"
        return tuple(classes)


def _holds_image(kind: Any) -> bool:
    import datasets

    if not isinstance(kind, dict) or set(kind) != {"bytes", "path"}:
        return isinstance(kind, datasets.Image)
    return getattr(kind["bytes"], "dtype", "") in _BYTES and getattr(kind["path"], "dtype", "") in _PATHS


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "feature")  # List, LargeList and Sequence of `datasets`


def _element(kind: Any) -> Any:
    return kind.feature if _is_list(kind) else kind


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
        if own and isinstance(given, int):
            given = own[given] if 0 <= given < len(own) else None
        weight = weight_of(any(values.get(name) for name in IGNORED), values.get(SCORE))
        name = "" if given is None else str(given)
        found.append(Object(f"object {position}", name, from_sides(values.get(box)), weight))
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

"""`hf:NAME_OR_PATH`: a dataset of the Hugging Face hub, or a local one (Parquet, Arrow, tar shards, `save_to_disk`).

Images stay undecoded in the memory-mapped Arrow files of `datasets`. Columns are called as in its guides: ``image``;
``label``, a class or a list of several; ``objects``, a struct of lists or a list of structs with ``bbox`` (left, top,
width, height in pixels) and ``category``; ``mask``, pictures with one number per pixel; ``key``. Options of the SPEC
give other names: ``hf:cifar100,image=img,label=fine_label``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpt4image.base.errors import DataError, MissingExtraError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.file_source import is_below, read_bounded
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

HUB_SECONDS = 10.0  # in which the hub must answer
MAX_CAUSE = 400  # letters of what `datasets` says that are shown
IGNORED, SCORE = ("iscrowd", "difficult"), "score"
_BYTES, _PATHS = ("binary", "large_binary", "null"), ("string", "large_string", "null")  # "null" where no row has one


def load_hf(spec: Spec) -> Dataset:
    """Load the splits of a dataset that `datasets` reads; keys are the column ``key``, else ``SPLIT/ROW``."""
    loaded = _load(spec)
    if len(loaded) == 1 and loaded.keys().isdisjoint(SPLIT_OF):
        loaded = {"train": next(iter(loaded.values()))}
    parts = {name: loaded[name] for name in SPLIT_OF if name in loaded}
    unknown = [name for name in loaded if name not in parts]
    if not parts:
        raise DataError(f"{spec}: none of its splits {first_few(unknown)} is train, validation or test.")
    set_, dropped = _Table(spec, parts), Faults()
    source = set_.pictures("image")
    records = [
        Record(key=key, split=SPLIT_OF[name]) for name, own in zip(parts, set_.keys(), strict=True) for key in own
    ]
    faults = source.faults(spec.text)
    rows = np.setdiff1d(np.arange(len(records)), list(faults))
    skipped = [Skipped(records[row].key, reason) for row, reason in faults.items()]
    require_some(rows, f"{spec}: none of its {len(records)} rows has an image that can be used.", skipped)
    skipped += [Skipped(f"split {name}", "is not one of train, validation and test") for name in unknown]
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
    where = "could not be read" if local else "is no local path, and could not be loaded from the hub"
    if not local and not _hub_answers(spec.where):
        hub: Any = datasets.config  # pyright: ignore[reportAttributeAccessIssue]
        hub.HF_HUB_OFFLINE = True  # so it looks into its cache at once, and does not call six times
        where = "is no local path nor in the cache, and the hub cannot be reached"
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
        why = f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:MAX_CAUSE]}"
        raise DataError(f"{spec} {where}: {why.rstrip('.')}. The library `datasets` itself must load it.") from error


def _hub_answers(name: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except HfHubHTTPError:  # no such dataset, or no right to read it: `datasets` says it
        return True
    except Exception:  # noqa: BLE001  (of whatever library it uses for HTTP)
        return False
    return True


class _Table:
    """The tables of all splits, and the columns that the SPEC names."""

    def __init__(self, spec: Spec, parts: Mapping[str, Table]) -> None:
        self.spec, self.parts = spec, parts

    def column(self, role: str) -> str:
        """Return the name of a column."""
        return self.spec.options.get(role, role)

    def has(self, role: str) -> bool:
        """Return whether there is a column of a role, of which the SPEC names no other one."""
        others = self.spec.options.keys() & {"objects", "mask", "label"} - {role}
        return role in self.spec.options or (not others and any(role in part.features for part in self.parts.values()))

    def missing(self, role: str, what: str) -> DataError:
        """Return the error that names the option of a column."""
        columns = first_few(dict.fromkeys(name for part in self.parts.values() for name in part.features), 20)
        return DataError(
            f"{self.spec}: its column {self.column(role)!r} {what}; the columns are {columns}. Give "
            f"{self.spec.name}:{self.spec.where},{role}=COLUMN."
        )

    def kinds(self, role: str) -> list[Any]:
        """Return the type of a column in each split that has it. Raises DataError: no split has it."""
        name = self.column(role)
        found = [part.features[name] for part in self.parts.values() if name in part.features]
        if not found:
            raise self.missing(role, "is missing")
        return found

    def cells(self, role: str) -> list[list[Any]]:
        """Return the cells of a column by split, with the names of classes for their numbers; None without it."""
        name, found = self.column(role), list[list[Any]]()
        for part in self.parts.values():
            values = [None] * len(part)
            if kind := part.features.get(name):
                with parsing(f"the column {name!r} of the dataset is damaged"):
                    part.data.column(name).validate(full=True)
                    values = part.data.column(name).to_pylist()
                values = [_named(kind, cell) for cell in values] if _class_names(kind) else values
            found.append(values)
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
        return ArrowSource([*self.parts.values()], self.column(role), folders)

    def keys(self) -> list[list[str]]:
        """Return a unique name for each row, by split."""
        if not self.has("key"):
            return [[f"{name}/{row:07d}" for row in range(len(part))] for name, part in self.parts.items()]
        self.kinds("key")
        keys = [[str(key) for key in cells] for cells in self.cells("key")]
        if len({key for own in keys for key in own}) == sum(map(len, keys)):
            return keys
        before = ["" if SPLIT_OF[name] == "train" else f"{SPLIT_OF[name]}/" for name in self.parts]
        return [[split + key for key in own] for split, own in zip(before, keys, strict=True)]

    def add_labels(self, records: Sequence[Record]) -> Sequence[str] | None:
        """Give the records their labels; return the class names of ClassLabels, None without. Raises DataError."""
        if self.spec.options.get("label") == "":
            return ()
        classes = dict.fromkeys(name for kind in self.kinds("label") for name in _class_names(kind))
        for record, cell in zip(records, chain(*self.cells("label")), strict=True):
            record.label = cell
            each = cell if isinstance(cell, list) else [] if cell is None else [cell]
            if classes and (wrong := [one for one in each if one not in classes]):
                raise DataError(
                    f"{self.spec}: the label of {record.key} is {wrong[0]!r}, none of {first_few(classes)}."
                )
        return [*classes] or None

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
        columns = [chain(*self.cells(role)) for role in ("objects", "width", "height")]
        for record, cell, width, height in zip(records, *columns, strict=True):
            record.objects = None if cell is None else _objects(cell, box, label)
            record.size = number(width), number(height)
        objects = [one for record in records for one in record.objects or ()]
        named = [str(one.label) for one in objects if str(one.label).strip()]
        classes = dict.fromkeys(name for own in fields for name in _class_names(own[label])) or sorted_names(named)
        for one in objects:
            one.fault = "" if one.label in classes else "its category is missing or unknown"
        return tuple(classes)


def _holds_image(kind: Any) -> bool:
    import datasets

    if not isinstance(kind, dict) or set(kind) != {"bytes", "path"}:
        return isinstance(kind, datasets.Image)
    return getattr(kind["bytes"], "dtype", "") in _BYTES and getattr(kind["path"], "dtype", "") in _PATHS


def _element(kind: Any) -> Any:
    return getattr(kind, "feature", kind)  # of List, LargeList and Sequence of `datasets`


def _class_names(kind: Any) -> list[str]:
    """Return the names of the ClassLabels in a type."""
    inner = _element(kind)
    if isinstance(inner, dict):
        return [name for field in inner.values() for name in _class_names(field)]
    return list(getattr(inner, "names", None) or ())


def _named(kind: Any, cell: Any) -> Any:
    """Return a cell with the names of classes for their numbers; None for -1, and a number without name as it is."""
    inner = _element(kind)
    if isinstance(cell, list):
        return [_named(inner, one) for one in cell]
    if isinstance(cell, dict):
        return {name: _named(inner[name], value) for name, value in cell.items()}
    names = getattr(inner, "names", None)
    if not names or not isinstance(cell, int):
        return cell
    return None if cell == NO_LABEL else names[cell] if 0 <= cell < len(names) else cell


def _objects(cell: Any, box: str, label: str) -> list[Object]:
    """Return the objects of a cell."""
    if isinstance(cell, dict):
        names = [name for name in (box, label, SCORE, *IGNORED) if isinstance(cell.get(name), list)]
        count = max((len(cell[name]) for name in names), default=0)
        cell = [{name: cell[name][place] for name in names if place < len(cell[name])} for place in range(count)]
    found: list[Object] = []
    for position, one in enumerate(cell, 1):
        values = one if isinstance(one, dict) else {}
        given, weight = values.get(label), weight_of(any(map(values.get, IGNORED)), values.get(SCORE))
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

"""Images in the memory-mapped Arrow tables of `datasets`: bytes, or paths of files."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import parsing
from gpt4image.data.digests import file_digests
from gpt4image.data.file_source import is_below, read_bounded

if TYPE_CHECKING:
    from datasets import Dataset


class ArrowSource:
    """Images of several tables, one after the other, without a copy in memory.

    Args:
        tables: datasets with the same image column.
        column: name of that column, a struct of ``bytes`` and ``path``; path counts where there are no bytes.
        folders: real paths of the folders in which such files may lie; a path that is not absolute starts in the first.
    """

    def __init__(self, tables: Sequence[Dataset], column: str, folders: Sequence[str]) -> None:
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

    def faults(self) -> dict[int, str]:
        """Return the rows that cannot be used, with the reason, without touching the image bytes.

        Raises:
            Exception: one of Arrow's, where the tables are damaged: rows would be read from anywhere in memory.
        """
        faults: dict[int, str] = {}
        for start, (data, paths) in zip(self._starts, self._chunks, strict=True):
            data.validate(full=True)
            paths.validate(full=True)
            for offset in np.flatnonzero(data.is_null().to_numpy(zero_copy_only=False)).tolist():
                if fault := self._fault(paths[offset].as_py()):
                    faults[start + offset] = fault
        return faults

    def _fault(self, path: str | None) -> str:
        """Return why the file of an image without bytes is not read; nothing where it may be."""
        if path is None:
            return "has no image"
        inside = any(is_below(os.path.realpath(self._file(path)), folder) for folder in self._folders)
        return "" if inside else "has no bytes, and its path leads out of the dataset"

    def _cell(self, row: int) -> tuple[bytes | None, Any]:
        """Return the bytes of an image, and the path that a row without has."""
        chunk = bisect.bisect_right(self._starts, row) - 1
        data, paths = self._chunks[chunk]
        offset = row - self._starts[chunk]
        value = data[offset].as_py()
        return value, None if value is not None else paths[offset].as_py()

    def _file(self, path: str) -> str:
        return os.path.join(self._folders[0], path)  # noqa: PTH118

    @cached_property
    def _chunks(self) -> list[tuple[Any, Any]]:
        """Bytes and paths of each non-empty chunk; `flatten` handles images that are null as a whole."""
        structs = [chunk for table in self._tables for chunk in table.data.column(self._column).chunks if len(chunk)]
        flat = [dict(zip(struct.type.names, struct.flatten(), strict=True)) for struct in structs]
        return [(fields["bytes"], fields["path"]) for fields in flat]

    @cached_property
    def _starts(self) -> list[int]:
        """First row of each chunk."""
        return np.cumsum([0, *(len(data) for data, _ in self._chunks[:-1])]).tolist()


def cells_of(part: Dataset, name: str) -> list[Any]:
    """Return a column as Python values, from the Arrow table itself: rows of `datasets` take about 20 us each."""
    with parsing(f"the column {name!r} of the dataset is damaged"):
        column = part.data.column(name)
        column.validate(full=True)
        return column.to_pylist()

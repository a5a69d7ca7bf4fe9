"""Folders of arrays with a manifest that is written last: embedding tables, indexes of search.

A folder without its manifest is not finished; the manifest has the bytes and sha256 of each array under ``files``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from gpt4image.base.checksums import FILES, file_facts, recorded_files, require_recorded
from gpt4image.base.errors import TableError, first_line
from gpt4image.base.files import atomic_path, make_folder, open_npy, read_json, write_json
from gpt4image.base.locks import acquire_lock

M = TypeVar("M")


def read_manifest(path: Path, kind: type[M], version: int, what: str) -> M:
    """Return the manifest in the file ``path``; ``what`` names the folder, as "an index". Raises TableError."""
    try:
        values = read_json(path)
        recorded_files(values)
        if values["format_version"] == version:
            return TypeAdapter(kind).validate_python(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is not the manifest of {what} ({first_line(error)}).") from None
    written = values["format_version"]
    raise TableError(f"{path.parent}: format {written} of {what}; this gpt4image reads {version}. Make it anew.")


def open_arrays(
    folder: Path, files: Mapping[str, Any], expected: Mapping[str, tuple[Any, tuple[int, ...]]]
) -> dict[str, NDArray[Any]]:
    """Return arrays as memory maps by name; those of up to 64 MB are compared to their checksums in ``files``.

    ``expected`` has dtype and shape by the name of the file without ``.npy``. Raises DamagedError.
    """
    for name in expected:
        require_recorded(folder, f"{name}.npy", {FILES: files})
    return {name: open_npy(folder / f"{name}.npy", *how) for name, how in expected.items()}


def finish(path: Path, manifest: Mapping[str, Any], arrays: Iterable[str]) -> None:
    """Write the manifest to ``path``, with the checksums of the arrays beside it."""
    write_json(path, {**manifest, FILES: file_facts(path.parent, (f"{name}.npy" for name in arrays))})


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


@contextlib.contextmanager
def writing(out: Path, option: str = "--out") -> Generator[None]:
    """Hold the folder of ``option`` for this process; a full disk or a read-only folder is a TableError."""
    advice = "writes to this folder; wait until it is done or stop it."
    try:
        make_folder(out)
        lock = acquire_lock(out / ".lock", 2.0, lambda who: TableError(f"{out}: {who} {advice}"))
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise TableError(
            f"{out}: cannot write here ({error.strerror or error}); free some space or give another {option}, then run "
            "the same command again: it goes on where it stopped."
        ) from error

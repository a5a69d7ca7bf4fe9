"""Files on disk: a writer leaves the old file or the new one, a reader returns a value or an error that names the file.

Writers make a temporary file beside the place, flush it and rename it. One that is killed leaves it behind; the next
writer of the same place removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4image.base.errors import DamagedError, FormatError, first_few, parsing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

MOST_NESTED = 100
ROW_GROUP = 100_000  # rows of a large table that are made and written at once
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # the number is of the process that writes


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Let an OSError of the block that names no file, or a temporary one, name ``path``; NumPy's have no number."""
    try:
        yield
    except OSError as error:
        name = Path(os.fsdecode(error.filename or ""))
        is_final = error.filename2 is None and name.name and not any(map(_TEMPORARY.fullmatch, name.parts))
        if is_final or (error.errno is None and type(error) is not OSError):  # Pillow has errors of its own
            raise
        number = error.errno or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``. OSError."""
    if path.exists() and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))
    path = path.resolve() if path.is_symlink() else path
    make_folder(path.parent)
    remove_unfinished(path)
    temporary = _temporary(path)
    try:
        with naming(path):
            temporary.touch()
            yield temporary
            flush(temporary)
        if path.exists():
            shutil.copymode(path, temporary)
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staging_folder(place: Path) -> Generator[Path]:
    """Yield a temporary folder in ``place``; on success its content is flushed to disk and moved to ``place``.

    What comes first by name is moved last. A file is replaced; a folder that is not empty is an OSError.
    """
    make_folder(place)
    remove_unfinished(place / "staging")
    staging = _temporary(place / "staging")
    staging.mkdir()
    try:
        with naming(place):
            yield staging
            for path in staging.rglob("*"):
                flush(path)
        for path in sorted(staging.iterdir(), reverse=True):
            move(path, place / path.name)
    finally:
        shutil.rmtree(staging)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing; when this returns, their names are on disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush(folder.parent)


def move(source: Path, path: Path) -> None:
    """Rename a file or folder to ``path``; when this returns, the new name is on disk."""
    source.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk."""
    is_folder = path.is_dir()
    if is_folder and os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno != errno.EINVAL:  # some file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)


def require_writable(path: Path) -> None:
    """Check that ``atomic_path`` can write ``path``, before work whose result would be lost. Raises OSError."""
    temporary = _temporary(path.resolve())
    with naming(path):
        temporary.touch()
        temporary.unlink()


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes have left of ``path``; what another running one writes stays.

    In a container, a process that was killed had the number that this one has.
    """
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        made = _TEMPORARY.fullmatch(temporary.name)
        if made and (int(made[1]) == os.getpid() or not _is_alive(int(made[1]))):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _is_alive(process: int) -> bool:
    try:
        if os.name == "posix":  # elsewhere signal 0 would end it
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def user_cache() -> Path:
    """Return this package's folder in the user's cache, which may not exist yet; without a home one for all users."""
    place = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111  (no RuntimeError)
    return Path(tempfile.gettempdir() if place.startswith("~") else place) / "gpt4image"


def fingerprint(value: Any) -> str:
    """Return the sha256 hex digest of ``value`` as canonical JSON: the identity of a configuration."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the sha256 of a file as hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def require_format(where: object, found: Any, known: int) -> None:
    """Refuse a file of another format. Raises FormatError: it names the file, both formats and what to do."""
    if found != known:
        raise FormatError(
            f"{where} is of format {found!r:.20}; this gpt4image reads format {known}. Read or export it with the "
            "version of gpt4image that wrote it, or make it again with this one."
        )


def damaged(path: Path, reason: str) -> DamagedError:
    """Return the error that names a damaged file and what to do."""
    return DamagedError(f"{path} is damaged: {reason}. Restore a copy of it, or make it again.")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN: ValueError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text. Raises ValueError as ``parse_json`` does."""
    return parse_json(text, tomllib.loads)


def parse_json(text: str | bytes, parse: Callable[[Any], Any] = json.loads) -> Any:
    """Return the value of a JSON text. Raises ValueError: it is no JSON, too deep, or a number is too large."""
    with contextlib.suppress(RecursionError):
        value = parse(text)
        level = [value]
        for _ in range(MOST_NESTED):
            if any(isinstance(each, float) and not math.isfinite(each) for each in level):
                raise ValueError("it holds a number that is not finite, or too large: NaN, Infinity, 1e999")
            if any(isinstance(each, int) and not -(2**63) <= each < 2**64 for each in level):
                raise ValueError("it holds an integer of more than 64 bits")
            nested = [each for each in level if isinstance(each, dict | list)]
            level = [one for each in nested for one in (each.values() if isinstance(each, dict) else each)]
            if not level:
                return value
    raise ValueError(f"it is nested deeper than {MOST_NESTED} levels")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DamagedError: it is no JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, f"it is no JSON ({error})") from None


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON value as a line; when this returns, it is on disk."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line, atomically."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def read_json_lines(path: Path) -> list[Any]:
    """Read a JSON-lines file; a last line that a crash cut short is dropped. Raises DamagedError."""
    lines = path.read_bytes().split(b"\n")  # not splitlines: JSON text may hold other line ends
    rows: list[Any] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_json(line.decode("utf-8")))
        except ValueError as error:
            if number < len(lines):
                raise damaged(path, f"its line {number} is no JSON ({error})") from None
    return rows


def open_npy(path: Path, dtype: np.dtype[Any] | type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Open a .npy file as a memory map; nothing is unpickled. Raises DamagedError: it is not what it should be."""
    import numpy as np

    with parsing(f"{path} is damaged: it cannot be read as an array", DamagedError):
        array = np.lib.format.open_memmap(path, mode="r")
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        raise damaged(path, f"it holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return array


def write_parquet(path: Path, table: pa.Table) -> None:  # pyright: ignore[reportUnknownParameterType]
    """Write a Parquet file with a checksum of each page, atomically."""
    write_row_groups(path, [slice(None)], lambda _: table)  # pyright: ignore[reportUnknownLambdaType]


def row_groups(total: int, size: int) -> list[slice]:
    """Return the rows in groups of a size, one group at least."""
    return [slice(start, min(start + size, total)) for start in range(0, max(total, 1), max(size, 1))]


def write_row_groups(path: Path, groups: Sequence[slice], table: Callable[[slice], Any]) -> None:
    """Write the same, of which ``table`` makes one group of rows after the other."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        part = table(groups[0])
        with pq.ParquetWriter(temporary, part.schema, write_page_checksum=True) as writer:
            writer.write_table(part)
            for rows in groups[1:]:
                writer.write_table(table(rows))


def read_parquet(  # pyright: ignore[reportUnknownParameterType]
    path: Path, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a Parquet file, or some columns; page checksums are compared. Raises DamagedError, OSError."""
    import pyarrow.parquet as pq

    with path.open("rb") as content, parsing(f"{path} is damaged: it cannot be read as Parquet", DamagedError):
        file = pq.ParquetFile(content, page_checksum_verification=True)
        missing = [name for name in columns or () if name not in file.schema_arrow.names]
        table = None if missing else file.read(columns=None if columns is None else list(columns))
    if table is None:
        raise damaged(path, f"it has no column {first_few(missing)}")
    return table


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file, a dictionary each. Raises as ``read_parquet``."""
    return read_parquet(path).to_pylist()

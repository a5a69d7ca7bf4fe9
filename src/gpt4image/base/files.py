"""Files on disk: a writer leaves the old file or the new one, a reader returns what was written or raises an error."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import json
import math
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
import tokenize
import tomllib
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4image.base.checksums import damaged, sealed, unsealed
from gpt4image.base.checksums import fingerprint as fingerprint
from gpt4image.base.errors import DamagedError as DamagedError
from gpt4image.base.errors import first_few, first_line

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

MOST_NESTED = 100
# What the libraries raise for bytes that they cannot read; UnicodeDecodeError and most of Arrow's are ValueErrors.
_USUAL = (ValueError, RecursionError, OverflowError, EOFError, TypeError, KeyError, IndexError, MemoryError)
UNREADABLE = (*_USUAL, NotImplementedError, SyntaxError, tokenize.TokenError)

ABANDONED = 7 * 24 * 3600  # seconds after which a temporary file of another machine is taken for a leftover
_LEFTOVER = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")  # machine, process


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_IN_WORDS = re.compile(
    r"no space left|quota exceeded|file too large|requested and \d+ written|failed writing", re.I
)


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Let what libraries raise on a full disk in the block be an OSError that names ``path``, not a temporary file."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        name = str(error.filename or "") if isinstance(error, OSError) else ""
        of_copy = isinstance(error, OSError) and error.filename2 is not None  # it is named by what is copied
        is_final = name and not of_copy and not any(map(_LEFTOVER.fullmatch, Path(name).parts))
        if is_final or (number not in FULL and not _FULL_IN_WORDS.search(first_line(error))):
            raise
        number = number if number in FULL else errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``. OSError."""
    if path.exists() and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))
    path = path.resolve() if path.is_symlink() else path
    make_folder(path.parent)
    _remove_leftovers(path.parent)
    temporary = _temporary_file(path)
    try:
        with naming(path):
            yield temporary
            flush(temporary)
        if path.exists():
            shutil.copymode(path, temporary)
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    _temporary_file(path.resolve() if path.is_symlink() else path).unlink()


def _temporary_file(path: Path) -> Path:
    """Make an empty file beside ``path``, with the rights of a new one; an OSError names ``path``, not this file."""
    temporary = path.with_name(_temporary_name(path.name))
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return temporary


def _temporary_name(name: str) -> str:
    return f".{name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


@functools.cache
def _machine() -> str:
    """Return an id of where process numbers mean the same: this machine since it started, or this container."""
    facts = platform.node()
    with contextlib.suppress(OSError):  # there are no such files outside Linux
        facts += Path("/proc/sys/kernel/random/boot_id").read_text("ascii") + str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(facts.encode()):08x}"


@functools.cache
def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of processes that were killed; once per folder."""
    with contextlib.suppress(OSError):  # names may not be listed here
        for path in list(folder.iterdir()):
            if made := _LEFTOVER.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another process was faster, or it is not ours to remove
                    ours = made[1] == _machine()
                    gone = not _is_alive(int(made[2])) if ours else time.time() - path.stat().st_mtime > ABANDONED
                    if gone:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine runs; True where that cannot be told."""
    try:
        if os.name == "posix":  # elsewhere signal 0 would end it
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError, PermissionError) as error:
        return isinstance(error, PermissionError)
    return True


def remove_unfinished(path: Path) -> None:
    """Remove what a killed ``atomic_path`` left beside ``path`` (may hold ``*``); nobody may be writing it."""
    path = path.resolve() if path.is_symlink() else path
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        if _LEFTOVER.fullmatch(temporary.name):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staging_folder(place: Path) -> Generator[Path]:
    """Yield a temporary folder in ``place``; on success its content is flushed to disk and moved to ``place``.

    What comes first by name is moved last. A file is replaced; a folder that is not empty is an OSError.
    """
    make_folder(place)
    _remove_leftovers(place)
    staging = place / _temporary_name("staging")
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


def user_cache() -> Path:
    """Return this package's folder in the user's cache, which may not exist yet; without a home one of this process."""
    place = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111  (no RuntimeError)
    return _cache_of_process() if place.startswith("~") else Path(place) / "gpt4image"


@functools.cache
def _cache_of_process() -> Path:
    place = tempfile.mkdtemp(prefix="gpt4image-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, checksum: bool = True) -> None:
    """Write ``value`` as indented JSON, atomically, with the checksum that ``read_json`` compares. NaN: ValueError."""
    whole = sealed(value) if checksum else value
    write_text(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


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
    """Read a JSON file. Raises DamagedError or FormatError: no JSON, another checksum, or another format."""
    what = "it is no JSON: "
    try:
        value, what = parse_json(path.read_text(encoding="utf-8")), ""
        return unsealed(value, path)
    except ValueError as error:
        raise DamagedError(damaged(path, f"{what}{error}")) from None


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
    *whole, rest = path.read_bytes().split(b"\n")  # not splitlines: JSON text may hold other line ends
    rows: list[Any] = []
    for number, line in enumerate(whole, start=1):
        try:
            rows.append(parse_json(line.decode("utf-8")))
        except ValueError as error:
            raise DamagedError(damaged(path, f"its line {number} is no JSON ({error})")) from None
    with contextlib.suppress(ValueError):
        rows.append(parse_json(rest.decode("utf-8")))
    return rows


def open_npy(path: Path, dtype: np.dtype[Any] | type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Open a .npy file as a memory map; nothing is unpickled. Raises DamagedError: it is not what it should be."""
    import numpy as np

    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, *UNREADABLE) as error:
        raise DamagedError(damaged(path, f"it cannot be read as an array ({first_line(error)})")) from None
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        wrong = f"it holds {array.dtype} {array.shape}, but the manifest says {np.dtype(dtype)} {shape}"
        raise DamagedError(damaged(path, wrong))
    # NumPy maps what the header says, and ignores bytes that come after it.
    if path.stat().st_size != array.offset + array.nbytes:  # pyright: ignore[reportAttributeAccessIssue]
        raise DamagedError(damaged(path, "it is longer than its header says"))
    return array


ROW_GROUP = 100_000  # rows of a large table that are made and written at once


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as content:
        try:
            with pq.ParquetFile(content, page_checksum_verification=True) as file:
                missing = [name for name in columns or () if name not in file.schema_arrow.names]
                table = file.read(columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException, *UNREADABLE) as error:
            raise DamagedError(damaged(path, f"it cannot be read as Parquet ({first_line(error)})")) from None
    if missing:
        raise DamagedError(damaged(path, f"it has no column {first_few(missing)}"))
    return table


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file, a dictionary each. Raises as ``read_parquet``."""
    return read_parquet(path).to_pylist()

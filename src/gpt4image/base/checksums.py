"""Checksums of what stages write, so that a damaged file is named instead of used.

A JSON record carries the sha256 of its own content under ``record_sha256``, and the version of all records under
``record_format``; where that lacks, it is 1. Other files are listed in the record that
is written after them: ``"files": {"embeddings.npy": {"bytes": 1152, "sha256": "..."}}``, by their path from the folder
of the record. Records of versions before have neither, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gpt4image.base.errors import DamagedError, NewerError

SEAL, FILES, VERSION = "record_sha256", "files", "record_format"
RECORDS = 1  # version of what records hold: raise it when an older gpt4image would misread a new one
SMALL = 64 * 2**20  # bytes up to which a file is checked as a whole each time it is opened


def fingerprint(value: Any) -> str:
    """Return the sha256 hex digest of ``value`` as canonical JSON: the identity of a configuration."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the sha256 of a file as hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest_of_start(path: Path, size: int) -> Any:
    """Return the sha256 object of the first ``size`` bytes of a file, to go on with."""
    written = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (part := file.read(min(size, 2**20))):
            written.update(part)
            size -= len(part)
    return written


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of JSON values with its version and the checksum of its content."""
    whole = {**record, VERSION: RECORDS}
    content = json.loads(json.dumps({**whole, SEAL: None}, allow_nan=False))  # keys become text, as in the file
    del content[SEAL]
    return {**whole, SEAL: fingerprint(content)}


def unsealed(record: Any, where: object) -> Any:
    """Return a JSON value, read from ``where``, without its checksum and version.

    Raises:
        ValueError: the content is not the one that was written.
        NewerError: it is of a later version.
    """
    if not isinstance(record, dict):
        return record
    content = _checked(record)
    require_known(where, content.pop(VERSION, 1), RECORDS)
    return content


def require_known(where: object, version: Any, latest: int) -> None:
    """Refuse a file of a later format. Raises NewerError: it names the file, both versions and what to do."""
    if version not in range(1, latest + 1):
        raise NewerError(
            f"{where} is of format {version}; this gpt4image reads formats up to {latest}. A newer version wrote it: "
            "install that one (pip install --upgrade gpt4image), or make the file again elsewhere with this one."
        )


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    if SEAL not in record:
        if near := next(filter(_is_nearly_seal, record), None):
            raise ValueError(f"its entry {SEAL!r} is damaged: it reads {near!r}")
        return dict(record)
    content = {name: value for name, value in record.items() if name != SEAL}
    if record[SEAL] != fingerprint(content):
        raise ValueError(
            f"its content does not match its checksum; if you changed it on purpose, delete the entry {SEAL!r}"
        )
    return content


def _is_nearly_seal(name: str) -> bool:
    """Return whether a name differs from the seal's in one letter, as after a flipped bit."""
    return len(name) == len(SEAL) and sum(a != b for a, b in zip(name, SEAL, strict=True)) == 1


def file_facts(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size and checksum of files, by their path from ``folder``, as a record lists them."""
    paths = {name: folder / name for name in names}
    return {name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for name, path in paths.items()}


def recorded_files(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the files that a record lists; none where it is of a version that kept no checksums.

    Raises:
        DamagedError: the list is malformed, or names a file outside the folder of the record.
    """
    files = record.get(FILES, {})
    if not isinstance(files, dict) or not all(map(_is_listed, files.items())):
        raise DamagedError(f"A record is damaged: its {FILES!r} does not list files with their bytes and sha256.")
    return files


def _is_listed(item: tuple[str, Any]) -> bool:
    path, facts = PurePosixPath(item[0]), item[1]
    is_inside = not path.is_absolute() and ".." not in path.parts
    return is_inside and isinstance(facts, dict) and facts.keys() >= {"bytes", "sha256"}


def require_recorded(folder: Path, name: str, record: Mapping[str, Any], *, largest: float = SMALL) -> bool:
    """Compare the file ``folder / name`` with its entry in a record; return whether there is an entry.

    Args:
        largest: number of bytes up to which the whole file is read; of a larger one only the size is compared.

    Raises:
        DamagedError: the file is missing, or not the one that was written.
    """
    facts = recorded_files(record).get(name)
    if facts is None:
        return False
    path = folder / name
    if not path.is_file():
        raise DamagedError(f"{path} is missing. Bring back a copy of it, or make again what it belongs to.")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise DamagedError(damaged(path, f"it has {size} bytes, not the {facts['bytes']} that were written"))
    if size <= largest and file_digest(path) != facts["sha256"]:
        raise DamagedError(damaged(path, "its content does not match its checksum"))
    return True


def card_section(folder: Path, names: Iterable[str]) -> str:
    """Return the part of a model card that names the checksum of each file, in the format of sha256sum."""
    lines = [f"    {file_digest(folder / name)}  {name}" for name in names]
    return "\n".join(["", "## Checksums (sha256)", "", *lines, ""])


def card_checksums(card: str) -> dict[str, str]:
    """Return the sha256 of files by name, as a model card keeps them; none where it names no plain file."""
    return {name: digest for digest, name in re.findall(r"(?m)^    ([0-9a-f]{64})  ([^/\\\n]+)$", card)}


def damaged(path: Path, reason: str) -> str:
    """Return the message that names a damaged file."""
    return f"{path} is damaged: {reason}. Bring back a copy of it, or make again what it belongs to."

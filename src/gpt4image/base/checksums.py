"""Checksums of what stages write, so that a damaged file is named instead of used.

A JSON record has the sha256 of its own content under ``record_sha256``, a list in one more entry at its end, and the
format of all records under ``record_format``. Other files are listed in the record that is written after them, by
their path from its folder: ``"files": {"embeddings.npy": {"bytes": 1152, "sha256": "..."}}``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gpt4image.base.errors import DamagedError, FormatError

SEAL, FILES, FORMAT = "record_sha256", "files", "record_format"
RECORDS = 1  # format of all records
_OF_CARD = "sha256 of this card up to here: "
_FILE_ON_CARD = r"(?m)^    ([0-9a-f]{64})  ([^/\\\n]+)$"
_STORE = b"SQLite format 3\0"  # how every store begins
MEND = "Restore a copy of it, or move it away and give the command that wrote it once more."
SMALL = 64 * 2**20  # bytes up to which a file is checked as a whole each time it is opened


def fingerprint(value: Any) -> str:
    """Return the sha256 hex digest of ``value`` as canonical JSON: the identity of a configuration."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """Return ``value`` as canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


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


def sealed(value: Any) -> Any:
    """Return a record with its format and the checksum of its content, a list with that, any other value as it is."""
    if isinstance(value, dict):
        whole = {**value, FORMAT: RECORDS}
        content = json.loads(json.dumps({**whole, SEAL: None}, allow_nan=False))  # keys become text, as in the file
        del content[SEAL]
        return {**whole, SEAL: fingerprint(content)}
    return [*value, {SEAL: fingerprint(json.loads(json.dumps(value)))}] if isinstance(value, list) else value


def unsealed(value: Any, where: object) -> Any:
    """Return a JSON value, read from ``where``, without its checksum and format. Raises ValueError, FormatError."""
    seal, content = value[-1] if isinstance(value, list) and value else value, value
    if isinstance(seal, dict) and SEAL in seal and (isinstance(value, dict) or len(seal) == 1):
        content = value[:-1] if isinstance(value, list) else {name: value[name] for name in value if name != SEAL}
        if seal[SEAL] != fingerprint(content):
            raise ValueError(
                f"its content does not match its checksum; if you changed it on purpose, delete the entry {SEAL!r}"
            )
    if isinstance(content, dict):
        require_format(where, content.get(FORMAT, RECORDS), RECORDS)  # JSON of others has none
        content = {name: each for name, each in content.items() if name != FORMAT}
    return content


def require_format(where: object, found: Any, known: int) -> None:
    """Refuse a file of another format. Raises FormatError: it names the file, both formats and what to do."""
    if found != known:
        raise FormatError(
            f"{where} is of format {found!r:.20}; this gpt4image reads format {known} alone. Read or export it "
            "with the version of gpt4image that wrote it, or make it again with this one."
        )


def file_facts(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size and checksum of files, by their path from ``folder``, as a record lists them."""
    paths = {name: folder / name for name in names}
    return {name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for name, path in paths.items()}


def recorded_files(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the files that a record lists. DamagedError: the list is malformed, or names a file outside its folder."""
    files = record.get(FILES)

    def is_listed(path: PurePosixPath, facts: Any) -> bool:
        is_inside = not path.is_absolute() and ".." not in path.parts
        return is_inside and isinstance(facts, dict) and facts.keys() >= {"bytes", "sha256"}

    if not isinstance(files, dict) or not all(is_listed(PurePosixPath(name), facts) for name, facts in files.items()):
        raise DamagedError(f"A record is damaged: its {FILES!r} does not list files with their bytes and sha256.")
    return files


def require_recorded(folder: Path, name: str, record: Mapping[str, Any], *, largest: float = SMALL) -> None:
    """Compare the file ``folder / name`` with its entry in a record.

    Of a file of more than ``largest`` bytes only the size is compared. Raises DamagedError.
    """
    path = folder / name
    if (facts := recorded_files(record).get(name)) is None:
        raise DamagedError(damaged(path, "the record beside it does not list it"))
    if not path.is_file():
        raise DamagedError(f"{path} is missing. {MEND}")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise DamagedError(damaged(path, f"it has {size} bytes, not the {facts['bytes']} that were written"))
    if size <= largest and file_digest(path) != facts["sha256"]:
        raise DamagedError(damaged(path, "its content does not match its checksum"))


def card_section(card: str, folder: Path, names: Iterable[str]) -> str:
    """Return a model card with the checksum of each file, in the format of sha256sum, and of the card up to there."""
    lines = [f"    {file_digest(folder / name)}  {name}" for name in names]
    whole = "\n".join([card, "## Checksums (sha256)", "", *lines, "", ""])
    return f"{whole}{_OF_CARD}{hashlib.sha256(whole.encode()).hexdigest()}\n"


def card_checksums(card: str) -> dict[str, str]:
    """Return the sha256 of files by name, as a model card keeps them. Raises ValueError: the card was changed."""
    found = {name: digest for digest, name in re.findall(_FILE_ON_CARD, card)}
    content, _, digest = card.rpartition(_OF_CARD)
    if found and digest.strip() != hashlib.sha256(content.encode()).hexdigest():
        raise ValueError("its content does not match its checksum; if you changed it on purpose, export again")
    return found


def require_as_on_card(path: Path, card: Path) -> None:
    """Compare a file to the checksum that the model card keeps of it, where there is one. Raises DamagedError."""
    try:
        digest = card_checksums(card.read_text(encoding="utf-8")).get(path.name) if card.is_file() else None
    except ValueError as error:
        raise DamagedError(damaged(card, str(error))) from None
    if digest is not None and file_digest(path) != digest:
        raise DamagedError(damaged(path, f"its content does not match its checksum in {card.name}"))


def is_store(path: Path) -> bool:
    """Return whether a file is a store of answers, which may be paid for, by its beginning."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(_STORE)) == _STORE
    return False


def damaged(path: Path, reason: str) -> str:
    """Return the message that names a damaged file; a store of answers in its place is none."""
    if is_store(path):
        return f"{path} is a store of answers, not the file that is needed here; give it as --store or --answers."
    return f"{path} is damaged: {reason}. {MEND}"

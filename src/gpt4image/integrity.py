"""What `gpt4image doctor PATH` checks: every file of a store, table, index, run, comparison or export, as a whole.

A file is compared to the checksum that it carries (JSON records, text labels, weights) or that the record or model card
of its folder keeps of it. Nothing is changed, and what the user has put into a folder is passed over.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpt4image.artifacts import runs
from gpt4image.artifacts.box_table import BoxLabels, holds_boxes
from gpt4image.artifacts.run_records import COMPARISON
from gpt4image.artifacts.stage_records import RECORD as STAGES
from gpt4image.artifacts.store_checksums import MEND, RowChecksums
from gpt4image.artifacts.store_file import APPLICATION_ID, connect_reader
from gpt4image.artifacts.table import MANIFEST as TABLE
from gpt4image.artifacts.text_labels import FEW_CLASSES, FORMAT, TextLabels
from gpt4image.base.checksums import FILES, SEAL, card_checksums, damaged, file_digest, recorded_files, require_recorded
from gpt4image.base.errors import ConfigError, DamagedError, Gpt4ImageError, NewerError, StoreError, first_line
from gpt4image.base.files import UNREADABLE, read_json, read_json_lines, read_parquet
from gpt4image.base.remedies import remedy

INDEX, PLAN, CARD = "index.json", "plan.json", "README.md"
TASK = "gpt4image_task"
OF_RUN = {runs.CONFIG, runs.RUN, runs.ENVIRONMENT, runs.TEXT_SPACE, runs.DOUBTFUL, "tuned.json"}
EXTRAS = {"examples.json", "doubtful-labels.json", "descriptions.json"}
RECORDS = OF_RUN | EXTRAS | {TABLE, INDEX, COMPARISON, PLAN, STAGES}
MODELS = (".onnx", ".pt2")
State = Literal["whole", "no checksum recorded", "newer", "damaged"]


class Checked(NamedTuple):
    """One file that was checked; ``reason`` names what is wrong with a damaged one, and what makes it again."""

    path: Path
    state: State
    reason: str = ""


def check(path: Path) -> list[Checked]:
    """Check a file, or all files in a folder that a stage wrote.

    Raises:
        ConfigError: there is nothing at ``path``, or nothing that a stage wrote.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; give a file or folder that gpt4image wrote.")
    card = path.parent / f"{path.name}.md"
    one = [path, card] if path.suffix in MODELS and card.is_file() else [path]
    folders, found = ([path.parent], one) if path.is_file() else _walked(path)
    listed: dict[Path, Mapping[str, Any]] = {}
    for folder in folders:
        with contextlib.suppress(OSError):  # it vanished
            listed |= dict(_listed(folder))
    missing = [] if path.is_file() else [file for file in listed if not file.exists()]
    checked = [one for file in sorted({*found, *missing}) if (one := _checked(file, listed.get(file))) is not None]
    if not checked:
        raise ConfigError(
            f"{path} holds nothing that gpt4image wrote; give a description store, an embedding table, an index, text "
            "labels, a run, a comparison or an exported model."
        )
    return checked


def _walked(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and files below a folder; what cannot be read, or vanishes meanwhile, is passed over."""
    folders, found = list[Path](), list[Path]()
    for place, _, names in os.walk(path):
        folders.append(Path(place))
        found += [file for name in names if (file := Path(place) / name).is_file()]
    return folders, found


def _listed(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the files that the records and model cards of a folder keep checksums of, with the record."""
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(DamagedError, NewerError, OSError):  # named where the record itself is checked
            record = read_json(path)
            if isinstance(record, dict) and SEAL in path.read_text(encoding="utf-8"):
                yield from ((folder / name, {**record, "folder": folder}) for name in recorded_files(record))
    for path in sorted(folder.glob("*.md")):
        with contextlib.suppress(OSError):
            if damage := _damage_of_card(path):
                yield path, {"damage": damage}
            else:
                known = card_checksums(path.read_text(encoding="utf-8", errors="replace"))
                yield from ((folder / name, {"digest": digest}) for name, digest in known.items())
                yield from [(path, {"damage": ""})] if known else []


def _damage_of_card(path: Path) -> str:
    """Return what is wrong with a model card; of a text that is none, nothing."""
    try:
        known = card_checksums(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return str(error)
    is_ours = path.suffixes[-2:-1] and path.suffixes[-2] in MODELS and path.with_suffix("").is_file()
    if path.name == CARD and (path.parent / runs.CONFIG).is_file():
        with contextlib.suppress(DamagedError):
            is_ours = TASK in read_json(path.parent / runs.CONFIG)
    return "" if known or not is_ours else "the checksums of the model are missing"


def _checked(path: Path, how: Mapping[str, Any] | None) -> Checked | None:
    """Check one file, also by the record or model card that lists it; None if no stage wrote it."""
    try:
        if how is not None and how.get("damage"):
            raise DamagedError(damaged(path, how["damage"]))
        if how is not None and "damage" in how:
            return Checked(path, "whole")
        if how is not None and FILES in how:
            require_recorded(how["folder"], path.relative_to(how["folder"]).as_posix(), how, largest=math.inf)
        elif how is not None and not path.is_file():
            raise DamagedError(f"{path} is missing. {remedy(path)}")
        elif how is not None and file_digest(path) != how["digest"]:
            raise DamagedError(damaged(path, "its content does not match its checksum"))
        own = _own_checksum(path)
    except NewerError as error:
        return Checked(path, "newer", str(error))
    except Gpt4ImageError as error:
        again = "" if isinstance(error, (DamagedError, StoreError)) else f" {remedy(path)}"
        return Checked(path, "damaged", f"{error}{again}")
    except OSError as error:  # another's file: it vanished, is no file any more, or may not be read
        if how is None:
            return None
        return Checked(path, "damaged", f"{path} cannot be read: {error.strerror}. {remedy(path)}")
    if own is None and how is None:
        return None
    return Checked(path, "whole" if own or how else "no checksum recorded")


def _own_checksum(path: Path) -> bool | None:
    """Read a file; return whether it carries a checksum of its own, None where no stage wrote it.

    Raises:
        Gpt4ImageError: it is damaged.
    """
    if path.suffix == ".json":
        is_record = _is_record(path) or path.name.startswith("evaluation-")
        has_checksum = SEAL in path.read_text(encoding="utf-8", errors="replace")
        if is_record or has_checksum:
            (runs.read_evaluation if path.name.startswith("evaluation-") else read_json)(path)
        return has_checksum or (False if is_record else None)
    if path.name == runs.METRICS:
        read_json_lines(path)
        return False
    if path.suffix == ".safetensors":
        return _weights(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".npy" and any((path.parent / name).is_file() for name in (TABLE, INDEX)):
        return False
    if not _is_store(path):
        return None
    _store(path)
    return True


def _is_record(path: Path) -> bool:
    """Return whether a stage writes a file of such a name beside such files: others have an examples.json too."""
    beside = (runs.CONFIG, COMPARISON, STAGES, TABLE, INDEX, "tuned.json")
    return path.name in RECORDS and any((path.parent / name).is_file() for name in beside)


def _weights(path: Path) -> bool | None:
    from gpt4image.artifacts.weights import CHECKSUM, header_of, load_tensors

    if path.name == runs.CHECKPOINT or (path.parent / runs.CONFIG).is_file() or (path.parent / "tuned.json").is_file():
        load_tensors(path)
        return CHECKSUM in header_of(path)
    return None


def _parquet(path: Path) -> bool | None:
    if path.name.startswith("predictions-"):
        read_parquet(path)
        return False
    if holds_boxes(path):
        BoxLabels.load(path)
        return True
    metadata = read_parquet(path).schema.metadata or {}
    facts = metadata.get(FORMAT.encode()) or metadata.get(FEW_CLASSES.encode())
    if facts is None:
        return None
    TextLabels.load(path)
    return SEAL.encode() in facts


def _is_store(path: Path) -> bool:
    """Return whether a file is a store, or was one: a writer leaves its lock beside it."""
    with path.open("rb") as file:
        header = file.read(72)
    is_sound = header.startswith(b"SQLite format 3\0") and header[68:] == APPLICATION_ID.to_bytes(4, "big")
    return is_sound or path.with_name(f"{path.name}.lock").is_file()


def _store(path: Path) -> None:
    """Check a description store. Raises StoreError: it is damaged, or of another version."""
    if not path.stat().st_size:
        raise StoreError(f"{path} is empty. {MEND}")
    try:
        with contextlib.closing(connect_reader(path)) as connection:
            RowChecksums(connection).require_whole(path)
    except sqlite3.OperationalError as error:
        raise OSError(None, str(error), str(path)) from error  # in use by another, or gone: not damaged
    except (sqlite3.DatabaseError, *UNREADABLE) as error:
        raise StoreError(f"{path} is damaged: {first_line(error)}. {MEND}") from None

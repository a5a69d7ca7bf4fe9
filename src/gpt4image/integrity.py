"""What `gpt4image doctor PATH` checks: every file of a store, table, index, run, comparison or export, as a whole.

A file is compared to the checksum that it carries (JSON records, text labels, weights) or that the record or model card
of its folder keeps of it. Nothing is changed, and what the user has put into a folder is passed over.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpt4image.artifacts import runs
from gpt4image.artifacts.box_table import BoxLabels, holds_boxes
from gpt4image.artifacts.store_file import APPLICATION_ID, connect_reader
from gpt4image.artifacts.table import MANIFEST as TABLE
from gpt4image.artifacts.text_labels import FEW_CLASSES, FORMAT, TextLabels
from gpt4image.base.checksums import FILES, SEAL, card_checksums, file_digest, recorded_files, require_recorded
from gpt4image.base.errors import ConfigError, DamagedError, Gpt4ImageError, NewerError, StoreError
from gpt4image.base.files import read_json, read_json_lines, read_parquet

INDEX, COMPARISON, CARD = "index.json", "comparison.json", "README.md"
RECORDS = {TABLE, INDEX, COMPARISON, runs.CONFIG, runs.RUN, runs.ENVIRONMENT, "text_space.json", "tuned.json"}
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
    folders, found = ([path.parent], [path]) if path.is_file() else _walked(path)
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
    for path in (folder / CARD, *folder.glob("*.md")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            known = card_checksums(path.read_text(encoding="utf-8"))
            yield from ((folder / name, {"digest": digest}) for name, digest in known.items())


def _checked(path: Path, how: Mapping[str, Any] | None) -> Checked | None:
    """Check one file, also by the record or model card that lists it; None if no stage wrote it."""
    try:
        if how is not None and FILES in how:
            require_recorded(how["folder"], path.relative_to(how["folder"]).as_posix(), how, largest=math.inf)
        elif how is not None and not path.is_file():
            raise DamagedError(f"{path} is missing.")
        elif how is not None and file_digest(path) != how["digest"]:
            raise DamagedError(f"{path} is damaged or was changed: its content does not match its checksum.")
        own = _own_checksum(path)
    except NewerError as error:
        return Checked(path, "newer", str(error))
    except Gpt4ImageError as error:
        return Checked(path, "damaged", f"{error} {_again(path)}")
    except OSError as error:  # another's file: it vanished, is no file any more, or may not be read
        if how is None:
            return None
        return Checked(path, "damaged", f"{path} cannot be read: {error.strerror}. {_again(path)}")
    if own is None and how is None:
        return None
    return Checked(path, "whole" if own or how else "no checksum recorded")


def _own_checksum(path: Path) -> bool | None:
    """Read a file; return whether it carries a checksum of its own, None where no stage wrote it.

    Raises:
        Gpt4ImageError: it is damaged.
    """
    if path.suffix == ".json":
        is_record = path.name in RECORDS or path.name.startswith("evaluation-")
        has_checksum = SEAL in path.read_text(encoding="utf-8", errors="replace")
        if is_record or has_checksum:
            read_json(path)
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
    return True if _is_store(path) and _store(path) else None


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
    with path.open("rb") as file:
        header = file.read(72)
    return header.startswith(b"SQLite format 3\0") and header[68:] == APPLICATION_ID.to_bytes(4, "big")


def _store(path: Path) -> bool:
    """Check a description store; return False for one of another version. Raises StoreError: it is damaged."""
    try:
        with contextlib.closing(connect_reader(path)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    except sqlite3.OperationalError as error:
        raise OSError(None, str(error), str(path)) from error  # in use by another, or gone: not damaged
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    except StoreError:
        return False
    if found != ["ok"]:
        raise StoreError(f"{path} is damaged: {found[0]}.")
    return True


def _again(path: Path) -> str:
    """Return what makes a damaged file again."""
    folder, place = path.parent, shlex.quote(str(path.parent))
    if split := re.fullmatch(r"(?:evaluation|predictions)-(\w+)\.(?:json|parquet)", path.name):
        return f"Remove evaluation-{split[1]}.json and run `gpt4image evaluate {place} --split {split[1]}`."
    if path.name in (runs.CHECKPOINT, runs.METRICS) and not runs.is_finished(folder):
        return f"Remove {runs.CHECKPOINT} and give the command of the run with --resume, which trains from its start."
    if path.suffix in (".npy", ".json") and (folder / "embeddings.npy").exists():
        return f"Delete the folder and run `gpt4image encode --store STORE --out {place}`."
    if path.name == INDEX or (folder / INDEX).is_file():
        return "Delete the folder and give the same `gpt4image search` command."
    if path.name == COMPARISON:
        return f"Remove it and give the same `gpt4image compare` command with --out {place}."
    if path.suffix in MODELS or (folder / CARD).is_file():
        return "Delete the model and its card and run `gpt4image export RUN_DIR` again."
    if runs.has_begun(folder) or runs.has_begun(folder.parent) or path.name in RECORDS:
        return "Delete the folder of the run and train it again."
    if path.suffix == ".parquet":
        return f"Write it again with `gpt4image label --out {shlex.quote(str(path))}`."
    return f"Bring back a copy, or save what can be read: `sqlite3 {shlex.quote(str(path))} .recover`."

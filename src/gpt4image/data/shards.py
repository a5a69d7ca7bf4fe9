"""Tar files (shards) of images: an index of their members, and image bytes by position.

A shard is indexed once, by the headers of its members; image bytes are then read by offset, in any order, by any
number of processes. Nothing is unpacked: names of members are never paths. The index is kept in the user's cache until
the shard changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import NewerError, first_few
from gpt4image.base.files import read_json, user_cache, write_json
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.digests import file_state, is_settled, part_digests
from gpt4image.data.file_source import MAX_FILE_BYTES, is_unicode
from gpt4image.data.labels import LABEL_NAMES, MAX_LABEL_LETTERS

FORMAT = 4  # of a cached index: raised when the same shard would give another index
MAX_LABEL_BYTES = 1_000_000  # of a member that holds a label, among other things


@dataclass
class ShardIndex:
    """The images of one shard, in the order of their samples.

    Attributes:
        images: name of the sample, first byte and number of bytes of its image, and its label as in ``cls`` or
            ``json``: text, number, a list of these or None.
        skipped: name and reason of what is skipped.
    """

    images: list[tuple[str, int, int, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


class ShardSource:
    """Image bytes in tar files, by position.

    Args:
        paths: of the shards.
        shard: (N,) which of them image i is in.
        spans: (N, 2) its first byte, and its number of bytes.
    """

    def __init__(self, paths: Sequence[str], shard: NDArray[np.int32], spans: NDArray[np.int64]) -> None:
        self._paths, self._shard, self._spans = paths, shard, spans

    def read(self, row: int) -> bytes:
        """Return the bytes of one image. Raises OSError where the shard cannot be read or ends before it."""
        start, length = self._spans[row].tolist()
        if length > MAX_FILE_BYTES:
            raise OSError(f"the image has {length:,} bytes, more than the allowed {MAX_FILE_BYTES:,}")
        with open(self._path(row), "rb") as file:  # noqa: PTH123
            file.seek(start)
            data = file.read(length)
        if len(data) < length:
            raise OSError("the shard is shorter than it was")
        return data

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image; that of an unchanged shard is cached."""
        spans = self._spans[rows].tolist()
        return part_digests([(self._path(row), *span) for row, span in zip(rows.tolist(), spans, strict=True)])

    def _path(self, row: int) -> str:
        return self._paths[int(self._shard[row])]


def index_shard(path: str) -> ShardIndex:
    """Return what is in a shard, from the cache where it has not changed since.

    A shard that is cut off or damaged gives the samples before that place, and is named.
    """
    state = file_state(path)
    cached = user_cache() / "shards" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    try:
        record = read_json(cached)
        if record.pop("format") == FORMAT and record.pop("state") == list(state or ()):
            return ShardIndex(*([tuple(row) for row in record[name]] for name in ("images", "skipped")))
    except (OSError, NewerError, ValueError, KeyError, TypeError, AttributeError):  # absent, damaged, another version
        pass
    index = _read_index(path)
    if state is not None and is_settled(state):
        with contextlib.suppress(OSError, ValueError):  # a label may be NaN; the cache is a help, never a condition
            write_json(cached, {"format": FORMAT, "state": list(state), **asdict(index)})
    return index


@dataclass
class _Sample:
    """What belongs to one name: images by extension, and the text that holds its label."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    cls: bytes | None = None
    json: bytes | None = None
    fault: str = ""


def _read_index(path: str) -> ShardIndex:
    index = ShardIndex()
    samples: dict[str, _Sample] = {}
    shard, damage = Path(path).name, ""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            for name, extension, member in _members(file):
                if not is_unicode(name):
                    index.skipped.append((ascii(name), f"its name is not valid UTF-8, in {shard}"))
                else:
                    _note(samples.setdefault(name, _Sample()), extension, member, file, size)
    except OSError as error:
        damage = error.strerror or str(error)
    except Exception as error:  # noqa: BLE001  (what tarfile raises on damaged headers has no common base)
        damage = str(error)
    for name, sample in samples.items():
        _conclude(index, name, sample, shard)
    if damage:
        index.skipped.append(
            (shard, f"damaged, cut off or no plain tar file ({damage}): {len(index.images)} samples read")
        )
    return index


def _members(file: io.BufferedReader) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield name, extension and header of each member that counts; where a damaged shard ends, tarfile raises."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            if member.size < 0:
                raise tarfile.ReadError("a member of negative size")
            archive.members.clear()  # pyright: ignore  (tarfile would keep the headers of all members)
            folder, slash, base = member.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if stem and dot and not member.isdir():
                yield f"{folder}{slash}{stem}", extension.lower(), member
        file.seek(archive.offset)
        end = file.read(tarfile.BLOCKSIZE)
        if any(end) or not end:  # an archive ends with blocks of zeros, and tarfile stops at the first bad header
            raise tarfile.ReadError("its end is missing")


def _note(sample: _Sample, extension: str, member: tarfile.TarInfo, file: io.BufferedReader, size: int) -> None:
    """Add one member to its sample. Members of other kinds, pickles among them, are never read."""
    kind = f".{extension.rpartition('.')[2]}"
    if kind not in EXTENSIONS and extension not in ("cls", "json"):
        return
    if not member.isreg() or member.issparse():
        sample.fault = f"{extension} is a link or no plain file"
    elif member.offset_data + member.size > size:
        sample.fault = f"{extension} is cut off"
    elif kind in EXTENSIONS:
        if extension in sample.images:
            sample.fault = f"{extension} comes twice"
        sample.images[extension] = (member.offset_data, member.size)
    elif member.size > MAX_LABEL_BYTES:
        sample.fault = f"{extension} has {member.size:,} bytes, more than the allowed {MAX_LABEL_BYTES:,}"
    else:
        file.seek(member.offset_data)
        setattr(sample, extension, file.read(member.size))


def _conclude(index: ShardIndex, name: str, sample: _Sample, shard: str) -> None:
    # "jpg" comes before "seg.png": a file with a second extension is usually something else than the picture.
    chosen = min(sample.images, key=lambda extension: "." in extension, default=None)
    cell, fault = _cell(sample)
    fault = sample.fault or fault or ("" if chosen else "has no image")
    if len(sample.images) > 1 and all("." in extension for extension in sample.images):
        fault = f"has several pictures, {first_few(sample.images)}: a name ends at its first dot"
    if fault or chosen is None:
        index.skipped.append((name, f"{fault}, in {shard}"))
    else:
        index.images.append((name, *sample.images[chosen], cell))


def _cell(sample: _Sample) -> tuple[Any, str]:
    """Return the label of a sample as text, number, list or None, and what is wrong with it."""
    try:
        if sample.cls is not None:
            value = sample.cls.decode().strip()
        else:
            fields = {} if sample.json is None else json.loads(sample.json)
            if not isinstance(fields, dict):
                return None, "its json is no object"
            value = next((fields[name] for name in LABEL_NAMES if name in fields), None)
    except (ValueError, RecursionError):
        return None, "its label cannot be read"
    for each in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(each, str) and (len(each) > MAX_LABEL_LETTERS or not is_unicode(each)):
            return None, f"its label has more than {MAX_LABEL_LETTERS} letters, or is no Unicode text"
        if not isinstance(each, str | int | float):
            return None, f"its label holds a {type(each).__name__}; classes are text or whole numbers"
    return value, ""

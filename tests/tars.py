"""Tar files of the bytes that tests give."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from gpt4image.data import ImageSet, load_image_set


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """Write members by their names; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def load_shards(pattern: Path | str) -> ImageSet:
    return load_image_set(f"webdataset:{pattern}")

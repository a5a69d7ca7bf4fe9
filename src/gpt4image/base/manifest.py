"""Manifests: the sha256 of the files that a stage has written into a folder, in its ``manifest.json``.

A manifest is written last. ``gpt4image doctor`` compares the files to it, and so does whatever loads an exported model.
"""

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from gpt4image.base.files import damaged, file_digest, read_json, require_format, write_json

MANIFEST = "manifest.json"
FORMAT = 1


def write_manifest(manifest: Path, names: Iterable[str], facts: Mapping[str, Any] | None = None) -> None:
    """Write a manifest of files, by their paths from its folder, and of facts about them."""
    files = {name: file_digest(manifest.parent / name) for name in names}
    write_json(manifest, {"format": FORMAT, **(facts or {}), "files": files})


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Return the content of a manifest. Raises DamagedError, FormatError."""
    content = read_json(manifest)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise damaged(manifest, "it lists no files")
    require_format(manifest, content.get("format"), FORMAT)
    if any(PurePath(name).is_absolute() or ".." in PurePath(name).parts for name in files):
        raise damaged(manifest, "it lists a file outside its folder")
    return content


@contextlib.contextmanager
def adding(folder: Path, names: Sequence[str]) -> Generator[None]:
    """Let the block write files of a finished folder anew, which are in its manifest before and after it only."""
    manifest = folder / MANIFEST
    content = read_manifest(manifest) if manifest.is_file() else {}
    files = {name: digest for name, digest in content.get("files", {}).items() if name not in names}
    if content and files != content["files"]:
        write_json(manifest, {**content, "files": files})
    yield
    if content:
        write_json(manifest, {**content, "files": files | {name: file_digest(folder / name) for name in names}})


def faults(manifest: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that a manifest lists, with what is wrong with it or nothing. Raises as ``read_manifest``."""
    for name, digest in read_manifest(manifest)["files"].items():
        path = manifest.parent / name
        is_whole = path.is_file() and file_digest(path) == digest
        yield path, "" if is_whole else "its content has changed" if path.is_file() else "it is missing"


def require_whole(folder: Path) -> None:
    """Compare a folder to its manifest, where there is one. Raises DamagedError, FormatError."""
    if (manifest := folder / MANIFEST).is_file():
        for file, fault in faults(manifest):
            if fault:
                raise damaged(file, f"{fault} since {manifest.name} was written")

"""Models in the Hugging Face layout: their folder, here or from the hub, and loading them without noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt4image.base.errors import first_line


def find_folder(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a model: ``name`` itself, or its copy of the Hugging Face hub (fetched once).

    Args:
        name: path of a folder, or a Hugging Face id.
        patterns: names of the files to fetch.

    Raises:
        LookupError: there is no such folder and the hub does not give it; the message says why.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if not name or folder.is_absolute() or name.startswith(".") or len(folder.parts) > 2:
        raise LookupError(f"there is no folder {name!r}; give a folder or a Hugging Face id")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        raise LookupError(
            f"there is no such folder here and Hugging Face does not give it ({first_line(error)}); check the name and "
            "the network"
        ) from error


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars of its own while it loads weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

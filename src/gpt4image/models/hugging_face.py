"""Models in the Hugging Face layout: their folder, here or from the hub, and loading them.

The folder of a model can bring code: Python files, an ``auto_map`` of transformers, a class that a file of
sentence-transformers names. sentence-transformers before 6.0 ran such code from a local folder although
``trust_remote_code`` was False. ``find_folder`` therefore refuses it before a library reads the folder.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from gpt4image.base.errors import Gpt4ImageError, first_line

_CONFIGURATIONS = ("*config*.json", "modules.json")
# Keys of sentence-transformers whose value, or values, are classes to import: of a module in modules.json, of the
# modules of a Router, of the tokenizer of word vectors, of the activation of a Dense. transformers writes a plain
# name there, without a dot, and looks it up in a table of its own.
_CLASS_KEYS = ("type", "types", "tokenizer_class", "activation_function")
# The capital letter excludes functions, and libraries that one of these modules has imported.
_CLASS_OF_A_LIBRARY = re.compile(r"(sentence_transformers|torch\.nn)\.(\w+\.)*[A-Z]\w*")


def find_folder(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a model: ``name`` itself, or its copy of the Hugging Face hub (fetched once).

    Args:
        name: path of a folder, or a Hugging Face id.
        patterns: names of the files to fetch.

    Raises:
        LookupError: there is no such folder and the hub does not give it, or the model brings code; the message says
            which.
    """
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        if not name or folder.is_absolute() or name.startswith(".") or len(folder.parts) > 2:
            raise LookupError(f"there is no folder {name!r}; give a folder or a Hugging Face id")
        from huggingface_hub import snapshot_download

        with hub_asked_once() as unreachable:
            try:
                folder = Path(snapshot_download(name, allow_patterns=list(patterns)))
            except (OSError, ValueError) as error:
                why, advice = (unreachable, f"; {OFFLINE}") if unreachable else (first_line(error), "")
                raise LookupError(
                    f"there is no such folder here and Hugging Face does not give it ({why}); check the name and the "
                    f"network{advice}"
                ) from error
    _refuse_code(folder)
    return folder


OFFLINE = "without one, give a local folder, or copy the cache of Hugging Face (HF_HOME) here and set HF_HUB_OFFLINE=1"
"""What helps where the hub cannot be reached."""
REACHED_SECONDS = 5.0


@contextlib.contextmanager
def hub_asked_once() -> Generator[str]:
    """Let the hub's library look only into its cache in the block where its server cannot be reached.

    Yields what is wrong then, or nothing. The library itself would try again for half a minute. Behind a proxy it
    decides alone.
    """
    from huggingface_hub import constants

    server = urlsplit(constants.ENDPOINT)
    unreachable = ""
    if not constants.HF_HUB_OFFLINE and not getproxies():
        try:
            port = server.port or (80 if server.scheme == "http" else 443)
            socket.create_connection((server.hostname or "", port), timeout=REACHED_SECONDS).close()
        except OSError as error:
            unreachable = f"{server.hostname} cannot be reached: {error.strerror or error}"
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(unreachable)
    try:
        yield unreachable
    finally:
        constants.HF_HUB_OFFLINE = before


def _refuse_code(folder: Path) -> None:
    """Raise LookupError where a folder has Python files, or names code that a library would import."""
    reason = next((f"{file} is Python code" for file in folder.rglob("*.py")), None)
    for file in sorted({file for pattern in _CONFIGURATIONS for file in folder.rglob(pattern)}):
        # The libraries read with this parser too: what it cannot read, they cannot either.
        with contextlib.suppress(ValueError, RecursionError):
            named = _code_named(json.loads(file.read_text(encoding="utf-8")))
            reason = reason or next((f"{file} names the code {name}" for name in named), None)
    if reason:
        raise LookupError(f"{reason}; code that comes with a model is never run, give a model without code of its own")


def _code_named(configuration: Any) -> Iterator[str]:
    """Yield the code that a configuration names, other than classes of the libraries that read it."""

    def is_of_a_library(name: Any) -> bool:
        return isinstance(name, str) and _CLASS_OF_A_LIBRARY.fullmatch(name) is not None

    pending = [configuration]  # and not recursion: a file may be nested deeply
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(value.values())
            if value.get("auto_map"):
                yield repr(value["auto_map"])
            found = [value[key] for key in _CLASS_KEYS if key in value]
            names = [name for part in found for name in (part.values() if isinstance(part, Mapping) else [part])]
            yield from (repr(name) for name in names if "." in str(name) and not is_of_a_library(name))
        elif isinstance(value, list):
            pending.extend(value)


@contextlib.contextmanager
def loading(what: str, kind: type[Gpt4ImageError]) -> Generator[None]:
    """Let a library load a model without progress bars; what it raises becomes ``kind``, with ``what`` before it."""
    try:
        with without_progress_bars():
            yield
    except Gpt4ImageError:
        raise
    except Exception as error:
        # Damaged files raise many types, among them the plain Exception of tokenizers.
        raise kind(f"{what}: {first_line(error)}") from error


@contextlib.contextmanager
def without_progress_bars() -> Generator[None]:
    """Keep transformers from drawing bars of its own while it loads weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def without_report() -> Generator[None]:
    """Keep transformers from printing a table of the weights that do not fit, which the caller looks at itself."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)

"""The exception tree.

    Gpt4ImageError          anything this package raises on purpose; the command line prints it without a traceback
    ├── ConfigError         an option, a recipe key or a SPEC string is wrong
    ├── DataError           an image set cannot be read as asked (missing, duplicate keys, wrong column, no labels)
    │   └── DecodeError     one image cannot be decoded; stages set the image aside and go on
    ├── DescriberError      a describer cannot be used or stopped answering (key, quota, model, server)
    ├── StoreError          a description store is missing, foreign, locked or does not fit the request
    ├── TableError          an embedding table, an index or a text-label file is missing, unfinished or does not fit
    ├── ModelError          a model name, its options or a weights file cannot be used
    ├── RunError            a run folder is missing, unfinished or belongs to another configuration
    │   └── DamagedError    a file is cut, changed or of something else; readers of tables and indexes make it theirs
    ├── TrainingError       training cannot go on (the loss is not finite)
    ├── ExportError         a model cannot be exported as asked, or what was exported is not the model of its run
    └── MissingExtraError   an optional dependency is not installed; the message names the extra

Every message says what was given, what is allowed and what to do next.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class Gpt4ImageError(Exception):
    """Base class: a mistake that the user can mend. Exit code 2 on the command line."""


class ConfigError(Gpt4ImageError):
    """An option, a recipe key or a SPEC string is wrong."""


class DataError(Gpt4ImageError):
    """An image set cannot be read as asked."""


class DecodeError(DataError):
    """One image cannot be decoded; the message is the reason alone, the caller names the image."""


class DescriberError(Gpt4ImageError):
    """A describer cannot be used or stopped answering; what it answered before is kept."""


class StoreError(Gpt4ImageError):
    """A description store is missing, foreign, locked or does not fit the request."""


class TableError(Gpt4ImageError):
    """An embedding table, an index of images or a text-label file is missing, unfinished or does not fit."""


class ModelError(Gpt4ImageError):
    """A model name, its options or a weights file cannot be used."""


class RunError(Gpt4ImageError):
    """A run folder is missing, unfinished or belongs to another configuration."""


class DamagedError(RunError, ValueError):
    """A file is damaged; a ValueError too, for callers that know what it belongs to and can say more."""


class TrainingError(Gpt4ImageError):
    """Training cannot go on: the loss is not finite."""


class ExportError(Gpt4ImageError):
    """A model cannot be exported as asked, or what was exported is not the model of its run."""


class MissingExtraError(Gpt4ImageError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str | None = None) -> None:
        # Without the extra, ``what`` is the message: so an error is made again that comes from another process.
        install = f" needs an optional dependency; install it with: pip install 'gpt4image[{extra}]'"
        super().__init__(what if extra is None else what + install)


@contextlib.contextmanager
def parsing(what: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged or hostile file into DataError: such errors have no common base.

    Only calls of the library belong into the block, or a mistake of our own would be hidden.

    Args:
        what: the file and what is wrong with it, e.g. ``a.parquet: not a Parquet file that can be read``.
    """
    try:
        yield
    except Gpt4ImageError:
        raise
    except Exception as error:
        raise DataError(f"{what} ({first_line(error)}).") from error


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``name`` quoted, why it is refused and the nearest valid choice, to end an error message with.

    All choices are listed unless they are many and a near one was found.
    """
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if close and len(options) > 20:
        return f"{name!r} is not known.{hint}"
    return f"{name!r} is not one of: {', '.join(options)}.{hint}"


def first_few(names: Iterable[str], limit: int = 5) -> str:
    """Return up to ``limit`` names, quoted, then how many more there are: names inside messages stay readable."""
    items = list(names)
    shown = ", ".join(repr(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line of up to 200 characters: it may quote a whole file."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

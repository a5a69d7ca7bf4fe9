"""The exceptions that this package raises on purpose; the command line prints them without a traceback.

Every message says what was given, what is allowed and what to do next.
"""

import contextlib
import difflib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Self


class Gpt4ImageError(Exception):
    """Base class: a mistake that the user can mend. Exit code 2 on the command line."""


class ConfigError(Gpt4ImageError):
    """An option, a recipe key or a SPEC string is wrong.

    ``faults`` are pairs of an option by its field name (or "") and what is wrong with it, to be read after the name:
    ``ConfigError("= -1: must be greater than 0", field="lr")``. The command line says ``--lr``, Python ``lr``.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field} {message}" if field else message)
        self.faults = ((field, message),)

    @classmethod
    def of(cls, faults: Iterable[tuple[str, str]]) -> Self:
        """Return one error of several faults."""
        faults = tuple(faults)
        error = cls("\n".join(f"{field} {message}".lstrip() for field, message in faults))
        error.faults = faults
        return error

    @property
    def field(self) -> str:
        """The option that is wrong, the first of several; "" where it is no one option."""
        return self.faults[0][0]

    def worded(self, option: Callable[[str], str]) -> str:
        """Return the message with options as ``option`` names them."""
        return "\n".join(f"{option(field) if field else ''} {message}".lstrip() for field, message in self.faults)


class DataError(Gpt4ImageError):
    """A dataset cannot be read as asked: missing, duplicate keys, wrong column, no labels."""


class DecodeError(DataError):
    """One image cannot be decoded; stages skip it. The message is only the reason, the caller names the image."""


class DescriberError(Gpt4ImageError):
    """A describer cannot be used or stopped answering (key, quota, model, server); earlier answers are kept."""


class StoreError(Gpt4ImageError):
    """A description store is missing, foreign, locked or does not fit the request."""


class TableError(Gpt4ImageError):
    """An embedding table, an index or a text-label file is missing, unfinished or does not fit."""


class ModelError(Gpt4ImageError):
    """A model name, its options or a weights file cannot be used."""


class RunError(Gpt4ImageError):
    """A run folder is missing, unfinished or belongs to another configuration."""


class DamagedError(RunError, ValueError):
    """A file is damaged; also a ValueError, for callers that know what it belongs to and can say more."""


class FormatError(Gpt4ImageError):
    """A file is whole, but of another format than this version reads; no caller may take it for a damaged one."""


class TrainingError(Gpt4ImageError):
    """Training cannot go on: the loss is not finite."""


class ExportError(Gpt4ImageError):
    """A model cannot be exported as asked, or what was exported is not the model of its run."""


def install_command(extra: str) -> str:
    """Return what installs an extra: into the clone, if this is one."""
    clone = Path(__file__).parents[3]
    where = f"-e '{clone}[{extra}]'" if (clone / "pyproject.toml").is_file() else f"'gpt4image[{extra}]'"
    return f"pip install {where}"


class MissingExtraError(Gpt4ImageError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str | None = None) -> None:
        # Without ``extra``, ``what`` is the whole message: so pickle makes the error again in another process.
        install = f" needs an optional dependency; install it with: {install_command(extra or '')}"
        super().__init__(what if extra is None else what + install)


@contextlib.contextmanager
def parsing(what: str, kind: type[Gpt4ImageError] = DataError) -> Generator[None]:
    """Turn whatever a library raises on a damaged file into an error of ours, in which ``what`` names the problem.

    Only the call of the library belongs into the block, so that no mistake of our own is taken for damage.
    """
    try:
        yield
    except Gpt4ImageError:
        raise
    except Exception as error:
        raise kind(f"{what} ({first_line(error)}).") from error


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error message: ``name`` quoted, the choices unless they are many, and the nearest one."""
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if close and len(options) > 20:
        return f"{name!r} is not known.{hint}"
    return f"{name!r} is not one of: {', '.join(options)}.{hint}"


def first_few(names: Iterable[str], limit: int = 5) -> str:
    """Return up to ``limit`` names, quoted, then how many more there are."""
    items = list(names)
    shown = ", ".join(repr(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, up to 200 characters; of a text in another encoding, what to do."""
    if isinstance(error, UnicodeDecodeError):
        found = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding, such as Latin-1"
        return f"it is in {found}: save it as UTF-8, which Excel calls CSV UTF-8"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

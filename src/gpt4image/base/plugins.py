"""Parts that other installed packages bring, by entry point: describers, text encoders and readers of datasets.

A package is looked at only when a SPEC names no part of gpt4image, and imported only when its own part is asked for. So
a package that is broken stops nobody who does not use it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal, get_args

from gpt4image.base.errors import ConfigError, Gpt4ImageError, first_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = Literal["describers", "encoders", "readers"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def names(kind: Kind) -> list[str]:
    """Return the first words of a SPEC that other packages answer to."""
    return sorted({point.name for point in _points(kind)})


def find(kind: Kind, name: str) -> Callable[..., Any] | None:
    """Return the function that a package brings under a name; None where no package does. Raises ConfigError."""
    points = [point for point in _points(kind) if point.name == name]
    if len(points) > 1:
        raise ConfigError(f"{' and '.join(map(_source, points))} both bring {name!r}; uninstall one of them.")
    if not points:
        return None
    point = points[0]
    whose = f"{name!r} is brought by {_source(point)}, whose {point.value}"
    with guarded(whose, "cannot be imported"):
        found = point.load()
    if not callable(found):
        raise ConfigError(f"{whose} is a {type(found).__name__}, no function; update that package.")
    return found


@contextlib.contextmanager
def guarded(who: str, fault: str = "failed", kind: type[Exception] = ConfigError) -> Generator[None]:
    """Turn whatever code of others raises in the block, ``sys.exit`` too, into an error that names it."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except Gpt4ImageError as error:
        raise type(error)(str(error) if who in str(error) else f"{who}: {error}") from None
    except BaseException as error:  # noqa: BLE001  (code of others may raise anything)
        raise kind(f"{who} {fault} ({why(error)}); mend or update it.") from None


class Guarded:
    """A part of another package: what its attributes and calls raise is an error that names it."""

    def __init__(self, who: str, part: Any, kind: type[Exception]) -> None:
        self._part = who, part, kind

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the part; a call of it is guarded, too."""
        if name.startswith("_"):  # asked for when it is copied
            raise AttributeError(name)
        who, part, kind = self._part
        with guarded(who, kind=kind):
            value = getattr(part, name)
        if not callable(value):
            return value

        def call(*given: Any) -> Any:
            with guarded(who, kind=kind):
                return value(*given)

        return call


def why(error: BaseException) -> str:
    """Return kind and message of what code of others raised, in one line."""
    with contextlib.suppress(Exception):  # its message is code of others, too
        return f"{type(error).__name__}: {first_line(error)}"
    return type(error).__name__


def states() -> dict[str, str]:
    """Return for each part that packages bring which one does, or why it cannot be used."""
    told: dict[str, str] = {f"{name}:": f"BROKEN package: {reason}" for name, reason in _packages()[1].items()}
    for kind in KINDS:
        for point in _points(kind):
            try:
                find(kind, point.name)
                state = f"{kind.removesuffix('s')} of {_source(point)}"
            except ConfigError as error:
                state = f"BROKEN {kind.removesuffix('s')}: {error}"
            told[f"{point.name}:"] = "; ".join(filter(None, (told.get(f"{point.name}:"), state)))
    return told


def _points(kind: Kind) -> list[EntryPoint]:
    parts = (point for points in _packages()[0].values() for point in points if point.group == f"gpt4image.{kind}")
    return sorted(parts, key=lambda point: (point.name, point.value))


def _packages() -> tuple[dict[str, list[EntryPoint]], dict[str, str]]:
    """Return the entry points of each package, and why those of others cannot be read, which stops nobody else."""
    from importlib.metadata import distributions

    found: dict[str, list[EntryPoint]] = {}  # the first on the path is the one that is imported
    broken: dict[str, str] = {}
    for number, package in enumerate(distributions()):
        name = f"package {number}"
        try:
            name = package.name.lower()
            found.setdefault(name, list(package.entry_points))
        except Exception as error:  # noqa: BLE001  (files of others may hold anything)
            broken[name] = f"its entry points cannot be read ({why(error)}); update or uninstall it"
    return found, broken


def _source(point: EntryPoint) -> str:
    with contextlib.suppress(Exception):  # its metadata may lack both
        return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    return point.value

"""Parts that other installed packages bring, by entry point: describers, text encoders and readers of datasets.

A package is looked at only when a SPEC names no part of gpt4image, and imported only when its own part is asked for. So
a package that is broken stops nobody who does not use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from gpt4image.base.errors import ConfigError, first_line

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
    try:
        found = point.load()
    except Exception as error:  # noqa: BLE001  (a package of others may raise anything)
        reason = f"cannot be imported ({type(error).__name__}: {first_line(error)})"
    else:
        if callable(found):
            return found
        reason = f"is a {type(found).__name__}, no function"
    raise ConfigError(f"{name!r} is brought by {_source(point)}, whose {point.value} {reason}; update that package.")


def states() -> dict[str, str]:
    """Return for each part that packages bring which one does, or why it cannot be used."""
    told: dict[str, str] = {}
    for kind in KINDS:
        for point in _points(kind):
            try:
                find(kind, point.name)
                told[f"{point.name}:"] = f"{kind.removesuffix('s')} of {_source(point)}"
            except ConfigError as error:
                told[f"{point.name}:"] = f"BROKEN {kind.removesuffix('s')}: {error}"
    return told


def _points(kind: Kind) -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=f"gpt4image.{kind}"), key=lambda point: (point.name, point.value))


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value

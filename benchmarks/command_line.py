"""Options of a benchmark, a dataclass, as the words of a command line give them."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parsed(kind: type[T], *positional: str) -> T:
    """Return the options: those named in ``positional`` by their place, others as ``--name VALUE``."""
    parser, hints = argparse.ArgumentParser(), get_type_hints(kind)
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        hint = hints[field.name]
        types = [part for part in get_args(hint) or (hint,) if part not in (type(None), Ellipsis)]
        how: dict[str, Any] = {"type": types[0]} | ({"nargs": "*"} if get_origin(hint) is tuple else {})
        if field.name in positional:
            parser.add_argument(field.name, **how)
        elif field.default is dataclasses.MISSING:
            parser.add_argument(f"--{field.name.replace('_', '-')}", required=True, **how)
        else:
            parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, **how)
    given = vars(parser.parse_args())
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})

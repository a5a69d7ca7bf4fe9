"""The stub of the package: types and documentation of all public names, from the configurations."""

from __future__ import annotations

import textwrap

import gpt4image
from gpt4image import verbs

WIDTH = 116
BEFORE = '''"""Types of the public names, for editors and type checkers; docs/scripts/generate.py writes them."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch.nn import Module
'''
TYPES = '''
class _Frame(Protocol):
    """A DataFrame of pandas, or another table with named columns."""

    @property
    def columns(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...

StrPath = str | Path | PathLike[str]
Picture = Image | NDArray[np.uint8]
Images = StrPath | Picture | Sequence[StrPath | Picture] | _Frame
Data = StrPath | tuple[Sequence[StrPath | Picture] | NDArray[np.uint8], Sequence[Any] | NDArray[Any] | None] | _Frame
Describer = str | Callable[[Image, str], str | Mapping[str, Any]] | tuple[str, Callable[[Image, str], Any]]
Model = str | Module

__version__: str
'''


def page() -> str:
    """Return the whole stub."""
    imports = sorted(
        f"from gpt4image.{module} import {name} as {name}" for name, module in gpt4image._MODULE_OF.items()
    )
    task = "from gpt4image.tasks.base import Task"
    functions = "\n".join(function(name) for name in verbs.VERBS)
    return "\n".join([BEFORE + "\n".join([*imports, task]), TYPES, functions])


def function(name: str) -> str:
    """Return a function with its types and documentation."""
    lines, keywords = [f"def {name}("], False
    for each in verbs.parameters(name):
        if not each.positional and not keywords:
            lines.append("    *,")
            keywords = True
        lines.append(f"    {each.name}: {each.kind}{f' = {each.default}' if each.default else ''},")
    lines.append(f") -> {verbs.RESULTS[name]}:")
    documented = [wrapped(line) for line in verbs.documentation(name).splitlines()]
    text = textwrap.indent("\n".join(documented), "    ").lstrip()
    raw = "r" if "\\" in text else ""
    return "\n".join([*lines, f'    {raw}"""{text}', '    """', ""])


def wrapped(line: str) -> str:
    """Return a line broken to the width of the file; what follows is indented further."""
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(line, WIDTH, subsequent_indent=f"{indent}    " if indent else "", break_long_words=False)

"""Types of options: what an option is (a path, a SPEC), and what may be given for it (a text, an object of Python).

For a type checker such an option is a descriptor: it has a type to read and a type to give, by which calls are checked.
At run time it is the type to read, with a validator that turns an object into the SPEC that stands for it.
"""

import importlib
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Protocol, TypeVar

from pydantic import BeforeValidator, Field

T = TypeVar("T")
Read = TypeVar("Read")
Given = TypeVar("Given")
POSITIONAL, RARE, PYTHON = "positional", "rare", "python"
Positional = Annotated[T, POSITIONAL]  # the type of an option that is a word of the command line by its place
Rare = Annotated[T, RARE]  # the type of an option that no help shows: keys of recipes, mostly
PythonOnly = Annotated[T, PYTHON]  # the type of an option that only a call in Python can give
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
JsonTable = dict[str, Any]


def given(where: str) -> BeforeValidator:
    """Return what turns an object into its SPEC by the function MODULE:FUNCTION, which is imported when needed."""
    module, _, function = where.partition(":")

    def spec(value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, PathLike):
            return str(Path(value))
        return getattr(importlib.import_module(f"gpt4image.{module}"), function)(value)

    return BeforeValidator(spec)


def class_lines(value: Any) -> Any:
    """Return a list as lines, and a path as text."""
    if isinstance(value, list | tuple):
        return "\n".join([*value, ""])
    return str(value) if isinstance(value, Path) else value


def _several(value: Any) -> Any:
    values: Any = value if isinstance(value, list | tuple) else (value,)
    return tuple(str(each) if isinstance(each, Path) else each for each in values)


if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch.nn import Module

    class _Takes(Generic[Read, Given]):
        """An option that is read as one type and given as another."""

        def __get__(self, options: object, kind: type | None = None) -> Read: ...
        def __set__(self, options: object, value: Given) -> None: ...

    class _Frame(Protocol):
        """A DataFrame of pandas, or another table with named columns."""

        @property
        def columns(self) -> Any: ...
        def __getitem__(self, key: Any, /) -> Any: ...

    _Path = str | PathLike[str]
    _Picture = Image | NDArray[uint8]
    _Data = _Path | tuple[Sequence[Any] | NDArray[Any], Sequence[Any] | NDArray[Any] | None] | _Frame
    APath = _Takes[Path, _Path]
    MaybePath = _Takes[Path | None, _Path | None]
    Paths = _Takes[tuple[Path, ...], _Path | Sequence[_Path]]
    Words = _Takes[tuple[str, ...], _Path | Sequence[_Path]]
    Images = _Takes[tuple[Any, ...], _Path | _Picture | Sequence[_Path | _Picture] | _Frame]
    DataSpec = _Takes[str, _Data]
    MaybeData = _Takes[str | None, _Data | None]
    DescriberSpec = _Takes[str, str | Callable[[Image, str], Any] | tuple[str, Callable[[Image, str], Any]]]
    Model = _Takes[str | None, str | Module | None]
    ClassList = _Takes[str | None, _Path | Sequence[str] | None]
else:
    APath, MaybePath = Path, Path | None
    Paths = Annotated[tuple[Path, ...], BeforeValidator(_several)]
    Words = Annotated[tuple[str, ...], BeforeValidator(_several)]
    Images = Annotated[tuple[Any, ...], BeforeValidator(_several)]
    DataSpec = Annotated[str, given("data.given:dataset")]
    MaybeData = Annotated[str | None, given("data.given:dataset")]
    DescriberSpec = Annotated[str, given("describing.describers.function:describer")]
    Model = Annotated[str | None, given("models.backbones:given_model")]
    ClassList = Annotated[str | None, BeforeValidator(class_lines)]

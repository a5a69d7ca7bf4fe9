"""The border to text encoders of other packages: what they raise and what they give names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.base import plugins
from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.base import TextEncoder

_MOST = 2**20  # numbers of a vector


class ForeignEncoder:
    """A text encoder of others, whose facts and vectors are as ``TextEncoder`` says."""

    def __init__(self, who: str, encoder: TextEncoder) -> None:
        """Take an encoder; ``who`` names it in messages. Raises ModelError."""
        self._who, self._encoder = who, encoder
        self.spec, self.revision = self._fact("spec", _is_text), self._fact("revision", _is_text)

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        return self._fact("precision", lambda value: value in ("fp32", "bf16"))

    @property
    def width(self) -> int:
        return self._fact("width", _is_count)

    @property
    def max_tokens(self) -> int:
        return self._fact("max_tokens", _is_count)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return self._array("token_lengths", texts, (len(texts),), np.int64)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._array("encode", texts, (len(texts), self.width), np.float32)

    def _fact(self, name: str, is_right: Callable[[Any], bool]) -> Any:
        with plugins.guarded(self._who, kind=ModelError):
            value = getattr(self._encoder, name)
            if not is_right(value):
                raise ModelError(f"its {name} is {str(value)[:50]!r}, a {type(value).__name__}, which it cannot be.")
            return value

    def _array(self, name: str, texts: Sequence[str], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        with plugins.guarded(self._who, kind=ModelError):
            found = np.asarray(getattr(self._encoder, name)(texts)).astype(dtype, casting="same_kind")
            if found.shape != shape or not np.isfinite(found).all() or (dtype is np.int64 and (found < 0).any()):
                raise ModelError(
                    f"its {name} gives numbers of the shape {found.shape}; finite ones of {shape} are needed."
                )
            return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 < value < _MOST

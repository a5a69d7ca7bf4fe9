"""What a text encoder is: a frozen model that turns texts into vectors.

A library adds only texts to tokens and tokens to vectors. Precision and unit length are the same code around it.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


class TextEncoder(Protocol):
    """A frozen text encoder. Making one is cheap: only ``spec`` and ``revision`` do not load the weights."""

    @property
    def spec(self) -> str:
        """SPEC string that finds this encoder again."""
        ...

    @property
    def revision(self) -> str:
        """Fingerprint of the weights and the configuration: equal revisions give equal embeddings."""
        ...

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Arithmetic; bf16 if the device computes it natively and it keeps directions (cosine >= 0.999)."""
        ...

    @property
    def width(self) -> int:
        """D, length of an embedding."""
        ...

    @property
    def max_tokens(self) -> int:
        """Texts are cut after this many tokens, special tokens included."""
        ...

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens included, before any cut."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (N, D) unit-length embeddings of one batch of texts."""
        ...

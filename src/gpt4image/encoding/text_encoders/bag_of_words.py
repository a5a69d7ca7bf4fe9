"""A text encoder without a language model: a control that shows how much of a gain needs one.

Words (stop words removed) are counted in hashed bins, the counts are put on a logarithmic scale, and a sparse random
projection (Achlioptas, "Database-friendly random projections", 2003; Li et al., "Very sparse random projections", 2006)
brings them to the width asked for. There is nothing to fit, so equal texts have equal vectors in every store.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError
from gpt4image.base.files import fingerprint

DEFAULT_WIDTH = 384
NO_LIMIT = 2**31 - 1
_BINS = 2**16
_DENSITY = 0.1
WORD = r"(?u)\b\w\w+\b"


class BagOfWordsEncoder:
    """Log-scaled word counts, projected at random."""

    precision: Literal["fp32"] = "fp32"
    max_tokens = NO_LIMIT

    def __init__(self, name: str) -> None:
        """Take the width from ``name``, 384 if it is empty. Raises ConfigError: no positive number."""
        if name and not (name.isascii() and name.isdigit() and int(name) > 0):
            raise ConfigError(f"The encoder SPEC is bag-of-words or bag-of-words:WIDTH, a number; got {name!r}.")
        import sklearn

        self.width = int(name) if name else DEFAULT_WIDTH
        self.spec = f"bag-of-words:{self.width}"
        made_by = {"bins": _BINS, "density": _DENSITY, "word": WORD, "scikit-learn": sklearn.__version__}
        self.revision = fingerprint({"bag-of-words": self.width, **made_by})

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        split = self._counter.build_analyzer()
        return np.array([len(split(text)) for text in texts], dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts: Any = self._counter.transform(texts)
        counts.data = np.log1p(counts.data)
        vectors = np.asarray((counts @ _projection(self.width)).todense(), dtype=np.float64)
        vectors[~vectors.any(axis=1)] = 1.0
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    @cached_property
    def _counter(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        options: dict[str, Any] = {"stop_words": "english", "token_pattern": WORD, "alternate_sign": False}
        return HashingVectorizer(n_features=_BINS, norm=None, **options)  # pyright: ignore[reportArgumentType]


@cache
def _projection(width: int) -> Any:
    from scipy.sparse import csr_matrix
    from sklearn.random_projection import SparseRandomProjection

    options: dict[str, Any] = {"n_components": width, "density": _DENSITY}
    projection = SparseRandomProjection(random_state=0, **options)
    return projection.fit(csr_matrix((1, _BINS))).components_.T.tocsr()

"""How well images and texts find each other in the space they share, and whether a class name finds its images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RECALL_AT = (1, 5, 10)
CHUNK = 1024  # rows of the similarity matrix at a time: memory does not grow with its square

Array = NDArray[np.float32]


def recalls(image_emb: Array, text_emb: Array, text_ids: NDArray[np.int64]) -> dict[str, float]:
    """Return recall at 1, 5 and 10 of image-to-text and text-to-image retrieval.

    Recall at k is the part of queries whose own partner is among the k most similar ones. Images of one text are
    partners of one another, and do not compete; other ties count against the query, so that a space in which
    everything lies in one place finds nothing.

    Args:
        image_emb: (n, D) of unit length.
        text_emb: (n, D) of unit length, row i of the text of image i.
        text_ids: (n,) identity of the text of each image.

    Returns:
        ``image_to_text_recall:K`` and ``text_to_image_recall:K`` for each K up to n.
    """
    found: dict[str, float] = {}
    for name, queries, answers in (
        ("image_to_text_recall", image_emb, text_emb),
        ("text_to_image_recall", text_emb, image_emb),
    ):
        ranks = _ranks(queries, answers, text_ids)
        found |= {f"{name}:{k}": float((ranks < k).mean()) for k in RECALL_AT if k <= len(ranks)}
    return found


def zero_shot_accuracy(image_emb: Array, class_names: Array, labels: NDArray[np.int64]) -> float:
    """Return the part of labelled images whose nearest class name is their own.

    Args:
        image_emb: (n, D) of unit length.
        class_names: (K, D) text embeddings of the class names.
        labels: (n,) int64, negative where there is none; one at least is there.
    """
    has_label = labels >= 0
    nearest = (image_emb[has_label] @ class_names.T).argmax(axis=1)
    return float((nearest == labels[has_label]).mean())


def _ranks(queries: Array, answers: Array, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) how many answers that belong to another text are at least as similar as the best of one's own."""
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        similarity = queries[rows] @ answers.T
        own = ids[rows, None] == ids
        best = np.where(own, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks[rows] = (~own & (similarity >= best)).sum(axis=1)
    return ranks

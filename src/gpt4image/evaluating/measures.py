"""Measures besides the metrics of the task: zero-shot accuracy, and retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.encoding.class_names import ClassNames
from gpt4image.training.run_model import Outputs, RunModel
from gpt4image.training.training_data import TrainingData

RECALL_AT = (1, 5, 10)
CHUNK = 1024  # rows of the similarity matrix at a time: memory does not grow with its square

Array = NDArray[np.float32]


def recalls(image_emb: Array, text_emb: Array, text_ids: NDArray[np.int64]) -> dict[str, float]:
    """Return recall at 1, 5 and 10 of image-to-text and text-to-image retrieval, by (n, D) embeddings of unit length
    and the (n,) identity of the text of each image.

    Recall at k is the part of queries whose own partner is among the k most similar ones. Images of one text are
    partners of one another, and do not compete; other ties count against the query, so that a space in which everything
    lies in one place finds nothing.
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
    """Return the part of labelled images, (n, D) of unit length, whose nearest class name, (K, D), is their own."""
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


Ints = NDArray[np.int64]


def lacked_names(evaluation: Mapping[str, Any]) -> bool:
    """Return whether an evaluation lacks what could be measured with embeddings of the class names.

    Where texts have no place in the space of the run, retrieval is missing for that same reason.
    """
    absent = evaluation.get("absent", {})
    return "zero_shot" in absent and absent["zero_shot"] != absent.get("retrieval")


@dataclass(kw_only=True)
class Measured:
    """Metrics by name, ``FAMILY`` or ``FAMILY:DETAIL``, fractions in 0..1; and why others are absent."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    absent: dict[str, str] = field(default_factory=dict[str, str])


def measure_more(model: RunModel, data: TrainingData, split: str, outputs: Outputs, names: ClassNames) -> Measured:
    """Measure a run beyond its predictions of a split, by its outputs for the images; ``text`` of the data holds the
    descriptions there are."""
    found, space, indices = Measured(), model.text_space, data.indices(split)
    if model.head is None:
        return found
    if space is None or model.foreign_texts:
        found.absent |= {"zero_shot": model.foreign_texts, "retrieval": model.foreign_texts}
        return found
    if names.vectors is None:
        found.absent["zero_shot"] = names.missing
    elif data.task.exclusive:
        labels = data.image_set.labels[indices]
        found.metrics["zero_shot"] = zero_shot_accuracy(model.embed(outputs.features), names.vectors, labels)
    place = held_out_described(data, split)
    if data.text is None or not len(place):
        none = f"no two images of {split} or val have different descriptions in the table"
        found.absent["retrieval"] = "there is no embedding table of this dataset" if data.text is None else none
        return found
    chosen = np.isin(indices, place)
    features = outputs.features[chosen] if chosen.any() else model.read(data.pixels, place).features
    vectors, _, ids = data.text.take(place)
    unit = torch.nn.functional.normalize(vectors, dim=1)  # the mean of several texts is shorter
    found.metrics |= recalls(model.embed(features), unit.numpy(), ids.numpy())
    return found


def held_out_described(data: TrainingData, split: str) -> Ints:
    """Return the described images of a split, or else those of the validation split, which no run is trained on.

    Images of one text are none, for it would always be found.
    """
    if (text := data.text) is not None:
        for images in map(data.indices, (split, "val")):
            described = images[text.described[images]]
            if len(np.unique(text.identity[described])) > 1:
                return described
    return np.zeros(0, np.int64)

"""Text embeddings of the class names, which zero-shot classification compares images with."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import Gpt4ImageError

CLASS_NAME_PROMPT = "a photo of a {}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassNames:
    """Text embeddings of the class names, (K, D) float32 of unit length, or why they are missing."""

    vectors: NDArray[np.float32] | None = None
    missing: str = "there is no embedding table, whose encoder would embed the class names"
    revision: str = ""


def find_class_names(embeddings: Path | None, device: str, classes: tuple[str, ...]) -> ClassNames:
    """Return the class names embedded by the encoder of a table, or why they cannot be."""
    if embeddings is None or not classes:
        return ClassNames()
    try:
        made = EmbeddingTable.open(embeddings).manifest
        return embed_by(made.encoder, made.revision, made.width, embeddings, device, classes)
    except Gpt4ImageError as error:
        return ClassNames(missing=str(error))


@functools.lru_cache  # many arms ask
def embed_by(
    spec: str, revision: str, width: int, embeddings: Path, device: str, classes: tuple[str, ...]
) -> ClassNames:
    """Return the class names embedded by the encoder that a table was made with."""
    from gpt4image.encoding.text_encoders.registry import load_known_encoder

    whose = f"The table {embeddings} was made with"
    encoder = load_known_encoder(spec, device, revision=revision, width=width, whose=whose)
    texts = [CLASS_NAME_PROMPT.format(name.replace("_", " ")) for name in classes]
    return ClassNames(vectors=encoder.encode(texts), missing="", revision=encoder.revision)


def not_read(names: Iterable[ClassNames]) -> list[str]:
    """Return, as sentences, why class names cannot be embedded; nothing if they can, or are not asked for."""
    reasons = dict.fromkeys(each.missing for each in names if each.missing)
    return [f"The names of the classes are not read: {reason}" for reason in reasons]

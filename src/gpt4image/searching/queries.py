"""Queries: texts and images, placed in the text space of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError
from gpt4image.base.outcome import Skipped
from gpt4image.data.file_source import read_bounded
from gpt4image.data.pixels import MemoryPixels, decoded
from gpt4image.training.auto import stored_as
from gpt4image.training.run_model import RunModel, TextSpace


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """Q queries, (Q, D) ``vectors`` of unit length: texts, then images, with the bytes of these by name."""

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    pictures: dict[str, bytes]
    skipped: tuple[Skipped, ...] = ()


def place_queries(texts: Sequence[str], images: Sequence[Path], model: RunModel, space: TextSpace) -> Queries:
    """Return texts and image files as queries to the model and text space of a run.

    Raises:
        ModelError: the text encoder cannot be loaded.
        DataError: nothing that was asked can be read.
    """
    vectors = [space.load_encoder(model.config.device).encode(texts)] if texts else []
    pixels: list[NDArray[np.uint8]] = []
    pictures: dict[str, bytes] = {}
    skipped: list[Skipped] = []
    for path in dict.fromkeys(images):
        try:
            data = read_bounded(str(path))
            pixels.append(decoded(data, **stored_as(model.config, model.task)))
            pictures[str(path)] = data
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(name=str(path), reason=getattr(error, "strerror", None) or str(error)))
    if pixels:
        held = MemoryPixels(torch.from_numpy(np.stack(pixels)))
        vectors.append(model.embed(model.read(held, np.arange(len(pixels))).features))
    if not vectors:
        raise DataError(f"--image {skipped[0].name}: {skipped[0].reason}. There is nothing else to look for.")
    names = (*texts, *pictures)
    return Queries(names=names, vectors=np.concatenate(vectors), pictures=pictures, skipped=tuple(skipped))

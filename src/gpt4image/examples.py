"""Example pictures for the report: what was written about them, what the text says, what each arm sees."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.image_set import ImageSet
from gpt4image.data.splits import NO_LABEL

THUMBNAIL = 96
PER_SPLIT = 24
SEED = 0


def picture(data: bytes) -> str:
    """Return an image as a data URL of at most THUMBNAIL pixels a side, without metadata.

    Raises:
        DecodeError: the image cannot be decoded.
    """
    from gpt4image.data.decode import decode

    image = decode(data)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def examples(
    image_set: ImageSet,
    usable: NDArray[np.bool_],
    descriptions: Mapping[str, tuple[str, ...]],
    text_labels: NDArray[np.float32] | None,
    predictions: Mapping[str, Mapping[str, tuple[int, float]]],
) -> list[dict[str, Any]]:
    """Return a sample of train and test pictures as examples.json holds them.

    Args:
        image_set: N images.
        usable: (N,) which of them can be decoded.
        descriptions: texts by digest.
        text_labels: (N, K) class probabilities read off the descriptions, rows of zeros where there are none; or None.
        predictions: by arm, then key of a test image: class and probability.
    """
    rows: list[dict[str, Any]] = []
    for split in ("test", "train"):
        candidates = np.flatnonzero((image_set.splits == split) & usable)
        if split == "train":
            candidates = np.array([i for i in candidates if image_set.digests[i] in descriptions], np.int64)
        count = min(PER_SPLIT, len(candidates))
        for index in np.sort(np.random.default_rng(SEED).choice(candidates, count, replace=False)):
            key, label = image_set.keys[index], int(image_set.labels[index])
            probabilities = None if text_labels is None else text_labels[index]
            rows.append(
                {
                    "key": key,
                    "label": None if label == NO_LABEL else image_set.classes[label],
                    "split": split,
                    "picture": picture(image_set.read(int(index))),
                    "descriptions": list(descriptions.get(image_set.digests[index], ())),
                    "text_label": None
                    if probabilities is None or not probabilities.any()
                    else _guess(image_set, int(probabilities.argmax()), float(probabilities.max())),
                    "predictions": {
                        arm: _guess(image_set, *by_key[key]) for arm, by_key in predictions.items() if key in by_key
                    },
                }
            )
    return rows


def read_predictions(run_dir: Path, split: str = "test") -> dict[str, tuple[int, float]]:
    """Return predicted class and confidence by key, from the predictions of a run."""
    import pyarrow.parquet as pq

    table = pq.read_table(run_dir / f"predictions-{split}.parquet", columns=["key", "prediction", "confidence"])
    columns = (table[name].to_pylist() for name in ("key", "prediction", "confidence"))
    return {key: (prediction, confidence) for key, prediction, confidence in zip(*columns, strict=True)}


def read_descriptions(store: Path | None, digests: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the texts of images from a description store; none where the store is not there any more."""
    from gpt4image.store import DescriptionStore

    if store is None or not store.is_file():
        return {}
    found: dict[str, tuple[str, ...]] = {}
    with DescriptionStore(store) as opened:
        for stored in opened.texts():
            if stored.digest in digests:
                found[stored.digest] = (*found.get(stored.digest, ()), stored.text)
    return found


def _guess(image_set: ImageSet, label: int, probability: float) -> dict[str, Any]:
    return {"class": image_set.classes[label], "probability": round(probability, 4)}

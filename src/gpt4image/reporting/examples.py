"""Example pictures for the report: what was written about them, what the text says, what each arm sees."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.image_set import NO_LABEL, ImageSet
from gpt4image.files import write_json

THUMBNAIL = 96
PER_SPLIT = 24


def write_examples(
    path: Path,
    image_set: ImageSet,
    candidates: NDArray[np.bool_],
    *,
    store: Path | None,
    text_labels: NDArray[np.float32] | None,
    run_dirs: Mapping[str, Path],
) -> None:
    """Write a fixed sample of test and described training pictures as examples.json holds them (see report.py).

    Args:
        path: file to write.
        image_set: N images.
        candidates: (N,) which of them may be shown: those that can be decoded and, in train, are described.
        store: description store with the texts; they are left out where it is not there any more.
        text_labels: (N, K) class probabilities read off the descriptions, zeros where there are none; or None.
        run_dirs: by arm, a run whose test predictions are shown.
    """
    rng = np.random.default_rng(0)
    sample: list[int] = []
    for split in ("test", "train"):
        images = np.flatnonzero(candidates & (image_set.splits == split))
        sample += np.sort(rng.choice(images, min(PER_SPLIT, len(images)), replace=False)).tolist()
    texts = read_descriptions(store, [image_set.digests[i] for i in sample])
    predictions = {arm: read_predictions(folder) for arm, folder in run_dirs.items()}

    def guess(label: int, probability: float) -> dict[str, Any]:
        return {"class": image_set.classes[label], "probability": round(probability, 4)}

    def row(index: int) -> dict[str, Any]:
        key, label = image_set.keys[index], int(image_set.labels[index])
        by_text = None if text_labels is None or not text_labels[index].any() else text_labels[index]
        return {
            "key": key,
            "label": None if label == NO_LABEL else image_set.classes[label],
            "split": str(image_set.splits[index]),
            "picture": picture(image_set.read(index)),
            "descriptions": texts.get(image_set.digests[index], []),
            "text_label": None if by_text is None else guess(int(by_text.argmax()), float(by_text.max())),
            "predictions": {arm: guess(*found[key]) for arm, found in predictions.items() if key in found},
        }

    write_json(path, [row(index) for index in sample])


def picture(data: bytes, side: int = THUMBNAIL) -> str:
    """Return an image as a data URL of at most ``side`` pixels a side, re-encoded without metadata.

    Raises:
        DecodeError: the image cannot be decoded.
    """
    from gpt4image.data.decode import decode

    image = decode(data)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def read_predictions(run_dir: Path) -> dict[str, tuple[int, float]]:
    """Return class and confidence by key, from the test predictions of a run."""
    import pyarrow.parquet as pq

    names = ["key", "prediction", "confidence"]
    table = pq.read_table(run_dir / "predictions-test.parquet", columns=names)
    columns = (table[name].to_pylist() for name in names)
    return {key: (prediction, confidence) for key, prediction, confidence in zip(*columns, strict=True)}


def read_descriptions(store: Path | None, digests: list[str]) -> dict[str, list[str]]:
    """Return the texts of a few images from a description store; none where there is no store."""
    from gpt4image.store import DescriptionStore

    if store is None or not store.is_file():
        return {}
    found: dict[str, list[str]] = {}
    with DescriptionStore(store) as opened:
        for description in opened.descriptions(digests=digests):
            found.setdefault(description.digest, []).append(description.text or "")
    return found

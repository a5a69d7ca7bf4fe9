"""Some of the packaged photographs of clothes, so that what a page or the demo does with all of them takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gpt4image.data.clothes import ANSWERS, load_clothes
from gpt4image.data.dataset import Dataset


def some(per_class: int) -> Dataset:
    """Return so many photographs of each class and split."""
    images = load_clothes()
    rows = [
        np.flatnonzero((images.splits == split) & (images.labels == label))[:per_class]
        for split in ("train", "val", "test")
        for label in range(len(images.classes))
    ]
    return images.select(np.sort(np.concatenate(rows)))


def write_folders(root: Path, per_class: int) -> None:
    """Write them as class folders, ``labelled`` and ``unlabelled`` in train, and ``answers.jsonl`` about the latter."""
    images, key_of = some(per_class), dict[str, str]()
    for row, key in enumerate(images.keys):
        split, name = str(images.splits[row]), images.classes[images.labels[row]]
        key_of[key] = f"{split}/{'unlabelled' if split == 'train' else name}/{key}.webp"
        for path in (root / "labelled" / split / name / f"{key}.webp", root / "unlabelled" / key_of[key]):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.read(row))
    write_answers(root / "answers.jsonl", key_of)


def write_answers(path: Path, key_of: dict[str, str]) -> None:
    """Write the recorded answers about some photographs, by the keys that these have now."""
    rows = map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())
    lines = [json.dumps(row | {"key": key_of[row["key"]]}) for row in rows if row["key"] in key_of]
    path.write_text("\n".join(lines), encoding="utf-8")

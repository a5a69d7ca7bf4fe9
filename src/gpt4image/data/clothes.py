"""`clothes`: 1,722 photographs of clothes in 10 classes (CC0), packaged with what an LLM answered about them.

`clothes-unlabelled` is the same without the human labels of train: what a user has who labels only a test set.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gpt4image.data.dataset import NO_LABEL, Dataset, MemorySource
from gpt4image.data.records import Record, to_dataset

PACKAGED = Path(__file__).parents[1] / "packaged" / "clothes"
FILES = {"train": "train", "validation": "val", "test": "test"}
"""Names of the tables, and the splits that they hold."""
ANSWERS = PACKAGED / "answers.jsonl"
"""What an LLM said of the training photographs: JSON lines with key, class, second, confidence and description."""


def load_clothes() -> Dataset:
    """Load the packaged photographs: 1,200 train, 150 val and 372 test; the shorter side has 160 pixels."""
    records, pictures = list[Record](), list[bytes]()
    for name, split in FILES.items():
        for row in pq.read_table(PACKAGED / f"{name}.parquet").to_pylist():
            records.append(Record(key=row["key"], split=split, label=row["label"]))
            pictures.append(row["image"]["bytes"])
    return to_dataset("clothes", records, MemorySource(pictures))


def load_clothes_unlabelled() -> Dataset:
    """Load the same photographs; none of train has a label."""
    images = load_clothes()
    hidden = np.where(images.splits == "train", NO_LABEL, images.labels)
    return replace(images.revised(labels=hidden), spec="clothes-unlabelled")

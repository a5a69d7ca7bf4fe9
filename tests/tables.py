"""Stores, embedding tables and text labels made from given values, for tests of what reads them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.artifacts.table import (
    EmbeddingTable,
    Manifest,
    digests_to_bytes,
    save_array,
    text_digest,
    write_index,
    write_manifest,
)
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.data import Dataset

PAPER = Prompt(name="paper", version=1, text="Describe this image in detail.", class_conditioned=False)


def digest(number: int) -> str:
    """Return the digest of an image that has a number for its bytes."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_store(path: Path, rows: Iterable[Mapping[str, Any]], **shared: Any) -> Path:
    """Write a store of descriptions or answers with these fields; what all have in common is given once."""
    usual: dict[str, Any] = {"prompt": PAPER, "describer": {}, "created": 0.0}
    with DescriptionStore(path, write=True) as store:
        store.add([Description(**usual | shared | dict(row)) for row in rows])
    return path


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_table(path: Path, vectors: Mapping[str, Sequence[NDArray[np.floating]]]) -> EmbeddingTable:
    """Write and open a table: image ``digest`` has the unit-length embeddings ``vectors[digest]``, each (D,)."""
    pairs = [(digest, vector) for digest, several in vectors.items() for vector in several]
    matrix = np.stack([vector for _, vector in pairs]).astype(np.float16)
    counts = {"descriptions": len(pairs), "texts": len(pairs), "images": len(vectors), "width": matrix.shape[1]}
    of = {"encoder": "given", "revision": "0", "precision": "fp32", "max_tokens": 256, "truncated": 0.0}
    texts = np.stack([np.frombuffer(text_digest(f"text {i}"), np.uint8) for i in range(len(pairs))])
    save_array(path / "embeddings.npy", matrix)
    save_array(path / "texts.npy", texts)
    write_index(path, digests_to_bytes([digest for digest, _ in pairs]), np.arange(len(pairs)))
    write_manifest(path, Manifest(**counts, **of, plan="given", prompts=(PAPER,), store="", gpt4image="0"))
    return EmbeddingTable.open(path)


def made(**facts: Any) -> Targets:
    """Return text labels of three images, the last of test, with facts about what they were made from."""
    usual = {"classes": ("cat", "dög"), "noise": 0.25, "agreement": 0.5, "c": 1.0, "folds": 2, "seed": 0}
    return Targets(
        keys=("a", "b", "c"),
        digests=("0" * 64, "1" * 64, "2" * 64),
        splits=np.array(["train", "train", "test"]),
        labels=np.array([0, 1, -1]),
        probabilities=np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32),
        out_of_fold=np.array([True, True, False]),
        facts=Facts(**usual | {"encoders": ("minilm",)} | facts),
    )


def made_of(images: Dataset, classes: Sequence[str], probabilities: Any, task: str = "classification") -> Targets:
    """Return those of images without a label."""
    labels = np.full(probabilities.shape if task == "multilabel" else len(images), -1, np.int64)
    return Targets(
        keys=images.keys,
        digests=tuple(images.digests),
        splits=images.splits,
        labels=labels.astype(np.int8) if task == "multilabel" else labels,
        probabilities=probabilities,
        out_of_fold=np.ones(labels.shape, bool),
        facts=Facts(classes=tuple(classes), noise=0.0, agreement=None, c=None, folds=5, seed=0, encoders=(), task=task),
    )

"""Real descriptions with true labels, for the benchmarks of the teacher.

2,000 photographs (CIFAR-10), 1,549 pictograms (OpenMoji), 3,068 photographs of clothes,
in $GPT4IMAGE_SHARED_DATA or ../shared/data.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.environment import environment
from gpt4image.base.files import read_json_lines
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.labelling.sources import Predictions
from gpt4image.labelling.texts import Texts
from gpt4image.tasks.classification import Classification
from gpt4image.training.targets import class_targets, explained

DATA = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETS = ("CIFAR-10", "OpenMoji")
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Descriptions of images, one each, with their keys and true classes."""

    keys: tuple[str, ...]
    descriptions: tuple[str, ...]
    labels: Ints
    classes: tuple[str, ...]

    @property
    def everywhere(self) -> NDArray[np.bool_]:
        return np.ones(len(self.labels), bool)


@cache
def corpus(name: str) -> Corpus:
    folder = DATA / name.lower().replace("-", "")
    rows = read_json_lines(folder / ("answers.jsonl" if name == "clothes" else "descriptions-plain.jsonl"))
    if name != "OpenMoji":
        classes = [row["key"].split("/")[-2] for row in rows]  # train/shirt/1.jpg, bird/0012
    else:
        with (folder / "labels.csv").open(encoding="utf-8") as file:
            known = {row["key"]: row["label"] for row in csv.DictReader(file)}
        classes = [known[row["key"]] for row in rows]
    names, labels = np.unique(classes, return_inverse=True)
    return Corpus(
        keys=tuple(row["key"] for row in rows),
        descriptions=tuple(row["description"] for row in rows),
        labels=labels.astype(np.int64),
        classes=tuple(names),
    )


@cache
def encoded(texts: tuple[str, ...], encoder: str) -> NDArray[np.float32]:
    found = load_text_encoder(encoder, "cpu")
    return np.concatenate([found.encode(texts[start : start + 64]) for start in range(0, len(texts), 64)])


def table(name: str, encoder: str = "minilm", part: Callable[[str], str] = str) -> NDArray[np.float32]:
    return encoded(tuple(map(part, corpus(name).descriptions)), encoder)


def names_of(name: str, encoder: str = "minilm") -> NDArray[np.float32]:
    return encoded(tuple(CLASS_NAME_PROMPT.format(label.replace("_", " ")) for label in corpus(name).classes), encoder)


def texts_of(name: str, *, named: bool = True) -> Texts:
    return Texts(table(name), corpus(name).everywhere, names_of(name) if named else None)


def kept_labels(labels: Ints, kept: int | None, seed: int) -> Ints:
    """Return the labels with ``kept`` of each class, drawn by the seed, and -1 for the others."""
    if kept is None:
        return labels.copy()
    order = np.random.default_rng(seed).permutation(len(labels))
    given = np.full_like(labels, -1)
    for label in range(labels.max() + 1):
        given[order[labels[order] == label][:kept]] = label
    return given


def targets_by(predictions: Predictions, given: Ints) -> NDArray[np.float32]:
    """Return the (n, K) targets that training makes of predictions."""
    explains = explained(predictions.probabilities, given, predictions.out_of_fold)
    found, one = predictions.probabilities, predictions.single_source
    return np.asarray(class_targets(Classification(), found, given, predictions.noise, explains, single_source=one)[:])


def scores(probabilities: NDArray[np.float32], labels: Ints) -> tuple[float, float, float]:
    """Return accuracy, log loss and expected calibration error in 15 bins."""
    right, sure = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean()
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(right.mean()), float(loss), float(sum(gaps))


def shown(rows: Iterable[Sequence[float]]) -> str:
    """Return the mean of each column over its draws, a dash where no draw has a value."""
    columns = np.array(list(rows)).T
    return " / ".join("–" if np.isnan(values).all() else f"{np.nanmean(values):.3f}" for values in columns)


def print_table(title: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Print a table, and append it as a line of JSON to the record that $GPT4IMAGE_BENCHMARK_TABLES names, if any."""
    print(f"\n**{title}**\n\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)
    shown: dict[str, Sequence[str]] = {}
    for head, cells in rows:
        print(f"| {head} | {' | '.join(cells)} |", flush=True)
        shown[head] = list(cells)
    if place := os.environ.get("GPT4IMAGE_BENCHMARK_TABLES"):
        command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}"
        facts = {"title": title, "command": command, "columns": list(columns), "rows": shown}
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts | {"environment": environment()}) + "\n")

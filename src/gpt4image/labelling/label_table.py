"""Text labels as a table that a person reads: one image a row, with the class that its description speaks for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.artifacts.class_shares import two_best
from gpt4image.artifacts.text_labels import TextLabels
from gpt4image.base.files import atomic_path
from gpt4image.base.visible import csv_cell

LIKELY = 0.5  # probability from which a class counts as present, where images have several


def write_table(path: Path, labels: TextLabels) -> None:
    """Write key, split, given class, predicted class and its probability, and the second class with its own.

    Of several classes per image, those that are likely are listed with bars between them.
    """
    several = labels.labels.ndim == 2
    best = None if several else two_best(labels.probabilities)
    columns = ["key", "split", "given", "predicted", "probability", *(() if several else ("second", "its_probability"))]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row, key in enumerate(labels.keys):
            cells = _several(labels, row) if best is None else _one(labels, row, best[0][row], best[1][row])
            writer.writerow([csv_cell(key), labels.splits[row], *cells])


def _one(labels: TextLabels, row: int, best: Any, shares: Any) -> list[Any]:
    given = int(labels.labels[row])
    cells: list[Any] = [csv_cell(labels.classes[given]) if given >= 0 else ""]
    for k, share in zip(best, shares, strict=True):
        cells += [csv_cell(labels.classes[k]), f"{share:.4f}"]
    return cells


def _several(labels: TextLabels, row: int) -> list[Any]:
    shares, given = labels.probabilities[row], labels.labels[row]
    likely = np.flatnonzero(shares >= LIKELY)
    names = ("|".join(labels.classes[k] for k in rows) for rows in (np.flatnonzero(given == 1), likely))
    return [*map(csv_cell, names), "|".join(f"{shares[k]:.4f}" for k in likely)]

"""Thresholds of multi-label classification: the probability from which on each class counts as present.

One rule for all classes. The threshold of a class has the largest F1, 2 TP / (P + predicted), where each count is ``w``
of the count of the labels and ``1 - w`` of the count that the model itself expects, a sum of its probabilities. ``w``
is n / (n + PRIOR) with n known present labels of the class. So many labels decide alone; without labels the threshold
is that of the model, half its largest F1 where its probabilities are right (Lipton et al. 2014, arXiv 1402.1892).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

USUAL = 0.5
"""Threshold of a class of which nothing else is known."""
PRIOR = 2.0
"""Present labels of a class that count as much as the model's own probabilities."""


def best_thresholds(predictions: NDArray[np.floating], labels: NDArray[np.integer]) -> tuple[float, ...]:
    """Return the threshold of largest F1 of each class, by the rule of this module."""
    pairs = zip(predictions.astype(np.float64).T, labels.T, strict=True)
    return tuple(_best_threshold(probabilities, given) for probabilities, given in pairs)


def _best_threshold(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    weight = (labels == 1).sum() / ((labels == 1).sum() + PRIOR)
    order = np.argsort(-probabilities, kind="stable")
    descending: NDArray[np.float64] = probabilities[order]
    given = labels[order]
    present = weight * (given == 1) + (1 - weight) * descending
    counted = weight * (given >= 0) + (1 - weight)
    f1 = 2 * present.cumsum() / (present.sum() + counted.cumsum())
    ends = np.flatnonzero(np.append(descending[1:] < descending[:-1], True))  # equal probabilities go together
    best = int(ends[f1[ends].argmax()])
    below, above = [*descending.tolist(), 0.0][best + 1], float(descending[best])
    return USUAL if f1[best] == 0.0 else _between(below, above)


def _between(below: float, above: float) -> float:
    """Return the number of fewest digits near the middle of ``below``, which it exceeds, and ``above``."""
    rounded = (round((below + above) / 2, digits) for digits in range(2, 17))
    return next((number for number in rounded if below < number <= above), above)


def checked_thresholds(value: Any, classes: int) -> tuple[float, ...] | None:
    """Return the thresholds of a record, or None without them. Raises ValueError: not one in 0..1 for each class."""
    try:
        found = _THRESHOLDS.validate_python(value)
    except ValidationError:
        found = ()
    if found is not None and len(found) != classes:
        raise ValueError(f"thresholds must be {classes} numbers between 0 and 1, one per class, not {value!r:.200}")
    return found


_THRESHOLDS: TypeAdapter[tuple[float, ...] | None] = TypeAdapter(
    tuple[Annotated[float, Field(strict=True, ge=0.0, le=1.0)], ...] | None
)

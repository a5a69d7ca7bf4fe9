"""How sure a model is of its classes, against how often it is right."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, map_blocks
from gpt4image.base.intervals import Interval, wilson

Doubles = NDArray[np.float64]
BINS = 15
"""Of calibration errors, with as many images each (Nixon et al. 2019, arXiv 1904.01685)."""
SIMULATED = 200
"""Sets of answers of a model that is exactly as sure as it is right."""
SURE = 0.9


def _bins(confidence: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the order of (N,) confidences, and where each bin of it begins and how many images it has."""
    starts = np.unique(np.linspace(0, len(confidence), BINS + 1).astype(np.int64)[:-1])
    return np.argsort(confidence, kind="stable"), starts, np.diff([*starts, len(confidence)])


def calibration_error(confidence: NDArray[Any], right: NDArray[Any]) -> float:
    """Return the expected calibration error of (N,) confidences, given which predictions are right."""
    order, starts, _ = _bins(confidence)
    return _error((confidence.astype(np.float64) - right)[order], starts)


def _error(gaps: Doubles, starts: NDArray[np.int64]) -> float:
    return float(np.abs(np.add.reduceat(gaps, starts)).sum() / len(gaps))


def calibration(predictions: Probabilities, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return what (N, K) probabilities state, against their labels (N,).

    ``stated`` is the mean confidence, ``brier`` the Brier score; ``floor`` and ``floor95`` are mean and 95 % quantile
    of the calibration error of a model that is exactly as sure as it is right, on as many images; ``bins`` are [stated,
    right, images]; ``sure`` is what is right of those with SURE or more.
    """
    confidence, right = predictions.max(axis=1).astype(np.float64), predictions.argmax(axis=1) == labels
    rng = np.random.default_rng(0)
    order, starts, sizes = _bins(confidence)
    sums = (np.add.reduceat(values[order].astype(np.float64), starts) for values in (confidence, right))
    ordered, sure = confidence[order], confidence >= SURE
    floors = [_error(ordered - (rng.random(len(order)) < ordered), starts) for _ in range(SIMULATED)]
    squares = map_blocks(predictions, lambda found, _: np.square(found, dtype=np.float64).sum(axis=1))
    own = predictions[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "stated": float(confidence.mean()),
        "brier": float((squares - 2 * own + 1).mean()),
        "floor": float(np.mean(floors)),
        "floor95": float(np.quantile(floors, 0.95)),
        "bins": np.column_stack([*(each / sizes for each in sums), sizes]).round(6).tolist(),
        "sure": {"from": SURE, "images": int(sure.sum()), "right": int(right[sure].sum())},
    }


class AtLeast(NamedTuple):
    """From which ``probability`` on a model is right as often as was asked for; which share of the images is then
    ``answered``, and the share of these that is ``right``, with 95 % intervals. None: nothing is answered."""

    probability: float
    answered: float
    answered_ci95: Interval
    right: float | None
    right_ci95: Interval | None


def border(confidence: NDArray[Any], right: NDArray[np.bool_], wanted: float) -> float:
    """Return the least probability from which on a share ``wanted`` of predictions (N,) is right, and of one more that
    is wrong: the best of many borders looks better than it is. More than 1 where there is none."""
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(2, len(order) + 2)
    last = np.append(confidence[order][1:] != confidence[order][:-1], True)[: len(order)]  # of equal ones, all or none
    good = np.flatnonzero((shares >= wanted) & last)
    return float(confidence[order][good[-1]]) if len(good) else float(np.nextafter(np.float32(1), np.float32(2)))


def at_least(confidence: NDArray[Any], right: NDArray[np.bool_], wanted: float) -> AtLeast:
    """Return the border for a share ``wanted`` by all (N,) predictions, and what it comes to, measured on each half of
    the images with the border of the other half."""
    halves = np.random.default_rng(0).permutation(len(right)) % 2 == 0
    answered = np.zeros(len(right), np.bool_)
    for half in (halves, ~halves):
        answered[half] = confidence[half] >= border(confidence[~half], right[~half], wanted)
    count, share = int(answered.sum()), float(answered.mean())
    good = float(right[answered].mean()) if count else None
    own = None if good is None else wilson(good, count)
    return AtLeast(border(confidence, right, wanted), share, wilson(share, len(right)), good, own)

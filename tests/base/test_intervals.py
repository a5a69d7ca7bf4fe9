"""95 % intervals: known values, and how often they hold."""

import numpy as np
import pytest

from gpt4image.base import intervals


@pytest.mark.parametrize(
    ("share", "images", "low", "high"),
    [(0.9, 20, 0.699, 0.972), (1.0, 60, 0.940, 1.0), (0.0, 10, 0.0, 0.278), (317 / 372, 372, 0.812, 0.885)],
)
def test_wilson(share: float, images: int, low: float, high: float) -> None:
    assert intervals.wilson(share, images) == pytest.approx((low, high), abs=5e-4)


def test_intervals_hold_for_classes_and_for_images_in_groups() -> None:
    rng, held = np.random.default_rng(0), np.zeros((2, 400))
    accuracies, support = np.array([0.6, 0.8, 0.95]), (30, 60, 200)
    for draw in range(held.shape[1]):
        own = [float(k) / n for k, n in zip(rng.binomial(support, accuracies), support, strict=True)]
        low, high = intervals.mean_over_classes([*own, None], [*support, 0])
        right = rng.random(60).repeat(5) < 0.8  # five copies of each picture
        groups = np.arange(60).repeat(5).tolist()
        ends = intervals.wilson(right.mean(), intervals.independent(right, groups))
        held[:, draw] = low <= accuracies.mean() <= high, ends[0] <= 0.8 <= ends[1]
    assert (held.mean(axis=1) > 0.92).all(), held.mean(axis=1)
    single = rng.random(50) < 0.8
    assert intervals.independent(single, range(50)) == 50
    assert intervals.independent(np.ones(6), [1, 1, 2, 2, 3, 3]) == 3
    assert (intervals.resamples(["a", "b", "a"])[:, 0] == intervals.resamples(["a", "b", "a"])[:, 2]).all()


def test_paired_differences() -> None:
    more, (low, high) = intervals.paired(np.repeat([1.0, 0.0], [10, 30]))
    assert (more, round(high - more, 3), round(more - low, 3)) == (0.25, 0.137, 0.137)

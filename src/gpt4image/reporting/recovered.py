"""Which share of the loss by missing or wrong labels an arm recovers, and how sure that is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpt4image.artifacts.run_records import Comparison


class Share(NamedTuple):
    """A share of the loss, 1 is all of it, and its 95 % interval over seeds."""

    value: float
    interval: tuple[float, float]


def recovered(comparison: Comparison, arm: str) -> Share | None:
    """Return the share of the loss that an arm recovers: its gain over the reference, by the gain of all true labels.

    The interval is Fieller's (1954) of a ratio of two means, by seed. None where all true labels were not measured by
    the same seeds, or by too few, or where an interval of their gain, over seeds or over test images too, contains 0;
    and where the reference is not the human labels alone, for then nothing says what was lost.
    """
    if comparison.reference != "baseline":
        return None
    whole, part = comparison.pair("oracle"), comparison.pair(arm)
    if whole is None or part is None or whole.few or arm == "oracle":
        return None
    limits = [interval[0] for interval in (whole.ci95, whole.other_images.ci95) if interval is not None]
    measured = [comparison.arms[name] for name in (arm, "oracle", comparison.reference)]
    if whole.ci95 is None or min(limits) <= 0.0 or len({one.seeds for one in measured}) > 1:
        return None
    ours, best, reference = (np.array(one.test) for one in measured)
    gain, loss = ours - reference, best - reference
    return _ratio(float(gain.mean()), float(loss.mean()), np.cov(gain, loss) / len(gain), len(gain) - 1)


def _ratio(above: float, below: float, covariance: np.ndarray, freedom: int) -> Share | None:
    """Return the ratio of two means and its interval; None where the interval is not bounded."""
    from scipy.stats import t

    square = float(t.ppf(0.975, freedom)) ** 2
    a, both, b = (square * float(covariance[place]) for place in ((0, 0), (0, 1), (1, 1)))
    # The ratios r for which above - r * below does not differ from 0: those between the roots of a parabola.
    lead, middle, last = below**2 - b, above * below - both, above**2 - a
    if lead <= 0.0:
        return None
    half = math.sqrt(max(middle**2 - lead * last, 0.0))
    return Share(above / below, ((middle - half) / lead, (middle + half) / lead))


def in_words(share: Share) -> str:
    """Return e.g. ``56 % (48 to 64 %)``.

    Shares and intervals end at 0 and 100 %: an arm above all labels has lost nothing, and by how much it is above them
    is said by the accuracies.
    """
    value, low, high = (f"{100 * min(max(end, 0.0), 1.0):.0f}" for end in (share.value, *share.interval))
    return f"{value} % ({low} to {high} %)"

"""Share of the loss by missing or wrong labels that an arm recovers, with its 95 % interval.

The share is a ratio of two differences over the same seeds: (arm - reference) / (all labels - reference). Its interval
is Fieller's (1954), which has no end where the denominator may be zero; there, and where all labels are not
significantly better than the reference, no share is given. Shares and their intervals end at 0 and 1: an arm above all
labels has lost nothing, and by how much it is above them is said by the accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.975  # two-sided 95 %


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """Share of the loss that is recovered, between 0 and 1, and its 95 % interval."""

    share: float
    ci95: tuple[float, float]

    def __str__(self) -> str:
        """Return e.g. ``98 % (95 to 100 %)``."""
        low, high = (f"{100 * end:.0f}" for end in self.ci95)
        return f"{100 * self.share:.0f} % ({low} to {high} %)"


def fieller(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Recovered | None:
    """Return the ratio of the means of two paired samples with Fieller's interval, both cut to 0 and 1.

    The ends are the r for which the mean of ``part - r * whole`` is just significant: a quadratic equation. None where
    the mean of ``whole`` is not significantly above zero.
    """
    from scipy import stats

    n = len(part)
    y, x = float(part.mean()), float(whole.mean())
    (yy, xy), (_, xx) = np.cov(part, whole) / n
    t2 = float(stats.t.ppf(LEVEL, n - 1)) ** 2
    a = x * x - t2 * xx
    if x <= 0.0 or a <= 0.0:
        return None
    b, c = x * y - t2 * xy, y * y - t2 * yy
    half = np.sqrt(max(b * b - a * c, 0.0))
    share, low, high = np.clip([y / x, (b - half) / a, (b + half) / a], 0.0, 1.0)
    return Recovered(share=float(share), ci95=(float(low), float(high)))

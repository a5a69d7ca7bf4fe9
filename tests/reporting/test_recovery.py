from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpt4image.reporting.recovery import fieller


def test_each_end_of_the_interval_is_just_significant() -> None:
    part, whole = np.array([0.20, 0.24, 0.19, 0.22]), np.array([0.30, 0.33, 0.29, 0.35])
    found = fieller(part, whole)
    assert found is not None
    assert found.share == pytest.approx(part.mean() / whole.mean())
    for end in found.ci95:
        assert stats.ttest_1samp(part - end * whole, 0.0).pvalue == pytest.approx(0.05)


def test_the_interval_holds_the_true_share_in_95_of_100_draws() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        whole = 0.3 + 0.05 * rng.standard_normal(5)
        part = 0.5 * whole + 0.03 * rng.standard_normal(5)
        found = fieller(part, whole)
        assert found is not None
        held += found.ci95[0] <= 0.5 <= found.ci95[1]
    assert 0.935 <= held / 2000 <= 0.965


def test_there_is_no_share_of_a_loss_that_may_be_none() -> None:
    assert fieller(np.array([0.1, 0.2, 0.3]), np.array([-0.1, 0.2, 0.1])) is None
    assert fieller(np.array([0.1, 0.2, 0.3]), np.array([-0.3, -0.3, -0.31])) is None


def test_more_than_all_is_all() -> None:
    found = fieller(np.array([0.2, 0.21, 0.19]), np.array([0.1, 0.11, 0.1]))
    assert found is not None
    assert str(found) == "100 % (100 to 100 %)"

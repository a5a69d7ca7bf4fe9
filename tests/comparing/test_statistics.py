from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpt4image.comparing.statistics import mean_ci, paired

fractions = st.integers(0, 1000).map(lambda i: i / 1000)
samples = st.lists(fractions, min_size=2, max_size=12)
pairs = st.lists(st.tuples(fractions, fractions), min_size=2, max_size=12)


@given(samples)
def test_interval_is_the_naive_one(values: list[float]):
    mean, low, high = mean_ci(values)
    naive = sum(values) / len(values)
    variance = sum((value - naive) ** 2 for value in values) / (len(values) - 1)
    half = stats.t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    assert (mean, low, high) == pytest.approx((naive, naive - half, naive + half), abs=1e-9)


@given(pairs)
def test_paired_is_scipys_paired_t_test(values: list[tuple[float, float]]):
    a, b = (list(side) for side in zip(*values, strict=True))
    result = paired(a, b)
    assert result.difference == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    differences = np.round(np.subtract(a, b), 6)
    if np.ptp(differences) > 0:
        assert result.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    else:
        assert result.p == (1.0 if differences[0] == 0 else 0.0)


@given(pairs)
def test_order_of_arms_only_changes_the_sign(values: list[tuple[float, float]]):
    a, b = (list(side) for side in zip(*values, strict=True))
    forth, back = paired(a, b), paired(b, a)
    assert forth.difference == -back.difference
    assert forth.p == back.p


def test_interval_of_a_known_sample():
    assert mean_ci([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - 2.48414, 2.0 + 2.48414), abs=1e-5)


def test_one_seed_has_no_interval_and_no_p():
    assert mean_ci([0.5]) == (0.5, None, None)
    result = paired([0.6], [0.5])
    assert (result.ci95, result.p, result.n) == (None, None, 1)


def test_equal_differences_have_an_interval_without_width():
    result = paired([0.3, 0.4, 0.5], [0.2, 0.3, 0.4])
    assert result.p == 0.0
    assert result.ci95 == pytest.approx((0.1, 0.1))
    assert paired([0.3, 0.4], [0.3, 0.4]).p == 1.0


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_ci([])
    with pytest.raises(ValueError, match="equal length, got 2 and 1"):
        paired([1.0, 2.0], [1.0])

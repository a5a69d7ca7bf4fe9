"""Shares from a few looks: the intervals hold whatever the proxy says, and are narrow where it is right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.labelling.looks import Bools, Floats, drawn, share_right, strata_of

TOTAL, DRAWS = 2000, 200


def proxy_and_right(kind: str) -> tuple[Floats, Bools]:
    rng = np.random.default_rng(0)
    proxy = rng.choice([0.02, 0.6, 0.97, 0.99], TOTAL, p=[0.3, 0.1, 0.3, 0.3])
    chance = {"calibrated": proxy, "over-confident": proxy * 0.8, "useless": np.full(TOTAL, 0.7)}[kind]
    return proxy, rng.random(TOTAL) < chance


@pytest.mark.parametrize("looks", [20, 50, 100])
@pytest.mark.parametrize("kind", ["calibrated", "over-confident", "useless"])
def test_the_interval_holds_whatever_the_proxy_says(kind: str, looks: int) -> None:
    proxy, right = proxy_and_right(kind)
    strata = strata_of(proxy, looks)
    shares = [share_right(strata, rows, right[rows]) for seed in range(DRAWS) for rows in [drawn(strata, seed)[:looks]]]
    inside = [share.low <= right.mean() <= share.high for share in shares]
    assert np.mean(inside) >= 0.94
    assert abs(np.mean([share.share for share in shares]) - right.mean()) < 0.02, "it has no bias"
    at_random = share_right(np.zeros(TOTAL, np.int64), np.arange(looks), right[:looks])
    if kind == "calibrated" and looks == 100:
        widths = [share.high - share.low for share in shares]
        assert np.mean(widths) < 0.7 * (at_random.high - at_random.low)


@given(st.integers(1, 60), st.integers(5, 80), st.integers(0, 2**31), st.data())
def test_strata_and_draws_are_whole_and_more_looks_narrow(
    total: int, looks: int, seed: int, data: st.DataObject
) -> None:
    proxy = np.array(data.draw(st.lists(st.floats(0, 1), min_size=total, max_size=total)))
    strata = strata_of(proxy, looks)
    order = drawn(strata, seed)
    assert sorted(order.tolist()) == list(range(total)) and strata.min() >= 0 and strata.max() < 4
    right = np.random.default_rng(seed).random(total) < 0.5
    for count in {1, (total + 1) // 2, total}:
        share = share_right(strata, order[:count], right[order[:count]])
        assert 0 <= share.low <= share.share + 1e-9 and share.share <= share.high + 1e-9 <= 1 + 1e-8
        assert share.looks_for(0.5) <= share.looks_for(0.03) <= total
    share = share_right(strata, order, right[order])
    assert share.low == pytest.approx(share.high) == pytest.approx(right.mean()), "all were looked at"


def test_one_stratum_is_the_exact_binomial_interval() -> None:
    from scipy.stats import binomtest

    right = np.arange(1_000_000) % 10 > 0
    share = share_right(np.zeros(len(right), np.int64), np.arange(40), right[:40])
    exact = binomtest(36, 40).proportion_ci()
    assert (share.low, share.high) == (pytest.approx(exact.low, abs=1e-4), pytest.approx(exact.high, abs=1e-4))

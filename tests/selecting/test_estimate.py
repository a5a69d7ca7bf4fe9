"""Shares and promises from a few looks: they hold whatever is estimated, and say much where that is right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.selecting.estimate import Bools, Floats, Promise, promise, share_of_things, share_right

TOTAL, DRAWS = 2000, 250


def estimated_and_right(kind: str) -> tuple[Floats, Bools]:
    rng = np.random.default_rng(0)
    estimated = rng.choice([0.02, 0.6, 0.97, 0.99], TOTAL, p=[0.3, 0.1, 0.3, 0.3])
    chance = {"calibrated": estimated, "over-confident": estimated * 0.8, "useless": np.full(TOTAL, 0.7)}[kind]
    return estimated, rng.random(TOTAL) < chance


@pytest.mark.parametrize("looks", [20, 100])
@pytest.mark.parametrize("kind", ["calibrated", "over-confident", "useless"])
def test_the_interval_holds_whatever_the_proxy_says(kind: str, looks: int) -> None:
    estimated, right = estimated_and_right(kind)
    samples = [np.random.default_rng(seed).permutation(TOTAL)[:looks] for seed in range(DRAWS)]
    shares = [share_right(estimated, rows, right[rows]) for rows in samples]
    inside = [share.low <= right.mean() <= share.high for share in shares]
    assert np.mean(inside) >= 0.93, "0.94, and what 250 draws may be off"
    assert abs(np.mean([share.share for share in shares]) - right.mean()) < 0.02, "it has no bias"
    at_random = share_right(np.ones(TOTAL), np.arange(looks), right[:looks])
    if kind == "calibrated" and looks == 100:
        widths = [share.high - share.low for share in shares]
        assert np.mean(widths) < 0.7 * (at_random.high - at_random.low)


@given(st.integers(1, 60), st.integers(0, 2**31), st.data())
def test_more_looks_narrow_the_interval_to_the_truth(total: int, seed: int, data: st.DataObject) -> None:
    estimated = np.array(data.draw(st.lists(st.floats(0, 1), min_size=total, max_size=total)))
    order = np.random.default_rng(seed).permutation(total)
    right = np.random.default_rng(seed + 1).random(total) < 0.5
    for count in {1, (total + 1) // 2, total}:
        share = share_right(estimated, order[:count], right[order[:count]])
        assert 0 <= share.low <= share.share + 1e-9 and share.share <= share.high + 1e-9 <= 1 + 1e-8
        assert share.looks_for(0.5) <= share.looks_for(0.03) <= total
    share = share_right(estimated, order, right[order])
    assert share.low == pytest.approx(share.high) == pytest.approx(right.mean()), "all were looked at"


@pytest.mark.parametrize("alike", [1.0, 30.0])
def test_things_of_one_image_are_taken_as_alike(alike: float) -> None:
    rng = np.random.default_rng(0)
    total = rng.poisson(3, 800)
    right = rng.binomial(total, rng.beta(alike * 0.9, alike * 0.1, 800))
    shares = [
        share_of_things(right[rows], total[rows], 800) for _ in range(400) for rows in [rng.permutation(800)[:50]]
    ]
    true = right.sum() / total.sum()
    assert np.mean([one is not None and one.low <= true <= one.high for one in shares]) >= 0.94
    assert share_of_things(np.zeros(9, int), np.zeros(9, int), 800) is None


@pytest.mark.parametrize("wrong_of_sure", [0.002, 0.018, 0.03])
def test_a_promise_is_kept(wrong_of_sure: float) -> None:
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.9, 1, 1500), rng.uniform(0.3, 0.9, 500)])
    wrong = rng.random(TOTAL) < np.where(confidence > 0.9, wrong_of_sure, 1 - confidence)
    order, kept, sizes = np.argsort(-confidence, kind="stable"), [], []
    for _ in range(DRAWS):
        rows = rng.permutation(TOTAL)[:400]
        found = promise(confidence, rows, wrong[rows], 0.02)
        kept.append(wrong[order[: found.images]].sum() <= 0.02 * found.images)
        sizes.append(found.images)
    assert np.mean(kept) >= 0.95
    assert (np.mean(sizes) > 1300) == (wrong_of_sure == 0.002)


def test_too_few_looks_promise_nothing_and_say_how_many_are_needed() -> None:
    confidence = np.linspace(1, 0.5, 1000)
    few = promise(confidence, np.arange(60), np.zeros(60, bool), 0.02)
    assert few == Promise(images=0, looks=60, wrong=0, needed=few.needed) and 150 < few.needed < 200
    enough = promise(
        confidence, np.arange(1000)[:: 1000 // few.needed], np.zeros(1000, bool)[:: 1000 // few.needed], 0.02
    )
    assert enough.images == 1000
    bad = promise(confidence, np.arange(0, 1000, 2), np.ones(500, bool), 0.02)
    assert bad.images == bad.needed == 0 and bad.wrong == bad.looks > 0
    everything = promise(confidence[:50], np.arange(50), np.arange(50) >= 40, 0.05)
    assert everything.images == 42, "all were looked at"

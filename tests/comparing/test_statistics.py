from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from gpt4image.comparing.statistics import bootstrapped, crossed, mean_ci, paired

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
        assert result.p == (1.0 if differences[0] == 0 else None)


def test_one_seed_and_equal_differences_have_no_p():
    assert mean_ci([0.5]) == (0.5, None, None)
    one, equal, same = paired([0.6], [0.5]), paired([0.3, 0.4, 0.5], [0.2, 0.3, 0.4]), paired([0.3, 0.4], [0.3, 0.4])
    assert (one.ci95, one.p, one.n) == (None, None, 1)
    assert equal.difference == pytest.approx(0.1) and (equal.ci95, equal.p) == (None, None)
    assert (same.ci95, same.p) == ((0.0, 0.0), 1.0)
    right, mixed = np.ones((3, 2), bool), np.array([[True, False], [False, True]])
    assert (crossed(right, ~right).ci95, crossed(right, ~right).p) == (None, None)
    assert crossed(right, right).p == crossed(mixed, mixed).p == 1.0
    assert crossed(mixed[:1], ~mixed[:1]).p is None


def test_what_cannot_be_averaged_is_refused():
    for call, message in (
        (lambda: mean_ci([]), "no values"),
        (lambda: paired([1.0, 2.0], [1.0]), "equal length, got 2 and 1"),
        (lambda: paired([], []), "no values"),
        (lambda: crossed(np.ones((2, 2)), np.ones((1, 2))), r"one shape \(seeds, images\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@given(st.integers(2, 5), st.integers(2, 200), st.data())
def test_one_image_more_with_every_seed_says_nothing_of_chance(seeds: int, images: int, data: st.DataObject):
    """Accuracies come from float32 metrics, whose rounding must not pass for a difference between seeds."""
    fewer = np.array(data.draw(st.lists(st.integers(0, images - 1), min_size=seeds, max_size=seeds)))
    a, b = (((fewer + more) / images).astype(np.float32).astype(float).tolist() for more in (1, 0))
    assert (paired(a, b).ci95, paired(a, b).p) == (None, None)
    hits = np.arange(images) < fewer[:, None]
    assert paired(hits.mean(axis=1).tolist(), hits.mean(axis=1).tolist()).p == 1.0


hits = st.tuples(st.integers(2, 5), st.integers(2, 12)).flatmap(
    lambda shape: st.tuples(*[arrays(np.bool_, shape) for _ in range(2)])
)


@given(hits)
def test_crossed_is_the_naive_analysis_of_variance(both: tuple[NDArray[np.bool_], NDArray[np.bool_]]):
    a, b = both
    n, images = a.shape
    d = [[float(a[s, i]) - float(b[s, i]) for i in range(images)] for s in range(n)]
    mean = sum(map(sum, d)) / (n * images)
    seed = [sum(row) / images for row in d]
    image = [sum(row[i] for row in d) / n for i in range(images)]
    of_seeds = images * sum((value - mean) ** 2 for value in seed) / (n - 1)
    of_images = n * sum((value - mean) ** 2 for value in image) / (images - 1)
    rest = sum((d[s][i] - seed[s] - image[i] + mean) ** 2 for s in range(n) for i in range(images))
    rest /= (n - 1) * (images - 1)
    components = [max((of_seeds - rest) / images, 0) / n, max((of_images - rest) / n, 0) / images, rest / (n * images)]
    result = crossed(a, b)
    assert result.difference == pytest.approx(mean, abs=1e-12)
    if abs(mean) == 1.0:  # all differences are equal
        assert result.ci95 is None
        return
    assert result.ci95 is not None
    assert result.p is not None
    assert (result.ci95[1] - mean) >= stats.norm.ppf(0.975) * math.sqrt(sum(components)) - 1e-9
    seeds_differ = max(of_seeds, rest) > 1e-12
    freedom = (n - 1) * (sum(components) / max(of_seeds, rest) * n * images) ** 2 if seeds_differ else math.inf
    freedom = min(freedom, images - 1)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(components))
    assert result.ci95 == pytest.approx((mean - half, mean + half), abs=1e-9)


def test_counting_images_too_finds_chance_no_more_often_than_it_should():
    """No arm is better; which images suit which arm is drawn, and each seed favours an arm a little."""
    rng = np.random.default_rng(0)
    found = {"seeds": 0, "images too": 0}
    for _ in range(400):
        difficulty, suits, favours = rng.normal(0, 2, 200), rng.normal(0, 3, 200), rng.normal(0, 0.2, (4, 1))
        a = rng.random((4, 200)) < 1 / (1 + np.exp(difficulty - suits - favours))
        b = rng.random((4, 200)) < 1 / (1 + np.exp(difficulty + suits + favours))
        found["seeds"] += (paired(a.mean(1).tolist(), b.mean(1).tolist()).p or 0.0) < 0.05
        found["images too"] += (crossed(a, b).p or 0.0) < 0.05
    assert found["images too"] / 400 < 0.07
    assert found["seeds"] / 400 > 0.15, "over seeds alone, the images at hand pass for all images"


def test_a_bootstrap_finds_a_difference_that_is_there_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0.5, 0.05, 1000)
    one, other = (shared + rng.normal(0, 0.005, (5, 1000)) for _ in range(2))
    none = bootstrapped(one, other)
    assert none.ci95 is not None
    assert none.ci95[0] < 0 < none.ci95[1]
    assert none.p is not None
    assert none.p > 0.3
    there = bootstrapped(one + 0.03, other)
    assert there.difference == pytest.approx(0.03, abs=0.002)
    assert there.ci95 is not None
    assert 0.02 < there.ci95[0] < there.ci95[1] < 0.04
    assert there.p is not None
    assert there.p < 0.001
    with pytest.raises(ValueError, match="one shape"):
        bootstrapped(one, other[:4])
    assert bootstrapped(one[:1], other[:1]).p is None, "one seed says nothing of others"


def test_a_mean_over_images_is_judged_alike_by_its_resamples():
    rng = np.random.default_rng(0)
    scores = 0.02 + rng.normal(0, 0.02, (4, 1)) + rng.normal(0, 0.1, (1, 400)) + rng.normal(0, 0.2, (4, 400))
    times = rng.multinomial(400, np.full(400, 1 / 400), size=4000)
    by_scores, by_resamples = crossed(scores, 0 * scores), bootstrapped(scores @ times.T / 400, np.zeros((4, 4000)))
    assert by_resamples.p == pytest.approx(by_scores.p, rel=0.1)
    assert by_resamples.ci95 == pytest.approx(by_scores.ci95, abs=0.003)


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_arms_that_do_not_differ_about_one_in_twenty_seems_to(seeds: int):
    rng = np.random.default_rng(1)
    times = rng.multinomial(200, np.full(200, 1 / 200), size=200)
    found = []
    for _ in range(400):
        differences = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 3, (seeds, 200))
        found.append(bootstrapped(differences @ times.T / 200, np.zeros((seeds, 200))).p < 0.05)
    assert np.mean(found) < 0.08

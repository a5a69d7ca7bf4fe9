"""Paired tests: exact, corrected, and with as many images as they say a difference is shown in 80 % of samples."""

import numpy as np
import pytest

from gpt4image.selecting.paired import ALPHA, exact_p, holm, images_to_decide


def test_the_test_is_of_images_on_which_only_one_is_right() -> None:
    one, other = np.array([True] * 50 + [True] * 9 + [False]), np.array([True] * 50 + [False] * 9 + [True])
    assert exact_p(one, other) == exact_p(other, one) == pytest.approx(2 * (1 + 10) / 2**10)
    assert exact_p(one, one) == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and holm([0.6, 0.9]) == [1.0, 1.0]


def test_so_many_images_decide() -> None:
    n = images_to_decide(0.1, 0.3, 3)
    assert n is not None and images_to_decide(0.0, 0.3, 3) is None
    draws = np.random.default_rng(0).multinomial(n, [0.2, 0.1, 0.7], 300)
    found = [exact_p(np.arange(n) < better, (np.arange(n) >= better) & (np.arange(n) < better + worse))
             for better, worse, _ in draws]  # fmt: skip
    assert 0.72 < np.mean(np.array(found) < ALPHA / 3) < 0.86

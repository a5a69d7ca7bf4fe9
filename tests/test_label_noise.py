from __future__ import annotations

import numpy as np
import pytest

from gpt4image.label_noise import estimate_noise


def test_noise_is_read_off_where_the_text_is_surest():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 1000)
    given = np.where(rng.random(1000) < 0.3, (true + rng.integers(1, 5, 1000)) % 5, true)
    probabilities = np.full((1000, 5), 0.1)
    probabilities[np.arange(1000), true] = 0.6
    assert estimate_noise(probabilities, given) == pytest.approx(0.3, abs=0.08)
    assert estimate_noise(probabilities, true) == 0.0

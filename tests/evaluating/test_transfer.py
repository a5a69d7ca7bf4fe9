"""Transfer: probes find what is linear in the features and nothing in noise; sets are checked before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.evaluating import transfer
from gpt4image.evaluating.transfer import (
    choose_images,
    linear_probe_accuracy,
    load_transfer_set,
    nearest_neighbour_accuracy,
)


def features(n: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).standard_normal((classes, 12))
    return (centres[labels] + spread * rng.standard_normal((n, 12))).astype(np.float32), labels


@pytest.mark.parametrize("probe", [linear_probe_accuracy, nearest_neighbour_accuracy])
def test_probes_see_classes_in_features_and_none_in_noise(probe: Callable[..., float]) -> None:
    assert probe(*features(200, 4, 0.3, 0), *features(100, 4, 0.3, 1)) > 0.95
    assert probe(*features(200, 4, 50.0, 0), *features(300, 4, 50.0, 1)) < 0.45


def test_the_linear_probe_does_not_depend_on_the_scale_of_features() -> None:
    (train, labels), (test, truth) = features(120, 3, 1.0, 0), features(80, 3, 1.0, 1)
    plain = linear_probe_accuracy(train, labels, test, truth)
    scale = np.geomspace(1e-3, 1e3, 12, dtype=np.float32)
    assert linear_probe_accuracy(train * scale, labels, test * scale, truth) == pytest.approx(plain, abs=0.03)


def test_k_nn_votes_by_similarity() -> None:
    train = np.array([[1, 0], [0, 1], [0.1, 1]], np.float32)
    assert nearest_neighbour_accuracy(train, np.array([0, 1, 1]), np.array([[1, 0.2]], np.float32), np.array([0])) == 1


def test_a_set_is_cut_and_bounded(colour_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MOST_IMAGES", 20)
    spec = f"folder:{colour_folder}"
    chosen = choose_images(spec)
    assert len(chosen.indices("train")) == 20 and 2 < len(chosen.indices("test")) <= 20
    assert list(chosen.keys) == list(choose_images(spec).keys)
    loaded = load_transfer_set(spec, 16, 1.0, 0)
    assert len(loaded.pixels) == len(chosen) and not set(loaded.train) & set(loaded.test)
    assert load_transfer_set(spec, 16, 1.0, 0) is loaded


def test_a_set_that_cannot_be_probed_is_refused(colour_folder: Path) -> None:
    for name in ("green", "red"):
        for path in (colour_folder / name).iterdir():
            path.unlink()
        (colour_folder / name).rmdir()
    with pytest.raises(DataError, match="two or more classes"):
        choose_images(f"folder:{colour_folder}")
    with pytest.raises(ConfigError, match="an image set is given as"):
        choose_images("nothing")

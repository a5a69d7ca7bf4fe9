from __future__ import annotations

import numpy as np

from gpt4image.labelling.suggest import to_label


def groups(*sizes: int):
    """Points around one corner each."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    return centres + rng.normal(0, 0.02, centres.shape), np.repeat(np.arange(len(sizes)), sizes)


def test_chosen_images_are_unlike_each_other_and_the_doubt_they_stand_for_orders_them():
    points, group = groups(10, 30, 20)

    def chosen(points: np.ndarray, doubt: np.ndarray, count: int) -> list[int]:
        probabilities = np.stack([1 - doubt / 2, doubt / 2], axis=1)
        return to_label(points, probabilities, np.arange(len(points)), count, 0).tolist()

    rows = chosen(points, np.full(60, 0.5), 3)
    assert group[rows].tolist() == [1, 2, 0]
    nearest = [
        np.flatnonzero(group == g)[((points[group == g] - points[group == g].mean(0)) ** 2).sum(1).argmin()]
        for g in (1, 2, 0)
    ]
    assert rows == nearest
    sure = np.where(group == 1, 0.0, 1.0)
    assert set(group[chosen(points, sure, 2)]) == {0, 2}, "images that are sure are passed over"
    assert len(chosen(np.ones((20, 3)), np.ones(20), 4)) == 1, "equal texts are suggested once"
    assert sorted(chosen(points[:3], np.ones(3), 9)) == [0, 1, 2], "fewer than asked for"


def test_only_candidates_are_to_be_labelled():
    points, _ = groups(10, 10)
    probabilities = np.full((20, 2), 0.5)
    found = to_label(points, probabilities, np.arange(5, 15), 4, 0)
    assert set(found.tolist()) <= set(range(5, 15))

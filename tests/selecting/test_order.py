import numpy as np

from gpt4image.selecting.order import MAX_CLUSTERS, at_random, stratified, unlike


def groups(*sizes: int):
    """Points around one corner each."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    return centres + rng.normal(0, 0.02, centres.shape), np.repeat(np.arange(len(sizes)), sizes)


def test_chosen_images_are_unlike_each_other_and_the_doubt_they_stand_for_orders_them():
    points, group = groups(10, 30, 20)

    def chosen(points: np.ndarray, doubt: np.ndarray, count: int) -> list[int]:
        return unlike(points, doubt, np.arange(len(points)), count, 0).tolist()

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


def test_a_round_of_more_images_than_clusters_takes_the_next_ones_of_each():
    points, group = groups(700, 700)
    weights = np.where(np.arange(1400) % 2, 0.9, 0.8)
    found = unlike(points, weights, np.arange(1400), 1200, 0)
    assert len(found) == len(set(found.tolist())) > MAX_CLUSTERS
    assert abs(np.bincount(group[found[:200]])[0] - 100) < 30, "both groups are covered from the start"


def test_the_order_is_random_and_stays_when_images_come_or_go() -> None:
    digests = [f"{number:064x}" for number in range(100)]
    order = [digests[row] for row in at_random(digests)]
    assert sorted(order) == digests != order
    fewer = digests[::2]
    assert [fewer[row] for row in at_random(fewer)] == [one for one in order if one in fewer]


def test_any_first_ones_of_a_stratified_order_are_a_sample_in_proportion():
    points, group = groups(100, 40, 10)
    counts = np.zeros(150)
    for seed in range(60):
        order = stratified(points, np.random.default_rng(seed).permutation(150), 3)
        assert sorted(order) == list(range(150))
        for n in (15, 30, 60):
            assert np.abs(np.bincount(group[order[:n]], minlength=3) - n * np.array([100, 40, 10]) / 150).max() <= 1
        counts[order[:30]] += 1
    assert abs(counts[group == 2].mean() - counts[group == 0].mean()) < 4, "each image has the same chance"

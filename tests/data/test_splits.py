"""Cuts by digest: deterministic, stratified, blind to names and order, and never through equal images."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.base.errors import DataError
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.data.splits import flip_labels, keep_labels_per_class, representatives, with_splits, wrong_copies
from worlds import in_memory


def image_set(images: list[bytes], labels: list[int], splits: list[str] | None = None, prefix: str = "") -> Dataset:
    keys = tuple(f"{prefix}{i}" for i in range(len(images)))
    own = np.array(splits or ["train"] * len(images))
    return in_memory(images, np.array(labels, np.int64), classes=tuple("abcdefgh"), keys=keys, splits=own)


def numbered(counts: dict[int, int]) -> Dataset:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return image_set([str(i).encode() for i in range(len(labels))], labels)


def split_by_digest(images: Dataset) -> dict[str, str]:
    return dict(zip(images.digests, images.splits.tolist(), strict=True))


contents = st.lists(
    st.tuples(st.integers(0, 40), st.integers(NO_LABEL, 3)), min_size=1, max_size=60
)  # (image, label): images come several times, now and then with different labels


@settings(max_examples=100, deadline=None)
@given(contents=contents, seed=st.integers(0, 1000))
def test_names_and_order_change_nothing_and_equal_images_share_a_side(
    contents: list[tuple[int, int]], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(contents))
    shuffled = [contents[i] for i in order]
    first, second = (
        with_splits(
            image_set([str(image).encode() for image, _ in rows], [label for _, label in rows], prefix=prefix),
            val_fraction=0.2,
            test_fraction=0.3,
        )
        for rows, prefix in ((contents, "x"), (shuffled, "renamed"))
    )
    sides = split_by_digest(first)
    assert sides == split_by_digest(second)
    assert [sides[digest] for digest in first.digests] == first.splits.tolist()
    assert set(first.splits[first.labels == NO_LABEL].tolist()) <= {"train"}
    assert not any("byte for byte" in wrong for wrong in wrong_copies(first))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.dictionaries(st.integers(0, 7), st.integers(1, 60), min_size=1),
    fraction=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_cuts_are_stratified_and_adding_an_image_moves_at_most_one_other(
    counts: dict[int, int], fraction: float
) -> None:
    images = numbered(counts)
    cut = with_splits(images, val_fraction=0, test_fraction=fraction)
    test = Counter(cut.labels[cut.indices("test")].tolist())
    for label, count in counts.items():
        assert test[label] == min(max(1, round(fraction * count)), count - 1)
    more = image_set([*(str(i).encode() for i in range(len(images))), b"new"], [*images.labels.tolist(), min(counts)])
    after = split_by_digest(with_splits(more, val_fraction=0, test_fraction=fraction))
    assert sum(after[digest] != split for digest, split in split_by_digest(cut).items()) <= 1


def test_splits_that_the_set_brings_stay_and_options_say_what_val_takes() -> None:
    given_test = image_set([str(i).encode() for i in range(40)], [0] * 40, ["test"] * 10 + ["train"] * 30)
    cut = with_splits(given_test, val_fraction=0.1, test_fraction=0.5)
    np.testing.assert_array_equal(cut.indices("test"), np.arange(10))
    assert len(cut.indices("val")) == 3 and with_splits(cut, val_fraction=0.1, test_fraction=0.5) is cut
    images = numbered({0: 40})
    kept = set(images.digests[:30])

    def keep(digests: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([digest in kept for digest in digests])

    last = with_splits(images, val_fraction=0.2, test_fraction=0, keep_in_train=keep).indices("val")
    assert len(last) == 8 and set(last) <= set(range(30, 40))
    for counts, splits in (
        ({NO_LABEL: 50}, {"train": 45, "val": 5}),
        ({NO_LABEL: 50, 0: 10}, {"train": 57, "val": 1, "test": 2}),
    ):
        some = with_splits(numbered(counts), val_fraction=0.1, test_fraction=0.2, unlabelled=True)
        assert Counter(some.splits.tolist()) == splits


def test_images_of_several_classes_are_cut_by_the_rarest_one() -> None:
    images = numbered({0: 80, 1: 20, 2: 10, NO_LABEL: 5})
    one = with_splits(images, val_fraction=0.2, test_fraction=0.2)
    several = np.zeros((115, 8), np.int8)
    several[80:100, 1] = several[:80, 0] = several[90:100, 0] = 1  # 100 to 109 have no class, which is known
    several[110:] = NO_LABEL
    cut = with_splits(images.revised(labels=several), val_fraction=0.2, test_fraction=0.2)
    assert cut.splits.tolist() == one.splits.tolist()


def test_pictures_on_two_sides_or_with_two_labels_are_counted_and_named() -> None:
    pictures, labels = [b"a", b"a", b"b", b"b", b"c", b"a", b"b", b"d"], [0, NO_LABEL, 1, 2, 0, 0, 1, 0]
    splits = ["train"] * 4 + ["val", "test", "val", "test"]
    assert wrong_copies(image_set(pictures, labels, splits)) == [
        "1 of 2 test images are byte for byte in train or val too, such as '5', which is '0'. This raises every score "
        "on test: remove one of each.",
        "1 of 2 val images are byte for byte in train too, such as '6', which is '2'. This raises every score on val: "
        "remove one of each.",
        "In train are pictures twice with different labels: 1, such as '2' (b) and '3' (c). Remove the wrong copies.",
    ]
    assert wrong_copies(image_set([b"a", b"a", b"b"], [0, NO_LABEL, 1], ["train", "train", "test"])) == []
    for other, wrong in (([1, 0], True), ([-1, 1], False), ([0, 1], False)):
        found = wrong_copies(in_memory([b"a"] * 2, np.array([[0, 1], other], np.int8), classes=("x", "y")))
        assert [" (y) and " in sentence for sentence in found] == [True] * wrong, "only what is known can differ"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=12))
def test_an_equal_image_of_the_lowest_rank_stands_for_each(images: list[tuple[str, int]]) -> None:
    found = representatives([digest for digest, _ in images], np.array([rank for _, rank in images], np.int64))
    for (digest, _), i in zip(images, found.tolist(), strict=True):
        ranks = {j: rank for j, (other, rank) in enumerate(images) if other == digest}
        assert i == min(ranks, key=lambda j: (ranks[j], j))


def test_labels_of_some_images_are_kept_before_others() -> None:
    labels, train = np.append(np.repeat([0, 1], 10), [0, NO_LABEL]), np.arange(20)
    first = np.zeros(22, bool)
    first[[1, 4, 6, 7, 12]] = True
    for seed in range(5):
        chosen = keep_labels_per_class(labels, train, 3, seed, first=first)
        assert np.all((chosen == labels) | (chosen == NO_LABEL)) and chosen[20:].tolist() == [0, NO_LABEL]
        kept = chosen != NO_LABEL
        assert kept[:10].sum() == kept[10:20].sum() == 3
        assert not kept[:10][~first[:10]].any(), "the class has enough of them"
        assert kept[12], "the class has one of them, and others fill up"
    kept = keep_labels_per_class(np.array([0, 0, 0, 1]), np.arange(4), 2, seed=0)
    assert Counter(kept.tolist()) == {0: 2, 1: 1, NO_LABEL: 1}, "a class with fewer keeps them all"
    with pytest.raises(DataError, match=r"3 labels per class .*the largest, 'cat', has 3"):
        keep_labels_per_class(np.array([0, 0, 0, 1]), np.arange(4), 3, seed=0, classes=("cat", "dog"))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 80), fraction=st.floats(0, 1), n_classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_the_exact_number_of_labels_is_flipped(n: int, fraction: float, n_classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(NO_LABEL, n_classes, n)
    indices = np.arange(0, n, 2)
    for class_dependent in (False, True):
        flipped = flip_labels(labels, indices, fraction, n_classes, seed, class_dependent=class_dependent)
        changed = np.flatnonzero(flipped != labels)
        assert len(changed) == round(fraction * np.sum(labels[indices] != NO_LABEL))
        assert set(changed) <= set(indices) and np.all(labels[changed] != NO_LABEL)
        assert np.all((flipped[changed] >= 0) & (flipped[changed] < n_classes))
    pairs = set(zip(labels[changed].tolist(), flipped[changed].tolist(), strict=True))
    assert len({true for true, _ in pairs}) == len({taken for _, taken in pairs}) == len(pairs), "one for each"
    with pytest.raises(DataError, match="two or more classes"):
        flip_labels(np.zeros(4, dtype=np.int64), np.arange(4), 0.5, 1, seed=0)


@pytest.mark.parametrize(("random", "doubtful", "tested"), [(10, 30, 10), (50, 30, 30), (100, 150, 50), (60, 0, 12)])
def test_labels_that_were_in_doubt_never_measure_and_those_at_random_do_first(
    random: int, doubtful: int, tested: int
) -> None:
    why = np.repeat(["random", "doubt", ""], [random, doubtful, 300 - random - doubtful])
    labels = np.where(why == "", NO_LABEL, np.arange(300) % 3)
    images = in_memory([str(i).encode() for i in range(300)], labels, classes=("a", "b", "c"), sampled=why)
    found = with_splits(images, val_fraction=0.1, test_fraction=0.2)
    assert set(found.sampled[found.splits != "train"].tolist()) == {"random"}  # pyright: ignore[reportOptionalSubscript]
    assert len(found.indices("test")) == tested
    assert doubtful == 0 or not len(found.indices("val"))
    half = with_splits(images.select(np.arange(0, 300, 2)), val_fraction=0, test_fraction=0.2)
    assert half.sampled is not None and len(half.sampled) == 150

"""Splits and labels: held-out parts that stay the same; fewer labels, wrong labels.

Splits are cut by digest, so that renaming or reordering files changes nothing and equal images fall on one side. The
order of sha256 digests is as good as random, and needs no seed.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError
from gpt4image.data.dataset import DOUBT, NO_LABEL, RANDOM, SPLITS, Dataset

FIRST_MEASURE = 30
"""Labels of images sampled at random that measure before others of them teach."""
KeepInTrain = Callable[[Sequence[str]], NDArray[np.bool_]]


def with_splits(
    image_set: Dataset,
    *,
    val_fraction: float,
    test_fraction: float,
    keep_in_train: KeepInTrain | None = None,
    unlabelled: bool = False,
) -> Dataset:
    """Return the dataset with a test and a validation split, cut from train where it brings none.

    First ``test_fraction`` of train goes to test, then ``val_fraction`` of the rest to val, per class: at least one
    image, and one stays. Images without a label stay in train, unless ``unlabelled`` and none has one.
    ``keep_in_train`` says of n digests which images val takes last, (n,) bool.

    A label that a person gave because it was in doubt stays in train. Of those of images sampled at random beside
    them, test takes the first ``FIRST_MEASURE``, and more if it has fewer than its part of all labels.
    """
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        if fraction > 0 and not np.any(image_set.splits == split):
            train = image_set.indices("train")
            digests = [image_set.digests[i] for i in train]
            last = keep_in_train(digests) if keep_in_train and split == "val" else np.zeros(len(digests), bool)
            groups = image_set.groups[train]
            doubt, random = (image_set.was_sampled(why)[train] & (groups != NO_LABEL) for why in (DOUBT, RANDOM))
            measure = set[str]()
            if doubt.any():
                count = max(FIRST_MEASURE, round(fraction * np.sum(groups != NO_LABEL))) if split == "test" else 0
                order = sorted({digests[row] for row in np.flatnonzero(random)})
                measure.update(order[: min(count, round(fraction * len(train)))])
                groups = np.where(doubt | random, NO_LABEL, groups)
            if unlabelled and split == "val" and not np.any(groups != NO_LABEL):
                groups = np.zeros_like(groups)
            held_out = _held_out(groups, digests, last, fraction) | np.isin(digests, [*measure])
            splits = image_set.splits.astype("<U5")
            splits[train[held_out]] = split
            image_set = image_set.revised(splits=splits)
    return image_set


def keep_labels_per_class(
    labels: NDArray[np.int64],
    train_indices: NDArray[np.int64],
    k: int,
    seed: int,
    *,
    first: NDArray[np.bool_] | None = None,
    classes: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Return the (N,) labels with k random ones per class kept in train, those of images ``first`` (N,) before others.

    A class with fewer keeps them all; what is chosen of one does not depend on the others. Raises DataError.
    """
    kept = labels.copy()
    kept[train_indices] = NO_LABEL
    found, counts = np.unique(labels[train_indices], return_counts=True)
    found, counts = found[found != NO_LABEL], counts[found != NO_LABEL]
    if len(found) and counts.max() <= k:
        largest = int(found[counts.argmax()])
        which = f"the largest, {(classes[largest] if classes else largest)!r}, has {counts.max()}"
        raise DataError(f"{k} labels per class are asked for, but no class has more in train ({which}); ask for fewer.")
    for label in found:
        members = train_indices[labels[train_indices] == label]
        rng = np.random.default_rng((seed, int(label)))
        ahead = members if first is None else members[first[members]]
        chosen = rng.choice(ahead, min(k, len(ahead)), replace=False)
        rest = np.setdiff1d(members, ahead)
        others = rng.choice(rest, min(k - len(chosen), len(rest)), replace=False)
        kept[chosen] = kept[others] = label
    return kept


def flip_labels(
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    fraction: float,
    n_classes: int,
    seed: int,
    *,
    class_dependent: bool = False,
) -> NDArray[np.int64]:
    """Return the labels with round(fraction * n) of the n labelled images at ``indices`` moved to another class.

    If ``class_dependent``, every class becomes the next one of a random cycle (pair flipping, arXiv 1804.06872).
    """
    flipped, labelled = labels.copy(), indices[labels[indices] != NO_LABEL]
    count = round(fraction * len(labelled))
    if count == 0:
        return flipped
    if n_classes < 2:
        raise DataError(f"Labels can only be flipped between two or more classes; there is {n_classes}.")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(labelled, count, replace=False)
    if class_dependent:
        cycle = rng.permutation(n_classes)
        taken_for = np.empty(n_classes, np.int64)
        taken_for[cycle] = np.roll(cycle, -1)
        flipped[chosen] = taken_for[labels[chosen]]
    else:
        flipped[chosen] = (labels[chosen] + rng.integers(1, n_classes, count)) % n_classes
    return flipped


def some_images(
    indices: NDArray[np.int64], count: int, seed: int, first: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return ``count`` random ones of ``indices``, a part of any larger number of them; ``first`` (N,) come first."""
    if len(indices) <= count:
        raise DataError(f"{count} annotated images are asked for, but train has {len(indices)}; ask for fewer.")
    order = np.random.default_rng((seed, 17)).permutation(indices)
    if first is not None:
        order = order[np.argsort(~first[order], kind="stable")]
    return np.sort(order[:count])


def representatives(digests: Sequence[str], rank: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return (N,) the position of the representative of each image: of byte-equal images, the first of lowest rank."""
    first: dict[str, int] = {}
    for i in map(int, np.argsort(rank, kind="stable")):
        first.setdefault(digests[i], i)
    return np.array([first[digest] for digest in digests], dtype=np.int64)


def wrong_copies(image_set: Dataset) -> list[str]:
    """Return what is wrong with equal pictures, in sentences: they are on two sides, or have two labels in train."""
    rows: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for row, (digest, split) in enumerate(zip(image_set.digests, image_set.splits.tolist(), strict=True)):
        rows[split].setdefault(digest, []).append(row)
    found: list[str] = []
    for split, others in (("test", ("train", "val")), ("val", ("train",))):
        elsewhere = rows[others[0]] | rows[others[-1]]
        if copies := [digest for digest in rows[split] if digest in elsewhere]:
            count, total = sum(len(rows[split][digest]) for digest in copies), len(image_set.indices(split))
            first, other = (image_set.keys[side[copies[0]][0]] for side in (rows[split], elsewhere))
            found.append(
                f"{count:,} of {total:,} {split} images are byte for byte in {' or '.join(others)} too, such as "
                f"{first!r}, which is {other!r}. This raises every score on {split}: remove one of each."
            )
    groups = [same for same in rows["train"].values() if len(same) > 1]
    if contradicted := [same for same in groups if _contradict(image_set.labels[same])]:
        one, *rest = contradicted[0]
        other = next((row for row in rest if _contradict(image_set.labels[[one, row]])), rest[-1])
        names = (" and ".join(image_set.label_names(row)) or "none" for row in (one, other))
        keys = " and ".join(f"{image_set.keys[row]!r} ({name})" for row, name in zip((one, other), names, strict=True))
        twice = f"In train are pictures twice with different labels: {len(contradicted):,}, such as {keys}"
        found.append(f"{twice}. Remove the wrong copies.")
    return found


def _contradict(labels: NDArray[np.integer]) -> bool:
    known = np.where(labels == NO_LABEL, labels.max(axis=0), labels)
    return bool((known != known[0]).any())


def _held_out(
    labels: NDArray[np.int64], digests: Sequence[str], last: NDArray[np.bool_], fraction: float
) -> NDArray[np.bool_]:
    """Return the mask of images to hold out: per class, those that come first by digest, ``last`` ones at the end."""
    comes_last = {digest for digest, is_last in zip(digests, last, strict=True) if is_last}
    copies = Counter(digests)
    label_of: dict[str, int] = {}
    for digest, label in zip(digests, labels.tolist(), strict=True):
        # Equal images count as one class even if their labels differ; NO_LABEL, the smallest, wins: they stay.
        label_of[digest] = min(label, label_of.get(digest, label))
    members: dict[int, list[str]] = {}
    for digest in sorted(label_of, key=lambda digest: (digest in comes_last, digest)):
        members.setdefault(label_of[digest], []).append(digest)
    members.pop(NO_LABEL, None)
    chosen: set[str] = set()
    for group in members.values():
        images = sum(copies[digest] for digest in group)
        room = min(max(1, round(fraction * images)), images - 1)
        for digest in group:
            if copies[digest] <= room:
                chosen.add(digest)
                room -= copies[digest]
    return np.array([digest in chosen for digest in digests], dtype=bool)

"""The packaged sets and CIFAR: same pictures, labels and splits everywhere."""

import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from gpt4image.base.errors import DataError
from gpt4image.data import known_sets, load_dataset
from gpt4image.data.decode import decode
from gpt4image.data.known_sets import ANSWERS, DESCRIPTIONS


def test_photographs_are_real_in_one_split_each_and_have_an_answer_in_train() -> None:
    images = load_dataset("clothes")
    assert Counter(images.splits.tolist()) == {"train": 1200, "val": 150, "test": 372}
    assert len(images.classes) == 10 and images.labelled.all() and not images.skipped
    assert len(set(images.digests)) == len(images)
    assert all(min(decode(images.read(i)).size) in range(90, 161) for i in range(0, len(images), 100))
    without = load_dataset("clothes-unlabelled")
    assert without.digests == images.digests and without.classes == images.classes
    assert (without.labelled == (images.splits != "train")).all()
    answers = {row["key"]: row for row in map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())}
    train = images.indices("train")
    assert {images.keys[i] for i in train} == answers.keys()
    assert {row["class"] for row in answers.values()} == set(images.classes)
    right = [answers[images.keys[i]]["class"] == images.classes[images.labels[i]] for i in train]
    assert 0.95 < np.mean(right) < 0.96


@pytest.mark.slow
def test_pictograms_are_drawn_once_and_those_of_one_figure_lie_in_one_split(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_dataset("openmoji")
    assert (len(images), len(images.classes)) == (1537, 18)
    assert Counter(images.splits.tolist()) == {"train": 998, "val": 155, "test": 384}
    picture = np.asarray(decode(images.read(0)))
    assert picture.shape == (72, 72, 3) and picture[0, 0].tolist() == [255, 255, 255]
    splits_of: dict[str, set[str]] = {}
    for key, digest, split in zip(images.keys, images.digests, images.splits.tolist(), strict=True):
        for same in (digest, key.split("-")[0]):
            splits_of.setdefault(same, set()).add(split)
    assert {len(splits) for splits in splits_of.values()} == {1}, "no picture or first code point is in two splits"
    rows = [json.loads(line) for line in DESCRIPTIONS.read_text(encoding="utf-8").splitlines()]
    assert {row["key"] for row in rows} == set(images.keys)
    monkeypatch.setattr(known_sets, "_draw", lambda keys: pytest.fail("drawn again"))
    assert load_dataset("openmoji").digests == images.digests
    monkeypatch.setattr(known_sets, "_draw", lambda keys: [images.read(i) for i in range(len(keys))])
    (stored,) = own_cache.glob("openmoji-*.npz")
    stored.write_bytes(stored.read_bytes()[:10_000])  # cut short
    assert load_dataset("openmoji").digests == images.digests
    assert len(stored.read_bytes()) > 10_000


def test_drawing_needs_no_writable_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache.write_text("in the way")
    monkeypatch.setattr(known_sets, "_draw", lambda keys: [key.encode() for key in keys])
    assert load_dataset("openmoji").read(0) == b"0023-FE0F-20E3"


def write(path: Path, content: dict[str, object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Six images in two training batches and a test batch, of three classes."""
    arrays = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    for kind, label_key, names_key in (
        (CIFAR10, "labels", "label_names"),
        (CIFAR100, "fine_labels", "fine_label_names"),
    ):
        folder = tmp_path / kind.base_folder
        files = []
        for name, rows, labels in (("one", [0, 1], [2, 0]), ("two", [2, 3], [2, 2]), ("held", [4, 5], [0, 2])):
            md5 = write(folder / name, {"data": arrays[rows].reshape(2, -1), label_key: labels})
            files.append([name, md5])
        meta = {"filename": "meta", "key": names_key}
        meta["md5"] = write(folder / "meta", {names_key: ["cat", "dog", "bird"]})
        monkeypatch.setattr(kind, "train_list", files[:2])
        monkeypatch.setattr(kind, "test_list", files[2:])
        monkeypatch.setattr(kind, "meta", meta)
    return arrays.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_keys_labels_and_pixels(tmp_path: Path, tiny: np.ndarray, name: str) -> None:
    images = load_dataset(f"{name}:{tmp_path}")
    assert images.classes == ("cat", "dog", "bird")
    assert images.keys == ("bird/0000", "cat/0000", "bird/0001", "bird/0002", "test/cat/0000", "test/bird/0000")
    assert images.labels.tolist() == [2, 0, 2, 2, 0, 2]
    assert images.splits.tolist() == ["train"] * 4 + ["test"] * 2
    for i in range(6):
        np.testing.assert_array_equal(np.asarray(decode(images.read(i))), tiny[i])
    assert images.digests[1] == hashlib.sha256(b"P6\n32 32\n255\n" + tiny[1].tobytes()).hexdigest()


def test_a_changed_file_is_never_unpickled(tmp_path: Path, tiny: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / CIFAR10.base_folder / "two").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DataError, match="does not hold the official files"):
        load_dataset(f"cifar10:{tmp_path}")
    assert not (tmp_path / "ran").exists()

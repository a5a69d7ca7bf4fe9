"""CIFAR by torchvision, from a tiny root that is made here."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from gpt4image.base.errors import DataError
from gpt4image.data import load_dataset
from gpt4image.data.decode import decode


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

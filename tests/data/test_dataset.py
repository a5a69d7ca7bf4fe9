"""The dataset refuses what no later stage could mend, and keeps what belongs together."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import DataError
from gpt4image.data import Dataset, MemorySource, load_dataset
from worlds import in_memory, write_images


def make(**changes: Any) -> Dataset:
    usual = {"classes": ("a", "b"), "keys": ("x", "y", "z"), "splits": np.array(["train", "val", "test"])}
    return in_memory([b"1", b"2", b"3"], **{"labels": [0, 1, -1], **usual, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": ("x", "x", "z")}, "come twice: 'x'"),
        ({"keys": ("x", "y")}, "one of each per image"),
        ({"labels": np.array([0, 2, -1])}, "got 2 for 'y'"),
        ({"labels": np.array([[0, 1], [2, 0], [0, 0]])}, r"0 \(absent\), 1 \(present\) or -1 .*; got 2 for 'y'"),
        ({"labels": np.zeros((3, 3), np.int8)}, r"the shape \(3, 3\); \(3,\) or \(3, 2\) is needed"),
        ({"splits": np.array(["train", "dev", "test"])}, "got 'dev'"),
        ({"keys": (), "labels": np.array([]), "splits": np.array([]), "rows": np.array([])}, "no images"),
    ],
)
def test_faults_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)


@given(st.lists(st.integers(0, 2), min_size=1, unique=True))
def test_a_selection_keeps_key_label_and_bytes_together(chosen: list[int]) -> None:
    images = make()
    part = images.select(chosen)
    for position, index in enumerate(chosen):
        assert part.keys[position] == images.keys[index]
        assert part.labels[position] == images.labels[index]
        assert part.splits[position] == images.splits[index]
        assert part.digests[position] == hashlib.sha256(part.read(position)).hexdigest() == images.digests[index]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemorySource, "read", lambda self, row: pytest.fail("computed again"))
        assert images.select(chosen).revised(labels=np.ones(len(chosen), int)).digests == part.digests


def test_classes_are_added_by_name() -> None:
    more = make().with_classes(("c", "b", "a"))
    assert [more.label_names(i) for i in range(3)] == [("a",), ("b",), ()]
    several = make(labels=np.array([[1, 0], [0, 1], [-1, -1]], np.int8)).with_classes(("c", "b", "a"))
    assert several.labels.tolist() == [[-1, 0, 1], [-1, 1, 0], [-1, -1, -1]]
    assert make(classes=(), labels=np.full(3, -1)).with_classes(("a",)).classes == ("a",)
    with pytest.raises(
        DataError, match=r"images of 'b', which t\.parquet lacks; other classes there are 'bb'\. Is 'bb'"
    ):
        make().with_classes(("a", "bb"), "t.parquet")


@pytest.mark.parametrize(("unlabelled", "refused"), [(True, False), (False, True)])
def test_a_class_that_labels_of_train_lack_may_be_that_of_an_unlabelled_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unlabelled: bool, refused: bool
) -> None:
    write_images(tmp_path, "train/cat/1.png", "test/cat/1.png", "test/dog/1.png")
    if unlabelled:
        write_images(tmp_path, "train/unlabelled/2.png")
    try:
        assert load_dataset(f"folder:{tmp_path}").classes == ("cat", "dog") and not refused
        assert "no label of train is 'dog', as in val or test" in " ".join(capsys.readouterr().err.split())
    except DataError as error:
        assert refused and "train lacks the class 'dog' of val or test; its classes are 'cat'" in str(error)


def test_names_of_classes_that_differ_in_case_or_hyphens_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, "T-Shirt/1.png", "t shirt/1.png", "C/1.png", "C++/1.png")
    assert len(load_dataset(f"folder:{tmp_path}").classes) == 4
    told = capsys.readouterr().err
    assert "'T-Shirt' and 't shirt' count as different classes" in " ".join(told.split()) and "C++" not in told

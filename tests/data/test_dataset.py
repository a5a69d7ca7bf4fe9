"""The dataset refuses what no later stage could mend, and SPEC strings that are wrong."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import Dataset, MemorySource, load_dataset, spec_of
from gpt4image.data.dataset import note_other_classes
from loaded_sets import in_memory, write_images


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
        patch.setattr(MemorySource, "digests", lambda self, rows: pytest.fail("computed again"))
        assert images.select(chosen).revised(labels=np.ones(len(chosen), int)).digests == part.digests


def test_classes_are_added_by_name() -> None:
    more = make().with_classes(("c", "b", "a"))
    assert [more.label_names(i) for i in range(3)] == [("a",), ("b",), ()]
    several = make(labels=np.array([[1, 0], [0, 1], [-1, -1]], np.int8)).with_classes(("c", "b", "a"))
    assert several.labels.tolist() == [[-1, 0, 1], [-1, 1, 0], [-1, -1, -1]]
    assert make(classes=(), labels=np.full(3, -1)).with_classes(("a",)).classes == ("a",)
    with pytest.raises(DataError, match="has images of 'b', which the list of classes lacks"):
        make().with_classes(("a", "c"))


def test_a_name_that_both_lists_have_is_not_taken_for_a_slip(capsys: pytest.CaptureFixture[str]) -> None:
    note_other_classes("--classes", ["shoes", "shorts"], ["shoes"], "set")
    note_other_classes("--classes", ["hat", "shorts"], ["hat", "short"], "set")
    assert re.findall("Is '(.*)' meant to be '(.*)'", capsys.readouterr().err) == [("shorts", "short")]
    with pytest.raises(
        DataError, match=r"images of 'b', which t\.parquet lacks; other classes there are 'bb'\. Is 'bb'"
    ):
        make().with_classes(("a", "bb"), "t.parquet")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("photos", r"folder, hf, label-studio, manifest, masks, openmoji"),
        ("foldr:x", r"folder, hf, .* Did you mean 'folder'"),
        ("opnmoji", r"there is no such file or folder.*Did you mean 'openmoji'"),
        ("~nosuch/x", "there is no such file or folder"),
        ("notes.txt", r"a table ends with \.csv, \.parquet, \.json"),
        ("openmoji:72", "nothing after its name"),
        ("hf:", "lacks NAME_OR_PATH"),
        ("yolo:", "lacks DIR"),
        ("manifest:notes.txt", "got '.txt'"),
        ("manifest:absent.csv", "there is no such file"),
        ("manifest:bad.parquet", "not a Parquet file"),
        *((f"{name}:~nosuch/x", "there is no such f") for name in ("folder", "hf")),
        ("cifar10:~nosuch/x", "does not hold the official files"),
        ("yolo:empty", "there are no images"),
        ("voc:empty", "0 images and 0 XML files"),
        *((f"masks:{name}", "needs the folders 'images' and 'masks'") for name in ("empty", "empty,notes.txt")),
        ("masks:empty,none", "there is no such file or folder"),
        ("folder:linked", r"holds no image; .* The first: 'cat' a link to a folder"),
    ],
)
def test_a_spec_that_cannot_be_loaded_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    for name in ("empty", "far/cat", "linked"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "linked" / "cat").symlink_to(tmp_path / "far" / "cat")
    with pytest.raises((ConfigError, DataError), match=message):
        load_dataset(spec)


def test_what_is_at_a_path_decides_how_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = {
        "us": ("folder:us", "us/1.csv us/cat/1.png us/dog/1.png"),
        "table": ("manifest:table", "table/one.csv table/images/1.png"),
        "named": ("manifest:named", "named/metadata.csv named/a/1.png named/b/1.png"),
        "shards": ("hf:shards", "shards/1.tar"),
        "saved": ("hf:saved", "saved/dataset_info.json"),
        "shop": ("coco:shop", "shop/train.json"),
        "coco": ("coco:coco", "coco/annotations/instances_train2017.json"),
        "robo": ("coco:robo", "robo/train/_annotations.coco.json"),
        "yolo": ("yolo:yolo", "yolo/data.yaml yolo/train/1.png"),
        "yolo/data.yaml": ("yolo:yolo/data.yaml", ""),
        "bare": ("yolo:bare", "bare/images/1.png bare/labels/1.txt"),
        "voc": ("voc:voc", "voc/Annotations/1.xml"),
        "masks": ("masks:masks", "masks/images/1.png masks/masks/1.png"),
        "plain": ("folder:plain", "plain/images/1.png plain/cat/1.png plain/notes.json"),
    }
    for name in " ".join(files for _, files in meant.values()).split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert {path: spec_of(path) for path in meant} == {path: spec for path, (spec, _) in meant.items()}


def test_a_table_aside_does_not_decide_what_a_folder_is(tmp_path: Path) -> None:
    name, kind = "cat/1.png", "folder"
    us, table = tmp_path / "us", tmp_path / "us" / "labels.csv"
    (us / name).parent.mkdir(parents=True)
    (us / "labels.images").mkdir()
    for file in (us / name, table, us / "labels.images" / "2.png"):
        file.touch()
    assert spec_of(str(us)) == spec_of(str(us), tmp_path / "labels.csv") == f"manifest:{us}"
    assert spec_of(str(us), table).partition(":")[0] == kind


def test_a_folder_may_be_called_as_a_kind_of_dataset_or_a_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clothes", "folder"):
        write_images(tmp_path / name, "cat/1.png", "dog/2.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"give \./clothes for that, clothes: for the packaged one"):
        load_dataset("clothes")
    assert load_dataset("./clothes").classes == ("cat", "dog")
    assert len(load_dataset("clothes:")) == 1722
    assert load_dataset("folder").spec == "folder:folder"
    with pytest.raises(ConfigError, match=r"'masks:' lacks DIR"):
        load_dataset("masks")

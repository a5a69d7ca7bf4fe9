"""Boxes and masks in tables of `datasets`, in the forms in which published sets have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Sequence, Value

from arrow_tables import no_network  # noqa: F401  (autouse)
from gpt4image.base.errors import DataError
from gpt4image.data import load_image_set
from region_cases import SIZE, aside_text, mask_bytes, masks, rows

BOX = List(Value("float32"), length=4)


def save(path: Path, cells: dict[str, list[Any]], **kinds: Any) -> str:
    """Save a dataset of pictures of SIZE; return its SPEC."""
    count = len(next(iter(cells.values())))
    pictures = [{"bytes": mask_bytes(np.full(SIZE[::-1], number, np.uint8)), "path": None} for number in range(count)]
    data = Dataset.from_dict({"image": pictures, **cells}, features=Features({"image": Image(), **kinds}))
    DatasetDict({"train": data}).save_to_disk(path)
    return f"hf:{path}"


def test_a_struct_of_lists_with_class_labels(tmp_path: Path) -> None:
    kind = Sequence({"bbox": BOX, "category": ClassLabel(names=["cat", "dog"]), "iscrowd": Value("bool")})
    cells = [
        {
            "bbox": [[4, 5, 10, 10], [0, 0, 40, 20], [50, 5, 5, 5]],
            "category": [1, 0, 0],
            "iscrowd": [False, True, False],
        },
        {"bbox": [], "category": [], "iscrowd": []},
    ]
    images = load_image_set(save(tmp_path / "set", {"objects": cells}, objects=kind))
    assert images.classes == ("cat", "dog")
    assert rows(images) == {
        "train/0000000": [("dog", (4, 5, 14, 15), 1), ("cat", (0, 0, 40, 20), 0)],
        "train/0000001": [],
    }
    assert "outside of its picture: 'train/0000000, object 3'" in aside_text(images)


@pytest.mark.parametrize("kind", [Value("string"), Value("int64")])
def test_a_list_of_structs_with_names_or_numbers(tmp_path: Path, kind: Any) -> None:
    names: list[Any] = ["cat", "dog", None] if kind == Value("string") else [0, 1, None]
    cells: list[Any] = [
        [{"bbox": [4, 5, 10, 10], "label": names[1]}, {"bbox": [1, 1, 2, 2], "label": names[2]}],
        [{"bbox": [0, 0, 80, 40], "label": names[0]}],
        None,
    ]
    sizes = {"width": [40, 80, None], "height": [20, 40, None]}
    kinds = {
        "objects": List({"bbox": List(Value("int64")), "label": kind}),
        "width": Value("int64"),
        "height": Value("int64"),
    }
    images = load_image_set(save(tmp_path / "set", {"objects": cells, **sizes}, **kinds))
    cat, dog = images.classes
    assert (cat, dog) == (("cat", "dog") if kind == Value("string") else ("0", "1"))
    assert rows(images) == {
        "train/0000000": [(dog, (4, 5, 14, 15), 1)],
        "train/0000001": [(cat, (0, 0, 40, 20), 1)],  # of a picture that was larger
        "train/0000002": None,
    }
    assert "its category is missing or unknown: 'train/0000000, object 2'" in aside_text(images)


def test_each_split_has_the_names_of_its_own_class_label(tmp_path: Path) -> None:
    train, test = (["cat", "dog", "fox"], [0, 1, 2]), (["dog", "fox", "cat"], [0, 1, 2, None])
    for name, (names, numbers) in {"train": train, "test": test}.items():
        kind = List({"bbox": BOX, "category": ClassLabel(names=names)})
        cells = [[{"bbox": [4, 5, 10, 10], "category": number}] for number in numbers]
        save(tmp_path / name, {"objects": cells}, objects=kind)
    parts = {name: DatasetDict.load_from_disk(tmp_path / name)["train"] for name in ("train", "test")}
    DatasetDict(parts).save_to_disk(tmp_path / "set")
    images = load_image_set(f"hf:{tmp_path / 'set'}")
    assert images.classes == ("cat", "dog", "fox")
    shown = [images.label_names(row) for row in range(len(images))]
    assert shown == [("cat",), ("dog",), ("fox",), ("dog",), ("fox",), ("cat",), ()]


def test_an_image_that_lost_all_its_objects_is_not_annotated(tmp_path: Path) -> None:
    kind = List({"bbox": BOX, "category": ClassLabel(names=["cat"])})
    cells = [[{"bbox": [4, 5, 10, 10], "category": None}], [{"bbox": [90, 5, 1, 1], "category": 0}], []]
    found = rows(load_image_set(save(tmp_path / "set", {"objects": cells}, objects=kind)))
    assert list(found.values()) == [None, None, []]


@pytest.mark.parametrize("with_masks", [False, True])
def test_rows_without_a_picture_of_their_own_are_skipped_by_name(
    tmp_path: Path, with_masks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = {"bytes": mask_bytes(np.ones(SIZE[::-1], np.uint8)), "path": None}
    name, kind = "objects", Sequence({"bbox": BOX, "category": ClassLabel(names=["cat"])})
    cell: dict[str, Any] = {"bbox": [[4, 5, 10, 10]], "category": [0]}
    if with_masks:
        name, kind, cell = "mask", Image(), mask
    outside = tmp_path / "outside.png"
    outside.write_bytes(mask_bytes(np.zeros((3, 3), np.uint8)))
    opened: list[str] = []
    monkeypatch.setattr(
        "gpt4image.data.arrow_source.read_bounded", lambda path: opened.append(path) or Path(path).read_bytes()
    )
    pictures = [mask, None, {"bytes": None, "path": str(outside)}]
    schema = Features({"image": Image(), name: kind}).arrow_schema
    (tmp_path / "set").mkdir()
    table = pa.table({"image": pictures, name: [cell] * 3}, schema=schema)
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    images = load_image_set(f"hf:{tmp_path / 'set' / 'train.parquet'}")
    assert len(images) == 1
    assert {item.reason for item in images.skipped} >= {
        "has no image",
        "has no bytes, and its path leads out of the dataset",
    }
    assert opened == [], "no file outside of the dataset is opened for its size"


def test_a_column_of_masks(tmp_path: Path) -> None:
    numbers = np.zeros(SIZE[::-1], np.uint8)
    numbers[5:] = 2
    cells = [{"bytes": data, "path": None} for data in (mask_bytes(numbers), mask_bytes(numbers[:5]))] + [None]
    images = load_image_set(save(tmp_path / "set", {"label": cells}, label=Image()))
    assert images.classes == ("0", "1", "2")
    found = masks(images)
    assert found.known.tolist() == [True, False, False]
    assert np.array_equal(found.source.read(int(found.rows[0])), numbers)
    assert "another size than its picture: 'train/0000001'" in aside_text(images)
    assert len(found.content()) == 64, "the row without a mask has no digest"


def test_splits_with_other_fields_are_refused(tmp_path: Path) -> None:
    for name, field in (("train", "category"), ("test", "label")):
        kind = List({"bbox": BOX, field: Value("int64")})
        cells = {"objects": [[{"bbox": [1, 1, 2, 2], field: 0}]]}
        save(tmp_path / name, cells, objects=kind)
        DatasetDict.load_from_disk(tmp_path / name)["train"].to_parquet(tmp_path / f"set/{name}.parquet")
    with pytest.raises(DataError, match=r"has other fields in some splits|could not be read"):
        load_image_set(f"hf:{tmp_path / 'set'}")

"""Data sets of Hugging Face `datasets`: columns by type, splits, keys, no network."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import socket
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Sequence, Value

from gpt4image.base.errors import DataError, MissingExtraError
from gpt4image.data import NO_LABEL, load_dataset
from loaded_sets import png
from region_cases import SIZE, aside_text, mask_bytes, masks, rows


def table(columns: dict[str, list[Any]], **kinds: Any) -> Dataset:
    images = {
        name: [{"bytes": data, "path": None} for data in cells]
        for name, cells in columns.items()
        if name in ("image", "img")
    }
    return Dataset.from_dict({**columns, **images}, features=Features(kinds))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Local sets are read without a single connection, and `datasets` writes its cache into the test's folder."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")


def test_parquet_folder_with_splits(tmp_path: Path) -> None:
    label = ClassLabel(names=["cat", "dog"])
    for name, seeds, labels in (("train", [0, 1, 2], [1, 0, -1]), ("validation", [3], [0]), ("test", [4], [1])):
        columns = {"image": [png(seed) for seed in seeds], "label": labels}
        table(columns, image=Image(), label=label).to_parquet(tmp_path / f"set/{name}-00000-of-00001.parquet")
    images = load_dataset(f"hf:{tmp_path / 'set'}")
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [1, 0, NO_LABEL, 0, 1]
    assert images.splits.tolist() == ["train"] * 3 + ["val", "test"]
    assert images.keys == ("train/0000000", "train/0000001", "train/0000002", "validation/0000000", "test/0000000")
    assert [images.read(i) for i in range(5)] == [png(seed) for seed in range(5)]  # bytes as they were, not re-encoded
    assert images.select([3, 1]).read(0) == png(3)


def test_saved_to_disk_with_names_and_keys(tmp_path: Path) -> None:
    columns = {"img": [png(0), png(1), png(2)], "label": ["dog", None, "cat"], "key": ["a", "b", "c"]}
    data = table(columns, img=Image(), label=Value("string"), key=Value("string"))
    DatasetDict({"train": data, "extra": data}).save_to_disk(tmp_path / "dict")
    data.save_to_disk(tmp_path / "single")
    for folder in ("dict", "single"):
        images = load_dataset(f"hf:{tmp_path / folder}")
        assert (images.keys, images.classes) == (("a", "b", "c"), ("cat", "dog"))
        assert images.labels.tolist() == [1, NO_LABEL, 0]
        assert [item.name for item in images.skipped] == (["split extra"] if folder == "dict" else [])
    kinds = Features(image=Image(), label=ClassLabel(names=["a", "b"]))
    for number in (-2, 2):
        wrong = table({"image": [png(0)], "label": [number]}, image=Image(), label=Value("int64")).data.table
        pq.write_table(wrong.replace_schema_metadata(kinds.arrow_schema.metadata), tmp_path / "set.parquet")
        message = rf"split 'train': labels must be in 0..1, or -1 for none; got {number}\."
        with pytest.raises(DataError, match=message):
            load_dataset(f"hf:{tmp_path / 'set.parquet'}")


def test_tar_shards_are_read_by_their_library_and_pickled_members_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    pickled = b"cos\nmkdir\n(V" + str(tmp_path / "unpickled").encode() + b"\ntR."
    for shard, label in (("train-00", b"1"), ("train-01", b"0"), ("validation-00", b"1")):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for kind, data in {"png": png(int(label)), "cls": label, "pyd": pickled}.items():
                member = tarfile.TarInfo(f"{shard}_7.{kind}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    images = load_dataset(str(folder))
    assert (images.classes, images.labels.tolist()) == (("0", "1"), [1, 0, 1])
    assert (images.splits.tolist(), images.read(1)) == (["train", "train", "val"], png(0))
    assert len(set(images.keys)) == 3 and not (tmp_path / "unpickled").exists()


def save(folder: Path, **parts: Dataset) -> str:
    DatasetDict({**parts}).save_to_disk(folder)
    return f"hf:{folder}"


def test_labels_of_splits_are_matched_by_name(tmp_path: Path) -> None:
    def part(seeds: range, names: list[str]) -> Dataset:
        columns = {"image": [png(seed) for seed in seeds], "label": names}
        return table(columns, image=Image(), label=Value("string")).class_encode_column("label")

    train, test = part(range(3), ["ant", "bee", "cow"]), part(range(3, 6), ["bee", "cow", "bee"])
    images = load_dataset(save(tmp_path / "set", train=train, test=test))
    assert [images.classes[label] for label in images.labels] == ["ant", "bee", "cow", "bee", "cow", "bee"]
    swapped = train.cast_column("label", ClassLabel(names=["cow", "bee", "ant"]))
    images = load_dataset(save(tmp_path / "swapped", train=train, validation=swapped, test=test))
    assert images.labels.tolist() == [0, 1, 2, 2, 1, 0, 1, 2, 1]
    with pytest.raises(DataError, match=r"train lacks the class 'ant' of val or test; its classes are 'bee', 'cow'"):
        load_dataset(save(tmp_path / "unknown", train=test, test=train))
    text = train.cast_column("label", Value("string"))
    with pytest.raises(DataError, match="'label' has another type in some splits"):
        load_dataset(save(tmp_path / "mixed", train=train, test=text))


SEVERAL: dict[str, tuple[Any, list[Any], tuple[str, ...], list[list[int]]]] = {
    "tags": (Value("string"), [["red", "round"], [], None], ("red", "round"), [[1, 1], [0, 0], [-1, -1]]),
    "labels": (ClassLabel(names=["b", "a"]), [[0, 1], [], None], ("b", "a"), [[1, 1], [0, 0], [-1, -1]]),
}


@pytest.mark.parametrize("column", SEVERAL)
def test_lists_are_several_classes_per_image(tmp_path: Path, column: str) -> None:
    kind, cells, classes, labels = SEVERAL[column]
    columns = {"image": [png(seed) for seed in range(3)], column: cells}
    table(columns, image=Image(), **{column: Sequence(kind)}).to_parquet(tmp_path / "set.parquet")
    images = load_dataset(f"hf:{tmp_path / 'set.parquet'}")
    assert (images.classes, images.labels.tolist()) == (classes, labels)


def test_sets_that_do_not_fit_are_refused_with_their_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table({"image": [png(0)]}, image=Image())
    DatasetDict({"x": data, "y": data}).save_to_disk(tmp_path / "splits")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "set.csv").touch()
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "/x.png"}]}), tmp_path / "path.parquet")
    pq.write_table(pa.table({"image": [{"bytes": 1, "path": "a.png"}]}), tmp_path / "number.parquet")
    for name, message in {
        "number.parquet": r"no column of train holds images; .*'bytes' \(binary\) and 'path' \(text\)",
        "path.parquet": "none of its 1 rows .* The first: 'train/0000000' has no bytes, and its path",
        "splits": "none of its splits 'x', 'y'",
        "absent": "no such file or folder",
        "bad.parquet": "could not be read",
        "set.csv": "got '.csv'",
        "script": r"could not be read: .*Dataset scripts .*, but found script.py",
    }.items():
        with pytest.raises(DataError, match=message):
            load_dataset(f"hf:{tmp_path / name}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"\[hf\]"):
        load_dataset("hf:some/set")


def test_a_worker_process_maps_the_files_itself(tmp_path: Path) -> None:
    data = table({"image": [png(i, side=100) for i in range(40)]}, image=Image())
    data.save_to_disk(tmp_path / "set")
    images = load_dataset(f"hf:{tmp_path / 'set'}")
    assert images.read(7) == png(7, side=100)
    pickled = pickle.dumps(images.source)
    assert len(pickled) < 40_000
    shutil.rmtree(tmp_path / "hf-cache", ignore_errors=True)
    assert pickle.loads(pickled).read(7) == png(7, side=100)  # noqa: S301


def test_a_relative_path_starts_at_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, folder in enumerate(("set", "elsewhere")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png(seed))
    names = ["a.png", "../elsewhere/a.png"]
    pq.write_table(
        pa.table({"image": [{"bytes": None, "path": name} for name in names]}), tmp_path / "set" / "set.parquet"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    images = load_dataset("hf:../set/set.parquet")
    assert [images.read(i) for i in range(len(images))] == [png(0)]
    assert images.digests == (hashlib.sha256(png(0)).hexdigest(),)
    assert "leads out" in images.skipped[0].reason


BOX = List(Value("float32"), length=4)


def save_objects(path: Path, cells: dict[str, list[Any]], **kinds: Any) -> str:
    """Save a dataset of pictures of SIZE; return its SPEC."""
    count = len(next(iter(cells.values())))
    pictures = [{"bytes": mask_bytes(np.full(SIZE[::-1], number, np.uint8)), "path": None} for number in range(count)]
    data = Dataset.from_dict({"image": pictures, **cells}, features=Features({"image": Image(), **kinds}))
    DatasetDict({"train": data}).save_to_disk(path)
    return f"hf:{path}"


def test_a_struct_of_lists_with_class_labels_of_each_split(tmp_path: Path) -> None:
    bbox = [[4, 5, 10, 10], [0, 0, 40, 20], [50, 5, 5, 5]]
    for split, names in {"train": ["cat", "dog"], "test": ["dog", "cat"]}.items():
        kind = Sequence({"bbox": BOX, "category": ClassLabel(names=names), "iscrowd": Value("bool")})
        full = {"bbox": bbox, "category": [1, 0, 0], "iscrowd": [False, split == "test", False]}
        cells = [full, {"bbox": [], "category": [], "iscrowd": []}]
        save_objects(tmp_path / split, {"objects": cells}, objects=kind)
    parts = {name: DatasetDict.load_from_disk(tmp_path / name)["train"] for name in ("train", "test")}
    images = load_dataset(save(tmp_path / "set", **parts))
    assert images.classes == ("cat", "dog")
    assert rows(images) == {
        "train/0000000": [("dog", (4, 5, 14, 15), 1), ("cat", (0, 0, 40, 20), 1)],
        "train/0000001": [],
        "test/0000000": [("cat", (4, 5, 14, 15), 1), ("dog", (0, 0, 40, 20), 0)],
        "test/0000001": [],
    }
    assert "outside of its picture: 'train/0000000, object 3'" in aside_text(images)
    other = parts["test"].cast_column(
        "objects", Sequence({"bbox": BOX, "category": Value("int64"), "iscrowd": Value("bool")})
    )
    assert load_dataset(save(tmp_path / "numbers", train=parts["train"], test=other)).classes == ("cat", "dog")


@pytest.mark.parametrize("kind", [Value("string"), Value("int64")])
def test_a_list_of_structs_with_names_or_numbers(tmp_path: Path, kind: Any) -> None:
    names: list[Any] = ["cat", "dog", None] if kind == Value("string") else [0, 1, None]
    cells: list[Any] = [
        [{"bbox": [4, 5, 10, 10], "label": names[1]}, {"bbox": [1, 1, 2, 2], "label": names[2]}],
        [{"bbox": [0, 0, 80, 40], "label": names[0]}],
        None,
    ]
    sizes = {"width": [40, 80, None], "height": [20, 40, None]}
    kinds = {"objects": List({"bbox": List(Value("int64")), "label": kind}), **dict.fromkeys(sizes, Value("int64"))}
    images = load_dataset(save_objects(tmp_path / "set", {"objects": cells, **sizes}, **kinds))
    cat, dog = images.classes
    assert (cat, dog) == (("cat", "dog") if kind == Value("string") else ("0", "1"))
    larger = [(cat, (0, 0, 40, 20), 1)]  # of a picture that was larger
    assert list(rows(images).values()) == [[(dog, (4, 5, 14, 15), 1)], larger, None]
    assert "its category is missing or unknown: 'train/0000000, object 2'" in aside_text(images)


@pytest.mark.parametrize("with_masks", [False, True])
def test_rows_without_a_picture_of_their_own_are_skipped_by_name(
    tmp_path: Path, with_masks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = {"bytes": mask_bytes(np.ones(SIZE[::-1], np.uint8)), "path": None}
    kind: Any = Image() if with_masks else Sequence({"bbox": BOX, "category": ClassLabel(names=["cat"])})
    name, cell = ("mask", mask) if with_masks else ("objects", {"bbox": [[4, 5, 10, 10]], "category": [0]})
    outside = tmp_path / "outside.png"
    outside.write_bytes(mask_bytes(np.zeros((3, 3), np.uint8)))
    opened: list[str] = []
    monkeypatch.setattr("gpt4image.data.hf.read_bounded", lambda path: opened.append(path) or Path(path).read_bytes())
    (tmp_path / "set").mkdir()
    schema = Features({"image": Image(), name: kind}).arrow_schema
    columns = {"image": [mask, None, {"bytes": None, "path": str(outside)}], name: [cell] * 3}
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "set" / "train.parquet")
    images = load_dataset(f"hf:{tmp_path / 'set' / 'train.parquet'}")
    reasons = {"has no image", "has no bytes, and its path leads out of the dataset"}
    assert len(images) == 1 and {item.reason for item in images.skipped} >= reasons
    assert opened == [], "no file outside of the dataset is opened for its size"


def test_a_column_of_masks(tmp_path: Path) -> None:
    numbers = np.zeros(SIZE[::-1], np.uint8)
    numbers[5:] = 2
    cells = [{"bytes": data, "path": None} for data in (mask_bytes(numbers), mask_bytes(numbers[:5]))] + [None]
    images = load_dataset(save_objects(tmp_path / "set", {"label": cells}, label=Image()))
    assert images.classes == ("0", "1", "2")
    found = masks(images)
    assert found.known.tolist() == [True, False, False]
    assert np.array_equal(found.source.read(int(found.rows[0])), numbers)
    assert "another size than its picture: 'train/0000001'" in aside_text(images)
    assert len(found.content()) == 64, "the row without a mask has no digest"

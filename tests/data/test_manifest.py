"""Tables of images: labels, splits, keys, and rows that cannot be used."""

from __future__ import annotations

import csv
import hashlib
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import CheckConfig, TrainConfig
from gpt4image.data import NO_LABEL, Dataset, load_dataset
from gpt4image.data.decode import decode
from gpt4image.data.given import as_files, dataset
from loaded_sets import write_images


@pytest.fixture(params=["csv", "parquet"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, list[Any]]], Dataset]:
    """Writes a table of both kinds and loads it."""

    def write_and_load(columns: dict[str, list[Any]]) -> Dataset:
        path = tmp_path / f"set.{request.param}"
        if request.param == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        return load_dataset(f"manifest:{path}")

    return write_and_load


Load = Callable[[dict[str, list[Any]]], Dataset]
NAMES = ["a.png", "sub dir/b.png", "c\nd.png", "ü.png"]


@pytest.mark.parametrize(("of_path", "of_label"), [("path", "label"), ("image", "category"), ("filename", "Label")])
def test_other_usual_names_of_columns(tmp_path: Path, load: Load, of_path: str, of_label: str) -> None:
    write_images(tmp_path, *NAMES)
    names = [*NAMES, "gone.png"]
    images = load({of_path: names, of_label: ["dog", "cat", "", "-1", "ghost"], "caption": list("abcde")})
    assert (images.keys, images.classes) == (tuple(NAMES), ("cat", "dog"))
    assert images.labels.tolist() == [1, 0, NO_LABEL, NO_LABEL] and set(images.splits.tolist()) == {"train"}
    assert [images.read(i) for i in range(4)] == [(tmp_path / name).read_bytes() for name in NAMES]


def test_splits_and_keys(tmp_path: Path, load: Load) -> None:
    write_images(tmp_path, *NAMES)
    images = load({"path": NAMES, "split": ["train", "valid", "test", "val"], "key": ["k1", "k2", "k3", "k4"]})
    assert images.splits.tolist() == ["train", "val", "test", "val"] and images.classes == ()
    assert images.keys == ("k1", "k2", "k3", "k4")
    assert len(load({"path": NAMES, "label": ["", "", "cat", "dog"], "split": SPLITS})) == 4  # zero-shot


def test_rows_that_cannot_be_used_are_named(tmp_path: Path, load: Load) -> None:
    inside = tmp_path / "in"
    write_images(tmp_path, "outside.png", "in/good.png", "in/good2.png")
    (inside / "link.png").symlink_to(tmp_path.parent)
    (inside / "folder.png").mkdir()
    bad = {"/etc/passwd": "leads out", "in/missing.png": "cannot be found", "in/link.png": "leads out"}
    bad |= {"in/folder.png": "not a file", "../" * 30 + "etc/passwd": "leads out", "n" * 5000: "", "": "empty"}
    images = load({"path": ["in/good.png", *bad, str(inside / "good2.png")], "label": ["a"] * 9})
    assert images.keys == ("in/good.png", str(inside / "good2.png"))
    reasons = {item.name: item.reason for item in images.skipped}
    assert len(reasons) == len(bad) and any("row 8" in name for name in reasons)
    assert all(part in reasons.get(name, "empty") for name, part in bad.items())
    assert images.read(1) == (inside / "good2.png").read_bytes()


def test_paths_of_windows_are_read_and_those_of_another_machine_named(tmp_path: Path, load: Load) -> None:
    write_images(tmp_path, "cat/1.png", r"odd\name.png")
    images = load({"path": [r"cat\1.png", r"odd\name.png", r"C:\photos\1.png"], "label": ["a"] * 3})
    assert images.keys == ("cat/1.png", r"odd\name.png")
    assert [item.reason.partition("; ")[2][:31] for item in images.skipped] == ["it is a path on another machine"]


@pytest.mark.parametrize(("column", "cell"), [("label", "a"), ("labels", "a|b"), ("boxes", '[["a", 0, 0, 1, 1]]')])
def test_images_that_the_table_of_a_folder_does_not_list_have_no_label(
    tmp_path: Path, column: str, cell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, "1.png", "new.png", "more/2.png", "labels.images/3.png", ".hidden.png")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", column, "split"), ("1.png", cell, "test")])
    whole = load_dataset(str(tmp_path))
    assert (whole.spec, whole.keys) == (f"manifest:{tmp_path}", ("1.png", "new.png", "more/2.png"))
    assert whole.splits.tolist() == ["test", "train", "train"] and whole.groups.tolist()[1:] == [NO_LABEL] * 2
    assert load_dataset(whole.spec).keys == whole.keys
    assert load_dataset(str(tmp_path / "labels.csv")).keys == ("1.png",)
    notes = capsys.readouterr().err
    assert "2 images that labels.csv does not list" in notes and "1 images that labels.csv does not list" in notes


@pytest.mark.parametrize("names", [["label:round", "red"], ["label:round", "label:red"], ["monkey", "cat"]])
def test_one_column_per_class(tmp_path: Path, load: Load, names: list[str]) -> None:
    write_images(tmp_path, *NAMES)
    images = load({"path": NAMES, names[0]: ["1", "0", "", None], names[1]: ["true", "FALSE", "", "1"]})
    assert images.classes == tuple(name.removeprefix("label:") for name in reversed(names))
    assert images.labels.tolist() == [[1, 1], [0, 0], [-1, -1], [1, -1]]


SPLITS = ["train", "train", "val", "test"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": ["a"] * 4, "red": [1, 0, 1, 0]}, "columns 'labels', 'red' all give labels"),
        ({"red": [1, 0, 1, 0], "label:red": [1, 0, 1, 0]}, "columns 'label:red' and 'red' are the same class"),
        ({"label:red": [1, 0, -1, 0]}, "column 'label:red' has '-1' in row 3; give 1 for a class that is present, 0"),
        (
            {"lable": [1, 0, 1, 0]},
            r"'path', 'lable', separated by commas; allowed are path, label .* Did you mean 'label'",
        ),
        ({"author": list("abcd")}, r"Column 'author' is none of these\.$"),
        ({"red": [1, 0, 1, 2]}, r"and one column per class with 0, 1 or empty cells\. Column 'red' is none of these"),
        ({"labels": ["0|2030", "1", "", ""]}, "only 3 of these 2031 classes"),
        ({"label": [2019, 2020, 2019, 2020]}, "only 2 of these 2021 .* from 0 on, or give them names"),
        ({"label": ["cat", "dog", "cat", "Cat"], "split": SPLITS}, r"train lacks the class 'Cat' .*are 'cat', 'dog'\."),
        ({"split": ["train", "trian", "test", "test"]}, r"split of row 2, 'trian'.*Did you mean 'train'"),
        ({"label": [99999999, 1, 2, 1]}, "label 99999999 of row 1"),
        ({"key": ["same", "same", "x", "y"]}, "come twice: 'same'"),
        ({"key": ["a", "b", "", "d"]}, "row 3 has no key"),
        ({"path": ["gone.png"]}, r"none of its 1 rows.*'gone.png'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, load: Load, columns: dict[str, list[Any]], message: str) -> None:
    write_images(tmp_path, *NAMES)
    with pytest.raises(DataError, match=message):
        load({"path": NAMES, **columns})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.png\n", "row 1 has 1 cells"),
        (b"path\n\xff\xfe.png\n", "not a CSV file in UTF-8: it is in another encoding.*save it as UTF-8"),
        ("path\nH\u00fcte.png\n".encode("utf-16"), "it is in UTF-16: save it as UTF-8"),
        (b"label\nx\n", "'path' is missing"),
        (b"path,label,label\na,x,y\n", "column 'label' is there more than once"),
        (b"path;label\na.png;cat\n", r"columns 'path;label', separated by commas"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "set.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(f"manifest:{tmp_path / 'set.csv'}")


def test_cells_that_a_spreadsheet_would_run_are_read_without_their_apostrophe(tmp_path: Path) -> None:
    (tmp_path / "=1.png").write_bytes(b"a picture")
    (tmp_path / "'quoted'.png").write_bytes(b"another picture")
    text = "\ufeffpath, label,review\r\n'=1.png,'+x,checked\r\n'quoted'.png,'y',\r\n\r\n"  # with a byte order mark
    (tmp_path / "set.csv").write_text(text, encoding="utf-8", newline="")
    images = load_dataset(f"manifest:{tmp_path / 'set.csv'}")
    assert images.keys == ("=1.png", "'quoted'.png")
    assert [images.label_names(row) for row in range(2)] == [("+x",), ("'y'",)]


def test_a_class_that_labels_of_train_lack_may_be_that_of_an_unlabelled_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, "a.png", "b.png", "c.png", "d.png")
    text = "a.png,cat,train\nb.png,,train\nc.png,cat,test\nd.png,dog,test\n"
    (tmp_path / "set.csv").write_text(f"path,label,split\n{text}")
    images = load_dataset(f"manifest:{tmp_path / 'set.csv'}")
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, -1, 0, 1]
    assert "no label of train is 'dog', as in val or test" in " ".join(capsys.readouterr().err.split())


def test_images_may_lie_below_another_folder_that_is_named(tmp_path: Path) -> None:
    root, table = tmp_path / "mounted", tmp_path / "lists" / "photos.csv"
    write_images(root, "a.png", "b/c.png")
    write_images(tmp_path, "elsewhere.png")
    table.parent.mkdir()
    rows = [root / "a.png", "b/c.png", tmp_path / "elsewhere.png"]
    table.write_text("path\n" + "".join(f"{row}\n" for row in rows))
    images = load_dataset(CheckConfig(data=str(table), store=Path("a.db"), image_root=root).data)
    assert images.keys == ("a.png", "b/c.png") and images.read(1) == (root / "b/c.png").read_bytes()
    assert [(item.name, "leads out" in item.reason) for item in images.skipped] == [(str(rows[2]), True)]
    with pytest.raises(DataError, match=r"leads out of the folder of the dataset; give --image-root DIR"):
        load_dataset(f"manifest:{table}")
    with pytest.raises(DataError, match=r"--image-root /no/where is no folder"):
        load_dataset(f"{table} --image-root /no/where")
    with pytest.raises(ConfigError, match=r"--image-root /photos is of a manifest: give --data"):
        TrainConfig(data=None, image_root=Path("/photos"), out=Path("run"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--image-root is for tables of images"):
        load_dataset(f"folder:{root} --image-root {root}")


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


def test_arrays_and_pictures_are_one_dataset_with_the_digest_of_their_pixels(own_cache: Path) -> None:
    labels = np.array([1, 0, 1, -1])
    spec = dataset((PIXELS, labels))
    assert dataset(([Image.fromarray(each) for each in PIXELS], labels.tolist())) == spec
    assert dataset((PIXELS, torch.from_numpy(labels))) == spec != dataset((PIXELS, labels[::-1]))
    images = load_dataset(spec)
    assert (images.spec, images.classes, images.labels.tolist()) == (spec, ("0", "1"), [1, 0, 1, NO_LABEL])
    assert images.keys[:2] == ("0000000", "0000001") and images.splits.tolist() == ["train"] * 4
    sent = pickle.loads(pickle.dumps(images))  # noqa: S301  (as a worker process gets it)
    assert np.array_equal(np.asarray(decode(sent.read(2))), PIXELS[2])
    assert images.digests[1] == hashlib.sha256(b"P6\n6 5\n255\n" + PIXELS[1].tobytes()).hexdigest()
    (own_cache / "given" / spec.partition(":")[2] / "table.json").unlink()
    with pytest.raises(DataError, match=rf"{spec} is data that a call in Python was given.*as data= again"):
        load_dataset(spec)
    assert dataset((PIXELS, labels)) == spec and len(load_dataset(spec)) == 4


def test_a_table_of_paths_stays_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    frame = pandas.DataFrame(
        {
            "Filename": ["0.png", "1.png", "gone.png", "3.png"],
            "label": ["cat", pandas.NA, "cat", "dog"],
            "split": ["train", "train", "train", "validation"],
            "photographer": "me",
        }
    )
    frame.loc[3, "label"] = "cat"
    images = load_dataset(dataset(frame))
    assert (images.keys, images.splits.tolist()) == (("0.png", "1.png", "3.png"), ["train", "train", "val"])
    assert images.labels.tolist() == [0, NO_LABEL, 0] and [item.name for item in images.skipped] == ["gone.png"]
    assert images.digests[0] == hashlib.sha256((tmp_path / "0.png").read_bytes()).hexdigest()
    numbered = pandas.DataFrame({"path": ["0.png", "1.png"], "key": [7, 8]})
    assert load_dataset(dataset(numbered)).keys == ("7", "8")
    assert dataset((iter(["0.png"]), iter("a"))) == dataset((["0.png"], ["a"]))
    for kind in (list, set, frozenset):
        several = load_dataset(dataset((["0.png", "1.png"], [kind("ab"), kind("b")])))
        assert several.classes == ("a", "b") and several.labels.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([PIXELS[0]], r"data is a list; data takes a SPEC or a path; a pair \(images, labels\)"),
        ((Path("a.png"), "cat"), "data: PosixPath is no list of images or labels; data takes"),
        ((["a.png"], {"a.png": "cat"}), "data: dict is no list of images or labels"),
        ((["a.png"], 5), "data: int is no list of images or labels"),
        ((PIXELS, [0]), "4 images, but 1 in 'label'"),
        ((PIXELS, np.eye(2, dtype=int)[[0, 1, 0, 1]]), "the labels are an array of 2 axes; give one number or a list"),
        ((PIXELS / 255.0, None), r"image 0 is a ndarray of float64 \(5, 6, 3\); give a path"),
        ((np.moveaxis(PIXELS, 3, 1), None), r"uint8 \(3, 5, 6\)"),
        ((PIXELS[:, :0], None), r"uint8 \(0, 6, 3\); give a path"),
        (pandas.DataFrame({"photo": ["a.png"]}), "The table has the columns photo"),
        (pandas.DataFrame({"path": ["a.png"], "split": ["trian"]}), "the split 'trian' is none of"),
        (([], None), "there are no images"),
        ((["a.png", math.nan], None), "image 1 is a float, and others are paths"),
    ],
)
def test_what_cannot_be_taken_is_refused(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(data)


def test_images_to_predict_are_files_for_as_long_as_they_are_needed(tmp_path: Path) -> None:
    with as_files(["a.png", PIXELS[0], Path("b")]) as (paths, names):
        assert (paths[0], paths[2], list(names.values())) == ("a.png", "b", ["1"])
        assert np.array_equal(np.asarray(Image.open(paths[1])), PIXELS[0])
    assert not Path(paths[1]).exists()
    with pytest.raises(DataError, match="images is a NoneType; give paths"), as_files(None):
        pass
    with pytest.raises(DataError, match="images: the table has the columns photo, and none is path"):
        as_files(pandas.DataFrame({"photo": ["a.png"]})).__enter__()
    column, one = pandas.Series(["a", "b"]), Image.fromarray(PIXELS[0])
    for images, count in ((PIXELS, 4), (PIXELS[0], 1), (one, 1), ("photos/*.png", 1), (column, 2)):
        with as_files(images) as (paths, _):
            assert len(paths) == count
    with as_files(pandas.DataFrame({"image": ["a.png", "b.png"], "split": "of mine"})) as (paths, _):
        assert paths == ("a.png", "b.png")

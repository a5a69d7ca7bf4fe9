"""Images and labels that a call in Python is given: lists, arrays, tables of pandas."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from gpt4image.base.errors import DataError
from gpt4image.data import NO_LABEL, load_dataset
from gpt4image.data.decode import decode
from gpt4image.data.given import FOLDER, as_files, dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


def test_arrays_and_pictures_are_one_dataset_with_the_digest_of_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
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
    code = f"from gpt4image.data import load_dataset; print(len(load_dataset({spec!r})))"
    worker = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert worker.stdout == "4\n", "a process that this one starts finds it"
    monkeypatch.delenv(FOLDER)  # as in another process
    with pytest.raises(DataError, match=rf"{spec} is data that a call in Python was given.*as data= again"):
        load_dataset(spec)
    assert dataset((PIXELS, labels)) == spec and len(load_dataset(spec)) == 4


def test_a_table_of_paths_stays_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    frame = pandas.DataFrame(
        {
            "path": ["0.png", "1.png", "gone.png", "3.png"],
            "label": ["cat", pandas.NA, "cat", "dog"],
            "split": ["train", "train", "train", "validation"],
            "photographer": "me",
        }
    )
    frame.loc[3, "label"] = "cat"
    images = load_dataset(dataset(frame))
    assert (images.keys, images.splits.tolist()) == (("0.png", "1.png", "3.png"), ["train", "train", "val"])
    assert images.labels.tolist() == [0, NO_LABEL, 0] and [Path(item.name).name for item in images.skipped] == [
        "gone.png"
    ]
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
        (([], None), "there are no images"),
        ((["a.png", 0.5], None), "image 1 is a float of float64"),
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
    with pytest.raises(DataError, match="The table has the columns photo"):
        as_files([pandas.DataFrame({"photo": ["a.png"]})]).__enter__()
    for image, count in ((PIXELS, 4), (PIXELS[0], 1), (Image.fromarray(PIXELS[0]), 1), ("photos/*.png", 1)):
        with as_files([image]) as (paths, _):
            assert len(paths) == count
    with as_files([pandas.DataFrame({"path": ["a.png", "b.png"], "photographer": "me"})]) as (paths, _):
        assert paths == ("a.png", "b.png")

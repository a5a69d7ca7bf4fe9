"""Class folders: what counts, what is named, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt4image.base.errors import DataError
from gpt4image.data import Dataset, load_dataset
from loaded_sets import aside, label_names, png, write_images


def load(root: Path) -> Dataset:
    return load_dataset(f"folder:{root}")


def test_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, "dog/1.PNG", "cat/1.png", "cat/deep/er/2.png", "unlabelled/x.png", "unlabeled/y.png")
    images = load(tmp_path)
    assert images.classes == ("cat", "dog") and set(images.splits.tolist()) == {"train"} and images.skipped == ()
    cats = dict.fromkeys(("cat/1.png", "cat/deep/er/2.png"), "cat")
    assert label_names(images) == cats | {"dog/1.PNG": "dog", "unlabelled/x.png": None, "unlabeled/y.png": None}
    assert images.read(0) == (tmp_path / images.keys[0]).read_bytes()


@pytest.mark.parametrize(
    ("split_of", "classes"),
    [
        (
            {
                **dict.fromkeys(("train/cat/1.png", "train/dog/1.png", "train/unlabelled/1.png"), "train"),
                **{"val/cat/1.png": "val", "valid/cat/1.png": "val", "test/dog/1.png": "test"},
            },
            ("cat", "dog"),
        ),
        ({"Train/cat/1.png": "train", "TEST/cat/1.png": "test"}, ("cat",)),
        ({"Training/cat/1.png": "train", "dev/cat/2.png": "val"}, ("cat",)),
        ({"cat/1.png": "train", "Test/cat/2.png": "test", "Unlabeled/2.png": "train"}, ("cat",)),
        ({"train/unlabelled/1.png": "train", "test/cat/2.png": "test"}, ("cat",)),
        ({"1.png": "train", "2.png": "train"}, ()),
        ({"test/cat/1.png": "test", "Val/dog/2.png": "val"}, ("cat", "dog")),
        ({"train/Caf\u00e9/1.png": "train", "train/x/2.png": "train", "test/Cafe\u0301/3.png": "test"}, ("Café", "x")),
    ],
)
def test_splits_may_be_written_with_capitals_and_lie_beside_the_classes(
    tmp_path: Path, split_of: dict[str, str], classes: tuple[str, ...]
) -> None:
    write_images(tmp_path, *split_of)
    images = load(tmp_path)
    assert dict(zip(images.keys, images.splits.tolist(), strict=True)) == split_of
    assert (images.classes, images.skipped) == (classes, ())


def test_hidden_files_are_ignored_other_kinds_counted_and_names_that_are_not_utf8_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, "Train/1.png", "Train/.2.png", ".cache/3.png", "Train/.git/4.png", "Train/notes.txt")
    write_images(tmp_path, "Train/old/2.png", "truck/a.svg", "truck/1.png")
    os.mkfifo(tmp_path / "truck" / "pipe.png")  # reading it would never end
    Path(os.fsdecode(os.fsencode(tmp_path / "truck") + b"/\xff.png")).write_bytes(png(1))
    (strange := tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (strange / "1.png").write_bytes(png(2))
    images = load(tmp_path)
    assert images.keys == ("Train/1.png", "Train/old/2.png", "truck/1.png")
    assert images.classes == ("Train", "truck"), "train may be a class"
    assert aside(images) == {
        "truck/\\xff.png": "its name is not valid UTF-8",
        "caf\\xe9": "its name is not valid UTF-8",
        "truck/pipe.png": "is not a file",
        "1 *.svg": "left out: pictures of this kind cannot be read: save them as JPEG or PNG",
    }


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_images(root, "cat/1.png", "dog/1.png")
    write_images(tmp_path, "outside/secret.png")
    (root / "cat" / "2.png").symlink_to(root / "dog" / "1.png")
    (root / "cat" / "out.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "cat" / "nothing.png").symlink_to(root / "absent.png")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "dog" / "far").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(root)
    assert load(tmp_path / "link").keys == load(root).keys, "the root itself may be a link"
    images = load(root)
    assert images.keys == ("cat/1.png", "cat/2.png", "dog/1.png")
    reasons = aside(images)
    links = {"cat/up", "cat/again", "dog/far"}
    assert reasons.keys() == {"cat/out.png", "cat/nothing.png", *links}
    assert {reasons[name] for name in links} == {"a link to a folder, which is not followed"}
    assert "leads out" in reasons["cat/out.png"]


@pytest.mark.parametrize("folders", [("train/images", "train/masks", "val/images"), ("Images", "Annotations/training")])
def test_folders_of_images_and_masks_are_no_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write_images(tmp_path, *(f"{folder}/1.png" for folder in folders))
    with pytest.raises(DataError, match=r"are no classes\. If these are images and masks, give masks:IMAGES,MASKS"):
        load(tmp_path)


@pytest.mark.parametrize("above", ["", "train/"])
def test_a_class_without_an_image_and_an_empty_folder_are_told(
    tmp_path: Path, above: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / above / "belt").mkdir(parents=True)
    with pytest.raises(DataError, match="it holds no image; put images into CLASS"):
        load(tmp_path)
    write_images(tmp_path, f"{above}cat/deep/1.png", f"{above}unlabelled/2.png")
    for name in (f"{above}.hidden", "val"):
        (tmp_path / name).mkdir()
    assert load(tmp_path).classes == ("cat",)
    assert f"no image lies in '{above}belt'" in capsys.readouterr().err


def test_images_outside_the_class_folders_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, "train/cat/1.png", "test/cat/1.png", "train/loose.png", "loose.png")
    write_images(tmp_path, "holdout/cat/1.png", "holdout/dog/deep/2.png", "extra/1.png")
    (tmp_path / "notes").mkdir()
    images = load(tmp_path)
    assert images.keys == ("test/cat/1.png", "train/cat/1.png")
    other = "is none of train, val, test and unlabelled; images left out with it: "
    loose = dict.fromkeys(("train/loose.png", "loose.png"), "lies outside the class folders")
    assert aside(images) == {"holdout": f"{other}2", "extra": f"{other}1", **loose}


def test_names_of_classes_that_differ_in_case_or_hyphens_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, "T-Shirt/1.png", "t shirt/1.png", "C/1.png", "C++/1.png")
    assert len(load(tmp_path).classes) == 4
    told = capsys.readouterr().err
    assert "'T-Shirt' and 't shirt' count as different classes" in " ".join(told.split()) and "C++" not in told

"""Class folders: what counts, what is named, what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt4image.base.errors import DataError
from gpt4image.data import Dataset, load_dataset
from loaded_sets import aside, label_names

Write = Callable[..., None]


def load(root: Path) -> Dataset:
    return load_dataset(f"folder:{root}")


def test_class_folders(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "dog/1.PNG", "cat/1.png", "cat/deep/er/2.png", "unlabelled/x.png", "unlabeled/y.png")
    images = load(tmp_path)
    assert images.classes == ("cat", "dog")
    assert label_names(images) == {
        "cat/1.png": "cat",
        "cat/deep/er/2.png": "cat",
        "dog/1.PNG": "dog",
        "unlabelled/x.png": None,
        "unlabeled/y.png": None,
    }
    assert set(images.splits.tolist()) == {"train"}
    assert images.read(0) == (tmp_path / images.keys[0]).read_bytes()
    assert images.skipped == ()


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders(tmp_path: Path, write_images: Write, val: str) -> None:
    write_images(
        tmp_path, "train/cat/1.png", "train/dog/1.png", "train/unlabelled/1.png", f"{val}/cat/1.png", "test/dog/1.png"
    )
    write_images(tmp_path, "unlabelled/2.png")
    images = load(tmp_path)
    assert dict(zip(images.keys, images.splits.tolist(), strict=True)) == {
        "train/cat/1.png": "train",
        "train/dog/1.png": "train",
        "train/unlabelled/1.png": "train",
        f"{val}/cat/1.png": "val",
        "test/dog/1.png": "test",
        "unlabelled/2.png": "train",
    }
    assert images.classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["train", "Train"])
def test_train_may_be_a_class(tmp_path: Path, write_images: Write, name: str) -> None:
    write_images(tmp_path, f"{name}/1.png", "truck/1.png", f"{name}/old/2.png")
    assert load(tmp_path).classes == (name, "truck")


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path: Path, write_images: Write, png: Callable[..., bytes]) -> None:
    write_images(tmp_path, "cat/1.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/\xff.png")).write_bytes(png(1))
    images = load(tmp_path)
    assert images.keys == ("cat/1.png",)
    assert aside(images) == {"cat/\\xff.png": "its name is not valid UTF-8"}


def test_hidden_files_are_ignored_and_other_kinds_counted(
    tmp_path: Path, write_images: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, "cat/1.png", "cat/.2.png", ".cache/3.png", "cat/.git/4.png", "cat/notes.txt", "cat/a.svg")
    os.mkfifo(tmp_path / "cat" / "pipe.png")  # reading it would never end
    images = load(tmp_path)
    assert images.keys == ("cat/1.png",)
    assert aside(images) == {
        "1 *.svg": "left out: pictures of this kind cannot be read: save them as JPEG or PNG",
    }
    assert "files left out, since they are no images: 1 .txt." in " ".join(capsys.readouterr().err.split())


def test_links(tmp_path: Path, write_images: Write) -> None:
    root = tmp_path / "root"
    write_images(root, "cat/1.png", "dog/1.png")
    write_images(tmp_path, "outside/secret.png")
    (root / "cat" / "2.png").symlink_to(root / "dog" / "1.png")
    (root / "cat" / "out.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "cat" / "nothing.png").symlink_to(root / "absent.png")
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "dog" / "far").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(root)
    assert load(tmp_path / "link").keys == load(root).keys, "the root itself may be a link"
    images = load(root)
    assert images.keys == ("cat/1.png", "cat/2.png", "dog/1.png")
    reasons = aside(images)
    assert set(reasons) == {"cat/out.png", "cat/nothing.png", "cat/self.png", "cat/up", "cat/again", "dog/far"}
    assert "leads out" in reasons["cat/out.png"]
    assert "leads out" in reasons["dog/far"]
    assert "cannot be followed: No such file" in reasons["cat/nothing.png"]
    assert "read already" in reasons["cat/again"]


def test_links_across_many_folders_end(tmp_path: Path, write_images: Write) -> None:
    names = [f"c{i}" for i in range(12)]
    write_images(tmp_path, *(f"{name}/1.png" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / other).symlink_to(tmp_path / other)
    assert len(load(tmp_path)) == 12 * 12  # each class reads each real folder once


def test_images_outside_the_class_folders_are_named(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "train/cat/1.png", "test/cat/1.png", "train/loose.png", "loose.png")
    images = load(tmp_path)
    assert images.keys == ("test/cat/1.png", "train/cat/1.png")
    assert set(aside(images)) == {"train/loose.png", "loose.png"}


def test_a_folder_beside_train_that_is_no_split_is_named_with_its_images(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "train/cat/1.png", "holdout/cat/1.png", "holdout/dog/deep/2.png", "extra/1.png")
    (tmp_path / "notes").mkdir()
    images = load(tmp_path)
    assert images.keys == ("train/cat/1.png",)
    assert aside(images) == {
        "holdout": "is none of train, val, test and unlabelled; images left out with it: 2",
        "extra": "is none of train, val, test and unlabelled; images left out with it: 1",
    }


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/cat/1.png", "Test/cat/1.png"], {"train/cat/1.png": "train", "Test/cat/1.png": "test"}),
        (["Train/cat/1.png", "TEST/cat/1.png"], {"Train/cat/1.png": "train", "TEST/cat/1.png": "test"}),
        (["cat/1.png", "Unlabeled/2.png"], {"cat/1.png": "train", "Unlabeled/2.png": "train"}),
        (["Training/cat/1.png", "dev/cat/2.png"], {"Training/cat/1.png": "train", "dev/cat/2.png": "val"}),
        (["cat/1.png", "Test/cat/2.png"], {"cat/1.png": "train", "Test/cat/2.png": "test"}),
        (["train/unlabelled/1.png", "test/cat/2.png"], {"train/unlabelled/1.png": "train", "test/cat/2.png": "test"}),
    ],
)
def test_splits_may_be_written_with_capitals_and_lie_beside_the_classes(
    tmp_path: Path, write_images: Write, names: list[str], splits: dict[str, str]
) -> None:
    write_images(tmp_path, *names)
    images = load(tmp_path)
    assert dict(zip(images.keys, images.splits.tolist(), strict=True)) == splits
    assert set(images.classes) <= {"cat", "dog"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog/1.png", "test/bird/2.png"], "train lacks the class of 'test/bird'"),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/bird/1.png"],
            "train lacks the class of 'test/bird'.*'cat'",
        ),
        (["val/cat/1.png", "test/cat/1.png"], "no class folders in train"),
        (["train/1.png", "test/2.png"], "no class folders in train"),
        (["cat/1.png", "text/notes.txt"], "no images in class folder 'text'"),
    ],
)
def test_what_cannot_be_splits_or_classes_is_refused(
    tmp_path: Path, write_images: Write, names: list[str], message: str
) -> None:
    write_images(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_images_without_folders_have_no_label(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "1.png", "2.png", ".hidden/3.png")
    images = load(tmp_path)
    assert images.keys == ("1.png", "2.png")
    assert (images.classes, set(images.splits), images.labelled.any()) == ((), {"train"}, False)
    assert images.skipped == ()


def test_folders_that_may_be_splits_are_noted(
    tmp_path: Path, write_images: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "1", *(f"{top}/{below}/1.png" for top in "ab" for below in "xy"), "unlabelled/1.png")
    write_images(tmp_path / "2", "a/images/1.png", "b/images/1.png")  # as in Tiny ImageNet
    write_images(tmp_path / "3", "a/x/1.png", "a/y/1.png", "b/x/1.png", "b/y/1.png", "test/1.png")
    for number in "123":
        load(tmp_path / number)
    assert capsys.readouterr().err == (
        f"Note: folder:{tmp_path / '1'} has the classes 'a', 'b', and in each of them are the folders 'x', 'y'; if "
        "these are the classes, those are splits: call them train, val and test.\n"
        f"Note: folder:{tmp_path / '3'}: 'test' holds images, not class folders, and is taken for a class.\n"
    )


def test_a_class_is_one_however_its_accents_are_stored(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "train/Caf\u00e9/1.png", "train/x/2.png", "test/Cafe\u0301/3.png")
    images = load(tmp_path)
    assert images.classes == ("Caf\u00e9", "x")
    assert [images.read(i) for i in range(3)] and images.labels.tolist() == [0, 0, 1]


def test_the_order_is_that_of_image_folder(tmp_path: Path, write_images: Write) -> None:
    """Lists that others released follow torchvision's ImageFolder; theirs sorts folders by path, not by depth."""
    from torchvision.datasets import ImageFolder

    names = ["a", "a b", "a-b", "a.b", "A", "10", "9", "é", "a/b", "a b/c", "a/b-c/d", "a/b/c", "z!/z", "z"]
    files = ["10.png", "9.png", "B.PNG", "a.png", "ä.jpg", "-.bmp"]
    paths = [f"class {n % 3}/{name}/{file}" for n, name in enumerate(names) for file in files]
    write_images(tmp_path, *paths, *(f"class {n}/{file}" for n in range(3) for file in files))
    expected = [os.path.relpath(path, tmp_path) for path, _ in ImageFolder(str(tmp_path)).samples]
    assert list(load(tmp_path).keys) == expected
    assert load(tmp_path).labels.tolist() == ImageFolder(str(tmp_path)).targets

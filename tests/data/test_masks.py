"""Folders of images and masks: pairs, classes, tags, what is dropped and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.errors import DataError
from gpt4image.data import load_dataset
from gpt4image.data.regions import VOID
from region_cases import SIZE, aside_text, mask_bytes, masks, write_pairs

NUMBERS = np.zeros((SIZE[1], SIZE[0]), np.uint8)
NUMBERS[5:15, 5:20] = 2
NUMBERS[0, 0] = VOID


def write(root: Path, classes: str | None = "background\nskin\nhat\n", **found: bytes | None) -> Path:
    write_pairs(root, "images/{}.jpg", "masks/{}.png", found)
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def test_masks_tags_and_images_of_which_nothing_is_known(tmp_path: Path) -> None:
    mask = mask_bytes(NUMBERS)
    tagged: dict[str, bytes | None] = {f"tagged_{number}": None for number in range(3, 8)}
    root = write(tmp_path, train_1=mask, test_2=mask, **tagged)
    tags = "3,hat|skin\nimages/tagged/4.jpg,|\n5,\n1,skin\nnone,hat\n6,coat\n7,hat|skn\nimages/tagged/3.jpg,skin\n"
    (root / "tags.csv").write_text(f"key,tags\n{tags}")
    images = load_dataset(str(root))
    assert images.spec == f"masks:{root}" and images.classes == ("background", "skin", "hat")
    assert dict(zip(images.keys, images.labels.tolist(), strict=True)) == {
        "images/train/1.jpg": [1, 0, 1],
        "images/test/2.jpg": [1, 0, 1],
        "images/tagged/3.jpg": [-1, 1, 1],
        "images/tagged/4.jpg": [-1, 0, 0],
        "images/tagged/5.jpg": [-1, -1, -1],
        "images/tagged/6.jpg": [-1, -1, -1],
        "images/tagged/7.jpg": [-1, -1, 1],  # a misspelt tag makes no class absent
    }
    assert dict(zip(images.keys, images.splits.tolist(), strict=True))["images/test/2.jpg"] == "test"
    found, text = masks(images), aside_text(images)
    assert found.known.sum() == 2
    row = images.keys.index("images/train/1.jpg")
    assert np.array_equal(found.source.read(int(found.rows[row])), NUMBERS)
    assert "its key is of no image, of several, or comes again: 'tags.csv, row 5', 'tags.csv, row 8'" in text
    assert "a tag is no class: \"6: 'coat'\", \"7: 'skn'\"" in text


def test_two_folders_and_masks_without_names(tmp_path: Path) -> None:
    found = {"_1": mask_bytes(NUMBERS), "_2": mask_bytes(np.where(NUMBERS == 2, 3, 0).astype(np.uint8)), "_3": None}
    write(tmp_path, None, **found)
    (tmp_path / "masks").rename(tmp_path / "seg")
    images = load_dataset(f"masks:{tmp_path / 'images'},{tmp_path / 'seg'}")
    assert images.classes == ("0", "1", "2", "3")
    assert images.labels.tolist() == [[1, 0, 1, 0], [1, 0, 0, 1], [-1] * 4]


def test_lists_of_voc_say_the_splits_of_masks(tmp_path: Path) -> None:
    found = {**dict.fromkeys(("_a", "_b", "_c"), mask_bytes(NUMBERS)), "_d": None}
    write_pairs(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", found)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\nc\nd\n")
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir()
    for name, text in (("trainval", "a\nb\n"), ("train", "a\n"), ("val", "b\n")):
        (lists / f"{name}.txt").write_text(text)
    images = load_dataset(f"masks:{tmp_path}")
    splits = {Path(key).stem: split for key, split in zip(images.keys, images.splits.tolist(), strict=True)}
    assert splits == {"a": "train", "b": "val", "d": "train"}, "d has no mask and is in no list: unlabelled"
    assert masks(images).known.tolist() == [name != "d" for name in splits]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(("classes.txt", text, "give 2 to 255 class names") for text in ("a\n", "a\na\n", "a\n\nb\n")),
        ("classes.txt", "\n".join(map(str, range(256))), "give 2 to 255 class names"),
        ("tags.csv", "name;tags\n", r"first line of tags.csv is 'name;tags'; it must be 'key,tags'"),
        ("masks/1.png", "no picture", r"no image has a mask that can be used.*not an image"),
    ],
)
def test_wrong_files_of_a_set(tmp_path: Path, name: str, content: str, message: str) -> None:
    write(tmp_path, _1=mask_bytes(NUMBERS))
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load_dataset(f"masks:{tmp_path}")


@pytest.mark.parametrize("classes", [None, "back\nfront\n"])
def test_black_and_white_masks_have_two_classes(tmp_path: Path, classes: str | None) -> None:
    write(tmp_path, classes, _1=mask_bytes(np.where(NUMBERS == 2, 255, 0).astype(np.uint8)))
    images = load_dataset(f"masks:{tmp_path}")
    assert images.classes == (("background", "foreground") if classes is None else ("back", "front"))
    assert images.labels.tolist() == [[1, 1]]
    assert set(np.unique(masks(images).pixels(20)).tolist()) == {0, 1}


def test_masks_that_cannot_be_used_are_named_and_cost_nothing_else(tmp_path: Path) -> None:
    good = mask_bytes(NUMBERS)
    bad: dict[str, bytes | None] = {
        "_2": mask_bytes(NUMBERS[:10]),
        "_3": good[:50],
        "_4": mask_bytes(np.full(NUMBERS.shape, 7, np.uint8)),
        "_5": mask_bytes(NUMBERS, "RGB", "JPEG"),
        "_6": mask_bytes(np.random.default_rng(0).integers(0, 255, (*NUMBERS.shape, 3), dtype=np.uint8), "RGB"),
        "_7": mask_bytes(np.full(NUMBERS.shape, 1000, np.uint16), "I;16"),
        "_8": b"",
    }
    root = write(tmp_path, _1=good, **bad)
    (root / "masks/99.png").write_bytes(good)
    (root / "masks/3.png").rename(root / "masks/sub.png")
    (root / "masks/3.png").symlink_to("/etc/passwd")
    images = load_dataset(f"masks:{root}")
    assert masks(images).known.tolist() == [True, *[False] * 7]
    assert (images.labels[1:] == -1).all()
    text = aside_text(images)
    for part in (
        "another size than its picture: 'images/2.jpg'",
        "leads out of the folder of the dataset",
        "numbers above 2, such as 7, that have no class: 'images/4.jpg'",
        "a mask in JPEG",
        "a mask of colours",
        "a mask with the number 1000",
        "the file is empty",
        "there is no image of its name: 'masks/99.png', 'masks/sub.png'",
    ):
        assert part in text, text

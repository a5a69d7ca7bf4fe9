"""Folders in the layout of Pascal VOC: pairs, splits, what is dropped and named, XML that attacks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpt4image.data import load_dataset
from gpt4image.data.voc import parse_xml
from region_cases import SIZE, aside_text, boxes, picture, rows, write_pairs


def thing(name: str = "cat", box: tuple[object, ...] = (11, 6, 30, 15), more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True) if box else ()
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def document(*objects: str, size: tuple[object, object] = SIZE, filename: str = "") -> str:
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{stated}{''.join(objects)}</annotation>"


def write(root: Path, **documents: str | None) -> Path:
    return write_pairs(root, "JPEGImages/{}.png", "Annotations/{}.xml", documents)


def test_boxes_difficult_objects_and_images_without_a_file(tmp_path: Path) -> None:
    hard = thing("dog", (1, 1, 40, 20), "<difficult>1</difficult>")
    root = write(tmp_path, a=document(thing(), hard), b=document(), c=None)
    images = load_dataset(str(root))
    assert images.spec == f"voc:{root}" and images.classes == ("cat", "dog")
    assert rows(images) == {
        "JPEGImages/a.png": [("cat", (10, 5, 30, 15), 1), ("dog", (0, 0, 40, 20), 0)],
        "JPEGImages/b.png": [],
        "JPEGImages/c.png": None,
    }
    assert images.skipped == ()
    write(tmp_path / "zero", a=document(thing(box=(0, 0, 10.5, 20)), thing(box=(10, 5, 30, 15))))
    boxes_from_zero = rows(load_dataset(f"voc:{tmp_path / 'zero'}"))["JPEGImages/a.png"]
    assert boxes_from_zero == [("cat", (0, 0, 10.5, 20), 1), ("cat", (10, 5, 30, 15), 1)]


def test_lists_say_the_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, **{name: document(thing()) for name in "abcd"}, e=None)
    lists = {"trainval": "a\nb\n", "train": "a\n", "val": "b.png\n", "test": "c 1\nc\nmissing\n", "cat_train": "d 1\n"}
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Segmentation").mkdir()
    (root / "ImageSets/Segmentation/train.txt").write_text("c\n")
    for name, text in lists.items():
        (root / f"ImageSets/Main/{name}.txt").write_text(text)
    images = load_dataset(f"voc:{root}")
    splits = dict(zip(images.keys, images.splits.tolist(), strict=True))
    expected = {"a": "train", "b": "val", "c": "test", "e": "train"}
    assert splits == {f"JPEGImages/{name}.png": split for name, split in expected.items()}
    assert "missing is in a list, but has no image" in aside_text(images)
    assert "1 annotated images are in no list of ImageSets" in " ".join(capsys.readouterr().err.split())


def test_other_layouts(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / f"flat/{split}/1.png")
        (tmp_path / f"flat/{split}/1.xml").write_text(document(thing("a" if split == "train" else "b")))
    picture(tmp_path / "flat/train/2.png")
    (tmp_path / "flat/train/2.xml").write_text(document(thing("b")))
    images = load_dataset(f"voc:{tmp_path / 'flat'}")
    assert images.splits.tolist() == ["train", "train", "val"]
    assert [images.label_names(row) for row in range(3)] == [("a",), ("b",), ("b",)]
    picture(tmp_path / "named/images/x.png")
    picture(tmp_path / "named/masks/x.png")
    (tmp_path / "named/annotations").mkdir()
    (tmp_path / "named/annotations/5.xml").write_text(document(thing(), filename="C:\\pictures\\x.png"))
    images = load_dataset(f"voc:{tmp_path / 'named'}")
    assert images.keys == ("images/x.png",) and len(boxes(images).labels) == 1


def test_a_file_is_never_paired_with_an_image_of_another_split_or_of_a_folder_with_its_own(tmp_path: Path) -> None:
    for name in ("train/1", "train/2", "valid/1", "b/3", "train/4", "test/4"):
        picture(tmp_path / f"{name}.png")
    for name in ("train/1", "train/2", "valid/1", "b/3"):
        (tmp_path / f"{name}.xml").write_text(document(thing("right")))
    (tmp_path / "a").mkdir()
    for name in ("a/3", "test/2", "4"):  # a/3.png and test/2.png are missing
        (tmp_path / f"{name}.xml").write_text(document(thing("wrong")))
    images = load_dataset(f"voc:{tmp_path}")
    assert images.classes == ("right",) and len(boxes(images).labels) == 4
    text = aside_text(images)
    assert "there is no image of its name: 'test/2.xml'" in text
    assert "its image has another file: 'a/3.xml'" in text
    assert "several images have its name: '4.xml'" in text


def test_wrong_objects_sizes_and_files_are_named_and_cost_nothing_else(tmp_path: Path) -> None:
    bad = [thing(box=()), "<object><name>cat</name></object>", "<object><bndbox/></object>", thing(box=(12, 9, 12, 9))]
    bad += [thing(box=("x", 5, 10, 15)), thing()]
    root = write(
        tmp_path,
        a=document(thing(), *bad),
        b=document(thing(), size=(20, 40)),
        c=document(thing(box=(21, 11, 60, 30)), size=(80, 40)),
        d=document(thing(), size=("?", 0)),
        e=document(thing())[:-5],
        f="<!DOCTYPE a [<!ENTITY x 'y'>]>" + document(thing("&x;")),
        h="<svg/>",
        i=document(thing()).replace("annotation>", "doc>"),  # some tools have a root of their own
    )
    (root / "Annotations/g.xml").write_text(document(thing()))
    images = load_dataset(f"voc:{root}")
    usual = [("cat", (10, 5, 30, 15), 1)]
    expected = {name: None if name in "efh" else usual for name in "abcdefhi"}
    assert rows(images) == {f"JPEGImages/{name}.png": found for name, found in expected.items()}
    text = aside_text(images)
    for part in (
        "it has no name: 'JPEGImages/a.png, object 4'",
        "the box has no area: xmax <= xmin or ymax <= ymin",
        "a coordinate is missing or no number: 'JPEGImages/a.png, object 2', 'JPEGImages/a.png, object 3'",
        "listed twice",
        "it is no XML",
        "it has a document type",
        "there is no image of its name: 'Annotations/g.xml'",
        "its root is <svg>, and an XML file of VOC has <annotation>: 'Annotations/h.xml'",
    ):
        assert part in text, text


BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
) + "]><annotation><object><name>&j;</name></object></annotation>"  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
        '<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd"><annotation/>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://localhost:9/a">%p;]><annotation/>',
        "<annotation>&undefined;</annotation>",
        "<a>" * 100_000,
        "<a/><b/>",
        "",
        '<?xml version="1.0" encoding="nonsense"?><a/>',
    ],
)
def test_xml_that_attacks_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"document type|no XML"):
        parse_xml(text.encode())
    assert time.process_time() - start < 1

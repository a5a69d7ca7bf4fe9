import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import Dataset, MemorySource, load_dataset
from gpt4image.reviewing.labels_file import LabelsFile, Mark
from reviewing.hostile_names import HOSTILE
from worlds import in_memory

CAT, DOG, UNSURE = Mark("cat", "checked"), Mark("dog", "checked"), Mark("", "unsure")


def sitting(path: Path, images: Dataset | Path, marks: Mapping[int | str, Mark] | None = None) -> dict[str, Mark]:
    """Open the file, give marks by row or key, and close it; return what it said of each image when it was opened."""
    images = load_dataset(f"folder:{images}") if isinstance(images, Path) else images
    file = LabelsFile(path, images)
    found = {key: file[row] for row, key in enumerate(images.keys)}
    if marks:
        file.set({images.keys.index(row) if isinstance(row, str) else row: mark for row, mark in marks.items()})
    file.close()
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def labels_by_digest(path: Path) -> dict[str, str]:
    images = load_dataset(f"manifest:{path}")
    return {digest: "".join(images.label_names(row)) for row, digest in enumerate(images.digests)}


def without_digests(path: Path) -> None:
    rows = [row[:-1] for row in csv.reader(path.read_text(encoding="utf-8").splitlines())]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_labels_are_on_disk_when_set_returns_no_cell_is_a_formula_and_all_are_read_again(pictures: Path) -> None:
    images, path, key = load_dataset(f"folder:{pictures}"), pictures / "labels.csv", f"unlabelled/{HOSTILE[0]}"
    file, formula = LabelsFile(path, images), "=cmd|' /C calc'!A0, really"
    file.set({images.keys.index(key): Mark(formula, "checked"), 0: UNSURE, 2: Mark("+1, really", "")})
    with path.open(encoding="utf-8", newline="") as lines:
        assert not [cell for row in csv.reader(lines) for cell in row if cell.startswith(("=", "+", "-", "@"))]
    read = load_dataset(f"manifest:{path}")
    assert read.label_names(read.keys.index(key)) == (formula,) and read.label_names(0) == ()
    assert read.label_names(2) == ("+1, really",)
    with pytest.raises(ConfigError, match=r"is written by another process \(id \d+\): go on there"):
        LabelsFile(path, images)
    file.close()
    again = sitting(path, images)
    assert (again[key], again[images.keys[0]], again[images.keys[1]]) == (
        Mark(formula, "checked"), UNSURE, Mark("cat", "")
    )  # fmt: skip


def test_the_label_of_a_picture_whose_key_another_has_is_kept_and_comes_back(pictures: Path, tmp_path: Path) -> None:
    path, key, photo = tmp_path / "labels.csv", "unlabelled/5.png", pictures / "unlabelled" / "5.png"
    sitting(path, pictures, {key: DOG})
    before = photo.read_bytes()
    photo.write_bytes(before + b"another")
    assert [sitting(path, pictures)[key] for _ in range(2)] == [Mark()] * 2
    assert "dog" not in labels_by_digest(path)[load_dataset(f"folder:{pictures}").digests[-1]]
    photo.write_bytes(before)
    assert sitting(path, pictures)[key] == DOG
    assert len(rows_of(path)) == 11
    photo.unlink()
    sitting(path, pictures)
    photo.write_bytes(before)
    assert sitting(path, pictures)[key] == DOG, "rows of images that are gone are kept"


def test_a_moved_file_keeps_what_a_person_said_and_gets_the_class_of_its_new_folder(
    pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    sitting(path, pictures, {"cat/0.png": CAT})
    for name in ("0.png", "1.png"):
        (pictures / "cat" / name).rename(pictures / "dog" / name)
    found = sitting(path, pictures)
    assert (found["dog/0.png"], found["dog/1.png"]) == (CAT, Mark("dog", ""))


def test_pictures_that_were_all_saved_anew_are_told_and_can_be_found_by_their_names(
    pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    sitting(path, pictures, {"cat/0.png": DOG})
    before = path.read_bytes()
    for picture in pictures.rglob("*.png"):
        picture.write_bytes(picture.read_bytes() + b"anew")
    with pytest.raises(DataError, match=r"none of its images is there\. .*saved anew, remove the column 'digest'"):
        sitting(path, pictures)
    assert path.read_bytes() == before
    without_digests(path)
    assert sitting(path, pictures)["cat/0.png"] == DOG
    assert {row["digest"] for row in rows_of(path)} == {*load_dataset(f"folder:{pictures}").digests}


class _Unplugged(MemorySource):
    """Images of a disk that is not there now."""

    def read(self, row: int) -> bytes:
        raise OSError(5, "Input/output error")


def test_a_label_stays_while_its_image_cannot_be_read(pictures: Path, tmp_path: Path) -> None:
    contents = [(pictures / "cat" / f"{number}.png").read_bytes() for number in range(3)]
    path, copies = tmp_path / "labels.csv", tmp_path / "labels.images"
    images = in_memory(contents, [-1, -1, -1], spec="hf:x")
    sitting(path, images, {0: CAT, 1: UNSURE})
    for copy in copies.iterdir():
        copy.unlink()
    assert images.digests  # known from before
    file = LabelsFile(path, images.revised(source=_Unplugged(contents)))
    assert [item.name for item in file.skipped] == ["k0", "k1", "k2"]
    file.set({2: Mark("", "")})
    file.close()
    assert [row["key"] for row in rows_of(path)] == ["k0", "k1"]
    assert list(sitting(path, images).values()) == [CAT, UNSURE, Mark()]
    assert set(labels_by_digest(path).values()) == {"cat", ""}
    before = path.read_bytes()
    for copy in copies.iterdir():
        copy.unlink()
    copies.rmdir()
    copies.touch()
    with pytest.raises(OSError, match=r"labels\.images"):
        sitting(path, images)
    assert path.read_bytes() == before, "a folder that cannot be written loses no label"


def test_images_that_are_no_files_are_written_beside_the_labels(pictures: Path, tmp_path: Path) -> None:
    contents = [(pictures / "cat" / f"{number}.png").read_bytes() for number in (0, 1, 0)]
    images = in_memory(contents, [0, -1, -1], spec="hf:x", classes=("cat",), keys=("a.png", "../../b", "c"))
    file = LabelsFile(tmp_path / "own" / "labels.csv", images)
    assert file.copies == [[0, 2], [1]]
    file.close()
    read = load_dataset(f"manifest:{tmp_path / 'own' / 'labels.csv'}")
    assert (read.keys, read.digests) == (images.keys, images.digests)
    assert {path.parent for path in (tmp_path / "own").rglob("*.png")} == {tmp_path / "own" / "labels.images"}


def test_what_may_not_be_replaced_is_refused(pictures: Path, colour_folder: Path, tmp_path: Path) -> None:
    images, path = load_dataset(f"folder:{pictures}"), tmp_path / "labels.csv"
    path.write_text("path,label\nphotos/cat/0.png,cat\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"not written by review of these images, by its columns \('key', "):
        LabelsFile(path, images)
    for column, row, message in [
        ("label", "cat,train,1", "review is '1' for 'cat/0.png'"),
        ("boxes", "cat,train,", "'cat' of 'cat/0.png' is no label for detection"),
    ]:
        path.write_text(
            f"path,key,{column},split,review,sampled\nphotos/cat/0.png,cat/0.png,{row},\n", encoding="utf-8"
        )
        with pytest.raises(DataError, match=message):
            LabelsFile(path, images, "detection" if column == "boxes" else None)
    path.unlink()
    sitting(path, colour_folder)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"is of other images than folder:"):
        LabelsFile(path, images)
    assert path.read_bytes() == before and len(rows_of(path)) == 48


def test_images_elsewhere_are_refused_with_a_place_that_works(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images lie elsewhere, such as .*; give a file there: --labels ") as refused:
        sitting(tmp_path / "other" / "labels.csv", pictures)
    sitting(Path(str(refused.value).rpartition("--labels ")[2]), pictures)


def test_what_another_program_writes_meanwhile_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    path, images, key = tmp_path / "labels.csv", load_dataset(f"folder:{pictures}"), "unlabelled/5.png"
    file = LabelsFile(path, images)
    file.set({0: DOG})
    edited = path.read_text(encoding="utf-8").replace(f"{key},,train,", f"{key},owl,train,")
    path.write_text(edited, encoding="utf-8")
    with pytest.raises(ConfigError, match="was changed by another program, and would be overwritten"):
        file.set({1: DOG})
    assert file[1] == Mark("cat", "") and path.read_text(encoding="utf-8") == edited
    file.close()
    assert sitting(path, images)[key] == Mark("owl")
    again = LabelsFile(path, images)
    path.unlink()
    again.set({2: DOG})
    assert len(rows_of(path)) == len(images), "nothing is overwritten where the file is gone"
    again.close()


@pytest.mark.parametrize("names", [("10", "20", "30"), ("1", "2", "3"), ("0", "1", "2"), ("7", "cat"), ("0", "1", "3")])
def test_class_folders_with_numbers_as_names_keep_their_names(
    pictures: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    for number, name in enumerate(names):
        (tmp_path / "numbers" / name).mkdir(parents=True)
        content = (pictures / "cat" / "0.png").read_bytes() + bytes([number])
        (tmp_path / "numbers" / name / "1.png").write_bytes(content)
    images = load_dataset(f"folder:{tmp_path / 'numbers'}")
    sitting(tmp_path / "labels.csv", images)
    read = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert (read.classes, read.labels.tolist()) == (names, images.labels.tolist())

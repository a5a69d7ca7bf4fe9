from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import Dataset, MemorySource, load_dataset
from gpt4image.reviewing.labels_file import LabelsFile, Mark
from hostile_names import HOSTILE
from loaded_sets import in_memory


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_is_a_manifest_of_all_images_with_the_labels_of_the_dataset(pictures: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{pictures}")
    LabelsFile(tmp_path / "labels.csv", images).close()
    read = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert read.keys == images.keys
    assert read.digests == images.digests
    assert [read.label_names(i) for i in range(len(read))] == [images.label_names(i) for i in range(len(images))]
    assert {f"unlabelled/{name}" for name in HOSTILE} < set(read.keys)


def test_labels_are_on_disk_when_set_returns_and_are_read_again(pictures: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{pictures}")
    row = images.keys.index(f"unlabelled/{HOSTILE[0]}")
    file = LabelsFile(tmp_path / "labels.csv", images)
    file.set({row: Mark("+1, really", "checked"), 0: Mark("", "unsure")})
    read = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert read.label_names(read.keys.index(images.keys[row])) == ("+1, really",)
    assert read.label_names(0) == ()
    file.close()
    again = LabelsFile(tmp_path / "labels.csv", images)
    assert (again[row], again[0], again[1]) == (Mark("+1, really", "checked"), Mark("", "unsure"), Mark("cat", ""))
    assert again.labels() == ["+1, really", "cat", "dog"]
    again.close()


def saved(contents: Sequence[bytes], path: Path) -> Dataset:
    """A dataset whose keys are row numbers."""
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": content, "path": None} for content in contents]}), path)
    return load_dataset(f"hf:{path}")


def labels_by_digest(path: Path) -> dict[str, str]:
    images = load_dataset(f"manifest:{path}")
    return {digest: "".join(images.label_names(row)) for row, digest in enumerate(images.digests)}


def without_digests(path: Path) -> None:
    """Make the file one of an earlier version."""
    rows = [row[:5] for row in csv.reader(path.read_text(encoding="utf-8").splitlines())]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.mark.parametrize("earlier", [False, True])
def test_labels_follow_their_pictures_where_keys_are_row_numbers(pictures: Path, tmp_path: Path, earlier: bool) -> None:
    red, blue, green, new = ((pictures / "cat" / "0.png").read_bytes() + bytes([number]) for number in range(4))
    path = tmp_path / "own" / "labels.csv"
    file = LabelsFile(path, saved([red, blue, green], tmp_path / "own" / "rows.parquet"))
    file.set({0: Mark("red", "checked"), 1: Mark("blue", "checked"), 2: Mark("", "unsure")})
    file.close()
    if earlier:
        without_digests(path)
    images = saved([new, red, blue, green, red], tmp_path / "own" / "rows.parquet")
    file = LabelsFile(path, images)
    told = [file[row] for row in range(5)]
    file.close()
    assert told == [Mark(), *(Mark(name, "checked") for name in ("red", "blue")), Mark("", "unsure"), told[1]]
    assert labels_by_digest(path) == dict(zip(images.digests, ("", "red", "blue", "", "red"), strict=True))


def test_the_label_of_a_picture_whose_key_another_has_is_kept_and_comes_back(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, photo, other = tmp_path / "labels.csv", pictures / "unlabelled" / "5.png", pictures / "cat" / "1.png"
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    row = file.images.keys.index("unlabelled/5.png")
    file.set({row: Mark("dog", "checked")})
    file.close()
    before = photo.read_bytes()
    photo.write_bytes(other.read_bytes() + b"another")
    for _ in range(2):
        file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
        assert file[row] == Mark()
        file.close()
    said = capsys.readouterr().err
    assert "no longer has: 1, such as 'unlabelled/5.png'" in said
    assert "dog" not in {labels_by_digest(path)[file.images.digests[row]]}
    photo.write_bytes(before)
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    assert file[row] == Mark("dog", "checked")
    file.close()
    assert len(rows_of(path)) == len(file.images)


def test_a_moved_file_keeps_what_a_person_said_and_gets_the_class_of_its_new_folder(
    pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    file.set({file.images.keys.index("cat/0.png"): Mark("cat", "checked")})
    file.close()
    for name in ("0.png", "1.png"):
        (pictures / "cat" / name).rename(pictures / "dog" / name)
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    moved = [file[file.images.keys.index(f"dog/{name}")] for name in ("0.png", "1.png")]
    file.close()
    assert moved == [Mark("cat", "checked"), Mark("dog", "")]


def test_a_file_of_an_earlier_version_is_read_by_key(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    file.set({0: Mark("dog", "checked")})
    file.close()
    without_digests(path)
    assert "digest" not in rows_of(path)[0]
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    assert file[0] == Mark("dog", "checked")
    file.close()
    assert [row["digest"] for row in rows_of(path)] == list(file.images.digests)


def test_pictures_that_were_all_saved_anew_are_told_and_can_be_found_by_their_names(
    pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    file.set({0: Mark("dog", "checked")})
    file.close()
    before = path.read_bytes()
    for picture in pictures.rglob("*.png"):
        picture.write_bytes(picture.read_bytes() + b"anew")
    with pytest.raises(DataError, match=r"none of its images is there\. .*saved anew, remove the column 'digest'"):
        LabelsFile(path, load_dataset(f"folder:{pictures}"))
    assert path.read_bytes() == before
    without_digests(path)
    file = LabelsFile(path, load_dataset(f"folder:{pictures}"))
    assert file[0] == Mark("dog", "checked")
    file.close()


class _Unplugged(MemorySource):
    """Images of a disk that is not there now."""

    def read(self, row: int) -> bytes:
        raise OSError(5, "Input/output error")


def test_a_label_stays_while_its_image_cannot_be_read(pictures: Path, tmp_path: Path) -> None:
    contents = [(pictures / "cat" / f"{number}.png").read_bytes() for number in range(3)]
    path = tmp_path / "labels.csv"
    images = in_memory(contents, [-1, -1, -1], spec="hf:x")
    file = LabelsFile(path, images)
    file.set({0: Mark("cat", "checked"), 1: Mark("", "unsure")})
    file.close()
    for copy in (tmp_path / "labels.images").iterdir():
        copy.unlink()
    file = LabelsFile(path, in_memory(contents, [-1, -1, -1], spec="hf:x", source=_Unplugged(contents)))
    assert [item.name for item in file.skipped] == ["k0", "k1", "k2"]
    file.set({2: Mark("", "")})
    file.close()
    assert [row["key"] for row in rows_of(path)] == ["k0", "k1"]
    file = LabelsFile(path, images)
    assert [file[row] for row in range(3)] == [Mark("cat", "checked"), Mark("", "unsure"), Mark()]
    file.close()
    assert set(labels_by_digest(path).values()) == {"cat", ""}


def test_a_folder_that_cannot_be_written_is_an_error_and_no_label_is_lost(pictures: Path, tmp_path: Path) -> None:
    path, images = tmp_path / "labels.csv", in_memory([(pictures / "cat" / "0.png").read_bytes()], [-1], spec="hf:x")
    file = LabelsFile(path, images)
    file.set({0: Mark("cat", "checked")})
    file.close()
    before = path.read_bytes()
    for copy in (tmp_path / "labels.images").iterdir():
        copy.unlink()
    (tmp_path / "labels.images").rmdir()
    (tmp_path / "labels.images").touch()
    with pytest.raises(OSError, match=r"labels\.images"):
        LabelsFile(path, images)
    assert path.read_bytes() == before


def test_no_cell_is_a_formula(pictures: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{pictures}")
    file = LabelsFile(pictures / "labels.csv", images)
    file.set({row: Mark("=cmd|' /C calc'!A0", "checked") for row in range(len(images))})
    file.close()
    with (pictures / "labels.csv").open(encoding="utf-8", newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert load_dataset(f"manifest:{pictures / 'labels.csv'}").classes == ("=cmd|' /C calc'!A0",)


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
    with pytest.raises(DataError, match=r"not written by review of these images, as it has no column 'key'"):
        LabelsFile(path, images)
    with pytest.raises(ConfigError, match=r"is the file that --data reads"):
        LabelsFile(path, load_dataset(f"manifest:{path}"))
    path.write_text("path,key,label,split,review\nphotos/cat/0.png,cat/0.png,cat,train,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"review is '1' for 'cat/0.png'"):
        LabelsFile(path, images)
    path.unlink()
    LabelsFile(path, load_dataset(f"folder:{colour_folder}")).close()
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"is of other images than folder:"):
        LabelsFile(path, images)
    assert path.read_bytes() == before
    assert len(rows_of(path)) == 48


def test_images_elsewhere_are_refused_with_a_place_that_works(pictures: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{pictures}")
    with pytest.raises(DataError, match=r"images lie elsewhere, such as .*; give a file there: --labels ") as refused:
        LabelsFile(tmp_path / "other" / "labels.csv", images)
    LabelsFile(Path(str(refused.value).rpartition("--labels ")[2]), images).close()


def test_what_another_program_writes_meanwhile_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    path, images = tmp_path / "labels.csv", load_dataset(f"folder:{pictures}")
    row = images.keys.index("unlabelled/5.png")
    file = LabelsFile(path, images)
    file.set({0: Mark("dog", "checked")})
    edited = path.read_text(encoding="utf-8").replace("unlabelled/5.png,,train,", "unlabelled/5.png,owl,train,")
    path.write_text(edited, encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"was changed by another program, and would be overwritten\. End with Finish"
    ):
        file.set({1: Mark("dog", "checked")})
    assert file[1] == Mark("cat", "")
    assert path.read_text(encoding="utf-8") == edited
    file.close()
    again = LabelsFile(path, images)
    again.set({1: Mark("dog", "checked")})
    assert (again[row], again[0], again[1]) == (Mark("owl"), Mark("dog", "checked"), Mark("dog", "checked"))
    path.unlink()
    again.set({2: Mark("dog", "checked")})
    assert len(rows_of(path)) == len(images), "nothing is overwritten where the file is gone"
    again.close()


def test_rows_of_images_that_are_gone_are_kept(pictures: Path, tmp_path: Path) -> None:
    file = LabelsFile(tmp_path / "labels.csv", load_dataset(f"folder:{pictures}"))
    file.set({0: Mark("cat", "checked")})
    file.close()
    gone = pictures / file.images.keys[0]
    content = gone.read_bytes()
    gone.unlink()
    LabelsFile(tmp_path / "labels.csv", load_dataset(f"folder:{pictures}")).close()
    gone.write_bytes(content)
    again = LabelsFile(tmp_path / "labels.csv", load_dataset(f"folder:{pictures}"))
    assert again[0] == Mark("cat", "checked")
    again.close()


def test_a_second_server_on_the_same_file_is_refused(pictures: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{pictures}")
    file = LabelsFile(tmp_path / "labels.csv", images)
    with pytest.raises(ConfigError, match=r"is written by another process \(id \d+\): go on there"):
        LabelsFile(tmp_path / "labels.csv", images)
    file.close()
    LabelsFile(tmp_path / "labels.csv", images).close()


def class_folders(names: Sequence[str], picture: Path, folder: Path) -> Dataset:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(picture.read_bytes() + bytes([number]))
    return load_dataset(f"folder:{folder}")


@pytest.mark.parametrize("names", [("10", "20", "30"), ("1", "2", "3"), ("0", "1", "2"), ("7", "cat"), ("0", "1", "3")])
def test_class_folders_with_numbers_as_names_keep_their_names(
    pictures: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    images = class_folders(names, pictures / "cat" / "0.png", tmp_path / "numbers")
    LabelsFile(tmp_path / "labels.csv", images).close()
    read = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert (read.classes, read.labels.tolist()) == (names, images.labels.tolist())

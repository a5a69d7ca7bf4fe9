from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import load_image_set
from gpt4image.reviewing.labels_file import LabelsFile, Mark
from hostile_names import HOSTILE
from loaded_sets import in_memory


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_is_a_manifest_of_all_images_with_the_labels_of_the_dataset(pictures: Path, tmp_path: Path) -> None:
    images = load_image_set(f"folder:{pictures}")
    LabelsFile(tmp_path / "labels.csv", images).close()
    read = load_image_set(f"manifest:{tmp_path / 'labels.csv'}")
    assert read.keys == images.keys
    assert read.digests == images.digests
    assert [read.label_names(i) for i in range(len(read))] == [images.label_names(i) for i in range(len(images))]
    assert {f"unlabelled/{name}" for name in HOSTILE} < set(read.keys)


def test_labels_are_on_disk_when_set_returns_and_are_read_again(pictures: Path, tmp_path: Path) -> None:
    images = load_image_set(f"folder:{pictures}")
    row = images.keys.index(f"unlabelled/{HOSTILE[0]}")
    file = LabelsFile(tmp_path / "labels.csv", images)
    file.set({row: Mark("+1, really", "checked"), 0: Mark("", "unsure")})
    read = load_image_set(f"manifest:{tmp_path / 'labels.csv'}")
    assert read.label_names(read.keys.index(images.keys[row])) == ("+1, really",)
    assert read.label_names(0) == ()
    file.close()
    again = LabelsFile(tmp_path / "labels.csv", images)
    assert (again[row], again[0], again[1]) == (Mark("+1, really", "checked"), Mark("", "unsure"), Mark("cat", ""))
    assert again.labels() == ["+1, really", "cat", "dog"]
    again.close()


def test_no_cell_is_a_formula(pictures: Path, tmp_path: Path) -> None:
    images = load_image_set(f"folder:{pictures}")
    file = LabelsFile(pictures / "labels.csv", images)
    file.set({row: Mark("=cmd|' /C calc'!A0", "checked") for row in range(len(images))})
    file.close()
    with (pictures / "labels.csv").open(encoding="utf-8", newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert load_image_set(f"manifest:{pictures / 'labels.csv'}").classes == ("=cmd|' /C calc'!A0",)


def test_images_that_are_no_files_are_written_beside_the_labels(pictures: Path, tmp_path: Path) -> None:
    contents = [(pictures / "cat" / f"{number}.png").read_bytes() for number in (0, 1, 0)]
    images = in_memory(contents, [0, -1, -1], spec="hf:x", classes=("cat",), keys=("a.png", "../../b", "c"))
    file = LabelsFile(tmp_path / "own" / "labels.csv", images)
    assert file.copies == [[0, 2], [1]]
    file.close()
    read = load_image_set(f"manifest:{tmp_path / 'own' / 'labels.csv'}")
    assert (read.keys, read.digests) == (images.keys, images.digests)
    assert {path.parent for path in (tmp_path / "own").rglob("*.png")} == {tmp_path / "own" / "labels.images"}


def test_what_may_not_be_replaced_is_refused(pictures: Path, colour_folder: Path, tmp_path: Path) -> None:
    images, path = load_image_set(f"folder:{pictures}"), tmp_path / "labels.csv"
    path.write_text("path,label\nphotos/cat/0.png,cat\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"not written by review, as it has no column 'key'"):
        LabelsFile(path, images)
    with pytest.raises(ConfigError, match=r"is the file that --data reads"):
        LabelsFile(path, load_image_set(f"manifest:{path}"))
    path.write_text("path,key,label,split,review\nphotos/cat/0.png,cat/0.png,cat,train,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"review is '1' for 'cat/0.png'"):
        LabelsFile(path, images)
    path.unlink()
    LabelsFile(path, load_image_set(f"folder:{colour_folder}")).close()
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"is of other images than folder:"):
        LabelsFile(path, images)
    assert path.read_bytes() == before
    assert len(rows_of(path)) == 48


def test_images_elsewhere_are_refused_with_a_place_that_works(pictures: Path, tmp_path: Path) -> None:
    images = load_image_set(f"folder:{pictures}")
    with pytest.raises(DataError, match=r"images lie elsewhere, such as .*; give a file there: --labels ") as refused:
        LabelsFile(tmp_path / "other" / "labels.csv", images)
    LabelsFile(Path(str(refused.value).rpartition("--labels ")[2]), images).close()


def test_rows_of_images_that_are_gone_are_kept(pictures: Path, tmp_path: Path) -> None:
    file = LabelsFile(tmp_path / "labels.csv", load_image_set(f"folder:{pictures}"))
    file.set({0: Mark("cat", "checked")})
    file.close()
    gone = pictures / file.images.keys[0]
    content = gone.read_bytes()
    gone.unlink()
    LabelsFile(tmp_path / "labels.csv", load_image_set(f"folder:{pictures}")).close()
    gone.write_bytes(content)
    again = LabelsFile(tmp_path / "labels.csv", load_image_set(f"folder:{pictures}"))
    assert again[0] == Mark("cat", "checked")
    again.close()


def test_a_second_server_on_the_same_file_is_refused(pictures: Path, tmp_path: Path) -> None:
    images = load_image_set(f"folder:{pictures}")
    file = LabelsFile(tmp_path / "labels.csv", images)
    with pytest.raises(ConfigError, match=r"is written by another process \(id \d+\): go on there"):
        LabelsFile(tmp_path / "labels.csv", images)
    file.close()
    LabelsFile(tmp_path / "labels.csv", images).close()

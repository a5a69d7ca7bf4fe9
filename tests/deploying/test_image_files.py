"""Files, folders and patterns: every image once for each time it is named, in order, and none held for long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.base.outcome import Skipped
from gpt4image.deploying.image_files import decode_ahead, find_images
from gpt4image.deploying.preprocessing import Preprocessing

HOW = Preprocessing(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `photos` in the current one: 12 pictures, number n of grey value n, among files that are none."""
    for number in range(12):
        path = tmp_path / "photos" / ("b" if number < 6 else "a/deep") / f"{number:02}.{'PNG' if number % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, number, number)).save(path)
    for name in ("photos/notes.txt", "photos/.hidden.png", "photos/.thumbnails/01.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "photos/b/01.PNG").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def reasons(*names: str) -> dict[str, str]:
    return {item.name: item.reason for item in find_images(names) if isinstance(item, Skipped)}


def test_folders_are_read_to_their_depth_in_order(folder: Path) -> None:
    inner = [f"photos/a/deep/{n:02}.{'PNG' if n % 2 else 'png'}" for n in range(6, 12)]
    assert list(find_images(["photos"]))[:6] == inner
    assert len(list(find_images(["photos"]))) == 12, "no text, nothing hidden"
    assert list(find_images(["photos/b/02.png", "photos/b", "photos/b/02.png"]))[0::7] == ["photos/b/02.png"] * 2
    assert list(find_images(["photos/notes.txt", "photos/.hidden.png"])) == ["photos/notes.txt", "photos/.hidden.png"]


def test_patterns_are_expanded_and_names_with_their_letters_are_names(folder: Path) -> None:
    assert list(find_images(["photos/b/0[12].*"])) == ["photos/b/01.PNG", "photos/b/02.png"]
    assert len(list(find_images(["photos/**/*.PNG"]))) == 6
    assert len(list(find_images(["photos/[ab]"]))) == 12, "folders may match too"
    for pattern in ("photos/**", "./photos/**", ".//photos//**", "./**"):
        found = [os.path.realpath(path) for path in find_images([pattern])]
        assert found == [os.path.realpath(path) for path in find_images(["photos"])], f"each image once: {pattern}"
    (folder / "[1].png").write_bytes((folder / "b/01.PNG").read_bytes())
    assert list(find_images(["photos/[1].png"])) == ["photos/[1].png"]


def test_what_leads_to_no_image_is_named(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert reasons("photos/empty", "photos/none.png", "photos/*.gif", "photos/b") == {
        "photos/empty": "holds no image",
        "photos/none.png": "there is no such file, folder or pattern",
        "photos/*.gif": "there is no such file, folder or pattern",
    }


def test_links_to_folders_end_nowhere(folder: Path) -> None:
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "b" / "link.png").symlink_to(folder / "b" / "01.PNG")
    assert len(list(find_images(["photos"]))) == 13


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "b").chmod(0)
    assert reasons("photos") == {"photos/b": "cannot be read: Permission denied"}
    (folder / "b").chmod(0o755)


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (5, 3), (64, 2)])
def test_pixels_come_in_the_order_of_their_files(folder: Path, batch_size: int, threads: int) -> None:
    batches = list(decode_ahead(find_images(["photos/b", "photos/a"]), HOW, batch_size=batch_size, threads=threads))
    assert [len(batch.paths) for batch in batches][:-1] == [batch_size] * (len(batches) - 1)
    grey = np.concatenate([batch.pixels for batch in batches])
    assert grey.dtype == np.uint8 and grey.shape == (12, 3, 8, 8)
    assert grey[:, 0, 0, 0].tolist() == list(range(12))
    assert [int(Path(path).stem) for batch in batches for path in batch.paths] == list(range(12))


def test_broken_files_cost_only_themselves(folder: Path) -> None:
    (folder / "b" / "00.png").write_bytes(b"")
    (folder / "b" / "03.PNG").write_text("no picture")
    (folder / "b" / "04.png").unlink()
    (folder / "b" / "04.png").symlink_to("nowhere")
    os.mkfifo(folder / "b" / "05b.png")
    [batch] = decode_ahead(find_images(["photos/b"]), HOW, batch_size=64, threads=1)
    assert batch.pixels[:, 0, 0, 0].tolist() == [1, 2, 5]
    assert [(Path(item.name).name, item.reason) for item in batch.skipped] == [
        ("00.png", "the file is empty (0 bytes)"),
        ("03.PNG", "not an image, or damaged at its start"),
        ("04.png", "a link to nothing"),
        ("05b.png", "no file"),
    ]


def test_no_more_than_a_few_batches_are_ever_held(folder: Path) -> None:
    asked = 0

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield "photos/b/01.PNG"

    batches = decode_ahead(endless(), HOW, batch_size=10, threads=2)
    for taken in range(1, 30):
        assert len(next(batches).paths) == 10
        time.sleep(0.002)  # time enough for threads to run ahead, if they could
        assert asked <= 10 * (taken + 2 * 2), "two batches for each thread, and those that were taken"
    batches.close()

"""Tar shards that are cut, damaged or no tar at all, and the index that remembers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.base.errors import DataError
from gpt4image.data import shards
from loaded_sets import Png, aside, label_names
from tars import load_shards, write_tar


@pytest.mark.parametrize("kept", [0.1, 0.4, 0.7, 0.95])
def test_a_shard_that_is_cut_off_gives_what_comes_before(kept: float, tmp_path: Path, png: Png) -> None:
    whole = write_tar(tmp_path / "0.tar", {f"{number}.png": png(number, 32) for number in range(8)}).read_bytes()
    end = (len(whole) // 10240 - 1) * 10240 or len(whole)
    (tmp_path / "0.tar").write_bytes(whole[: int(kept * end)])
    write_tar(tmp_path / "1.tar", {"good.png": png(9)})
    images = load_shards(tmp_path / "*.tar")
    assert images.keys == (*map(str, range(len(images) - 1)), "good") and len(images) < 9
    assert [images.read(i) for i in range(len(images) - 1)] == [png(number, 32) for number in range(len(images) - 1)]
    assert aside(images)["0.tar"].startswith("damaged, cut off")
    assert aside(images)["0.tar"].endswith(f": {len(images) - 1} samples read")


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (7 * 512, "cls is cut off, in 0.tar"),
        (8 * 512, None),
    ],
)
def test_a_cut_between_an_image_and_its_label_costs_the_sample(
    length: int, reason: str | None, tmp_path: Path, png: Png
) -> None:
    members = {"a.png": png(0), "a.cls": b"0", "b.png": png(1), "b.cls": b"0"}
    path = write_tar(tmp_path / "0.tar", members)
    path.write_bytes(path.read_bytes()[:length])
    images = load_shards(path)
    assert label_names(images) == ({"a": "0"} if reason else {"a": "0", "b": "0"})
    assert aside(images).get("b") == reason
    assert "0.tar" in aside(images)


def test_a_shard_that_is_damaged_in_the_middle_is_named(tmp_path: Path, png: Png) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{number}.png": png(number) for number in range(8)})
    data = bytearray(path.read_bytes())
    third = data.index(b"3.png")
    data[third : third + 512] = b"\x55" * 512
    path.write_bytes(data)
    images = load_shards(path)
    assert images.keys == ("0", "1", "2")
    assert set(aside(images)) == {"0.tar"} and aside(images)["0.tar"].endswith(": 3 samples read")


@pytest.mark.parametrize("size", [-512, -1])
def test_a_member_of_negative_size_ends_a_shard(size: int, tmp_path: Path, png: Png) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{number}.png": png(number) for number in range(4)})
    data = bytearray(path.read_bytes())
    start = data.index(b"2.png")
    data[start + 124 : start + 136] = (256**12 + size).to_bytes(12, "big")  # base 256, as GNU tar writes it
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    path.write_bytes(data)
    images = load_shards(path)
    assert images.keys == ("0", "1") and "negative size" in aside(images)["0.tar"]


def test_what_is_no_tar_is_named(tmp_path: Path, png: Png) -> None:
    write_tar(tmp_path / "good.tar", {"a.png": png(0)})
    write_tar(tmp_path / "packed.tar", {"b.png": png(1)}, mode="w:gz")
    (tmp_path / "text.tar").write_text("no tar" * 1000)
    (tmp_path / "empty.tar").touch()
    images = load_shards(tmp_path / "*.tar")
    assert images.keys == ("a",)
    assert set(aside(images)) == {"packed.tar", "text.tar", "empty.tar"}
    assert all("no plain tar file" in reason and "0 samples read" in reason for reason in aside(images).values())
    with pytest.raises(DataError, match=r"no images in 1 shards.*packed\.tar"):
        load_shards(tmp_path / "packed.tar")


def test_an_index_is_remembered_until_the_shard_changes(
    tmp_path: Path, png: Png, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt4image.data import digests

    reads: list[str] = []
    read_index = shards._read_index
    monkeypatch.setattr(shards, "_read_index", lambda path: reads.append(path) or read_index(path))
    path = write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.cls": b"x", "b.cls": b"1"})
    load_shards(path)
    load_shards(path)
    assert len(reads) == 2, "a file that changed a moment ago may change again unseen"
    monkeypatch.setattr(digests, "YOUNG_NS", -(10**12))
    first, second = load_shards(path), load_shards(path)
    assert len(reads) == 3
    assert (first.keys, first.classes, first.set_aside) == (second.keys, second.classes, second.set_aside)
    assert second.read(0) == png(0)
    assert label_names(load_shards(write_tar(tmp_path / "1.tar", {"n.png": png(2), "n.json": b'{"label": NaN}'}))) == {
        "n": None
    }
    reads.pop()
    write_tar(path, {"c.png": png(1)})
    assert load_shards(path).keys == ("c",) and len(reads) == 4
    for damaged in (b"", b"{", b"[]", b'{"format": 4}', b'{"format": 4, "state": [], "names": []}'):
        for file in (own_cache / "shards").iterdir():
            file.write_bytes(damaged)
        assert load_shards(path).keys == ("c",)


def test_a_shard_that_shrinks_costs_its_images(tmp_path: Path, png: Png) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.png": png(0), "b.png": png(1)})
    images = load_shards(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(OSError, match="shorter than it was"):
        images.read(1)
    assert len(set(images.digests)) == 2

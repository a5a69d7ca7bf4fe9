"""webdataset: samples in shards, as that library writes them, read by position and never unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import load_image_set, webdataset
from gpt4image.data.webdataset import expand_braces
from loaded_sets import Png, aside, label_names
from tars import load_shards, write_tar


def test_samples_of_several_shards(tmp_path: Path, png: Png) -> None:
    write_tar(
        tmp_path / "train-00.tar",
        {
            "a/n1_0.jpg": png(0),
            "a/n1_0.cls": b"1",
            "a/n1_1.JPEG": png(1),
            "a/n1_1.json": json.dumps({"label": 0, "more": [1]}).encode(),
        },
    )
    write_tar(tmp_path / "train-01.tar", {"n2.x.png": png(2), "n2.seg.png": png(9), "n2.png": png(3), "n2.cls": b"0"})
    write_tar(tmp_path / "validation-00.tar", {"v.webp": png(4), "v.txt": b"a caption"})
    images = load_shards(tmp_path / "{train-00,train-01,validation-*}.tar")
    assert images.keys == ("a/n1_0", "a/n1_1", "n2", "v")
    assert label_names(images) == dict(zip(images.keys, ("1", "0", "0", None), strict=True))
    assert images.splits.tolist() == ["train", "train", "train", "val"]
    contents = [png(0), png(1), png(3), png(4)]
    assert [images.read(i) for i in range(4)] == contents
    assert images.digests == tuple(hashlib.sha256(data).hexdigest() for data in contents)
    assert images.skipped == ()
    assert images.select([2, 0]).read(0) == png(3)
    assert pickle.loads(pickle.dumps(images)).read(0) == png(0), "worker processes read them too"  # noqa: S301


def test_what_the_library_writes_is_read(tmp_path: Path, png: Png) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=2, verbose=0) as sink:
        for number in range(5):
            sink.write({"__key__": f"s{number}", "png": png(number), "cls": number % 3, "json": {"label": 9}})
    images = load_shards(tmp_path / "train-{000..002}.tar")
    assert label_names(images) == {f"s{number}": str(number % 3) for number in range(5)}
    assert [images.read(i) for i in range(5)] == [png(number) for number in range(5)]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("imagenet1k-validation-00.tar", "val"),
        ("valid_3.tar", "val"),
        ("test/0.tar", "test"),
        ("test/train-0.tar", "train"),
        ("constrained.tar", "train"),
        ("test runs/0.tar", "train"),
    ],
)
def test_the_split_is_a_word_of_the_name(path: str, split: str, tmp_path: Path, png: Png) -> None:
    write_tar(tmp_path / path, {"a.png": png(0)})
    assert load_shards(tmp_path / path).splits.tolist() == [split]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{a,b}{c,}", ["ac", "a", "bc", "b"]),
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{000..2}", ["000", "001", "002"]),
        ("{", ["{"]),
        ("a}b{c", ["a}b{c"]),
        ("{one}", ["{one}"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert list(expand_braces(pattern)) == expected


def test_a_missing_shard_is_named(tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "train-0.tar", {"a.png": png(0)})
    with pytest.raises(DataError, match=r"no file '.*train-1.tar', '.*train-2.tar'. Restore missing shards"):
        load_shards(tmp_path / "train-{0..2}.tar")
    with pytest.raises(DataError, match="no file"):
        load_shards(tmp_path / "none-*.tar")
    monkeypatch.setattr(webdataset, "MAX_SHARDS", 1000)
    with pytest.raises(DataError, match="more than"):
        load_shards(tmp_path / "train-{0..99999999}.tar")


@pytest.mark.parametrize("argument", ["pipe:touch harm", "https://example.org/a.tar", "s3://bucket/{0..9}.tar"])
def test_addresses_and_commands_are_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="not opened"):
        load_shards(argument)
    with pytest.raises(ConfigError, match="lacks a pattern"):
        load_shards("")


def test_names_that_come_twice(tmp_path: Path, png: Png) -> None:
    write_tar(tmp_path / "train-0.tar", {"a.png": png(0), "b.png": png(1)})
    write_tar(tmp_path / "val-0.tar", {"a.png": png(2)})
    assert load_shards(tmp_path / "{train,val}-0.tar").keys == ("a", "b", "val/a")
    write_tar(tmp_path / "train-1.tar", {"a.png": png(3)})
    with pytest.raises(DataError, match="come twice: 'a'"):
        load_shards(tmp_path / "train-{0,1}.tar")


def test_class_names_beside_the_shards(tmp_path: Path, png: Png) -> None:
    write_tar(tmp_path / "train" / "0.tar", {"a.png": png(0), "a.cls": b"1", "b.png": png(1), "b.cls": b"0\n"})
    (tmp_path / "classnames.txt").write_text("cat\ndog\nbird\n")
    images = load_shards(tmp_path / "train" / "0.tar")
    assert images.classes == ("cat", "dog", "bird")
    assert label_names(images) == {"a": "dog", "b": "cat"}
    (tmp_path / "classnames.txt").write_text("caña\ndog\nbird\n", encoding="utf-8-sig")
    assert load_shards(tmp_path / "train" / "0.tar").classes == ("caña", "dog", "bird")
    (tmp_path / "classnames.txt").write_text("caña\ndog\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"classnames\.txt is not UTF-8"):
        load_shards(tmp_path / "train" / "0.tar")
    (tmp_path / "classnames.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(DataError, match="has 'cat' more than once; give each class a name of its own"):
        load_shards(tmp_path / "train" / "0.tar")
    (tmp_path / "classnames.txt").write_text("cat\n")
    with pytest.raises(DataError, match="has 1 names, but there are classes up to 1"):
        load_shards(tmp_path / "train" / "0.tar")
    write_tar(tmp_path / "train" / "1.tar", {"c.png": png(0), "c.cls": b"dog"})
    assert load_shards(tmp_path / "train" / "1.tar").classes == ("dog",)


def test_lists_are_several_classes_per_image(tmp_path: Path, png: Png) -> None:
    members = {"a.png": png(0), "a.json": b'{"label": [1, 0]}', "b.png": png(1), "b.json": b'{"label": []}'}
    images = load_shards(write_tar(tmp_path / "0.tar", {**members, "c.png": png(2)}))
    assert (images.classes, images.labels.tolist()) == (("0", "1"), [[1, 1], [0, 0], [-1, -1]])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    assert load_shards(tmp_path / "0.tar").label_names(0) == ("cat", "dog")
    write_tar(tmp_path / "0.tar", {**members, "d.png": png(2), "d.cls": b"1"})
    with pytest.raises(
        DataError, match="the label of some samples is a list, but not that of 'd'; give all of them lists"
    ):
        load_shards(tmp_path / "0.tar")


def test_numbers_may_be_sparse_where_they_have_names(tmp_path: Path, png: Png) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.cls": b"7"})
    with pytest.raises(DataError, match="only 1 of these 8 classes"):
        load_shards(tmp_path / "0.tar")
    (tmp_path / "classnames.txt").write_text("\n".join("abcdefghij"))
    assert label_names(load_shards(tmp_path / "0.tar")) == {"a": "h"}


def test_a_name_that_comes_twice_in_a_shard_is_set_aside(tmp_path: Path, png: Png) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.png": png(0), "b.png": png(1)})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("a.png")
        archive.addfile(member, io.BytesIO())
    images = load_shards(path)
    assert images.keys == ("b",)
    assert aside(images) == {"a": "png comes twice, in 0.tar"}


def test_names_with_dots_are_not_taken_for_one_picture(tmp_path: Path, png: Png) -> None:
    names = ("2023.01.05.png", "2023.02.05.png", "a.png")
    images = load_shards(write_tar(tmp_path / "0.tar", {name: png(n) for n, name in enumerate(names)}))
    assert images.keys == ("a",)
    several = "has several pictures, '01.05.png', '02.05.png': a name ends at its first dot, in 0.tar"
    assert aside(images) == {"2023": several}


def test_a_folder_of_any_name_holds_shards(tmp_path: Path, png: Png) -> None:
    folder = tmp_path / "shards [v2] {a,b}"
    folder.mkdir()
    write_tar(folder / "0.tar", {"a.png": png(0)})
    assert load_shards(folder).keys == load_image_set(str(folder)).keys == ("a",)


def test_bad_samples_are_set_aside_by_name(tmp_path: Path, png: Png) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "good.png": png(0),
            "no-image.cls": b"1",
            "bad-json.png": png(1),
            "bad-json.json": b"{",
            "deep-json.png": png(1),
            "deep-json.json": b"[" * 100_000,
            "list-json.png": png(1),
            "list-json.json": b"[]",
            "nested.png": png(1),
            "nested.json": b'{"label": [1, [2]]}',
            "long.png": png(1),
            "long.cls": b"1" * 1_000_001,
            "bytes.png": png(1),
            "bytes.cls": b"\xff",
            "digits.png": png(1),
            "digits.cls": b"1" * 5000,
            "surrogate.png": png(1),
            "surrogate.json": b'{"label": "\\ud800"}',
            ".hidden.png": png(1),
            "folder/noextension": b"",
        },
    )
    images = load_shards(tmp_path / "0.tar")
    assert images.keys == ("good",)
    assert aside(images) == {
        "no-image": "has no image, in 0.tar",
        "bad-json": "its label cannot be read, in 0.tar",
        "deep-json": "its label cannot be read, in 0.tar",
        "list-json": "its json is no object, in 0.tar",
        "nested": "its label holds a list; classes are text or whole numbers, in 0.tar",
        "long": "cls has 1,000,001 bytes, more than the allowed 1,000,000, in 0.tar",
        "bytes": "its label cannot be read, in 0.tar",
        "digits": "its label has more than 1000 letters, or is no Unicode text, in 0.tar",
        "surrogate": "its label has more than 1000 letters, or is no Unicode text, in 0.tar",
    }


def test_malicious_members_are_names_alone(tmp_path: Path, png: Png) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    secret = tmp_path / "secret.png"
    secret.write_bytes(png(7))
    before = sorted(tmp_path.iterdir())
    path = tmp_path / "shards" / "0.tar"
    write_tar(
        path,
        {
            "../../escape.png": png(0),
            "/etc/absolute.png": png(1),
            "a.pyd": pickle.dumps(Harmful()),
            "a.png": png(2),
            "b.pth": pickle.dumps(Harmful()),
            "b.cls.pkl": pickle.dumps(Harmful()),
            "b.png": png(3),
        },
    )
    with tarfile.open(path, "a") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("null.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    images = load_shards(path)
    assert images.keys == ("../../escape", "/etc/absolute", "a", "b")
    assert [images.read(i) for i in range(4)] == [png(number) for number in range(4)]
    assert set(aside(images)) == {"link", "hard", "null"}
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "shards"])


def test_a_name_that_is_no_text_is_set_aside(tmp_path: Path, png: Png) -> None:
    path = write_tar(tmp_path / "0.tar", {"xaeb.png": png(0), "good.png": png(1)})
    data = bytearray(path.read_bytes())
    data[0:4] = b"x\xe4\xffb"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    images = load_shards(path)
    assert images.keys == ("good",)
    assert "not valid UTF-8" in next(iter(aside(images).values()))

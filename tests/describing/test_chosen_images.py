"""The images that describe --only asks about."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.describing.chosen_images import chosen_images
from loaded_sets import in_memory

IMAGES = in_memory([b"a", b"b", b"c", b"a"], keys=("a.png", "=b.png", "c.png", "copy of a.png"))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("rank,key\n1,c.png\n2,'=b.png\n", ("=b.png", "c.png")),
        ("path,label\na.png,cat\n", ("a.png", "copy of a.png")),
        (f"key,digest\nold name.png,{IMAGES.digests[2].upper()}\n", ("c.png",)),
    ],
)
def test_rows_name_images_by_key_or_digest(tmp_path: Path, text: str, keys: tuple[str, ...]):
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8-sig")
    images, unknown = chosen_images(IMAGES, tmp_path / "rows.csv")
    assert images.keys == keys and not unknown


def test_rows_of_no_image_are_named(tmp_path: Path):
    (tmp_path / "rows.csv").write_text(f"key,digest\nc.png,\nlost.png,\n,{'0' * 64}\n,\n")
    images, unknown = chosen_images(IMAGES, tmp_path / "rows.csv")
    assert images.keys == ("c.png",)
    assert [item.name for item in unknown] == ["lost.png", "0" * 64, "rows.csv, row 4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"rows.csv: cannot be read"),
        (b"\xff\xfe\x00", "cannot be read as CSV in UTF-8"),
        (b"", "no column key or digest"),
        (b"name,label\nc.png,cat\n", "no column key or digest, only name, label"),
        (b"key\nlost.png\n", "none of its 1 rows names an image of memory, whose keys look like 'a.png'"),
    ],
)
def test_what_names_no_image_is_refused(tmp_path: Path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        chosen_images(IMAGES, tmp_path / "rows.csv")

"""The packaged set: same pictures, labels and splits everywhere."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt4image.data import load_dataset, openmoji
from gpt4image.data.decode import decode
from gpt4image.data.openmoji import packaged_descriptions


@pytest.mark.slow
def test_the_set(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_dataset("openmoji")
    assert (len(images), len(images.classes)) == (1537, 18)
    assert Counter(images.splits.tolist()) == {"train": 998, "val": 155, "test": 384}
    picture = np.asarray(decode(images.read(0)))
    assert picture.shape == (72, 72, 3)
    assert picture[0, 0].tolist() == [255, 255, 255]
    splits_of: dict[str, set[str]] = {}
    for key, digest, split in zip(images.keys, images.digests, images.splits.tolist(), strict=True):
        for same in (digest, key.split("-")[0]):
            splits_of.setdefault(same, set()).add(split)
    assert {len(splits) for splits in splits_of.values()} == {1}, "no picture or first code point is in two splits"
    for label in range(18):
        counts = Counter(images.splits[images.labels == label].tolist())
        total = sum(counts.values())
        spare = 4 if images.classes[label] == "person" else 2  # 12 of these, equal to others, were left out
        assert abs(counts["test"] - 0.25 * total) <= spare
        assert abs(counts["val"] - 0.10 * total) <= spare

    rows = [json.loads(line) for line in packaged_descriptions().read_text(encoding="utf-8").splitlines()]
    assert {row["key"] for row in rows} == set(images.keys) and all(len(row["description"]) > 20 for row in rows)
    monkeypatch.setattr(openmoji, "_draw", lambda keys: pytest.fail("drawn again"))
    assert load_dataset("openmoji").digests == images.digests

    monkeypatch.setattr(openmoji, "_draw", lambda keys: [images.read(i) for i in range(len(keys))])
    (stored,) = own_cache.glob("openmoji-*.npz")
    stored.write_bytes(stored.read_bytes()[:10_000])  # cut short
    assert load_dataset("openmoji").digests == images.digests
    assert len(stored.read_bytes()) > 10_000


def test_drawing_needs_no_writable_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache.write_text("in the way")
    monkeypatch.setattr(openmoji, "_draw", lambda keys: [key.encode() for key in keys])
    assert load_dataset("openmoji").read(0) == b"0023-FE0F-20E3"

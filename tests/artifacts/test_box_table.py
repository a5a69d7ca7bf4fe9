"""Boxes on disk: read again as they were, by digest; a damaged file is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.base.errors import TableError
from gpt4image.data.regions import Boxes, ImageBoxes

CLASSES = ("cat", "dög", "fish")


def some(seed: int, images: int = 5) -> BoxLabels:
    rng = np.random.default_rng(seed)

    def one() -> ImageBoxes | None:
        count = int(rng.integers(0, 4))
        corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
        known = rng.random() < 0.7
        return (corners, rng.integers(0, 3, count), rng.random(count, np.float32)) if known else None

    return BoxLabels(
        keys=tuple(f"images/{number}.png" for number in range(images)),
        digests=tuple(f"{number:064x}" for number in range(images)),
        boxes=Boxes.of_images([one() for _ in range(images)]),
        classes=CLASSES,
        facts={"seed": seed, "noise": 0.25, "tables": ["a", "ü"]},
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.integers(0, 500), st.integers(0, 5))
def test_what_is_read_is_what_was_written(tmp_path: Path, seed: int, images: int) -> None:
    written = some(seed, images)
    written.save(tmp_path / "boxes.parquet")
    found = BoxLabels.load(tmp_path / "boxes.parquet")
    assert found.boxes.content() == written.boxes.content()
    assert (found.keys, found.digests, found.classes) == (written.keys, written.digests, written.classes)
    assert found.facts == written.facts


def test_another_file_or_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "other.parquet")
    some(2).save(tmp_path / "boxes.parquet")
    pq.write_table(pq.read_table(tmp_path / "boxes.parquet").slice(1), tmp_path / "less.parquet")
    for name, reason in {
        "none": "there are no boxes here", "text": "is not a file of boxes", "other": "has no column",
        "less": "does not match its checksum",
    }.items():  # fmt: skip
        with pytest.raises(TableError, match=reason):
            BoxLabels.load(tmp_path / f"{name}.parquet")

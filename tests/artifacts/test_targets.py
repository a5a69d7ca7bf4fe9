"""Targets on disk are read as they were written, and say what they were made from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt4image.artifacts import targets
from gpt4image.artifacts.targets import BoxLabels, Facts, Targets, load_targets
from gpt4image.base.errors import Gpt4ImageError
from tables import made
from worlds import any_boxes


@pytest.mark.parametrize("rows", [100_000, 2])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch):
    written = made()
    monkeypatch.setattr(targets, "ROW_GROUP", rows)
    written.save(tmp_path / "labels.parquet")
    assert pq.ParquetFile(tmp_path / "labels.parquet").num_row_groups == -(-3 // rows)
    read = Targets.load(str(tmp_path / "labels.parquet"))
    assert (read.keys, read.digests, read.facts) == (written.keys, written.digests, written.facts)
    for name in ("splits", "labels", "probabilities", "out_of_fold"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    columns = pq.read_table(tmp_path / "labels.parquet").to_pydict()
    assert columns["given_label"] == ["cat", "dög", None]
    assert columns["text_label"] == ["cat", "cat", "dög"]
    assert columns["doubt"] == [pytest.approx(0.1), pytest.approx(0.8), None]


FACTS = made(seed=3).facts


def written(path: Path, facts: Facts) -> Path:
    """Write text labels of one image."""
    replace(made(), facts=facts).save(path)
    return path


@pytest.mark.parametrize(
    ("evidence", "embeddings", "answers", "read"),
    [
        ("texts", ("/t.emb",), "/a.db", (True, True)),
        ("answers", ("/t.emb",), "/a.db", (False, True)),
        ("fused", (), "/a.db", (False, True)),
        ("names", ("/t.emb",), "/a.db", (True, False)),
    ],
)
def test_what_was_read_is_told_from_what_was_given(
    tmp_path: Path, evidence: str, embeddings: tuple[str, ...], answers: str, read: tuple[bool, bool]
) -> None:
    facts = replace(FACTS, evidence=evidence, embeddings=embeddings, answers=answers)
    found = Facts.of(written(tmp_path / "labels.parquet", facts))
    assert (found.texts_read, found.answers_read) == read
    assert (found.asked, found.seed) == ("class", 3)


def test_boxes_and_several_classes_are_asked_for_by_their_name(tmp_path: Path) -> None:
    found = Facts.of(written(tmp_path / "labels.parquet", replace(FACTS, task="multilabel", answers="/a.db")))
    assert found.asked == "tags"
    replace(some(0, 0), facts=replace(BOXES, answers="/a.db")).save(tmp_path / "b.parquet")
    boxes = Facts.of(tmp_path / "b.parquet")
    assert boxes.asked == "boxes" and boxes.answers_read and not boxes.texts_read


BOXES = Facts(task="detection", classes=("cat", "dög", "fish"), evidence="fused", seed=2)


def some(seed: int, images: int = 5) -> BoxLabels:
    return BoxLabels(
        keys=tuple(f"images/{number}.png" for number in range(images)),
        digests=tuple(f"{number:064x}" for number in range(images)),
        boxes=any_boxes(seed, images, classes=3),
        human=np.arange(images) % 2 == 0,
        facts=BOXES,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.integers(0, 500), st.integers(0, 5))
def test_what_is_read_is_what_was_written(tmp_path: Path, seed: int, images: int) -> None:
    written = some(seed, images)
    written.save(tmp_path / "boxes.parquet")
    found = load_targets(tmp_path / "boxes.parquet")
    assert found.boxes.content() == written.boxes.content()
    assert (found.keys, found.digests, found.classes) == (written.keys, written.digests, written.classes)
    assert found.facts == written.facts and np.array_equal(found.human, written.human)


def test_another_file_or_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "other.parquet")
    some(2).save(tmp_path / "boxes.parquet")
    whole = (tmp_path / "boxes.parquet").read_bytes()
    (tmp_path / "bit.parquet").write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    for name, reason in {
        "none": "there is no file of targets here", "bit": "cannot be read as Parquet",
        "boxes": "is a file of boxes", **dict.fromkeys(("text", "other"), "is not a file of targets"),
    }.items():  # fmt: skip
        with pytest.raises(Gpt4ImageError, match=reason):
            Targets.load(tmp_path / f"{name}.parquet")

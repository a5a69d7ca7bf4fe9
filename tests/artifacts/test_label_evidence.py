"""What labels were made from is read from their file, whatever it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.targets import Facts, LabelEvidence
from gpt4image.data.regions import Boxes
from tables import labels_of_one_image

FACTS = labels_of_one_image(seed=3).facts


def written(path: Path, facts: Facts) -> Path:
    """Write text labels of one image."""
    replace(labels_of_one_image(), facts=facts).save(path)
    return path


@pytest.mark.parametrize(
    ("evidence", "embeddings", "answers", "read"),
    [
        ("texts", ("/t.emb",), "", (True, False)),
        ("texts", ("/t.emb",), "/a.db", (True, True)),
        ("answers", (), "/a.db", (False, True)),
        ("answers", ("/t.emb",), "/a.db", (False, True)),
        ("fused", ("/t.emb",), "/a.db", (True, True)),
        ("fused", (), "/a.db", (False, True)),
        ("names", ("/t.emb",), "/a.db", (True, False)),
    ],
)
def test_what_was_read_is_told_from_what_was_given(
    tmp_path: Path, evidence: str, embeddings: tuple[str, ...], answers: str, read: tuple[bool, bool]
) -> None:
    facts = replace(FACTS, evidence=evidence, embeddings=embeddings, answers=answers)
    found = LabelEvidence.of(written(tmp_path / "labels.parquet", facts))
    assert found is not None and (found.texts_read, found.answers_read) == read
    assert (found.asked, found.seed) == ("class", 3)


def test_boxes_and_several_classes_are_asked_for_by_their_name(tmp_path: Path) -> None:
    found = LabelEvidence.of(written(tmp_path / "labels.parquet", replace(FACTS, task="multilabel", answers="/a.db")))
    assert found is not None and found.asked == "tags"
    facts = {"evidence": "fused", "answers": "/a.db", "embeddings": "", "seed": 2}
    BoxLabels(keys=(), digests=(), boxes=Boxes.of_images([]), classes=("a",), facts=facts).save(tmp_path / "b.parquet")
    boxes = LabelEvidence.of(tmp_path / "b.parquet")
    assert boxes == LabelEvidence(task="detection", evidence="fused", answers="/a.db", seed=2)
    assert boxes is not None and boxes.asked == "boxes" and boxes.answers_read and not boxes.texts_read


def test_nothing_is_known_of_a_file_that_is_gone_or_damaged(tmp_path: Path) -> None:
    assert LabelEvidence.of(tmp_path / "none.parquet") is None
    (tmp_path / "labels.parquet").write_text("no table")
    assert LabelEvidence.of(tmp_path / "labels.parquet") is None

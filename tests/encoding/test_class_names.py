"""Class names as texts of the encoder of a table, or why they cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.config import EncodeConfig
from gpt4image.encoding.class_names import ClassNames, find_class_names, not_read
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.registry import load_text_encoder

ENCODER = "bag-of-words:32"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    prompt = Prompt("paper", 1, "Describe it.", False)
    with DescriptionStore(tmp_path / "texts.db", write=True) as store:
        store.add([Description(digest="a" * 64, prompt=prompt, describer={"name": "x"}, created=0.0, text="A dog.")])
    encode(EncodeConfig(store=tmp_path / "texts.db", encoder=ENCODER, out=tmp_path / "table"))
    return tmp_path / "table"


def test_names_are_embedded_as_captions_with_spaces(table: Path) -> None:
    found = find_class_names(table, "cpu", ("polar_bear", "dog"))
    expected = load_text_encoder(ENCODER).encode(["a photo of a polar bear", "a photo of a dog"])
    assert found.vectors is not None and np.array_equal(found.vectors, expected)
    assert found.missing == "" and found.revision == load_text_encoder(ENCODER).revision
    assert not_read([found]) == []


def test_a_table_that_was_made_anew_has_the_names_of_its_own_encoder(table: Path) -> None:
    first = find_class_names(table, "cpu", ("dog",))
    shutil.rmtree(table)
    encode(EncodeConfig(store=table.with_name("texts.db"), encoder="bag-of-words:16", out=table))
    again = find_class_names(table, "cpu", ("dog",))
    assert first.vectors is not None and again.vectors is not None
    assert (first.vectors.shape[1], again.vectors.shape[1]) == (32, 16)


def test_what_is_missing_is_said_once(table: Path) -> None:
    manifest = table / "manifest.json"
    manifest.write_text(manifest.read_text().replace("bag-of-words:32", "bag-of-words:64"))
    changed = find_class_names(table, "cpu", ("dog",))
    assert changed.vectors is None and changed.missing
    none = find_class_names(None, "cpu", ("dog",))
    assert none.vectors is None
    reasons = not_read([none, ClassNames(missing=none.missing), changed])
    assert len(reasons) == 2 and reasons[0].endswith(
        "there is no embedding table, whose encoder would embed the class names"
    )

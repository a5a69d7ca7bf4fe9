"""Each distinct text of a store once, and which description has it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.artifacts.table import text_digest
from gpt4image.base.errors import StoreError
from gpt4image.encoding.encode import read_descriptions

PROMPTS = [Prompt("paper", 1, "Describe it.", False), Prompt("short", 1, "In three words?", False)]


def filled(path: Path, rows: list[tuple[str, int, str]]) -> DescriptionStore:
    store = DescriptionStore(path, write=True)
    store.add(
        Description(
            digest=hashlib.sha256(image.encode()).hexdigest(), prompt=PROMPTS[prompt], describer={"name": "x"},
            created=0.0, text=text,
        )
        for image, prompt, text in rows
    )  # fmt: skip
    return store


ROWS = [("a", 0, "A dog."), ("b", 0, "A cat."), ("c", 0, "A dog."), ("a", 1, "A dog."), ("b", 1, "Cat on a mat.")]


def test_every_description_finds_its_text_and_equal_texts_are_one(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db", ROWS) as store:
        found = read_descriptions(store, None)
        of_row = {row: text for _, text, _, row in store.texts(None)}
    assert len(found.texts) == 3 and found.prompts == tuple(sorted(PROMPTS))
    pairs = {(bytes(found.digests[i]).hex(), bytes(found.texts[k])) for i, k in enumerate(found.text_of)}
    assert pairs == {(hashlib.sha256(image.encode()).hexdigest(), text_digest(text)) for image, _, text in ROWS}
    for digest, row in zip(found.texts, found.stored, strict=True):
        assert text_digest(of_row[int(row)]) == bytes(digest)


def test_one_prompt_alone_and_none_that_is_there(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db", ROWS) as store:
        assert len(read_descriptions(store, "short").text_of) == 2
        with pytest.raises(StoreError, match="absent"):
            read_descriptions(store, "absent")


def test_the_plan_depends_on_texts_images_encoder_and_policy(tmp_path: Path) -> None:
    plans = set[str]()
    for number, rows in enumerate((ROWS, ROWS[:-1], [*ROWS[:-1], ("b", 1, "Another.")])):
        with filled(tmp_path / f"{number}.db", rows) as store:
            plans.add(read_descriptions(store, None).plan("r", "chunks"))
    with filled(tmp_path / "again.db", ROWS) as store:
        again = read_descriptions(store, None)
    plans |= {again.plan("other", "chunks"), again.plan("r", "cut")}
    assert len(plans) == 5
    assert again.plan("r", "chunks") in plans

"""The likely classes of an image: those whose names are nearest to what this describer wrote of it."""

from __future__ import annotations

from pathlib import Path

from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import ClassOption, Description, DescriptionStore
from gpt4image.describing.likely_classes import likely_classes
from gpt4image.describing.questions import LIKELY_CLASSES

NAMES = ["sail_boat", "tabby_cat", *(f"steel screw number {number}" for number in range(120))]
CLASSES = [ClassOption(NAMES[0], "a ship with sails"), *map(ClassOption, NAMES[1:])]
ME, SHORT = {"kind": "test"}, PROMPTS["short"]


def row(letter: str, text: str, **values: object) -> Description:
    fields = {"digest": letter * 64, "prompt": SHORT, "describer": ME, "created": 0.0, "text": text, **values}
    return Description(**fields)  # type: ignore[arg-type]


def test_the_nearest_names_are_likely(tmp_path: Path) -> None:
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(
            [
                row("a", "A striped kitten sleeps on a sofa."),
                row("b", "A yacht with white sails on the open sea."),
                row("c", "A cat.", describer={"kind": "other"}),
                row("d", "A cat.", prompt=PROMPTS["paper"]),
            ]
        )
        found = likely_classes(store, ME, SHORT, CLASSES, ["a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64])
    assert found.keys() == {"a" * 64, "b" * 64}
    assert {digest[0]: names[0] for digest, names in found.items()} == {"a": "tabby_cat", "b": "sail_boat"}
    assert all(len(set(names)) == LIKELY_CLASSES and set(names) <= set(NAMES) for names in found.values())

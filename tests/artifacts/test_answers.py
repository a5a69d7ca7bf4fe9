"""Answers, prompts and results as values, as JSON and back, and in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpt4image.artifacts.answers import Answer, Description, answer_of_json
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import DescriptionStore

SHORT = PROMPTS["short"]
CLASSES = replace(SHORT, ask=("class",), classes=(("cat", "a pet"), ("dog", "")))
ME = {"kind": "openai", "model": "m", "server": "http://localhost/v1"}


def answered(letter: str, answer: Answer | None, **others: object) -> Description:
    values = {"digest": letter * 64, "prompt": CLASSES, "describer": ME, "created": 1.0, "answer": answer, **others}
    return Description(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "3", '{"class": "cat"}', '{"class_name": 3}', '{"confidence": 2}', '{"confidence": NaN}'),
        *('{"confidence": true}', '{"tags": "red"}', '{"tags": [1]}', '{"boxes": [[1]]}', '{"said": ["a"]}'),
        *('{"boxes": [{"label": "a"}]}', '{"picture": [1]}', '{"picture": [1, -1]}', '{"picture": [1, 1.5]}'),
        *('{"picture": 3}', '{"box_faults": {"a": "b"}}', '{"box_faults": [1]}'),
    ],
)
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        answer_of_json(text)


def test_answers_are_stored_beside_descriptions(tmp_path: Path) -> None:
    cat = Answer(
        class_name="cat", second="dog", confidence=0.9, tags=("fur",), boxes=({"label": "cat", "box_2d": [1, 2, 3, 4]},)
    )
    wolf = Answer(said="wolf", confidence=0.4, probability=0.25)
    both = replace(CLASSES, ask=("description", "class"))
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        added = store.add(
            [
                answered("a", cat),
                answered("b", wolf, prompt=both, text="A wolf."),
                answered("c", Answer(class_name="dog"), error="loop", text="dog dog dog"),
                answered("d", None, prompt=SHORT, text="A fish."),
                answered("e", None, prompt=CLASSES, error="HTTP 500"),
            ]
        )
        assert added == 5
        assert store.settled(CLASSES, ME) == {("a" * 64, 0)}
        assert store.settled(CLASSES, ME, rejected=True) == {("c" * 64, 0)}
        reworded = replace(CLASSES, classes=(("cat", "any cat"), ("dog", "")))
        assert not store.settled(reworded, ME), "another definition is another question"
    with DescriptionStore(tmp_path / "a.db") as store:
        first, second = store.answers()
        assert (first.digest, first.answer, first.classes, first.sample) == ("a" * 64, cat, ("cat", "dog"), 0)
        assert first.prompt == CLASSES and first.describer == ME
        assert second.answer == wolf and wolf.is_unmapped and not cat.is_unmapped
        assert [one.answer for one in store.answers(digests=["b" * 64])] == [second.answer]
        assert [row.text for row in store.texts()] == ["A wolf.", "A fish."]
        assert [row.answer for row in store.descriptions(status="failed")] == [Answer(class_name="dog"), None]

"""Answers, prompts and results as values, as JSON and back, and in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.artifacts.answers import Answer, Description, answer_of_json
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import DescriptionStore

SHORT = PROMPTS["short"]
CLASSES = replace(SHORT, ask=("class",), classes=(("cat", "a pet"), ("dog", "")))
ME = {"kind": "openai", "model": "m", "server": "http://localhost/v1"}
_NAMES = st.none() | st.text(max_size=20)
_SHARES = st.none() | st.floats(0, 1)
_NUMBERS = st.integers(-(10**8), 10**8) | st.floats(-1e8, 1e8)
_BOXES = st.fixed_dictionaries(
    {"label": st.text(), "box_2d": st.lists(_NUMBERS, min_size=4, max_size=4)}, optional={"truncated": st.booleans()}
)


def answered(letter: str, answer: Answer | None, **others: object) -> Description:
    values = {"digest": letter * 64, "prompt": CLASSES, "describer": ME, "created": 1.0, "answer": answer, **others}
    return Description(**values)  # type: ignore[arg-type]


@given(
    st.builds(
        Answer,
        class_name=_NAMES,
        said=_NAMES,
        second=_NAMES,
        confidence=_SHARES,
        probability=_SHARES,
        tags=st.none() | st.lists(st.text(max_size=9)).map(tuple),
        boxes=st.none() | st.lists(_BOXES).map(tuple),
        picture=st.none() | st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
        box_faults=st.none() | st.dictionaries(st.text(max_size=9), st.integers(0, 9999)),
    )
)
def test_an_answer_comes_back_whole_from_json(answer: Answer) -> None:
    again = answer_of_json(answer.to_json())
    assert (again, again.box_faults) == (answer, answer.box_faults)


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
    both = replace(CLASSES, ask=("description", "class"))
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        added = store.add(
            [
                answered("a", cat),
                answered("b", Answer(said="wolf", confidence=0.4), prompt=both, text="A wolf."),
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
        assert second.answer.is_unmapped and not cat.is_unmapped
        assert [one.answer for one in store.answers(digests=["b" * 64])] == [second.answer]
        assert [row.text for row in store.texts()] == ["A wolf.", "A fish."]
        assert [row.answer for row in store.descriptions(status="failed")] == [Answer(class_name="dog"), None]

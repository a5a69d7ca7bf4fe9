"""The question for several things at once: what it says, in which order, and the schema of its answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.describing.class_lists import NONE_OF_THESE, class_list, readable
from gpt4image.describing.questions import asked_again, asking_for, question, schema_of

SHORT = PROMPTS["short"]
CLASSES = class_list("big_dog: {class_name}, and more\ncat\nowl\n")


def test_a_description_alone_is_asked_as_ever() -> None:
    assert asking_for(SHORT, ("description",), CLASSES) is SHORT
    assert question(SHORT, "", "ab", 0) == (SHORT.text,) and schema_of(SHORT) is None


def test_one_question_asks_for_everything() -> None:
    prompt = asking_for(SHORT, ("description", "class", "tags"), CLASSES)
    assert (prompt.name, prompt.ask, prompt.classes) == ("short", ("description", "class", "tags"), CLASSES)
    (text,) = question(prompt, "owl", "ab", 0)
    assert SHORT.text in text and text.index('"description"') < text.index('"class"') < text.index('"tags"')
    assert "\n- big dog: {class_name}, and more\n" in text and text.endswith(f"- {NONE_OF_THESE}")
    schema = schema_of(prompt)
    assert schema is not None
    assert schema["required"] == ["description", "class", "second", "confidence", "tags"]
    assert schema["properties"]["class"]["enum"] == ["big dog", "cat", "owl", NONE_OF_THESE]


def test_boxes_are_asked_for_by_class_or_in_the_words_of_the_model() -> None:
    prompt = asking_for(SHORT, ("boxes",), CLASSES)
    (text,) = question(prompt, "", "ab", 0)
    assert (prompt.name, prompt.classes) == ("boxes", CLASSES) and "- cat" in text and NONE_OF_THESE not in text
    schema = schema_of(prompt)
    assert schema is not None and schema["required"] == ["boxes"]
    box = schema["properties"]["boxes"]["items"]["properties"]
    assert box["label"] == {"type": "string", "enum": ["big dog", "cat", "owl"]} and box["box_2d"]["maxItems"] == 4
    (free,) = question(without := asking_for(SHORT, ("boxes",), ()), "", "ab", 0)
    assert "Classes:" not in free and "what it is" in free
    schema = schema_of(without)
    assert schema is not None
    assert schema["properties"]["boxes"]["items"]["properties"]["label"] == {"type": "string"}


def test_a_class_alone_does_not_depend_on_the_prompt() -> None:
    alone = asking_for(SHORT, ("class",), CLASSES)
    assert alone == asking_for(PROMPTS["paper"], ("class",), CLASSES) and alone.name == "class"
    assert "Describe" not in alone.text
    assert alone != asking_for(SHORT, ("class",), class_list("big_dog: another\ncat\nowl\n")), (
        "definitions are identity"
    )


def test_options_are_shuffled_the_same_way_for_the_same_image_and_sample() -> None:
    prompt = asking_for(SHORT, ("class",), CLASSES)
    first = Counter(question(prompt, "", f"{number:064x}", 0)[0].split("Classes:\n- ")[1][:3] for number in range(300))
    assert set(first) == {"big", "cat", "owl"} and min(first.values()) > 70, "each stands first for a third of images"
    assert question(prompt, "", "ab", 1) == question(prompt, "", "ab", 1)
    assert len({question(prompt, "", "ab", sample) for sample in range(20)}) > 3


def test_a_second_try_names_the_mistake_once() -> None:
    turns = asked_again(("Which?",))
    assert turns[0].startswith("Which?") and "not in the list" in turns[0] and asked_again(turns) == turns


def test_a_prompt_without_text_asks_nothing() -> None:
    silent = replace(SHORT, text="")
    assert asking_for(silent, ("description", "class"), CLASSES).text == ""


def test_tags_without_a_class_are_those_of_the_list() -> None:
    prompt = asking_for(SHORT, ("description", "tags"), CLASSES)
    (text,) = question(prompt, "", "a" * 64, 0)
    assert prompt.classes == CLASSES and "all classes of the list below" in text and "short words" not in text
    assert all(f"- {readable(name)}" in text for name, _ in CLASSES) and "none of these" not in text
    schema = schema_of(prompt)
    assert schema is not None
    assert schema["properties"]["tags"]["items"]["enum"] == [readable(name) for name, _ in CLASSES]
    words = asking_for(SHORT, ("description", "tags"), ())
    assert words.classes == () and "short words" in words.text


@pytest.mark.parametrize("ask", [("class", "tags"), ("boxes", "tags")])
def test_tags_beside_a_class_or_boxes_are_words(ask: tuple[str, ...]) -> None:
    prompt = asking_for(SHORT, ask, CLASSES)
    schema = schema_of(prompt)
    assert schema is not None and "enum" not in schema["properties"]["tags"]["items"]
    assert "short words or phrases" in prompt.text

"""What is asked: the question, its schema, class lists, and what is missing of an image."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.answers import NONE_OF_THESE, PROMPTS
from gpt4image.artifacts.class_lists import ClassNames, class_list, is_none
from gpt4image.artifacts.store import ClassOption
from gpt4image.base.errors import ConfigError
from gpt4image.config import DescribeConfig
from gpt4image.describing.asking import brings
from gpt4image.describing.questions import asking_for, question, schema_of

SHORT = PROMPTS["short"]
CLASSES = class_list("big_dog: {class_name}, and more\ncat\nowl\n")


def properties(prompt: Any) -> dict[str, Any]:
    schema = schema_of(prompt)
    assert schema is not None and schema["required"] == [*schema["properties"]]
    return schema["properties"]


def test_one_question_asks_for_everything_and_shuffles_options_the_same_way_for_the_same_image() -> None:
    prompt = asking_for(SHORT, ("description", "class", "tags"), CLASSES)
    assert (prompt.name, prompt.ask, prompt.classes) == ("short", ("description", "class", "tags"), CLASSES)
    text = question(prompt, "owl", "ab")
    assert SHORT.text in text and text.index('"description"') < text.index('"class"') < text.index('"tags"')
    assert "\n- big dog: {class_name}, and more\n" in text and text.endswith(f"- {NONE_OF_THESE}")
    assert [*properties(prompt)] == ["description", "class", "second", "confidence", "tags"]
    assert properties(prompt)["class"]["enum"] == ["big dog", "cat", "owl", NONE_OF_THESE]
    prompt = asking_for(SHORT, ("class",), CLASSES)
    first = Counter(question(prompt, "", f"{number:064x}").split("Classes:\n- ")[1][:3] for number in range(300))
    assert set(first) == {"big", "cat", "owl"} and min(first.values()) > 70, "each stands first for a third of images"
    assert len({question(prompt, "", "ab") for _ in range(9)}) == 1
    many = asking_for(SHORT, ("class",), class_list("\n".join(f"kind {number}" for number in range(300))))
    assert question(many, "", "ab").count("\n- ") == 301 and "enum" not in str(schema_of(many))


def test_boxes_are_asked_for_by_class_or_in_the_words_of_the_model() -> None:
    prompt = asking_for(SHORT, ("boxes",), CLASSES)
    text = question(prompt, "", "ab")
    assert (prompt.name, prompt.classes) == ("boxes", CLASSES) and "- cat" in text and NONE_OF_THESE not in text
    box = properties(prompt)["boxes"]["items"]["properties"]
    assert box["label"] == {"type": "string", "enum": ["big dog", "cat", "owl"]} and box["box_2d"]["maxItems"] == 4
    free = question(without := asking_for(SHORT, ("boxes",), ()), "", "ab")
    assert "Classes:" not in free and "what it is" in free
    assert properties(without)["boxes"]["items"]["properties"]["label"] == {"type": "string"}


# Class lists


def test_a_list_is_written_with_commas_or_lines_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(
        "\ufeff# people first\nperson: any human, athletes too\n\n  big_dog  \nscore 1:0\n", encoding="utf-8"
    )
    assert class_list("cat, big_dog ,person: a human") == (("cat", ""), ("big_dog", ""), ("person", "a human"))
    expected = (("person", "any human, athletes too"), ("big_dog", ""), ("score 1:0", ""))
    assert class_list(str(file)) == expected
    assert class_list("person: any human, athletes too\nbig_dog\nscore 1:0") == expected
    config = DescribeConfig(
        data="x",
        store=tmp_path / "a.db",
        describer="y",
        ask=("class", "description"),  # type: ignore[arg-type]
        classes=["person: any human, athletes too"],  # type: ignore[arg-type]
    )
    assert config.ask == "description,class" and class_list(config.classes or "") == expected[:1]
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        class_list(str(file))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (" , ", "0 classes"),
        ("cat,Cat", "cannot be told from another"),
        ("a,b,a", "cannot be told from another"),
        ("big_dog,big dog", "cannot be told"),
        ("cat,none of these", "offered in any case"),
        ("x" * 201, "201 characters"),
    ],
)
def test_a_list_of_no_use_is_refused(given: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        class_list(given)


def test_a_word_means_the_class_that_differs_in_spelling_or_none() -> None:
    names = ClassNames(["cat", "big_dog", "puppy", "box", "glass", "glasses", "Bass", "BASS", "Cafe\u0301"])
    meant = {
        **{"cat": "cat", "Cats": "cat", "the Cat!": "cat", "BIG-DOG": "big_dog", "puppies": "puppy", "boxes": "box"},
        **{"glass": "glass", "glasses": "glasses", "wolf": None, "": None, "cat dog": None},
        **{"Bass": "Bass", "bass": None},  # either of two
        **{"caf\u00e9": "Cafe\u0301"},  # as macOS stores names
        **{"\uff22\uff21\uff33\uff33": None, "\uff30\uff55\uff50\uff50\uff59": "puppy"},  # full-width letters
    }
    assert {said: names.find(said) for said in meant} == meant
    words = [None, "", "None of these", "none-of-these.", "N/A", "none"]
    assert all(map(is_none, words)) and not is_none("nun")
    assert ClassNames(["none", "cat"]).find("none") == "none" and ClassNames(["cat"]).find("none") is None
    assert ClassNames([]).find("none of these") is None
    assert ClassNames([]).find("wolf") == "wolf", "without a list every word is a class"


def test_vowel_signs_tell_words_apart() -> None:
    pig, bear, heart, sun = "\u0e2b\u0e21\u0e39", "\u0e2b\u0e21\u0e35", "\u2764\ufe0f", "\u2600\ufe0f"
    assert [option.name for option in class_list(f"{pig},{bear},{heart},{sun}")] == [pig, bear, heart, sun]
    assert ClassNames([pig, "cat"]).find(f"{bear}!") is None and ClassNames([bear]).find(f"{bear}!") == bear
    assert ClassNames([heart, sun]).find("\u2764") == heart


# What is missing


TWO = (ClassOption("cat"), ClassOption("dog", "a friend"))


def test_tags_of_a_list_and_tags_in_words_do_not_stand_for_each_other() -> None:
    ask = ("description", "tags")
    listed, words = asking_for(SHORT, ask, TWO), asking_for(SHORT, ask, ())
    beside = asking_for(SHORT, ("description", "class", "tags"), TWO)
    assert [brings(listed, "tags", SHORT, ask, given) for given in (TWO, TWO[:1], ())] == [True, False, False]
    assert [brings(words, "tags", SHORT, ask, given) for given in (TWO, ())] == [False, True]
    assert brings(words, "tags", SHORT, beside.ask, TWO) and not brings(listed, "tags", SHORT, beside.ask, TWO)
    assert brings(listed, "description", SHORT, ask, ()) and brings(words, "description", SHORT, ask, TWO)


@pytest.mark.parametrize("given", ["nofile.txt", "lists/NAMES.CSV", "dress; hat; pants", "dress|hat", "a\tb"])
def test_a_list_that_would_be_one_class_by_a_slip_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--classes{' ' * ('.' in given)}")):
        class_list(given)
    (tmp_path / "one.txt").write_text("dress, hat, pants\n")
    with pytest.raises(ConfigError, match=r"--classes .*one.txt"):
        class_list(str(tmp_path / "one.txt"))
    assert class_list("St. Bernard") == (("St. Bernard", ""),)

"""Class lists: how they are written, and which class a word means."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.config import DescribeConfig
from gpt4image.describing.class_lists import ClassNames, class_list, is_none


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


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        class_list(str(file))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        *(("cat", "cat"), ("Cats", "cat"), ("the Cat!", "cat"), ("BIG-DOG", "big_dog"), ("puppies", "puppy")),
        *(("boxes", "box"), ("glass", "glass"), ("glasses", "glasses"), ("wolf", None), ("", None), ("cat dog", None)),
        *(("Bass", "Bass"), ("bass", None)),  # either of two
        ("caf\u00e9", "Cafe\u0301"),  # as macOS stores names
    ],
)
def test_a_word_means_the_class_that_differs_in_spelling(said: str, name: str | None) -> None:
    names = ClassNames(["cat", "big_dog", "puppy", "box", "glass", "glasses", "Bass", "BASS", "Cafe\u0301"])
    assert names.find(said) == name


def test_without_a_list_every_word_is_a_class() -> None:
    assert ClassNames([]).find("wolf") == "wolf"


@pytest.mark.parametrize("word", [None, "", "None of these", "none-of-these.", "N/A", "none"])
def test_words_for_no_class(word: str | None) -> None:
    assert is_none(word) and not is_none("nun")


def test_a_class_may_be_called_none() -> None:
    assert ClassNames(["none", "cat"]).find("none") == "none" and ClassNames(["cat"]).find("none") is None
    assert ClassNames([]).find("none of these") is None

"""What is missing of an image: only the parts that no answer in the store brings; and which images are asked about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import ClassOption, Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError
from gpt4image.describing.missing import brings, chosen_images, find_missing
from gpt4image.describing.questions import asking_for
from loaded_sets import in_memory

SHORT, PAPER = PROMPTS["short"], PROMPTS["paper"]
CLASSES = (ClassOption("cat"), ClassOption("dog", "a friend"))
ME = {"kind": "test"}
BOTH = ("description", "class")
A, B, C = (letter * 64 for letter in "abc")


def row(digest: str, prompt: Prompt, **values: Any) -> Description:
    content = {"text": "A cat." if "description" in prompt.ask else None}
    content["answer"] = None if prompt.ask == ("description",) else Answer(class_name="cat")  # type: ignore[assignment]
    fields = {"digest": digest, "prompt": prompt, "describer": ME, "created": 0.0, **content, **values}
    return Description(**fields)  # type: ignore[arg-type]


def wanted(path: Path, rows: list[Description], **options: Any) -> tuple[dict[tuple[str, ...], set[str]], int]:
    """The images that each set of parts is asked of, and how many samples have everything."""
    values: dict[str, Any] = {
        "bases": [SHORT],
        "ask": BOTH,
        "classes": CLASSES,
        "digests": (A, B, C),
        "samples": frozenset({0}),
        "retry_rejected": False,
        **options,
    }
    with DescriptionStore(path / "a.db", write=True) as store:
        store.add(rows)
        missing, done = find_missing(store, ME, **values)
    return {one.prompt.ask: set(one.wanted) for one in missing if one.wanted}, done


def test_parts_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    assert wanted(tmp_path, []) == ({BOTH: {A, B, C}}, 0)
    rows = [row(A, SHORT), row(B, asking_for(SHORT, ("class",), CLASSES)), row(C, asking_for(SHORT, BOTH, CLASSES))]
    assert wanted(tmp_path, rows) == ({("class",): {A}, ("description",): {B}}, 1)
    assert wanted(tmp_path, [], ask=("description",)) == ({("description",): {B}}, 2)
    assert wanted(tmp_path, [], ask=("class",)) == ({("class",): {A}}, 2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"classes": (ClassOption("cat"), ClassOption("dog", "a foe"))}, ("class",)),
        ({"classes": CLASSES[:1]}, ("class",)),
        ({"bases": [PAPER]}, ("description",)),
        ({"bases": [replace(SHORT, text="Other words.")]}, ("description",)),
    ],
)
def test_another_class_list_or_prompt_is_another_question(
    tmp_path: Path, options: dict[str, Any], parts: tuple[str, ...]
) -> None:
    rows = [row(digest, asking_for(SHORT, BOTH, CLASSES)) for digest in (A, B, C)]
    assert wanted(tmp_path, rows, **options)[0] == {parts: {A, B, C}}


def test_answers_of_others_and_failures_do_not_count_and_rejected_ones_only_until_asked_for(tmp_path: Path) -> None:
    both = asking_for(SHORT, BOTH, CLASSES)
    rows = [row(A, both, describer={"kind": "other"}), row(B, both, text=None, answer=None, error="HTTP 500")]
    rows += [row(C, both, text="no json", answer=None, error="broken")]
    assert wanted(tmp_path, rows) == ({BOTH: {A, B}}, 0)
    assert wanted(tmp_path, [], retry_rejected=True)[0] == {BOTH: {A, B, C}}


def test_tags_of_a_list_and_tags_in_words_do_not_stand_for_each_other(tmp_path: Path) -> None:
    ask = ("description", "tags")
    listed, words = asking_for(SHORT, ask, CLASSES), asking_for(SHORT, ask, ())
    beside = asking_for(SHORT, ("description", "class", "tags"), CLASSES)
    assert [brings(listed, "tags", SHORT, ask, given) for given in (CLASSES, CLASSES[:1], ())] == [True, False, False]
    assert [brings(words, "tags", SHORT, ask, given) for given in (CLASSES, ())] == [False, True]
    assert brings(words, "tags", SHORT, beside.ask, CLASSES) and not brings(listed, "tags", SHORT, beside.ask, CLASSES)
    assert brings(listed, "description", SHORT, ask, ()) and brings(words, "description", SHORT, ask, CLASSES)
    kept = asking_for(SHORT, ("description", "class"), CLASSES)
    assert ("tags",) in wanted(tmp_path, [row(A, kept)], ask=beside.ask)[0]


IMAGES = in_memory([b"a", b"b", b"c", b"a"], keys=("a.png", "=b.png", "c.png", "copy of a.png"))


def chosen(folder: Path, content: str | bytes | None) -> tuple[tuple[str, ...], list[str]]:
    """Keys of the images that a file names, and what it names besides."""
    if content is not None:
        (folder / "rows.csv").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8-sig"))
    images, unknown = chosen_images(IMAGES, folder / "rows.csv")
    return images.keys, [item.name for item in unknown]


def test_rows_name_images_by_key_or_digest_and_others_are_named(tmp_path: Path) -> None:
    assert chosen(tmp_path, "rank,key\n1,c.png\n2,'=b.png\n") == (("=b.png", "c.png"), [])
    assert chosen(tmp_path, "path,label\na.png,cat\n") == (("a.png", "copy of a.png"), [])
    assert chosen(tmp_path, f"key,digest\nold name.png,{IMAGES.digests[2].upper()}\n") == (("c.png",), [])
    found = chosen(tmp_path, f"key,digest\nc.png,\nlost.png,\n,{'0' * 64}\n,\n")
    assert found == (("c.png",), ["lost.png", "0" * 64, "rows.csv, row 4"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"rows.csv: cannot be read"),
        (b"\xff\xfe\x00", "cannot be read as CSV in UTF-8"),
        (b"", "no column key or digest"),
        (b"name,label\nc.png,cat\n", "no column key or digest, only name, label"),
        (b"key\nlost.png\n", "none of its 1 rows names an image of memory, whose keys look like 'a.png'"),
    ],
)
def test_what_names_no_image_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(tmp_path, content)

"""Answers, prompts and results as values, as JSON and back, and in the store."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from gpt4image.artifacts.answers import (
    BOX_FAULTS,
    PROMPTS,
    Answer,
    Description,
    answer_of_json,
    box_counts,
    corners,
    fill,
    find_prompt,
    in_thousandths,
    load_prompt,
    overlap,
    text_for,
)
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.config import BOX_FORMATS

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


PICTURE = (2000, 1000)
WRITTEN = {
    **{"xyxy-1000": [100, 200, 400, 800], "yxyx-1000": [200, 100, 800, 400]},
    **{"xywh-1000": [100, 200, 300, 600], "yxhw-1000": [200, 100, 600, 300]},
    **{"xyxy-1": [0.1, 0.2, 0.4, 0.8], "yxyx-1": [0.2, 0.1, 0.8, 0.4]},
    **{"xywh-1": [0.1, 0.2, 0.3, 0.6], "yxhw-1": [0.2, 0.1, 0.6, 0.3]},
    **{"xyxy-sent": [50, 50, 200, 200], "yxyx-sent": [50, 50, 200, 200]},
    **{"xywh-sent": [50, 50, 150, 150], "yxhw-sent": [50, 50, 150, 150]},
    **{"xyxy-original": [200, 200, 800, 800], "yxyx-original": [200, 200, 800, 800]},
    **{"xywh-original": [200, 200, 600, 600], "yxhw-original": [200, 200, 600, 600]},
}
"""The same box, of an image that is sent with 500 x 250 pixels, in every convention."""
MEANT = [100, 200, 400, 800]


def box(*numbers: float, label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "box_2d": list(numbers), **more}


def answer(*boxes: dict[str, Any], **more: Any) -> Answer:
    return Answer(boxes=boxes, **{"picture": PICTURE, **more})


@pytest.mark.parametrize("name", BOX_FORMATS)
def test_every_convention_is_read_as_what_it_means(name: str) -> None:
    assert corners([WRITTEN[name]], name, PICTURE, 500).tolist() == [pytest.approx(MEANT)]
    found = in_thousandths(answer(box(*WRITTEN[name], words="a cat", truncated=True)), name, 500)
    assert found == Answer(boxes=(box(*MEANT, words="a cat", truncated=True),)) and found.box_faults is None


def test_boxes_that_are_of_no_use_are_left_out_and_counted() -> None:
    kept = [box(10, 20, 500, 600, words="first"), box(11, 20, 500, 601, label="dog"), box(-50, 700, 300, 1200)]
    others = [box(11, 20, 500, 601), box(0, 5, 1000, 1000)]
    empty = [box(5, 5, 5, 900), box(900, 5, 800, 900), box(1100, 5, 1200, 900)]
    found = in_thousandths(answer(*kept, *others, *empty, box_faults={"unusable": 3}))
    assert [one["box_2d"] for one in found.boxes or ()] == [[10, 20, 500, 600], [11, 20, 500, 601], [0, 700, 300, 1000]]
    assert found.box_faults == {"unusable": 3, "clipped": 1, "no_area": 3, "duplicates": 1, "whole_image": 1}
    assert in_thousandths(found) == found, "what was made fit for use stays as it is"
    counts = box_counts([found, Answer(), answer()], ["cat"])
    faults = {f"boxes_{fault}": count for fault, count in found.box_faults.items()}
    assert counts == {"boxes": 3, "boxes_outside_list": 1, **faults}
    assert box_counts([Answer()]) == {} and box_counts([found])["boxes_outside_list"] == 0
    whole = answer(box(0, 0, 1000, 1000))
    assert in_thousandths(whole).boxes == whole.boxes, "a single box may be the whole image"
    unknown = in_thousandths(answer(box(1, 2, 3, 4), picture=(0, 0)), "xyxy-original")
    assert unknown.boxes == () and unknown.box_faults == {"no_area": 1}, "pixels of what size?"


NUMBERS = st.integers(-(10**8), 10**8) | st.floats(-1e8, 1e8) | st.integers(0, 1000)


@given(
    st.lists(st.tuples(st.lists(NUMBERS, min_size=4, max_size=4), st.sampled_from("ab")), max_size=8),
    st.sampled_from(BOX_FORMATS),
    st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    st.none() | st.integers(1, 2000),
)
def test_boxes_lie_within_the_image_and_have_an_area(
    given_: list[tuple[list[float], str]], name: str, picture: tuple[int, int], max_side: int | None
) -> None:
    found = in_thousandths(answer(*(box(*n, label=label) for n, label in given_), picture=picture), name, max_side)
    assert found.picture is None and len(found.boxes or ()) <= len(given_)
    for one in found.boxes or ():
        left, top, right, bottom = one["box_2d"]
        assert 0 <= left < right <= 1000 and 0 <= top < bottom <= 1000
    assert set(found.box_faults or {}) <= set(BOX_FAULTS)
    assert in_thousandths(found) == found


def test_the_overlap_is_that_of_torchvision() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.uniform(0, 1000, (n, 2, 2)), axis=1).reshape(n, 4) for n in (7, 5))
    np.testing.assert_allclose(overlap(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), atol=1e-12)
    assert overlap(a, a[:0]).shape == (7, 0) and overlap(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]


def test_the_store_reads_boxes_by_the_convention_of_their_describer(tmp_path: Path) -> None:
    me, other = {"kind": "test", "max_side": 500}, {"kind": "other"}
    written = answer(box(50, 60, 200, 210))
    row = Description(digest="a" * 64, prompt=PROMPTS["short"], describer=me, created=0.0, answer=written)
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([row])
        assert store.box_formats() == {}
        before = store.fingerprint()
        (as_asked,) = store.answers()
        store.set_box_format(other, "xyxy-1", {})
        store.set_box_format(me, "yxyx-1", {})
        store.set_box_format(me, "yxyx-sent", {"iou": 0.9})
        assert store.box_formats() == {'{"kind":"other"}': "xyxy-1", '{"kind":"test","max_side":500}': "yxyx-sent"}
        assert store.fingerprint() != before, "texts and boxes that are read otherwise are others"
    with DescriptionStore(tmp_path / "a.db") as store:
        (found,), (raw,) = store.answers(), store.answers(as_written=True)
        (described,) = store.descriptions()
    assert as_asked.answer.boxes == (box(50, 60, 200, 210),)
    assert found.answer == described.answer == Answer(boxes=(box(120, 200, 420, 800),))
    assert raw.answer == written


NAMED = ("tabby_cat", "beagle")


def asked(name: str, class_name: str = "beagle") -> str:
    return text_for(fill(load_prompt(name), NAMED), class_name)


def test_a_slip_does_not_lose_the_mark_of_a_told_class() -> None:
    assert find_prompt("paper").text == "Describe this image in detail."
    assert find_prompt("class-conditioned").class_conditioned
    assert find_prompt("my captions") == find_prompt("my captions")
    for slip in ("class_conditioned", "Class-Conditioned", "papr", ""):
        with pytest.raises(ConfigError):
            find_prompt(slip)
    assert "{evil} tabby" in text_for(PROMPTS["class-conditioned"], "{evil} tabby")


def test_places_are_filled_and_class_names_read_as_words() -> None:
    assert asked("paper") == "Describe this image in detail."
    attributes = asked("attributes")
    assert "at most 100 words" in attributes and "{" not in attributes
    contrastive = asked("contrastive", "tabby_cat")
    assert "tells this tabby cat from the other classes (tabby cat, beagle)" in contrastive
    told = {name for name, prompt in PROMPTS.items() if prompt.class_conditioned}
    assert told == {"class-conditioned", "contrastive"}, "they tell the class of the image"
    with pytest.raises(ConfigError, match="the dataset has none"):
        fill(PROMPTS["contrastive"], ())


def test_a_file_is_a_prompt_whose_text_is_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "birds.txt"
    path.write_text('Which of {class_list} is it? Answer as {"text": ...}.\nIs it a {class_name}?\n')
    prompt = load_prompt(str(path))
    assert prompt.name == "birds" and prompt.class_conditioned
    filled = fill(prompt, NAMED)
    assert "{class_name}" in filled.text and filled != fill(prompt, NAMED[:1])
    asked = 'Which of tabby cat, beagle is it? Answer as {"text": ...}.\nIs it a wren?'
    assert text_for(filled, "wren") == asked


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Describe {colour}.", "nothing fills '{colour}'"),
        (b"", "it is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "give a text file"),
    ],
)
def test_templates_that_cannot_be_sent_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    (tmp_path / "p.txt").write_text("Describe it.", encoding="utf-8-sig")
    assert load_prompt(str(tmp_path / "p.txt")).text == "Describe it.", "without the mark that Windows puts first"
    (tmp_path / "p.txt").unlink() if content is None else (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_prompt(str(tmp_path / "p.txt"))

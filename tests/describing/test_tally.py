"""What became of answers: each question is counted once, by its last answer."""

from __future__ import annotations

from gpt4image.artifacts import answers
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import ClassOption
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.judging import Judged
from gpt4image.describing.questions import asking_for
from gpt4image.describing.tally import Tally

PROMPT = asking_for(PROMPTS["short"], ("description", "class", "boxes"), (ClassOption("cat"), ClassOption("dog")))
KEPT = Judged("A cat.", answers.Answer(class_name="cat", probability=0.5))


def answer(digest: str = "a", sample: int = 0, keys: tuple[str, ...] = ("a.png",)) -> Answer:
    request = Request(digest=digest, keys=keys, prompt=PROMPT, turns=("What is it?",), read=lambda: b"")
    return Answer(request=request, sample=sample, text="A cat.")


def test_a_second_answer_takes_the_place_of_a_rejected_one() -> None:
    tally = Tally()
    assert tally.add(answer(), Judged("I cannot.", None, "refusal")) == "rejected"
    assert (tally.counts, tally.answered) == ({"described": 0, "failed": 0, "rejected": 1}, 1)
    assert tally.notes() == ["1 rejected"]
    assert tally.add(answer(sample=1), Judged("I cannot.", None, "refusal")) == "rejected"
    assert tally.add(answer(), KEPT) == "kept"
    assert (tally.counts, tally.answered) == ({"described": 1, "failed": 0, "rejected": 1}, 2)


def test_every_image_whose_answer_was_not_kept_is_named() -> None:
    tally = Tally()
    assert tally.add(answer("a", keys=("a.png", "copy.png")), Judged(error="HTTP 500")) == "failed"
    tally.add(answer("b", keys=("b.png",)), Judged("I cannot.", None, "refusal"))
    tally.add(answer("c", keys=("c.png",)), KEPT)
    assert [(item.name, item.reason) for item in tally.skipped] == [
        ("a.png", "HTTP 500"),
        ("copy.png", "HTTP 500"),
        ("b.png", "the answer is no description: refusal"),
    ]
    assert tally.notes() == ["1 failed", "1 rejected"]


def test_classes_and_boxes_of_answers_that_were_kept_are_counted() -> None:
    tally = Tally()
    tally.add(answer("a"), KEPT)
    tally.add(answer("b"), Judged("None of these.", answers.Answer(class_name=None, probability=None, boxes=())))
    tally.add(answer("c"), Judged("A cat.", answers.Answer(class_name="cat"), "refusal"))
    assert tally.classes_answered == {"class_in_list": 1, "class_none": 1, "class_outside_list": 0}
    assert tally.with_boxes == {"b"}

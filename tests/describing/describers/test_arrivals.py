"""Answers handed from one thread to another: in order, none lost, with an end that may be an error."""

from __future__ import annotations

import threading

import pytest

from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.base.errors import DescriberError
from gpt4image.describing.describers.arrivals import Arrivals
from gpt4image.describing.describers.base import Answer, Request


def answer(number: int) -> Answer:
    asked = Request(digest="0" * 64, keys=("k",), prompt=PROMPTS["paper"], turns=("?",), read=bytes)
    return Answer(request=asked, sample=number, text="x")


def test_every_answer_arrives_once_and_in_order() -> None:
    arrivals = Arrivals()

    def send() -> None:
        for number in range(1000):
            arrivals.put(answer(number))
        arrivals.finish()

    sender = threading.Thread(target=send)
    sender.start()
    groups = list(iter(arrivals.wait, []))
    sender.join()
    assert [item.sample for group in groups for item in group] == list(range(1000))
    assert all(groups)


def test_an_error_comes_after_the_answers_before_it() -> None:
    arrivals = Arrivals()
    assert arrivals.waiting() == []
    arrivals.put(answer(0))
    arrivals.finish(DescriberError("quota"))
    assert [item.sample for item in arrivals.waiting()] == [0]
    assert arrivals.waiting() == [], "the end stays"
    with pytest.raises(DescriberError, match="quota"):
        arrivals.wait()

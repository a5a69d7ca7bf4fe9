"""Conversations in batches: every answer that is wanted comes once, whatever fails beside it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.local.conversations import (
    BatchError,
    Reply,
    Row,
    answer_all,
    messages,
    read_ahead,
    seed_of,
)
from picture_requests import QUESTION, plain, request

RED, BLUE = plain("red"), plain("blue")


def reply(rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> list[Reply]:
    return [
        Reply(text=f"answer {len(own)}", finish_reason="stop", tokens_in=10, tokens_out=2)
        for _, own in zip(rows, answers, strict=True)
    ]


def rows_of(*requests_: object) -> list[Row]:
    return [row for rows, _ in read_ahead(requests_, 64, DescriberOptions(describer="", max_side=64)) for row in rows]  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), max_size=40))
def test_rows_that_fail_have_errors_and_no_other_has(bad: list[bool]) -> None:
    (first,) = rows_of(request(RED))
    rows = [Row(request=first.request, sample=number, images=first.images) for number in range(len(bad))]
    heard: list[int] = []

    def fails(rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> list[Reply]:
        if any(bad[row.sample] for row in rows):
            raise BatchError("too large")
        heard.extend(row.sample for row in rows)
        return reply(rows, answers)

    found = [answer for group in answer_all(rows, fails) for answer in group]
    assert [answer.sample for answer in found] == list(range(len(bad)))
    assert [answer.error for answer in found] == ["too large" if one else None for one in bad]
    assert len(heard) == bad.count(False), "nothing is asked twice"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_each_conversation_has_as_many_turns_as_its_prompt(turns: list[int]) -> None:
    rows = rows_of(*(request(RED, *([QUESTION] * count)) for count in turns))
    (found,) = answer_all(rows, reply)
    for answer, count in zip(found, turns, strict=True):
        assert answer.text == "\n\n".join(f"answer {turn}" for turn in range(count))
        assert (answer.tokens_in, answer.tokens_out) == (10 * count, 2 * count)


def test_an_empty_answer_ends_the_conversation_and_one_cut_off_turn_marks_the_whole() -> None:
    def answers(rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> list[Reply]:
        text, reason = ("", "stop") if answers[0] else ("text", "length")
        return [Reply(text=text, finish_reason=reason, tokens_in=1, tokens_out=1)]

    ((answer,),) = answer_all(rows_of(request(RED, QUESTION, "More?", "More?")), answers)
    assert (answer.text, answer.tokens_in, answer.finish_reason) == ("text", 2, "length")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.lists(st.integers(1, 4), max_size=8))
def test_batches_hold_every_sample_once_and_read_an_image_once_each(size: int, counts: list[int]) -> None:
    reads: list[int] = []

    def reader(number: int) -> bytes:
        reads.append(number)
        return b"no image" if number % 3 == 2 else RED

    requests = [
        request(b"%d" % number, samples=tuple(range(count)), read=lambda number=number: reader(number))
        for number, count in enumerate(counts)
    ]
    batches = list(read_ahead(requests, size, DescriberOptions(describer="", max_side=32)))
    assert all(0 < len(rows) + len(failed) <= size for rows, failed in batches)
    good = [(row.request.digest, row.sample) for rows, _ in batches for row in rows]
    bad = [(answer.request.digest, answer.sample) for _, failed in batches for answer in failed]
    wanted = [[(one.digest, sample) for sample in one.samples] for one in requests]
    assert good == [name for number, names in enumerate(wanted) if number % 3 != 2 for name in names]
    assert bad == [name for number, names in enumerate(wanted) if number % 3 == 2 for name in names]
    if size >= sum(counts):
        assert reads == list(range(len(counts)))


def test_messages_put_the_image_first_and_answers_between_the_questions() -> None:
    image = {"type": "image"}
    asked = messages(["One?", "Two?", "Three?"], [image], system="Be brief.", answers=["1"])
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "user"]
    assert asked[1]["content"] == [image, {"type": "text", "text": "One?"}]
    assert [message["content"][-1]["text"] for message in asked] == ["Be brief.", "One?", "1", "Two?"]
    assert messages(["One?"], [image], system="")[0]["role"] == "user"


def test_seeds_differ_by_image_sample_question_and_try() -> None:
    def row(data: bytes, sample: int = 0, *turns: str) -> Row:
        return rows_of(request(data, *turns, samples=(sample,)))[0]

    asked = [([row(RED)], 0), ([row(BLUE)], 0), ([row(RED, 1)], 0), ([row(RED, 0, "What?")], 0), ([row(RED)], 1)]
    seeds = [seed_of(rows, tries) for rows, tries in asked]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [seed_of(rows, tries) for rows, tries in asked]
    assert all(0 <= seed < 2**31 for seed in seeds)

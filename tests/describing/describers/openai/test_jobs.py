"""Calls in flight: as many as allowed, pulled as there is room, none lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import openai_stub as server
from gpt4image.describing.describers.base import Answer, Request
from openai_cases import ask, describer, facts, request


def test_answers_that_are_not_on_disk_count_as_in_flight() -> None:
    with server.serve(lambda call: server.answer("x")) as stub:
        groups = describer(stub.url, concurrency=4).describe(map(request, range(12)))
        taken = len(next(groups))
        time.sleep(0.4)
        assert stub.count == 4
        rest = sum(len(group) for group in groups)
    assert taken + rest == 12
    assert stub.most_in_flight <= 4


def test_never_more_calls_than_allowed_and_that_many_where_the_server_is_slow() -> None:
    with server.serve(lambda call: server.answer("x", delay=0.2)) as stub:
        answers = ask(describer(stub.url, concurrency=12), *map(request, range(60)))
    assert len(answers) == 60
    assert stub.most_in_flight == 12


def test_requests_are_pulled_as_there_is_room() -> None:
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for number in range(10_000):
            pulled += 1
            yield request(number)

    with server.serve(lambda call: server.answer("x", delay=0.05)) as stub:
        maker = describer(stub.url, concurrency=4)
        answered = 0
        for group in maker.describe(requests()):
            answered += len(group)
            assert pulled <= answered + 20
            if answered > 50:
                break


def test_breaking_off_leaves_nothing_running_and_keeps_what_arrived() -> None:
    threads = threading.active_count()
    with server.serve(lambda call: server.answer("x", delay=0.0 if call.number < 4 else 60.0)) as stub:
        maker = describer(stub.url, concurrency=8)
        running = maker.describe(map(request, range(100)))
        came = list(next(running))
        deadline = time.monotonic() + 5
        while stub.count < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        running.close()  # type: ignore[attr-defined]
        came += maker.arrived()
        assert len(came) == 4
        assert threading.active_count() <= threads + 1, threading.enumerate()


def test_requests_that_end_early_let_the_calls_in_flight_finish_and_more_may_be_asked_later() -> None:
    with server.serve(lambda call: server.answer("x", delay=0.1)) as stub:
        maker = describer(stub.url)
        assert len(ask(maker, *map(request, range(5)))) == 5
        assert len(ask(maker, *map(request, range(5, 8)))) == 3
        assert ask(maker) == []
    assert facts(maker) == {"calls": 8, "calls_per_answer": 1.0}


def test_an_error_of_the_requests_is_raised_after_the_answers() -> None:
    def requests() -> Iterator[Request]:
        yield request(0)
        raise RuntimeError("no more")

    with server.serve(lambda call: server.answer("x")) as stub:
        answers: list[Answer] = []
        with pytest.raises(RuntimeError, match="no more"):
            for group in describer(stub.url).describe(requests()):
                answers += group
    assert [answer.text for answer in answers] in ([], ["x"])

"""Hands answers from the thread that receives them to the thread that keeps them."""

from __future__ import annotations

import queue
from collections.abc import Sequence

from gpt4image.describing.describers.base import Answer


class Arrivals:
    """A queue of answers with an end, which may be an error; the sender limits its length."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._error: BaseException | None = None

    def put(self, answer: Answer) -> None:
        """Hand over an answer; from any thread."""
        self._queue.put(answer)

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no more answers come, and why if it is not the end of the requests."""
        self._error = error
        self._queue.put(None)

    def wait(self) -> Sequence[Answer]:
        """Wait for an answer and return it with all others that have arrived; empty at the end.

        Raises:
            BaseException: the error of ``finish``.
        """
        first = self._queue.get()
        if first is None:
            if self._error is not None:
                raise self._error
            return []
        return [first, *self.waiting()]

    def waiting(self) -> Sequence[Answer]:
        """Return the answers that have arrived and wait."""
        answers: list[Answer] = []
        while not self._queue.empty():
            answer = self._queue.get()
            if answer is None:
                self._queue.put(None)
                break
            answers.append(answer)
        return answers

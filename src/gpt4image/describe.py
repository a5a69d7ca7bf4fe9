"""The stage ``describe``: ask a describer about every image that has no description yet, and keep what comes back.

Each answer is in the store, on disk, before the next is waited for; answers that arrive together share a transaction.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

from gpt4image.config import DescribeConfig
from gpt4image.data import NO_LABEL, ImageSet, load_image_set
from gpt4image.describers import Answer, Describer, Request, load_describer
from gpt4image.describers.prompts import find_prompt, render
from gpt4image.interrupts import Interrupt, deferred_interrupt
from gpt4image.outcome import Outcome, SetAside
from gpt4image.progress import progress_bar
from gpt4image.store import Description, DescriptionStore, Prompt

_ANSWERS_WAITING = 512


def describe(config: DescribeConfig) -> Outcome:
    """Describe the images of a set that have no description of this describer for this prompt.

    Raises:
        ConfigError: the SPEC of the set, the describer or the prompt is wrong.
        DataError: the image set cannot be read.
        StoreError: the store cannot be written.
        KeyboardInterrupt: the user stopped it; every answer that came is in the store.
    """
    prompt = find_prompt(config.prompt)
    describer = load_describer(config.describer)
    images = load_image_set(config.data)
    with DescriptionStore(config.store, write=True) as store:
        done = store.described(prompt, describer.settings)
        todo, set_aside = _to_describe(images, done, prompt)
        with deferred_interrupt() as interrupt:
            asking = _Asking(images, prompt, todo, config.limit, interrupt)
            tally = _keep_answers(store, describer, asking)
        if interrupt.requested:
            raise KeyboardInterrupt
    report = describer.report(images)
    distinct = set(images.digests)
    already = len(done & distinct)
    return Outcome(
        path=config.store,
        summary={
            "images": len(images),
            "distinct_images": len(distinct),
            "already_described": already,
            "described": tally.described,
            "failed": len(tally.failed),
            "without_description": len(distinct) - already - tally.described,
            **report.facts,
        },
        set_aside=(*images.set_aside, *set_aside, *tally.failed, *report.set_aside),
    )


@dataclass
class _Tally:
    described: int = 0
    failed: list[SetAside] = field(default_factory=list)


class _Asking:
    """The images still to describe, as requests: at most ``limit`` that the describer has something to say about."""

    def __init__(
        self,
        images: ImageSet,
        prompt: Prompt,
        todo: Mapping[str, list[int]],
        limit: int | None,
        interrupt: Interrupt,
    ) -> None:
        self.images = images
        self.prompt = prompt
        self.todo = todo
        self.limit = limit
        self.interrupt = interrupt
        self._asked = 0
        self._nothing_to_say = 0

    @property
    def total(self) -> int:
        return len(self.todo) if self.limit is None else min(self.limit, len(self.todo))

    def answers(self, describer: Describer) -> Iterator[Answer]:
        """Yield the answers that say something."""
        for answer in describer.describe(self._requests()):
            if answer.text is None and answer.error is None:
                self._nothing_to_say += 1
            else:
                yield answer

    def _requests(self) -> Iterator[Request]:
        images = self.images
        for digest, rows in self.todo.items():
            used_up = self.limit is not None and self._asked - self._nothing_to_say >= self.limit
            if used_up or self.interrupt.requested:
                return
            self._asked += 1
            yield Request(
                digest=digest,
                keys=tuple(images.keys[row] for row in rows),
                prompt=render(self.prompt, _class_name(images, rows)),
                read=partial(images.read, rows[0]),
            )


def _to_describe(images: ImageSet, done: set[str], prompt: Prompt) -> tuple[dict[str, list[int]], list[SetAside]]:
    """Return the rows of each digest to ask about, and the images that a class-conditioned prompt cannot ask about."""
    todo: dict[str, list[int]] = {}
    for row, digest in enumerate(images.digests):
        if digest not in done:
            todo.setdefault(digest, []).append(row)
    if not prompt.class_conditioned:
        return todo, []
    unlabelled = [digest for digest, rows in todo.items() if not _class_name(images, rows)]
    reason = f"no label, and the prompt {prompt.name!r} tells the class"
    return todo, [SetAside(name=images.keys[todo.pop(digest)[0]], reason=reason) for digest in unlabelled]


def _class_name(images: ImageSet, rows: list[int]) -> str:
    """Return the class of the first row that has a label; empty where none has."""
    labels = (int(images.labels[row]) for row in rows)
    return next((images.classes[label] for label in labels if label != NO_LABEL), "")


def _keep_answers(store: DescriptionStore, describer: Describer, asking: _Asking) -> _Tally:
    """Commit answers as they arrive and count them."""
    tally = _Tally()
    arrived = _Arrivals(asking.answers(describer))
    to_row = partial(_to_description, prompt=asking.prompt, settings=describer.settings)
    with progress_bar() as bar:
        task = bar.add_task("describe", total=asking.total, note="")
        try:
            while group := arrived.wait():
                store.add(to_row(answer) for answer in group)
                _count(tally, group)
                bar.update(task, advance=len(group), note=f"{len(tally.failed)} failed" if tally.failed else "")
        except KeyboardInterrupt:
            # A second Ctrl-C: the calls in flight are given up, but not what they have already brought.
            store.add(to_row(answer) for answer in arrived.waiting())
            raise
        finally:
            arrived.close()
    return tally


def _count(tally: _Tally, group: list[Answer]) -> None:
    for answer in group:
        if answer.error is None:
            tally.described += 1
        else:
            tally.failed.append(SetAside(name=answer.request.keys[0], reason=answer.error))


def _to_description(answer: Answer, prompt: Prompt, settings: Mapping[str, Any]) -> Description:
    return Description(
        digest=answer.request.digest,
        prompt=prompt,
        describer=settings,
        created=time.time(),
        text=answer.text if answer.error is None else None,
        error=answer.error,
        finish_reason=answer.finish_reason,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=answer.cost_usd,
        latency_s=answer.latency_s,
    )


class _Arrivals:
    """Takes answers in a thread of their own, so that calls go on while earlier answers are written to disk."""

    def __init__(self, answers: Iterator[Answer]) -> None:
        self._queue: queue.Queue[Answer | None] = queue.Queue(_ANSWERS_WAITING)
        self._closed = threading.Event()
        self._pool = ThreadPool(1)
        self._result = self._pool.apply_async(self._pump, (answers,))

    def wait(self) -> list[Answer]:
        """Wait for an answer and return it with all that wait behind it; empty at the end.

        Raises:
            Gpt4ImageError: what stopped the describer.
        """
        first = self._queue.get()
        if first is None:
            self._result.get()
            return []
        return [first, *self.waiting()]

    def waiting(self) -> list[Answer]:
        """Return the answers that have arrived and wait."""
        answers: list[Answer] = []
        while not self._queue.empty():
            answer = self._queue.get_nowait()
            if answer is None:
                self._queue.put(None)
                break
            answers.append(answer)
        return answers

    def close(self) -> None:
        """Take no more answers."""
        self._closed.set()
        self._pool.close()

    def _pump(self, answers: Iterator[Answer]) -> None:
        try:
            for answer in answers:
                if not self._put(answer):
                    return
        finally:
            self._put(None)

    def _put(self, answer: Answer | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(answer, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

"""What is still to be asked about a dataset: requests, one at a time, as far as the budget goes.

A refused answer was paid for: it is kept and not asked again. A call that failed brought nothing: the next run asks.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from gpt4image.artifacts.store import Prompt
from gpt4image.base.interrupts import Interrupt
from gpt4image.base.outcome import Skipped
from gpt4image.data import ImageSet
from gpt4image.describing.budget import Budget
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.questions import asked_again, question, schema_of
from gpt4image.describing.wanted import Settled

_NONE: frozenset[int] = frozenset()


class Asking:
    """Requests for every distinct image, prompt and sample that is not settled. Holds a number per image, no requests.

    They come as if shuffled, the same way every time, so that a part of a set is a part of all its classes.

    Attributes:
        skipped: images that a class-conditioned prompt cannot ask about, as far as the requests have come.
    """

    def __init__(
        self,
        images: ImageSet,
        prompts: Sequence[Prompt],
        samples: int,
        settled: Sequence[Settled],
        *,
        only: Collection[str] | None = None,
        last: Collection[str] = (),
        likely: Mapping[str, Sequence[str]] | None = None,
        sent: Mapping[Prompt, Settled] = MappingProxyType({}),
    ) -> None:
        """Prepare to ask.

        Args:
            images: the dataset.
            prompts: filled in for the run.
            samples: answers wanted for each image and prompt.
            settled: for each prompt, samples that need not be asked for, by digest.
            only: digests to ask about; None for all.
            last: digests to ask about after all others: a run that began with what failed before would fail.
            likely: the classes to offer for each image, where they are not all of the list; others are skipped.
            sent: samples that an earlier run sent, by prompt and digest: they come first, as they cost money anyway.
        """
        self._images = images
        self._prompts = prompts
        self._samples = frozenset(range(samples))
        self._settled = settled
        self._only = only
        self._last = last
        self._likely = likely
        self._sent = sent
        self._twins = _rows_of_equal_images(images)
        self._main = self._all()
        self._again: deque[Request] = deque()
        self._asked_again: set[tuple[str, Prompt, int]] = set()
        self._next: Request | None = None
        self._lock = threading.Lock()
        self.skipped: list[Skipped] = []

    def requests(self, budget: Budget, interrupt: Interrupt) -> Iterator[Request]:
        """Yield requests until there are none, the budget has no room for now, or the user interrupts."""
        while not interrupt.requested:
            with self._lock:
                request, again = self._peek()
                if request is None or not budget.admit(request, again=again, sent=self._was_sent(request)):
                    return
                if again:
                    self._again.popleft()
                else:
                    self._next = None
            yield replace(request, pay_again=partial(budget.pay_again, request))

    def goes_on(self, budget: Budget) -> bool:
        """Return whether ``requests`` would yield one."""
        with self._lock:
            request, again = self._peek()
            return request is not None and budget.allows(request, again=again, sent=self._was_sent(request))

    def finished(self) -> bool:
        """Return whether everything was asked."""
        with self._lock:
            return self._peek()[0] is None

    def was_asked_again(self, answer: Answer) -> bool:
        """Return whether this is the answer to a second try."""
        return _name(answer) in self._asked_again

    def ask_again(self, answer: Answer, *, outside_list: bool = False) -> None:
        """Ask once more for an answer that is of no use, or names a class outside the list; then it is left alone."""
        with self._lock:
            if _name(answer) not in self._asked_again:
                self._asked_again.add(_name(answer))
                request = replace(answer.request, samples=(answer.sample,))
                self._again.append(replace(request, turns=asked_again(request.turns)) if outside_list else request)

    def _was_sent(self, request: Request) -> bool:
        return bool(self._sent.get(request.prompt, {}).get(request.digest, _NONE) & {*request.samples})

    def _peek(self) -> tuple[Request | None, bool]:
        """Return the next request, and whether it was asked before."""
        # Second tries first: at the end of a run nothing would be left to do beside them, and a limit that has no room
        # for a new request has room for them.
        if self._again:
            return self._again[0], True
        if self._next is None:
            self._next = next(self._main, None)
        return self._next, False

    def _all(self) -> Iterator[Request]:
        images = self._images
        digests = images.digests
        wanted = [
            row
            for row, digest in enumerate(digests)
            if any(self._samples - s.get(digest, _NONE) for s in self._settled)
        ]
        first = {digest for own in self._sent.values() for digest in own}

        def place(row: int) -> tuple[bool, bool, str]:
            # By the ends of the digests: splits are cut by their beginnings, and the test split would come first.
            return digests[row] not in first, digests[row] in self._last, digests[row][-16:]

        for row in sorted(wanted, key=place):
            digest = digests[row]
            rows = self._twins.get(digest, [row])
            if rows[0] != row or (self._only is not None and digest not in self._only):
                continue
            for prompt, settled in zip(self._prompts, self._settled, strict=True):
                if samples := self._samples - settled.get(digest, _NONE):
                    yield from self._of_image(rows, prompt, sorted(samples))

    def _of_image(self, rows: Sequence[int], prompt: Prompt, samples: Sequence[int]) -> Iterator[Request]:
        images, row = self._images, rows[0]
        digest = images.digests[row]
        named = (", ".join(images.label_names(other)) for other in rows)
        class_name = next((names for names in named if names), "")
        likely = None if self._likely is None else self._likely.get(digest, ())
        reason = None
        if prompt.class_conditioned and not class_name:
            reason = f"no label, and the prompt {prompt.name!r} tells the class"
        elif likely is not None and not likely:
            reason = "no description, by which its likely classes would be chosen"
        if reason is not None:
            self.skipped.append(Skipped(name=images.keys[row], reason=reason))
            return
        # Each sample sees the classes in another order; without classes, one call may bring several samples.
        for group in [(sample,) for sample in samples] if prompt.classes else [tuple(samples)]:
            yield Request(
                digest=digest,
                keys=tuple(images.keys[other] for other in rows),
                prompt=prompt,
                turns=question(prompt, class_name, digest, group[0], likely),
                samples=group,
                schema=schema_of(prompt, None if likely is None else tuple(likely)),
                read=partial(images.read, row),
                clips=images.clips,
            )


def _name(answer: Answer) -> tuple[str, Prompt, int]:
    return answer.request.digest, answer.request.prompt, answer.sample


def _rows_of_equal_images(images: ImageSet) -> dict[str, list[int]]:
    """Return all rows of each digest that several images share."""
    shared = {digest for digest, count in Counter(images.digests).items() if count > 1}
    rows: dict[str, list[int]] = {digest: [] for digest in shared}
    for row, digest in enumerate(images.digests):
        if digest in shared:
            rows[digest].append(row)
    return rows

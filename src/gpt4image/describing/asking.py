"""Asking within the money: requests for what is missing, one at a time, as far as a number and a budget go.

The dearest outcome of each call is reserved before it is sent. Where nothing more fits, the round ends, what was
really spent is known, and the next round begins: so the sum comes close to ``--max-cost`` from below. What earlier runs
have spent counts. So does what may have been in flight when one was killed, which is noted before it is sent.

A refused answer was paid for: it is kept and not asked again. A call that failed brought nothing: the next run asks.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gpt4image.artifacts.results import Prompt
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.base.interrupts import Interrupt
from gpt4image.base.outcome import Skipped
from gpt4image.data import Dataset
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.missing import NO_SAMPLES, Missing, Samples
from gpt4image.describing.prices import FREE, Price
from gpt4image.describing.questions import asked_again, question, schema_of

_MARGIN = 1.25  # images of one size differ a little in tokens: the next is taken for the longest so far times this
# Images of different sizes differ much, and after few answers the largest is not seen yet: with n answers, calls that
# go together count this / n times the longest input so far.
_UNSEEN = 64.0
_ROOM = 1.25  # of what is noted as in flight above what is: so that few calls wait for the disk


@dataclass
class _Seen:
    """What answers to a prompt tell about its inputs: tokens of the longest one, and the number of answers."""

    longest: float = 0.0
    answers: float = 0.0


class Budget:
    """Admits requests and counts what they cost; safe to use from several threads.

    The dearest outcome of every call in flight is reserved, so that the sum spent stays under ``max_cost``: output up
    to the limit of tokens, and input as long as the longest so far with a margin, which is large while few are known.
    Before the first answer nothing is known about the input, so the first request goes alone. A prompt without an
    answer has at most the longest input of the others and a token per byte of its own text. Where the large margin
    leaves no room, requests go one by one with the small one. So ``max_cost`` is overrun only by inputs that exceed
    their margin: requests come as if shuffled, and with n answers known, one in n + 1 is longer than all.

    ``spent`` counts all answers in US dollars, ``earlier`` of it those of earlier runs, ``uncertain`` of it what is an
    upper bound: calls whose answers were lost, or did not tell their price.
    """

    def __init__(self, *, limit: int | None, max_cost: float | None, price: Price | None, max_tokens: int) -> None:
        """Start with nothing spent. Raises ConfigError: the cost is limited and the price is unknown or zero."""
        if max_cost is not None and price in (None, FREE):
            known = "none is known for this model" if price is None else "this model counts as free"
            raise ConfigError(
                f"--max-cost needs a price, and {known}: give --prices FILE with "
                '{"MODEL": {"input": X, "output": Y}} in US dollars per million tokens, or leave out --max-cost where '
                "nobody sends a bill."
            )
        self.limit, self.max_cost = limit, max_cost
        self._price, self._max_tokens = price, max_tokens
        self._lock = threading.Lock()
        self._seen: dict[Prompt, _Seen] = {}
        self._reserved: dict[tuple[str, Prompt, int], float] = {}
        self._note: Callable[[float], None] | None = None
        self._noted = 0.0
        self.spent = self.earlier = self.uncertain = self._reserved_sum = 0.0
        self.asked = 0

    def begin(self, known: float, uncertain: float, note: Callable[[float], None] | None) -> None:
        """Count what earlier runs have spent: ``known``, and what lost calls may have cost besides.

        ``note`` keeps, from any thread and before a call is sent, what may have been spent besides the stored answers;
        None where a call in flight is known to the next run.
        """
        self.spent = self.earlier = known + uncertain
        self.uncertain, self._note, self._noted = uncertain, note, uncertain

    def end(self) -> None:
        """Note that nothing is in flight any more."""
        with self._lock:
            self._keep_note(exactly=True)

    def learn(self, prompt: Prompt, inputs: Sequence[int]) -> None:
        """Count earlier answers to a prompt: tokens of their requests."""
        if inputs:
            self._see(prompt, max(inputs), len(inputs))

    def admit(self, request: Request, *, again: bool = False, sent: bool = False) -> bool:
        """Count the request and reserve its price, or return False if it is too much for now.

        ``again``: it was asked before in this run and is not counted for ``limit``. ``sent``: an earlier run sent it,
        so that it costs money in any case.
        """
        with self._lock:
            if not self._allows(request, again, sent):
                return False
            self._reserve(request)
            self.asked += not again
            return True

    def allows(self, request: Request, *, again: bool = False, sent: bool = False) -> bool:
        """Return whether ``admit`` would admit the request."""
        with self._lock:
            return self._allows(request, again, sent)

    def pay_again(self, request: Request) -> bool:
        """Reserve the price of one more call for a request, or return False if it is too much.

        The reservations of its earlier calls stay until its answer is settled.
        """
        with self._lock:
            if self.max_cost is not None:
                if not self._seen or self.spent + self._reserved_sum + self._dearest(request) > self.max_cost:
                    return False
                self._reserve(request)
            return True

    def settle(self, answer: Answer) -> None:
        """Replace the reservation for an answer by what it cost.

        Raises:
            DescriberError: the cost is limited and the answer does not tell what it cost.
        """
        with self._lock:
            self._reserved_sum -= self._reserved.pop(answer.request.name, 0.0)
            self.spent += answer.cost_usd or 0.0
            # A content filter leaves an empty text, which costs nothing.
            if self.max_cost is not None and answer.text and answer.cost_usd is None:
                raise DescriberError(
                    "--max-cost cannot be kept: the server does not say how many tokens an answer took. What it "
                    "answered is kept; give --limit instead."
                )
            if answer.tokens_in is not None:
                self._see(answer.request.prompt, answer.tokens_in, 1)
            if self.max_cost is not None and answer.unpriced:
                if not self._seen:  # nothing bounds the price: it may be all there was
                    lost = max(0.0, math.nextafter(self.max_cost, math.inf) - self.spent)
                else:
                    lost = answer.unpriced * self._price_of(answer.request, _MARGIN)
                self.spent += lost
                self.uncertain += lost
            self._keep_note()

    def take_back(self, answer: Answer) -> None:
        """Do not count a request that the describer has no answer for."""
        with self._lock:
            self.asked -= 1
            self._reserved_sum -= self._reserved.pop(answer.request.name, 0.0)
            self._keep_note()

    def _keep_note(self, *, exactly: bool = False) -> None:
        """Note what may have been spent besides what the answers tell, where the last note is too low or far too high.

        The calls of a run that is killed then count in the next one, although nobody knows what they cost.
        """
        now = self.uncertain + (0.0 if exactly else self._reserved_sum)
        if self._note is None or now == self._noted or (not exactly and now <= self._noted <= 2 * _ROOM * now):
            return
        self._noted = now if exactly else self.uncertain + _ROOM * self._reserved_sum
        self._note(self._noted)

    def _reserve(self, request: Request) -> None:
        if self.max_cost is not None:
            price = self._dearest(request)
            self._reserved[request.name] = self._reserved.get(request.name, 0.0) + price
            self._reserved_sum += price
            self._keep_note()

    def _allows(self, request: Request, again: bool, sent: bool) -> bool:
        if self.limit is not None and not again and self.asked >= self.limit:
            return False
        if self.max_cost is None or sent:
            return True
        if not self._seen and self._reserved:
            return False
        return self.spent + self._reserved_sum + self._dearest(request) <= self.max_cost

    def _dearest(self, request: Request) -> float:
        answers = self._seen_for(request).answers
        alone = not self._reserved or not answers
        return self._price_of(request, _MARGIN if alone else max(_MARGIN, _UNSEEN / answers))

    def _price_of(self, request: Request, margin: float) -> float:
        """Return the price of a call whose input is ``margin`` times as long as the longest so far."""
        if self._price is None:
            return 0.0
        return self._price.of(margin * self._seen_for(request).longest, self._max_tokens * len(request.turns))

    def _see(self, prompt: Prompt, length: float, answers: float) -> None:
        seen = self._seen.setdefault(prompt, _Seen())
        seen.longest, seen.answers = max(seen.longest, length), seen.answers + answers

    def _seen_for(self, request: Request) -> _Seen:
        if own := self._seen.get(request.prompt):
            return own
        if not (others := self._seen.values()):
            return _Seen()
        turns, text = len(request.turns), sum(len(turn.encode()) for turn in request.turns)
        longest = turns * (max(seen.longest for seen in others) + text) + (turns - 1) * self._max_tokens
        return _Seen(longest, max(seen.answers for seen in others))


class Asking:
    """Requests for every distinct image, prompt and sample that is missing, made lazily.

    They come as if shuffled, the same way every time, so that a part of a set is a part of all its classes.

    Attributes:
        skipped: images that a class-conditioned prompt cannot ask about, as far as the requests have come.
    """

    def __init__(
        self,
        images: Dataset,
        missing: Sequence[Missing],
        *,
        only: Collection[str] | None = None,
        last: Collection[str] = (),
        sent: Mapping[Prompt, Samples] | None = None,
    ) -> None:
        """Prepare to ask what is missing about ``only`` some digests; None for all.

        Samples that an earlier run ``sent`` come first, as they cost money anyway. Digests that failed before come
        ``last``: a run that began with them would fail.
        """
        self._images, self._missing, self._sent = images, missing, sent or {}
        self._main = self._all(only, last)
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
            yield replace(request, pay_again=lambda it=request: not interrupt.requested and budget.pay_again(it))

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
        return answer.request.name in self._asked_again

    def ask_again(self, answer: Answer, *, outside_list: bool = False) -> None:
        """Ask once more for an answer that is of no use, or names a class outside the list; then it is left alone."""
        with self._lock:
            if answer.request.name not in self._asked_again:
                self._asked_again.add(answer.request.name)
                request = replace(answer.request, again=True)
                self._again.append(replace(request, turns=asked_again(request.turns)) if outside_list else request)

    def _was_sent(self, request: Request) -> bool:
        return request.sample in self._sent.get(request.prompt, {}).get(request.digest, NO_SAMPLES)

    def _peek(self) -> tuple[Request | None, bool]:
        """Return the next request, and whether it was asked before."""
        # Second tries first: at the end of a run nothing would be left to do beside them, and a limit that has no room
        # for a new request has room for them.
        if self._again:
            return self._again[0], True
        if self._next is None:
            self._next = next(self._main, None)
        return self._next, False

    def _all(self, only: Collection[str] | None, last: Collection[str]) -> Iterator[Request]:
        first = {digest for own in self._sent.values() for digest in own}
        rows_of: dict[str, int] = {}
        twins: dict[str, list[int]] = {}  # of equal images, all rows
        for row, digest in enumerate(self._images.digests):
            if (only is not None and digest not in only) or not any(digest in one.wanted for one in self._missing):
                continue
            if (other := rows_of.setdefault(digest, row)) != row:
                twins.setdefault(digest, [other]).append(row)

        def place(digest: str) -> tuple[bool, bool, str]:
            # By the ends of the digests: splits are cut by their beginnings, and the test split would come first.
            return digest not in first, digest in last, digest[-16:]

        for digest in sorted(rows_of, key=place):
            for one in self._missing:
                if digest in one.wanted:
                    yield from self._of_image(
                        twins.get(digest, [rows_of[digest]]), one.prompt, sorted(one.wanted[digest])
                    )

    def _of_image(self, rows: Sequence[int], prompt: Prompt, samples: Sequence[int]) -> Iterator[Request]:
        images, row = self._images, rows[0]
        digest = images.digests[row]
        class_name = next((names for other in rows if (names := ", ".join(images.label_names(other)))), "")
        if prompt.class_conditioned and not class_name:
            reason = f"no label, and the prompt {prompt.name!r} tells the class"
            self.skipped.append(Skipped(name=images.keys[row], reason=reason))
            return
        for sample in samples:
            yield Request(
                digest=digest,
                keys=tuple(images.keys[other] for other in rows),
                prompt=prompt,
                turns=question(prompt, class_name, digest, sample),
                sample=sample,
                schema=schema_of(prompt),
                read=partial(images.read, row),
                clips=images.clips,
            )

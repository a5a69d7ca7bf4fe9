"""How much may still be asked: a number of requests, and money.

The dearest outcome of each call is reserved before it is sent. Where nothing more fits, the round ends, what was
really spent is known, and the next round begins: so the sum comes close to ``--max-cost`` from below. What earlier runs
have spent counts. So does what may have been in flight when one was killed, which is noted before it is sent.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpt4image.artifacts.results import Prompt
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.prices import FREE, Price

_MARGIN = 1.25  # images of one size differ a little in tokens: the next is taken for the longest so far times this
# Images of different sizes differ much, and after few answers the largest is not seen yet: with n answers, calls that
# go together count this / n times the longest input so far.
_UNSEEN = 64.0
_ROOM = 1.25  # of what is noted as in flight above what is: so that few calls wait for the disk


@dataclass
class _Seen:
    """What answers to a prompt tell about its inputs: tokens of the longest one, and the number of calls."""

    longest: float = 0.0
    calls: float = 0.0


class Budget:
    """Admits requests and counts what they cost; safe to use from several threads.

    The dearest outcome of every call in flight is reserved, so that the sum spent stays under ``max_cost``: output up
    to the limit of tokens, and input as long as the longest so far with a margin, which is large while few are known.
    A call that was paid for and does not tell its price counts at the same dearest outcome, with the small margin.
    Before the first answer nothing is known about the length of the input, so the first request goes alone, unless
    earlier runs left answers (``learn``). A prompt without an answer has at most the longest input of the others and a
    token per byte of its own text. Where the large margin leaves no room, requests go one by one with the small one.
    So ``max_cost`` is overrun only by inputs that exceed their margin: requests come as if shuffled, and with n answers
    known, one in n + 1 is longer than all.

    Attributes:
        spent: what all answers have cost, those of earlier runs included, in US dollars.
        earlier: how much of it was spent before this run.
        uncertain: how much of it is no more than a bound: calls whose answers were lost, or did not tell their price.
    """

    def __init__(self, *, limit: int | None, max_cost: float | None, price: Price | None, max_tokens: int) -> None:
        """Start with nothing spent.

        Args:
            limit: maximum number of requests.
            max_cost: maximum cost, in US dollars.
            price: of tokens; None if unknown.
            max_tokens: maximum tokens per answer to one turn.

        Raises:
            ConfigError: the cost is limited and the price is unknown or zero.
        """
        if max_cost is not None and price in (None, FREE):
            known = "none is known for this model" if price is None else "this model counts as free"
            raise ConfigError(
                f"--max-cost needs a price, and {known}: give --prices FILE with "
                '{"MODEL": {"input": X, "output": Y}} in US dollars per million tokens, or leave out --max-cost where '
                "nobody sends a bill."
            )
        self.limit = limit
        self.max_cost = max_cost
        self._price = price
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._seen: dict[Prompt, _Seen] = {}
        self._reserved: dict[tuple[str, str, int], float] = {}
        self._reserved_sum = 0.0
        self._note: Callable[[float], None] | None = None
        self._noted = 0.0
        self.spent = self.earlier = self.uncertain = 0.0
        self.asked = 0

    def begin(self, known: float, uncertain: float, note: Callable[[float], None] | None) -> None:
        """Count what earlier runs have spent.

        Args:
            known: what their answers have cost.
            uncertain: what lost calls may have cost besides.
            note: keeps what may have been spent besides the answers that are stored, before a call is sent; from any
                thread. None where a call that is in flight is known to the next run.
        """
        self.spent = self.earlier = known + uncertain
        self.uncertain, self._note, self._noted = uncertain, note, uncertain

    def end(self) -> None:
        """Note that nothing is in flight any more."""
        with self._lock:
            self._keep_note(exactly=True)

    def learn(self, prompt: Prompt, inputs: Sequence[int], samples: int) -> None:
        """Count earlier answers to a prompt: tokens of their requests, each the share of one of ``samples``."""
        if inputs:
            self._see(prompt, float(max(inputs) * samples), len(inputs) / samples)

    def admit(self, request: Request, *, again: bool = False, sent: bool = False) -> bool:
        """Count the request and reserve its price, or return False if it is too much for now.

        ``again``: it was asked before in this run and is not counted for ``limit``. ``sent``: an earlier run sent it,
        so that it costs money in any case.
        """
        with self._lock:
            price = self._dearest(request)
            if not self._allows(price, again, sent):
                return False
            if self.max_cost is not None:
                self._reserve(request, request.samples, price)
            self.asked += not again
            return True

    def allows(self, request: Request, *, again: bool = False, sent: bool = False) -> bool:
        """Return whether ``admit`` would admit the request."""
        with self._lock:
            return self._allows(self._dearest(request), again, sent)

    def pay_again(self, request: Request, samples: Sequence[int]) -> bool:
        """Reserve the price of one more call for samples of a request, or return False if it is too much.

        The reservations of earlier calls stay until their answers are settled.
        """
        with self._lock:
            price = self._dearest(request)
            if self.max_cost is None:
                return True
            if not self._seen or self.spent + self._reserved_sum + price > self.max_cost:
                return False
            self._reserve(request, samples, price)
            return True

    def settle(self, answer: Answer) -> None:
        """Replace the reservation for an answer by what it cost.

        Raises:
            DescriberError: the cost is limited and the answer does not tell what it cost.
        """
        with self._lock:
            self._reserved_sum -= self._reserved.pop(_name(answer.request, answer.sample), 0.0)
            self.spent += answer.cost_usd or 0.0
            # A content filter leaves an empty text, which costs nothing.
            if self.max_cost is not None and answer.text and answer.cost_usd is None:
                raise DescriberError(
                    "--max-cost cannot be kept: the server does not say how many tokens an answer took. What it "
                    "answered is kept; give --limit instead."
                )
            if answer.tokens_in is not None:
                samples = len(answer.request.samples)
                self._see(answer.request.prompt, float(answer.tokens_in * samples), 1 / samples)
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
            self._reserved_sum -= self._reserved.pop(_name(answer.request, answer.sample), 0.0)
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

    def _reserve(self, request: Request, samples: Sequence[int], price: float) -> None:
        for sample in samples:
            name = _name(request, sample)
            self._reserved[name] = self._reserved.get(name, 0.0) + price / len(samples)
        self._reserved_sum += price
        self._keep_note()

    def _allows(self, price: float, again: bool, sent: bool) -> bool:
        if self.limit is not None and not again and self.asked >= self.limit:
            return False
        if self.max_cost is None or sent:
            return True
        if not self._seen and self._reserved:
            return False
        return self.spent + self._reserved_sum + price <= self.max_cost

    def _dearest(self, request: Request) -> float:
        if self.max_cost is None:
            return 0.0
        seen = self._seen_for(request)
        alone = not self._reserved or not seen.calls
        return self._price_of(request, _MARGIN if alone else max(_MARGIN, _UNSEEN / seen.calls))

    def _price_of(self, request: Request, margin: float) -> float:
        """Return the price of a call whose input is ``margin`` times as long as the longest so far."""
        if self._price is None:
            return 0.0
        tokens_out = self._max_tokens * len(request.turns) * len(request.samples)
        return self._price.of(margin * self._seen_for(request).longest, tokens_out)

    def _see(self, prompt: Prompt, length: float, calls: float) -> None:
        seen = self._seen.setdefault(prompt, _Seen())
        seen.longest, seen.calls = max(seen.longest, length), seen.calls + calls

    def _seen_for(self, request: Request) -> _Seen:
        if own := self._seen.get(request.prompt):
            return own
        if not (others := self._seen.values()):
            return _Seen()
        turns, text = len(request.turns), sum(len(turn.encode()) for turn in request.turns)
        longest = turns * (max(seen.longest for seen in others) + text) + (turns - 1) * self._max_tokens
        return _Seen(longest, max(seen.calls for seen in others))


def _name(request: Request, sample: int) -> tuple[str, str, int]:
    return request.digest, request.prompt.name, sample

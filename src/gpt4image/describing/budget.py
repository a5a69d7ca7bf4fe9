"""How much may still be asked: a number of requests, and money."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.prices import FREE, Price

# Images of one size differ a little in tokens; the largest seen so far is taken for the next, with this to spare.
_MARGIN = 1.25
# Images of different sizes differ much. After few answers the largest is not seen yet: with one, so many times as much
# is taken for calls that go together; with two, half of that, and so on.
_UNSEEN = 64.0


class Budget:
    """Admits requests and counts what they cost; safe to use from several threads.

    The dearest outcome of every call in flight is reserved, so that the sum spent stays under ``max_cost``: output up
    to the limit of tokens, and input as long as the longest so far with a margin, which is large while few are known.
    A call that was paid for and does not tell its price counts at the same dearest outcome, with the small margin.
    Before the first answer nothing is known about the length of the input, so the first request goes alone. Where the
    large margin leaves no room, requests go one by one with the small one. So ``max_cost`` is overrun only by inputs
    that exceed their margin: requests come as if shuffled, and with n answers known, one in n + 1 is longer than all.
    """

    def __init__(self, *, limit: int | None, max_cost: float | None, price: Price | None, max_tokens: int) -> None:
        """Start with nothing spent.

        Args:
            limit: most requests; None for no limit.
            max_cost: most money, in US dollars; None for no limit.
            price: of tokens; None where unknown.
            max_tokens: most tokens of an answer to one turn.

        Raises:
            ConfigError: money is limited and no price is known, or it is nothing.
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
        self._longest_input: float | None = None
        self._inputs_seen = 0.0
        self._reserved: dict[tuple[str, str, int], float] = {}
        self._reserved_sum = 0.0
        self.spent = 0.0
        self.asked = 0

    def admit(self, request: Request, *, again: bool = False) -> bool:
        """Count the request and reserve its price, or return False where it is too much for now.

        Args:
            request: what is to be sent.
            again: it was asked before in this run and is not counted for ``limit``.
        """
        with self._lock:
            price = self._dearest(request)
            if not self._allows(price, again):
                return False
            if self.max_cost is not None:
                for sample in request.samples:
                    self._reserved[_name(request, sample)] = price / len(request.samples)
                self._reserved_sum += price
            self.asked += 0 if again else 1
            return True

    def allows(self, request: Request, *, again: bool = False) -> bool:
        """Return whether ``admit`` would admit the request."""
        with self._lock:
            return self._allows(self._dearest(request), again)

    def pay_again(self, request: Request, samples: Sequence[int]) -> bool:
        """Reserve the price of one more call for samples of a request, or return False where it is too much.

        What is reserved for the calls before stays reserved until their answers are settled.
        """
        with self._lock:
            price = self._dearest(request)
            if self.max_cost is None:
                return True
            if self._longest_input is None or self.spent + self._reserved_sum + price > self.max_cost:
                return False
            for sample in samples:
                name = _name(request, sample)
                self._reserved[name] = self._reserved.get(name, 0.0) + price / len(samples)
            self._reserved_sum += price
            return True

    def settle(self, answer: Answer) -> None:
        """Replace what was reserved for an answer by what it cost.

        Raises:
            DescriberError: money is limited and the answer does not tell what it cost.
        """
        with self._lock:
            self._reserved_sum -= self._reserved.pop(_name(answer.request, answer.sample), 0.0)
            self.spent += answer.cost_usd or 0.0
            # An empty text is what a content filter leaves, for which nobody pays.
            if self.max_cost is not None and answer.text and answer.cost_usd is None:
                raise DescriberError(
                    "--max-cost cannot be kept: the server does not say how many tokens an answer took. What it "
                    "answered is kept; give --limit instead."
                )
            if answer.tokens_in is not None:
                length = float(answer.tokens_in * len(answer.request.samples))
                self._longest_input = max(self._longest_input or 0.0, length)
                self._inputs_seen += 1 / len(answer.request.samples)
            if self.max_cost is not None and answer.unpriced:
                self.spent = self._after_unpriced(answer, self.max_cost)

    def take_back(self, answer: Answer) -> None:
        """Do not count a request that the describer has nothing to say about."""
        with self._lock:
            self.asked -= 1
            self._reserved_sum -= self._reserved.pop(_name(answer.request, answer.sample), 0.0)

    def _allows(self, price: float, again: bool) -> bool:
        if self.limit is not None and not again and self.asked >= self.limit:
            return False
        if self.max_cost is None:
            return True
        if self._longest_input is None and self._reserved:
            return False
        return self.spent + self._reserved_sum + price <= self.max_cost

    def _after_unpriced(self, answer: Answer, max_cost: float) -> float:
        """Return what counts as spent after calls at a price that nobody tells."""
        if self._longest_input is None:  # nothing bounds it: it may be all there was, and one more call too much
            return max(self.spent, math.nextafter(max_cost, math.inf))
        return self.spent + answer.unpriced * self._price_of(answer.request, _MARGIN)

    def _dearest(self, request: Request) -> float:
        return 0.0 if self.max_cost is None else self._price_of(request, self._margin())

    def _price_of(self, request: Request, margin: float) -> float:
        """Return the price of a call whose input is ``margin`` times as long as the longest so far."""
        if self._price is None:
            return 0.0
        tokens_out = self._max_tokens * len(request.turns) * len(request.samples)
        return self._price.of(margin * (self._longest_input or 0.0), tokens_out)

    def _margin(self) -> float:
        """Return how many times as long as the longest so far the next input is taken to be."""
        alone = not self._reserved
        return _MARGIN if alone or not self._inputs_seen else max(_MARGIN, _UNSEEN / self._inputs_seen)


def _name(request: Request, sample: int) -> tuple[str, str, int]:
    return request.digest, request.prompt.name, sample

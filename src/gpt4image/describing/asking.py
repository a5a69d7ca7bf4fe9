"""What is asked: the parts of an answer that no stored answer brings, one request at a time, within the money.

A part that is there is not paid for again: an image is only asked for what it lacks. A class, boxes or tags of a list
count as there if the list was the same. An answer that chose its class from a shorter list stays valid under the longer
one, unless the image may be of an added class.

The dearest outcome of each call is reserved before it is sent. Where nothing more fits, the round ends, what was
really spent is known, and the next round begins: so the sum comes close to ``--max-cost`` from below. What may have
been in flight when an earlier run was killed counts, too: it is noted before it is sent.
"""

import math
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np

from gpt4image.artifacts.answers import CLASS, DESCRIPTION, TAGS
from gpt4image.artifacts.store import ClassOption, DescriptionStore, NoteCosts, Prompt, Spent, canonical_json
from gpt4image.base.errors import ConfigError
from gpt4image.base.interrupts import Interrupt
from gpt4image.base.outcome import Skipped
from gpt4image.config.base import listed
from gpt4image.config.describing import AskedOptions
from gpt4image.data import Dataset, load_with_splits
from gpt4image.describing.describers.base import Answer, Name, Request
from gpt4image.describing.prices import FREE, Price
from gpt4image.describing.questions import OUTSIDE_THE_LIST, asking_for, question, schema_of, tags_of_list

SURE = 0.9
"""Stated confidence from which on only the description can put a class of a shorter list in doubt."""


def asked_images(options: AskedOptions, spec: str) -> tuple[Dataset, Dataset]:
    """Return a dataset with all its splits, and the images of those asked about. Raises ConfigError, DataError."""
    dataset = load_with_splits(spec, val_fraction=options.val_fraction, test_fraction=options.test_fraction)
    chosen = np.flatnonzero(np.isin(dataset.splits, listed(options.splits)))
    if not len(chosen):
        names, counts = np.unique(dataset.splits, return_counts=True)
        there = ", ".join(f"{count:,} of {name}" for name, count in zip(names, counts, strict=True))
        raise ConfigError(
            f"--splits {options.splits}: {spec} has no image of it, only {there}; give --splits {','.join(names)}."
        )
    return dataset, dataset if len(chosen) == len(dataset) else dataset.select(chosen)


@dataclass
class Missing:
    """What one prompt is still to be asked, by digest.

    Attributes:
        lacking: what has no good answer.
        wanted: those of them to ask about: without rejected ones, unless these are asked for again.
    """

    prompt: Prompt
    lacking: set[str] = field(default_factory=set[str])
    wanted: set[str] = field(default_factory=set[str])


def find_missing(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    bases: Sequence[Prompt],
    ask: tuple[str, ...],
    classes: Sequence[ClassOption],
    *,
    digests: Collection[str],
    retry_rejected: bool,
    exactly: bool = False,
) -> tuple[list[Missing], int]:
    """Return what a describer with these settings is still to be asked about images, and how many answers are there.

    ``exactly``: only answers to the very same question are there.
    """
    stored, about = store.prompts(), set(digests)

    @cache
    def settled(prompt: Prompt, rejected: bool) -> set[str]:
        found = {digest for digest, _ in store.settled(prompt, settings, rejected=rejected)}
        return found | settled(prompt, False) if rejected else found

    doubtful = cache(partial(_may_be_added, store, settings, classes, about))

    def without(base: Prompt, rejected: bool) -> dict[tuple[str, ...], set[str]]:
        """The images that lack something, by the parts that they lack."""
        parts_of: dict[str, tuple[str, ...]] = {}
        for part in ask:
            there = set[str]()
            for prompt in stored:
                if prompt == asking_for(base, ask, classes) if exactly else brings(prompt, part, base, ask, classes):
                    there |= settled(prompt, rejected)
                elif part == CLASS and is_shorter(prompt, classes) and not exactly:
                    there |= settled(prompt, rejected) - doubtful(prompt)
            parts_of.update({digest: (*parts_of.get(digest, ()), part) for digest in about - there})
        found = dict[tuple[str, ...], set[str]]()
        for digest, parts in parts_of.items():
            found.setdefault(parts, set()).add(digest)
        return found

    missing, done = list[Missing](), 0
    for base in bases:
        lacking = without(base, False)
        wanted = lacking if retry_rejected else without(base, True)
        done += len(about) - sum(map(len, lacking.values()))
        for parts in sorted({*lacking, *wanted} or {ask}, key=lambda parts: (-len(parts), parts)):
            # Tags alone are words where they are so beside a class.
            words = tags_of_list(parts, classes) and not tags_of_list(ask, classes)
            prompt = asking_for(base, parts, () if words else classes)
            missing.append(Missing(prompt, {*lacking.get(parts, ())}, {*wanted.get(parts, ())}))
    return missing, done


def brings(prompt: Prompt, part: str, base: Prompt, ask: Sequence[str], classes: Sequence[ClassOption]) -> bool:
    """Return whether an answer to a prompt has a part of ``ask`` as it is asked for now, by ``base`` and the list."""
    if part not in prompt.ask:
        return False
    if part == DESCRIPTION:
        return prompt == asking_for(base, prompt.ask, prompt.classes)
    if part == TAGS and not tags_of_list(ask, classes):
        return not tags_of_list(prompt.ask, prompt.classes)
    return prompt.classes == tuple(classes) and (part != TAGS or tags_of_list(prompt.ask, prompt.classes))


def is_shorter(prompt: Prompt, classes: Sequence[ClassOption]) -> bool:
    """Return whether a prompt offered some of the classes, with the same definitions, and no others."""
    return CLASS in prompt.ask and len(prompt.classes) < len(classes) and set(prompt.classes) < set(classes)


def _may_be_added(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    classes: Sequence[ClassOption],
    digests: Collection[str],
    prompt: Prompt,
) -> set[str]:
    """Return the images whose answer to a prompt with a shorter list the added classes put in doubt.

    It was of no class of the list, its class was stated with a confidence below SURE, or its description names an added
    class. Without a confidence and a description it is in doubt, too.
    """
    doubtful, silent = set[str](), set[str]()
    for item in store.answers(describer=settings):
        if item.prompt == prompt and item.digest in digests:
            stated = item.answer.probability if item.answer.confidence is None else item.answer.confidence
            if item.answer.class_name is None or (stated is not None and stated < SURE):
                doubtful.add(item.digest)
            elif stated is None:
                silent.add(item.digest)
    added = [_squeezed(option.name) for option in classes if option not in prompt.classes]
    for row in store.descriptions(describer=settings):
        if row.text and row.digest in digests:
            silent.discard(row.digest)
            if any(name in _squeezed(row.text) for name in added):
                doubtful.add(row.digest)
    return doubtful | silent


def _squeezed(text: str) -> str:
    """Return the letters and digits of a text: a long-sleeve is a long sleeve and a longsleeve."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


# Within the money


_MARGIN = 1.25  # images of one size differ a little in tokens: the next is taken for the longest so far times this
# Images of different sizes differ much, and after few answers the largest is not seen yet: with n answers, calls that
# go together count this / n times the longest input so far.
_UNSEEN = 64.0
_ROOM = 1.25  # of what is noted as in flight above what is: so that few calls wait for the disk


class Budget:
    """Admits requests and counts what they cost; safe to use from several threads.

    The dearest outcome of every call in flight is reserved, so that the sum spent stays under ``max_cost``: output up
    to the limit of tokens, and input as long as the longest so far with a margin, which is large while few are known.
    Before the first answer the input is as long as texts and pictures of that size can be, so the first request goes
    alone. Where the large margin leaves no room, requests go one by one with the small one. A call that does not tell
    what it cost counts as this outcome, too.

    ``spent`` counts all answers in US dollars, ``earlier`` of it those of earlier runs, ``uncertain`` of it what is an
    upper bound: calls whose answers were lost, or did not tell their price.
    """

    def __init__(self, *, limit: int | None, max_cost: float | None, price: Price | None, max_tokens: int) -> None:
        """Start with nothing spent. Raises ConfigError: the cost is limited and the price is unknown or zero."""
        if max_cost is not None and price in (None, FREE):
            known = "none is known for this model" if price is None else "this model counts as free"
            raise ConfigError(f"--max-cost needs a price, and {known}: give --price IN OUT, or --limit N instead.")
        self.limit, self.max_cost = limit, max_cost
        self._price, self._max_tokens, self._most_in = price or FREE, max_tokens, 0
        self._lock = threading.RLock()
        self._seen: dict[Prompt, tuple[float, int]] = {}  # tokens of the longest input, and number of answers
        self._paid = 0.0  # the most for one answer: some models write more than they are allowed
        self._reserved = dict[Name, float]()
        self._note: NoteCosts | None = None
        # The last note: ``uncertain``, what it adds for calls in flight, how many; and calls that were lost since.
        self._noted, self._covered, self._calls, self._lost = 0.0, 0.0, 0, 0
        self.spent = self.earlier = self.uncertain = self._others = self._reserved_sum = self.pending = 0.0
        self.asked = 0

    @property
    def is_free(self) -> bool:
        """Whether calls are not known to cost anything."""
        return self._price == FREE

    def begin(self, spent: Spent, note: NoteCosts | None, *, most_in: int = 0) -> None:
        """Count what earlier runs have spent. A call takes at most ``most_in`` tokens besides its question.

        ``note`` keeps, from any thread and before a call is sent, what may have been spent besides the stored answers;
        None where a ledger of batches does. What is pending there counts, until this run waits for it.
        """
        self._most_in, self._note, self._others, self._paid = most_in, note, spent.others, spent.dearest
        # Reserved with the margin of few answers, which are more by now.
        in_flight = min(spent.in_flight, spent.calls * self.dearest() if self._seen else math.inf)
        self.uncertain = self._noted = spent.others + spent.lost + in_flight
        self.spent = self.earlier = spent.known + self.uncertain
        self.pending = spent.pending

    def end(self) -> None:
        """Note that nothing is in flight any more."""
        with self._lock:
            self._keep_note(exactly=True)

    def learn(self, prompt: Prompt, inputs: Sequence[int]) -> None:
        """Count earlier answers to a prompt: tokens of their requests."""
        if inputs:
            longest, answers = self._seen.get(prompt, (0.0, 0))
            self._seen[prompt] = max(longest, *inputs), answers + len(inputs)

    def admit(self, request: Request, *, sent: float | None = None) -> bool:
        """Count the request and reserve its price, or return False if it is too much for now.

        One that is asked again is not counted for ``limit``. ``sent``: an earlier run sent it, so that it costs money
        in any case; so much of what is pending is for it.
        """
        with self._lock:
            if not self.allows(request, sent=sent):
                return False
            self._reserve(request)
            self._keep_note()
            self.pending -= sent or 0.0
            self.asked += not request.again
            return True

    def allows(self, request: Request, *, sent: float | None = None) -> bool:
        """Return whether ``admit`` would admit the request."""
        with self._lock:
            if self.limit is not None and not request.again and self.asked >= self.limit:
                return False
            if self.max_cost is None or sent is not None:
                return True
            if self._reserved and not self._seen and self.uncertain <= self._others:
                return False
            # The bound of the first call of all is so wide that small limits would never begin.
            return self._has_room(
                self.dearest(request) if self.spent or self._seen else self._price.of(0, self._max_tokens)
            )

    def settle(self, answer: Answer) -> None:
        """Replace the reservation by what an answer cost, or may have where it does not tell; with none, by nothing."""
        with self._lock:
            request, cost = answer.request, answer.cost_usd
            self.asked -= answer.text is None and answer.error is None
            self._reserved_sum -= self._reserved.pop(request.name, 0.0)
            self.pending += request.usd if answer.pending else 0.0
            if answer.tokens_in:
                self.learn(request.prompt, [answer.tokens_in])
            if cost is not None and 0 <= cost < math.inf:
                self.spent, self._paid = self.spent + cost, max(self._paid, cost)
            elif answer.text is not None or answer.unpriced:
                self._lose(request)
            self._keep_note()

    def lost(self, request: Request) -> bool:
        """Count a call that may be billed, though no answer came; return whether there is room for another try."""
        with self._lock:
            self._reserved_sum -= self._reserved.pop(request.name, 0.0)
            self._lose(request)
            if has_room := self._has_room(self.dearest(request)):
                self._reserve(request)
            self._keep_note()
            return has_room

    def _lose(self, request: Request) -> None:
        usd = self.dearest(request, alone=True)
        self.spent, self.uncertain, self._lost = self.spent + usd, self.uncertain + usd, self._lost + 1

    def _reserve(self, request: Request) -> None:
        self._reserved[request.name] = price = self.dearest(request)
        self._reserved_sum += price

    def _has_room(self, usd: float) -> bool:
        spent = self.spent + self.pending + self._reserved_sum
        return self.max_cost is None or spent + usd <= self.max_cost

    def _keep_note(self, *, exactly: bool = False) -> None:
        """Note what may have been spent besides what the answers tell, where the last note is too low or far too high.

        The calls of a run that is killed then count in the next one, although nobody knows what they cost.
        """
        if self._note is None or self.is_free:
            return
        flying = 0 if exactly else len(self._reserved)
        usd = self._reserved_sum if flying else 0.0
        calls, now = flying + self._lost, usd + self.uncertain - self._noted
        is_right = now <= self._covered <= 2 * _ROOM * max(now, 0.0) and calls <= self._calls
        if is_right if not exactly else not (now or calls or self._calls):
            return
        room = 1.0 if exactly else _ROOM
        self._noted, self._covered, self._calls, self._lost = self.uncertain, room * usd, math.ceil(room * flying), 0
        self._note(self.uncertain - self._others, self._covered, self._calls)

    def dearest(self, request: Request | None = None, *, alone: bool = False) -> float:
        """Return the price of a call with the longest output, and an input longer by a margin than any so far.

        Without a request, that of a call about which nothing is known.
        """
        longest, answers = (0.0, 0) if request is None else self._seen.get(request.prompt, (0.0, 0))
        if not answers:
            text = 0 if request is None else len(request.question.encode())
            text += len(canonical_json(request.schema)) if request is not None and request.schema else 0
            if not self._seen:
                return self._price.of(self._most_in + text, self._max_tokens)
            longest = max(tokens for tokens, _ in self._seen.values()) + text
            answers = max(count for _, count in self._seen.values())
        alone = alone or request is None or not self._reserved or not answers
        longest *= _MARGIN if alone else max(_MARGIN, _UNSEEN / answers)
        return max(self._paid, self._price.of(longest, self._max_tokens))


class Asking:
    """Requests for every distinct image and prompt that is missing, made lazily.

    They come as if shuffled, the same way every time, so that a part of a set is a part of all its classes.

    Attributes:
        skipped: images that a class-conditioned prompt cannot ask about, as far as the requests have come.
        asked_again: answers that were asked for a second time.
        stopped: whether no more requests are made.
    """

    def __init__(
        self,
        images: Dataset,
        missing: Sequence[Missing],
        *,
        only: Collection[str] | None = None,
        last: Collection[str] = (),
        sent: Mapping[Name, float] | None = None,
    ) -> None:
        """Prepare to ask what is missing about ``only`` some digests; None for all.

        What an earlier run ``sent`` comes first, as it costs money anyway. Digests that failed before come ``last``: a
        run that began with them would fail.
        """
        self._images, self._missing, self._sent = images, missing, sent or {}
        self._main = self._all(only, last)
        self._again: deque[Request] = deque()
        self.asked_again = set[Name]()
        self.stopped = False
        self._next: Request | None = None
        self._lock = threading.Lock()
        self.skipped: list[Skipped] = []

    def requests(self, budget: Budget, interrupt: Interrupt) -> Iterator[Request]:
        """Yield requests until there are none, the budget has no room for now, or the user interrupts."""
        while not (interrupt.requested or self.stopped):
            with self._lock:
                request = self._peek()
                if request is None or not budget.admit(request, sent=self._price_sent(request)):
                    return
                if request.again:
                    self._again.popleft()
                else:
                    self._next = None
            price = budget.dearest(request, alone=True)
            yield replace(request, usd=price, lost=partial(budget.lost, request))

    def goes_on(self, budget: Budget) -> bool:
        """Return whether ``requests`` would yield one."""
        with self._lock:
            request = self._peek()
            return request is not None and budget.allows(request, sent=self._price_sent(request))

    def _price_sent(self, request: Request) -> float | None:
        return None if request.again else self._sent.get(request.name)

    def upcoming(self) -> Request | None:
        """Return the next request; None where everything was asked."""
        with self._lock:
            return self._peek()

    def finished(self) -> bool:
        """Return whether everything was asked."""
        return self.upcoming() is None

    def ask_again(self, answer: Answer, *, outside_list: bool = False) -> None:
        """Ask once more for an answer that is of no use, or names a class outside the list; then it is left alone."""
        with self._lock:
            if answer.request.name not in self.asked_again:
                self.asked_again.add(answer.request.name)
                question = answer.request.question + (OUTSIDE_THE_LIST if outside_list else "")
                self._again.append(replace(answer.request, again=True, question=question))

    def _peek(self) -> Request | None:
        # Second tries first: at the end of a run nothing would be left to do beside them, and a limit that has no room
        # for a new request has room for them.
        if self._again:
            return self._again[0]
        if self._next is None:
            self._next = next(self._main, None)
        return self._next

    def _all(self, only: Collection[str] | None, last: Collection[str]) -> Iterator[Request]:
        images, first, rows_of = self._images, {digest for digest, _ in self._sent}, dict[str, list[int]]()
        wanted = set[str]().union(*(one.wanted for one in self._missing))
        for row, digest in enumerate(images.digests):
            if digest in wanted and (only is None or digest in only):
                rows_of.setdefault(digest, []).append(row)
        # By the ends of the digests: splits are cut by their beginnings, and the test split would come first.
        for digest in sorted(rows_of, key=lambda digest: (digest not in first, digest in last, digest[-16:])):
            rows = rows_of[digest]
            class_name = next((names for row in rows if (names := ", ".join(images.label_names(row)))), "")
            for prompt in (one.prompt for one in self._missing if digest in one.wanted):
                if prompt.class_conditioned and not class_name:
                    reason = f"no label, and the prompt {prompt.name!r} tells the class"
                    self.skipped.append(Skipped(name=images.keys[rows[0]], reason=reason))
                    continue
                yield Request(
                    digest=digest,
                    keys=tuple(images.keys[row] for row in rows),
                    prompt=prompt,
                    question=question(prompt, class_name, digest),
                    schema=schema_of(prompt),
                    read=partial(images.read, rows[0]),
                    clips=images.clips,
                )

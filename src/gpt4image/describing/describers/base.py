"""What a describer is: it takes requests as it has room for them and gives answers as they arrive, in any order.

That fits a file that is read again, one model on this machine, and many calls in flight to a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt4image.artifacts.store import Prompt
from gpt4image.base.outcome import SetAside
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.prices import Price


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image to describe, with one prompt.

    Attributes:
        digest: sha256 hex digest of the image bytes.
        keys: keys of the image in its set; several where files are equal.
        prompt: what is asked: the identity of the question.
        turns: what the user says, in order, as sent for this image; the image goes with the first turn, and each turn
            after it follows the model's answer. The description is all answers, a blank line between them.
        samples: numbers of the answers that are wanted; several are several tries of the same question.
        read: returns the image bytes; raises OSError where they cannot be read.
        pay_again: asks whether these samples may be paid for once more, after a call that was paid for and brought
            nothing; from any thread.
    """

    digest: str
    keys: tuple[str, ...]
    prompt: Prompt
    turns: tuple[str, ...]
    samples: tuple[int, ...] = (0,)
    read: Callable[[], bytes] = field(repr=False, compare=False)
    pay_again: Callable[[Sequence[int]], bool] = field(default=lambda samples: True, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one sample of one request.

    With ``text`` it is what the model said, good or not: whether it is a description, the stage decides. With ``error``
    there was no answer; that is stored and asked again by a later run. With neither, the describer has nothing to say
    about this image (a file without a row for it): nothing is stored.

    Attributes:
        request: what was asked.
        sample: which of the request's samples this is.
        text: what the model said; empty where it answered nothing, or a filter kept it back.
        error: why there is no answer, in one line, free of secrets.
        finish_reason: as the model gave it; ``refusal`` where the server marks one, ``content_filter`` where it kept
            the text back.
        tokens_in: tokens of the request, over all turns and tries that were paid for.
        tokens_out: tokens of the answer, over all turns and tries that were paid for.
        cost_usd: their price, in US dollars; None where no price is known.
        latency_s: time from sending to the whole answer, of the try that brought it, in seconds.
        wasted: calls that were paid for and brought nothing.
        unpriced: those of them whose price the server does not tell, or this answer's share of them.
    """

    request: Request
    sample: int = 0
    text: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    wasted: int = 0
    unpriced: int = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a describer has to say about itself after the run.

    Attributes:
        facts: lines of the summary.
        set_aside: its items that could not be used.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    set_aside: Sequence[SetAside] = ()


class Describer(Protocol):
    """Writes descriptions of images.

    Making one is cheap and refuses what cannot work (a missing extra, model or key); weights are loaded and connections
    opened when ``describe`` is first called.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that decides what it writes, JSON-serialisable: with digest and prompt the identity of a result.

        Never holds secrets, nor what only changes speed.
        """
        ...

    @property
    def price(self) -> Price | None:
        """What tokens cost; None where that is not known."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether the same request always brings the same answer, so that asking again is of no use."""
        ...

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers in groups, as they arrive, in any order; one answer per sample of each request.

        Pulling the next group says that the answers of the one before are on disk. A request counts as in flight from
        sending until then; so after a kill at most the calls in flight are paid for again. Requests are pulled only
        when there is room for them, perhaps from another thread. Where they end early (the user interrupts), the calls
        in flight are finished and their answers still come. May be called again for further requests. A problem with
        one image is an answer with an error; only what stops every call raises Gpt4ImageError, after all answers that
        came.
        """
        ...

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was broken off."""
        ...

    def report(self, images: ImageSet) -> Report:
        """Return facts and unused items once the run is over."""
        ...

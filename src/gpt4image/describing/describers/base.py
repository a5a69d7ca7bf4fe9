"""Describers: captioning backends that take requests while they have room and give answers as they arrive.

That fits a file that is read again, one model on this machine, and many calls in flight to a server.

Answers come in groups. Pulling the next group says that the last one is on disk; until then its calls count as in
flight. So a kill pays again for at most ``--concurrency`` calls (over Ray twice that), and a stage needs no threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gpt4image.artifacts.store import Prompt
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import Dataset
from gpt4image.describing.prices import FREE, Price

Name = tuple[str, Prompt]
"""What identifies an answer of a describer: digest of the image, and prompt."""


class Example(NamedTuple):
    """A labelled picture that a question begins with: digest, class, and small JPEG picture as data URL."""

    digest: str
    class_name: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer that is wanted about one image, to one prompt; of ``schema`` where the describer can ensure that."""

    digest: str  # sha256 hex digest of the image bytes
    keys: tuple[str, ...]  # of the image in its dataset; several if files are equal
    prompt: Prompt
    question: str
    schema: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)  # of JSON; None for a text
    read: Callable[[], bytes] = field(repr=False, compare=False)  # the image bytes; raises OSError
    clips: bool = False  # these are the bytes of a video, of which several frames are shown
    again: bool = False  # it was asked before in this run, and answered with nothing of use
    # Tells that a call may be billed although no answer came, and returns whether there is money for another try.
    lost: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)
    usd: float = 0.0  # what the answer costs at most
    sheet: tuple[Request, ...] = field(default=(), repr=False)  # about several images in one call

    @property
    def name(self) -> Name:
        """What identifies the answer within a run."""
        return self.digest, self.prompt


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Result of one request.

    ``text`` is the model's answer; the stage decides whether it is a description. ``error`` means no answer; it is
    stored, and a later run asks again. With neither, the describer has no answer for this image (a file without a row
    for it), and nothing is stored. ``retry``: it may be asked once more now, because a call was paid for and
    could not be read, or was about several images and brought nothing for this one.
    """

    request: Request
    text: str | None = None  # empty if the model answered nothing or a filter kept the answer back
    error: str | None = None  # in one line, free of secrets
    finish_reason: str | None = None  # as the model gave it; ``refusal`` or ``content_filter`` if the server says so
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None  # None if unknown
    latency_s: float | None = None  # seconds from sending to the whole answer, of the successful try
    retry: bool = False
    pending: bool = False  # there is none yet: it stays in a batch for the next run
    unpriced: bool = False  # it was paid for, or may have been, and the server does not tell its price


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a describer adds to the summary of the run, and its items that could not be used."""

    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    skipped: Sequence[Skipped] = ()


class Describer(Protocol):
    """Writes descriptions of images.

    Making one is cheap and refuses what cannot work (a missing extra, model or key); weights are loaded and connections
    opened when ``describe`` is first called.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides its texts, JSON-serialisable: the identity of its answers, without secrets."""
        ...

    @property
    def price(self) -> Price | None:
        """Price of tokens; None if unknown."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether the same request always brings the same answer, so that asking again is useless."""
        ...

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers in groups, as they arrive, in any order; one answer per request.

        Pulling the next group says that the previous one is on disk. Requests are pulled only if there is room for
        them, perhaps from another thread. If they end early (the user interrupts), the answers of the calls in flight
        still come. May be called again. A problem with one image is an answer with an error; only what stops every call
        raises Gpt4ImageError, after all answers that came.
        """
        ...

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was interrupted."""
        ...

    def report(self, images: Dataset) -> Report:
        """Return facts and unused items once the run is over."""
        ...


class FreeDescriber:
    """What describers on this machine share: nobody is paid, nothing is on its way, and nothing is left to tell."""

    price: Price | None = FREE
    repeatable: bool = False

    def arrived(self) -> Sequence[Answer]:
        return ()

    def report(self, images: Dataset) -> Report:
        return Report()

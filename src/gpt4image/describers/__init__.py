"""Describers: whoever writes descriptions of images. ``load_describer`` finds one by its SPEC.

A describer takes requests as it has room for them and gives answers as they arrive, in any order: a file that is read
again, one model on this machine, or many calls in flight to a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt4image.data.image_set import ImageSet
from gpt4image.errors import ConfigError, nearest
from gpt4image.outcome import SetAside


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image to describe.

    Attributes:
        digest: sha256 hex digest of the image bytes.
        keys: keys of the image in its set; several where files are equal.
        prompt: the text to send.
        read: returns the image bytes; raises OSError where they cannot be read.
    """

    digest: str
    keys: tuple[str, ...]
    prompt: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request.

    With ``text`` it is a description. With ``error`` it is a failure, which is stored and asked again by a later run.
    With neither, the describer has nothing to say about this image (a file without a row for it): nothing is stored.

    Attributes:
        request: what was asked.
        text: the description.
        error: why there is none, in one line, free of secrets.
        finish_reason: as the model gave it.
        tokens_in: tokens of the request.
        tokens_out: tokens of the answer.
        cost_usd: price, in US dollars.
        latency_s: time from request to answer, in seconds.
    """

    request: Request
    text: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None


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
    """Writes descriptions of images."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that decides what it writes, JSON-serialisable: with digest and prompt the identity of a result.

        Never holds secrets, nor what only changes speed.
        """
        ...

    def describe(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Yield one answer per request, as they arrive, in any order.

        Requests are pulled only when there is room for them. Where they end early (the user interrupts), the calls
        in flight are finished and their answers still come. A problem with one image is an answer with an error; only
        what stops every call raises Gpt4ImageError.
        """
        ...

    def report(self, images: ImageSet) -> Report:
        """Return facts and unused items once the run is over."""
        ...


def _replay(name: str) -> Describer:
    from gpt4image.describers.replay import ReplayDescriber

    return ReplayDescriber(name)


DESCRIBERS: Mapping[str, Callable[[str], Describer]] = {"replay": _replay}


def load_describer(spec: str) -> Describer:
    """Return the describer of a SPEC: replay:FILE.

    Raises:
        ConfigError: the SPEC names no describer, or what it names cannot be used.
    """
    kind, _, name = spec.partition(":")
    if kind not in DESCRIBERS:
        raise ConfigError(f"Unknown describer: {nearest(kind, DESCRIBERS)}")
    return DESCRIBERS[kind](name)

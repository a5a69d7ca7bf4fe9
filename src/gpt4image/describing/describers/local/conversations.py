"""Conversations with a model on this machine, a batch at a time; images are read while the model works."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gpt4image.base.errors import DecodeError
from gpt4image.config import DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.images import pictures, why_unusable
from gpt4image.describing.describers.local.model_files import find_model_files, is_greedy, local_settings
from gpt4image.describing.prices import FREE


class BatchError(Exception):
    """A batch cannot be answered together; smaller ones may. The message says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One answer that is wanted: a sample of a request, with its image (RGB), or the frames of its clip."""

    request: Request
    sample: int
    images: Sequence[Image.Image]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The model's answer in one turn, with the tokens that went in (without padding) and came out."""

    text: str
    finish_reason: str | None
    tokens_in: int
    tokens_out: int


NextTurn = Callable[[Sequence[Row], Sequence[Sequence[str]]], Sequence[Reply]]
"""Answers the next turn of each row, given its answers in the turns before; raises BatchError."""


class LocalDescriber:
    """What describers with a model on this machine share; the model is loaded when it is first asked."""

    kind: str
    price = FREE

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the model ``name``, a folder or a Hugging Face id. Raises ConfigError: it is not there or not usable."""
        self.files = find_model_files(self.kind, name)
        self.options = options
        self.repeatable = is_greedy(self.files, options)
        self.rows_at_once = options.batch_size
        self.images_at_once = 1
        self._calls = 0
        self._loaded = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """Name and content of the model, and options that decide its texts."""
        return local_settings(self.kind, self.files, self.options)

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers batch by batch; halves of a batch if it cannot be answered together.

        Raises:
            ConfigError: the model or its chat template does not take the questions.
            DescriberError: the model cannot be loaded, or fails.
        """
        requests = iter(requests)
        if not self._loaded:
            if (first := next(requests, None)) is None:
                return
            self.images_at_once = self.options.frames if first.clips and not self.options.contact_sheet else 1
            self.load()  # before images are read
            self._loaded = True
            requests = itertools.chain([first], requests)
        for rows, failed in read_ahead(requests, self.rows_at_once, self.options):
            if failed:
                yield failed
            yield from answer_all(rows, self._next_turn)

    def arrived(self) -> Sequence[Answer]:
        """A batch arrives as a whole."""
        return ()

    def report(self, images: ImageSet) -> Report:
        """No facts."""
        return Report()

    def load(self) -> None:
        """Load the model."""
        raise NotImplementedError

    def reply(self, rows: Sequence[Row], conversations: list[list[dict[str, Any]]], call: int) -> Sequence[Reply]:
        """Return the next answers of conversations; ``call`` counts the calls. Raises BatchError and DescriberError."""
        raise NotImplementedError

    def part(self, image: Image.Image) -> dict[str, Any]:
        """Return an image as a part of a message."""
        raise NotImplementedError

    def _next_turn(self, rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> Sequence[Reply]:
        self._calls += 1
        conversations = [
            messages(row.request.turns, list(map(self.part, row.images)), system=self.options.system, answers=own)
            for row, own in zip(rows, answers, strict=True)
        ]
        return self.reply(rows, conversations, self._calls)

    def question(self, system: str) -> list[dict[str, Any]]:
        """Return a question about grey images: shows before the first real one whether the model takes it."""
        parts = [self.part(Image.new("RGB", (64, 64), "grey")) for _ in range(self.images_at_once)]
        return messages(["What is this?"], parts, system=system)

    @property
    def what_it_takes(self) -> str:
        """What a model must take, in words, and what helps if it takes only one image."""
        if self.images_at_once == 1:
            return "image and question"
        return f"{self.images_at_once} images and question; --contact-sheet sends one picture of all frames"


def read_ahead(
    requests: Iterable[Request], size: int, options: DescriberOptions
) -> Iterator[tuple[list[Row], list[Answer]]]:
    """Yield batches of at most ``size`` rows, each with the failed answers of images that cannot be read.

    While the caller works on one batch, the images of the next are read in a thread.
    """
    wanted = ((request, sample) for request in requests for sample in request.samples)
    with ThreadPoolExecutor(1, thread_name_prefix="read-images") as pool:
        coming: deque[Future[tuple[list[Row], list[Answer]]]] = deque()
        while batch := list(itertools.islice(wanted, size)):
            coming.append(pool.submit(_read, batch, options))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def answer_all(rows: Sequence[Row], next_turn: NextTurn) -> Iterator[Sequence[Answer]]:
    """Yield the answers of a batch. One that fails is halved, until a row that fails alone has an error as answer."""
    pending = [rows] if rows else []
    while pending:
        batch = pending.pop()
        try:
            answers = _converse(batch, next_turn)
        except BatchError as error:
            if len(batch) > 1:
                half = (len(batch) + 1) // 2
                pending += [batch[half:], batch[:half]]
                continue
            answers = [Answer(request=batch[0].request, sample=batch[0].sample, error=str(error))]
        yield answers


def messages(
    turns: Sequence[str], images: Sequence[dict[str, Any]], *, system: str, answers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the messages of a conversation up to its next question.

    Args:
        turns: questions, in order; the images go with the first.
        images: parts of a message in the form that the model's library takes.
        system: system message; an empty one is left out.
        answers: the model's answers so far.
    """

    def message(role: str, text: str, *parts: dict[str, Any]) -> dict[str, Any]:
        return {"role": role, "content": [*parts, {"type": "text", "text": text}]}

    asked = [message("system", system)] if system else []
    asked.append(message("user", turns[0], *images))
    for answer, turn in zip(answers, turns[1:], strict=False):
        asked += [message("assistant", answer), message("user", turn)]
    return asked


def seed_of(rows: Sequence[Row], tries: int) -> int:
    """Return a seed for sampling tokens, below 2**31: the same run gives the same answers.

    ``tries`` makes another one for a question that is asked again in the same run.
    """
    names = [f"{row.request.digest} {row.sample} {row.request.turns}" for row in rows]
    return int.from_bytes(hashlib.sha256(repr((tries, names)).encode()).digest()[:4]) >> 1


def _read(batch: Sequence[tuple[Request, int]], options: DescriberOptions) -> tuple[list[Row], list[Answer]]:
    images: dict[str, list[Image.Image] | str] = {}  # or why there is none
    rows: list[Row] = []
    failed: list[Answer] = []
    for request, sample in batch:
        if request.digest not in images:
            try:
                images[request.digest] = pictures(request, options)
            except (OSError, DecodeError) as error:
                images[request.digest] = why_unusable(error)
        found = images[request.digest]
        if isinstance(found, str):
            failed.append(Answer(request=request, sample=sample, error=found))
        else:
            rows.append(Row(request=request, sample=sample, images=found))
    return rows, failed


def _converse(rows: Sequence[Row], next_turn: NextTurn) -> list[Answer]:
    """Return the answers of all rows; rows may differ in turns, and an empty answer ends a conversation."""
    start = time.perf_counter()
    replies: list[list[Reply]] = [[] for _ in rows]
    for turn in range(max(len(row.request.turns) for row in rows)):
        asked = [
            number
            for number, row in enumerate(rows)
            if turn < len(row.request.turns) and all(reply.text for reply in replies[number])
        ]
        if not asked:
            break
        before = [[reply.text for reply in replies[number]] for number in asked]
        for number, reply in zip(asked, next_turn([rows[number] for number in asked], before), strict=True):
            replies[number].append(reply)
    seconds = time.perf_counter() - start
    return [_answer(*pair, seconds) for pair in zip(rows, replies, strict=True)]


def _answer(row: Row, replies: Sequence[Reply], seconds: float) -> Answer:
    cut_off = any(reply.finish_reason == "length" for reply in replies)
    return Answer(
        request=row.request,
        sample=row.sample,
        text="\n\n".join(reply.text for reply in replies if reply.text),
        finish_reason="length" if cut_off else replies[-1].finish_reason,
        tokens_in=sum(reply.tokens_in for reply in replies),
        tokens_out=sum(reply.tokens_out for reply in replies),
        cost_usd=0.0,
        latency_s=seconds,
    )

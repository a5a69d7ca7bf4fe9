"""The engine ray of ``describe``: a describer whose requests are answered by describers on the workers of a cluster.

Only the process that made it sees the answers. Workers read the images themselves: files must lie at the same path on
every machine. API keys come from the environment of the cluster, which a cluster started here inherits; they are not
sent, because Ray logs the environment of its tasks.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import ConfigError, DescriberError, Gpt4ImageError, first_few
from gpt4image.config import DescribeConfig, DescriberOptions
from gpt4image.data.image_set import ImageSet, ImageSource
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.openai.client import query_secrets
from gpt4image.describing.describers.registry import load_describer
from gpt4image.parallel.ray_cluster import MOST_TRIES, Cluster, Result, Workers, in_background, require_ray

_ON_GPU = ("transformers",)
_MOMENT = 0.02  # seconds that a worker waits for one more request before its describer does what it has
_LOST = f"the workers that described it died {MOST_TRIES} times, most often because memory ran out"
_ANSWER = [field.name for field in dataclasses.fields(Answer) if field.name != "request"]


class RayDescriber:
    """Spreads requests over a Ray cluster, which is started when ``describe`` is first called."""

    def __init__(self, config: DescribeConfig, images: ImageSet) -> None:
        """Prepare.

        Raises:
            ConfigError: the describer cannot be used, or a password or key stands in the address of the server.
            MissingExtraError: Ray, or a package that the describer needs, is not installed.
        """
        require_ray()
        if config.base_url is not None and ("@" in config.base_url or query_secrets(config.base_url)):
            raise ConfigError(
                "--base-url with a password or a key is not sent over a cluster: set OPENAI_BASE_URL on every machine "
                "instead."
            )
        self._describer = load_describer(config)
        self.settings: Mapping[str, Any] = self._describer.settings
        self.price = self._describer.price
        self.repeatable = self._describer.repeatable
        self._config = config
        self._kind = config.describer.partition(":")[0]
        self._images = images
        self._workers: Workers | None = None
        self._worker_count = 0
        self._batch_size = config.batch_size
        self._asked: dict[int, list[Request]] = {}
        self._answered_any = False

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers of a few requests each; the workers live on for the next call.

        A server has at most ``concurrency`` calls at once. Answers come here with the slowest of their batch, so that a
        kill of this process may cost twice as many. A worker that dies costs at most ``MOST_TRIES`` tries of its
        batches.

        Raises:
            DescriberError: what stops every call, after all answers that came.
            RunError: the cluster failed.
        """
        workers = self._start()
        waiting = iter(requests)
        fault: str | None = None
        try:
            while True:
                while (
                    fault is None and workers.has_room and (batch := list(itertools.islice(waiting, self._batch_size)))
                ):
                    self._asked[workers.send(self._pack(batch))] = batch
                if not workers.pending:
                    break
                answers, its_fault = self._unpack(workers.receive())
                fault = fault or its_fault
                if answers:
                    yield answers
        except BaseException:
            self._stop()
            raise
        if fault is not None:
            self._stop()
            raise DescriberError(fault)

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was interrupted."""
        if self._workers is None:
            return ()
        return [answer for result in self._workers.received() for answer in self._unpack(result)[0]]

    def report(self, images: ImageSet) -> Report:
        """End the workers; return their number, and the report of a replayed file (others report their own calls)."""
        self._stop()
        own = self._describer.report(images) if self._kind == "replay" else Report()
        return Report(facts={**own.facts, "workers": self._worker_count}, skipped=own.skipped)

    def _start(self) -> Workers:
        if self._workers is None:
            cluster = Cluster()
            try:
                on_gpu = self._kind in _ON_GPU and cluster.gpus > 0 and self._config.device in ("auto", "cuda")
                self._worker_count = cluster.workers(self._config.workers, on_gpu=on_gpu)
                if self._kind == "openai":
                    self._worker_count = min(self._worker_count, self._config.concurrency)
                options = _share(self._config, self._worker_count)
                at_once = options.concurrency if self._kind == "openai" else options.batch_size
                self._batch_size = max(options.batch_size, at_once // 8)  # many small calls would keep Ray busy
                self._workers = Workers(
                    cluster,
                    _DescribeWork,
                    (options, dict(self.settings), self._images.source),
                    count=self._worker_count,
                    # Twice as many as are answered at once: those that are done wait for the slowest of their batch.
                    calls=2 * math.ceil(at_once / self._batch_size),
                    gpu=on_gpu,
                )
            except BaseException:
                cluster.close()
                raise
        return self._workers

    def _stop(self) -> None:
        if self._workers is not None:
            self._workers.close()

    def _pack(self, batch: Sequence[Request]) -> bytes:
        rows = self._images.rows
        return _to_json(
            [
                {
                    "digest": request.digest,
                    "keys": request.keys,
                    "prompt": dataclasses.asdict(request.prompt),
                    "turns": request.turns,
                    "samples": request.samples,
                    "schema": request.schema,
                    # The budget is here: a worker cannot ask it.
                    "pay_again": self._config.max_cost is None,
                    "clips": request.clips,
                    "row": int(rows[self._position_of[request.keys[0]]]),
                }
                for request in batch
            ]
        )

    @cached_property
    def _position_of(self) -> dict[str, int]:
        return {key: position for position, key in enumerate(self._images.keys)}

    def _unpack(self, result: Result) -> tuple[list[Answer], str | None]:
        """Return the answers of a batch, and the fault that stops all calls, if any."""
        batch = self._asked.pop(result.number)
        if result.fault is not None:
            return [], result.fault
        if result.lost:
            if not self._answered_any:
                return [], f"No image was described: {_LOST}. Give a smaller --batch-size, or fewer --workers."
            return [Answer(request=one, sample=sample, error=_LOST) for one in batch for sample in one.samples], None
        content = json.loads(result.payload)
        answers = [Answer(request=batch[position], **fields) for position, fields in content["answers"]]
        self._answered_any = self._answered_any or bool(answers)
        return answers, content["fault"]


def _share(config: DescribeConfig, workers: int) -> DescriberOptions:
    """Return the options of one of several workers: they share the limits of the server."""
    options = config.model_dump(include=set(DescriberOptions.model_fields))
    for name in ("requests_per_minute", "tokens_per_minute"):
        if options[name] is not None:
            options[name] /= workers
    options["concurrency"] = max(1, config.concurrency // workers)
    return DescriberOptions(**options)


@dataclasses.dataclass(eq=False)
class _Ticket:
    """A batch that waits for its answers."""

    requests: Sequence[Request]
    missing: int
    answers: list[tuple[int, Answer]] = dataclasses.field(default_factory=list[tuple[int, Answer]])
    done: Future[None] = dataclasses.field(default_factory=Future[None])


class _DescribeWork:
    """Answers batches, several at once, with one describer that sees their requests as one stream."""

    def __init__(self, options: DescriberOptions, settings: Mapping[str, Any], source: ImageSource) -> None:
        self._describer = load_describer(options)
        here = self._describer.settings
        if names := sorted(name for name in {*here, *settings} if here.get(name) != settings.get(name)):
            differences = (f"{name}: {here.get(name)} and {settings.get(name)}" for name in names)
            raise DescriberError(
                f"A worker would describe with other settings than the driver: {first_few(differences)}. Results of "
                "one run must be alike: use machines of one kind, or give these options."
            )
        self._source = source
        self._one_by_one = threading.Lock()
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        # By identity: Ray may give a worker a batch again that it still has.
        self._tickets: dict[int, tuple[_Ticket, int]] = {}
        self._running = in_background(self._run)

    def __call__(self, payload: bytes) -> bytes:
        """Return the answers of a batch, and the fault that stops all calls, if any."""
        requests = [self._request(fields) for fields in json.loads(payload)]
        ticket = _Ticket(requests, missing=sum(len(request.samples) for request in requests))
        self._tickets.update((id(request), (ticket, position)) for position, request in enumerate(requests))
        with self._one_by_one:  # batches of a model are those of a local run
            for request in requests:
                self._waiting.put(request)
        wait([ticket.done, self._running], return_when=FIRST_COMPLETED)
        fault = None
        if not ticket.done.done():
            error = self._running.exception()
            if not isinstance(error, Gpt4ImageError):  # a bug
                raise error or RuntimeError("the describer ended by itself")
            fault = str(error)
        answers = [
            (position, {name: getattr(answer, name) for name in _ANSWER}) for position, answer in list(ticket.answers)
        ]
        return _to_json({"answers": answers, "fault": fault})

    def _request(self, fields: dict[str, Any]) -> Request:
        return Request(
            digest=fields["digest"],
            keys=tuple(fields["keys"]),
            prompt=Prompt(**fields["prompt"]),
            turns=tuple(fields["turns"]),
            samples=tuple(fields["samples"]),
            schema=fields["schema"],
            read=partial(self._source.read, fields["row"]),
            clips=fields["clips"],
            pay_again=lambda samples: fields["pay_again"],
        )

    def _run(self) -> None:
        while True:
            stream = itertools.chain([self._waiting.get()], self._coming())
            for answer in itertools.chain.from_iterable(self._describer.describe(stream)):
                ticket, position = self._tickets[id(answer.request)]
                ticket.answers.append((position, answer))
                ticket.missing -= 1
                if not ticket.missing:
                    for request in ticket.requests:
                        del self._tickets[id(request)]
                    ticket.done.set_result(None)

    def _coming(self) -> Iterator[Request]:
        """Yield requests until none comes for a moment: a describer may wait for a full batch before it begins."""
        with suppress(queue.Empty):
            while True:
                yield self._waiting.get(timeout=_MOMENT)


def _to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")

"""The engine ray of ``describe``: a describer whose requests are answered by describers on the workers of a cluster.

Only the process that made it sees the answers. Workers read the images themselves: files must lie at the same path on
every machine. API keys come from the environment of the cluster, which a cluster started here inherits; they are not
sent, because Ray logs the environment of its tasks.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import ConfigError, DescriberError, Gpt4ImageError, first_few
from gpt4image.config import DescribeConfig, DescriberOptions
from gpt4image.data.dataset import Dataset, ImageSource
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.openai.server import query_secrets
from gpt4image.describing.describers.registry import SERVERS, load_describer
from gpt4image.describing.prices import FREE
from gpt4image.parallel.ray_cluster import MOST_TRIES, Result, Workers, require_ray

_LOST = f"the workers that described it died {MOST_TRIES} times, most often because memory ran out"
_REQUEST = ("digest", "keys", "question", "schema", "clips", "again")
_ANSWER = [field.name for field in dataclasses.fields(Answer) if field.name != "request"]


class RayDescriber:
    """Spreads requests over a Ray cluster, which is started when ``describe`` is first called."""

    def __init__(self, config: DescribeConfig, images: Dataset) -> None:
        require_ray()
        if config.base_url is not None and ("@" in config.base_url or query_secrets(config.base_url)):
            raise ConfigError(
                "--base-url with a password or a key is not sent over a cluster: set OPENAI_BASE_URL on every machine "
                "instead."
            )
        self._describer = load_describer(config)
        self.settings: Mapping[str, Any] = self._describer.settings
        self.price, self.repeatable = self._describer.price, self._describer.repeatable
        self._config, self._images = config, images
        self._kind, self._batch_size = config.describer.partition(":")[0], config.batch_size
        self._row_of = dict(zip(images.keys, map(int, images.rows), strict=True))
        self._workers: Workers | None = None
        self._asked: dict[int, list[Request]] = {}
        self._answered_any = False

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers of a few requests each; the workers live on for the next call.

        Raises DescriberError after all answers that came, and RunError where the cluster failed.
        """
        workers = self._workers = self._workers or self._start()
        waiting, fault = iter(requests), None
        try:
            while True:
                while not fault and workers.has_room and (batch := list(itertools.islice(waiting, self._batch_size))):
                    self._asked[workers.send(_to_json(list(map(self._packed, batch))))] = batch
                if not workers.pending:
                    break
                answers, its_fault = self._unpack(workers.receive())
                fault = fault or its_fault
                if answers:
                    yield answers
        except BaseException:
            workers.close()
            raise
        if fault is not None:
            workers.close()
            raise DescriberError(fault)

    def arrived(self) -> Sequence[Answer]:
        results = () if self._workers is None else self._workers.received()
        return [answer for result in results for answer in self._unpack(result)[0]]

    def report(self, images: Dataset) -> Report:
        """End the workers; return their number, and the report of a replayed file (others report their own calls)."""
        if self._workers is not None:
            self._workers.close()
        own = self._describer.report(images) if self._kind == "replay" else Report()
        return replace(own, facts={**own.facts, "workers": 0 if self._workers is None else self._workers.count})

    def _start(self) -> Workers:
        config, is_server = self._config, self._kind in SERVERS

        def arguments(count: int) -> Sequence[Any]:
            given = config.model_dump(include=set(DescriberOptions.model_fields))
            if is_server:  # workers share the limits of the server
                given["concurrency"] = max(1, config.concurrency // count)
                self._batch_size = given["concurrency"] * config.per_call
            given["requests_per_minute"] = config.requests_per_minute and config.requests_per_minute / count
            return DescriberOptions(**given), dict(self.settings), self._images.source

        on_gpu = self._kind == "transformers" and config.device in ("auto", "cuda")
        most = config.concurrency if is_server else None
        return Workers(_DescribeWork, arguments, config.workers, calls=2, gpu=on_gpu, most=most)

    def _packed(self, request: Request) -> dict[str, Any]:
        own = {"prompt": dataclasses.asdict(request.prompt), "row": self._row_of[request.keys[0]]}
        return {**{name: getattr(request, name) for name in _REQUEST}, **own}

    def _unpack(self, result: Result) -> tuple[list[Answer], str | None]:
        batch = self._asked.pop(result.number)
        if result.fault is not None:
            return [], result.fault
        if result.lost:
            if not self._answered_any:
                return [], f"No image was described: {_LOST}. Give a smaller --batch-size, or fewer --workers."
            return [Answer(request=request, error=_LOST, unpriced=True) for request in batch], None
        content = json.loads(result.payload)
        answers = [Answer(request=batch[position], **fields) for position, fields in content["answers"]]
        self._answered_any = self._answered_any or bool(answers)
        return answers, content["fault"]


class _DescribeWork:
    def __init__(self, options: DescriberOptions, settings: Mapping[str, Any], source: ImageSource) -> None:
        self._source, self._lock, self._fault = source, threading.Lock(), ""
        self._describer = load_describer(options)
        here = self._describer.settings
        if names := sorted(name for name in {*here, *settings} if here.get(name) != settings.get(name)):
            differences = (f"{name}: {here.get(name)} and {settings.get(name)}" for name in names)
            raise DescriberError(
                f"A worker would describe with other settings than the driver: {first_few(differences)}. Use machines "
                "of one kind, or give these options."
            )

    def __call__(self, payload: bytes) -> bytes:
        lost = set[int]()  # positions of calls that may be billed, of which only the driver knows whether money is left

        def no_more(position: int) -> bool:
            lost.add(position)
            return self._describer.price in (None, FREE)

        fields_of = enumerate(json.loads(payload))
        requests = [self._request(**fields, lost=partial(no_more, position)) for position, fields in fields_of]
        positions = {id(request): position for position, request in enumerate(requests)}
        answers = list[Any]()
        with self._lock:
            try:
                if self._fault:  # it stops every call: of the batches that wait too
                    requests = []
                for answer in itertools.chain.from_iterable(self._describer.describe(requests)):
                    fields = {name: getattr(answer, name) for name in _ANSWER}
                    position = positions[id(answer.request)]
                    answers.append((position, {**fields, "unpriced": answer.unpriced or position in lost}))
            except Gpt4ImageError as error:
                self._fault = str(error)
        return _to_json({"answers": answers, "fault": self._fault or None})

    def _request(self, *, prompt: Any, row: int, keys: list[str], **own: Any) -> Request:
        return Request(**own, prompt=Prompt(**prompt), keys=tuple(keys), read=partial(self._source.read, row))


def _to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")

"""The engine ray of ``describe``: a describer whose requests are answered by describers on the workers of a cluster.

Only the process that made it sees the answers. Workers read the images themselves: files must lie at the same path on
every machine. API keys come from the environment of the cluster, which a cluster started here inherits; they are not
sent, because Ray logs the environment of its tasks.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gpt4image.base.errors import ConfigError, DescriberError, Gpt4ImageError, RunError, first_few
from gpt4image.base.secrets import hidden
from gpt4image.config import DescribeConfig, DescriberOptions
from gpt4image.data.dataset import Dataset, ImageSource
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.registry import SERVERS, load_describer
from gpt4image.describing.prices import FREE
from gpt4image.parallel.ray_cluster import Workers, require_ray


class RayDescriber:
    """Spreads requests over a Ray cluster, which is started when ``describe`` is first called."""

    def __init__(self, config: DescribeConfig, images: Dataset) -> None:
        require_ray()
        if config.base_url is not None and hidden(config.base_url) != config.base_url:
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
        self._fault = ""

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers of a few requests each; the workers live on for the next call.

        Raises DescriberError after all answers that came, and RunError where the cluster failed.
        """
        self._workers = self._workers or self._start()
        try:
            for result in self._workers.map(self._batches(iter(requests)), ordered=False):
                yield self._unpacked(*result)
        except RunError:
            raise
        except Gpt4ImageError as error:
            raise DescriberError(str(error)) from None
        if self._fault:
            raise DescriberError(self._fault)

    def arrived(self) -> Sequence[Answer]:
        results = () if self._workers is None else self._workers.finished()
        return [answer for result in results for answer in self._unpacked(*result)]

    def report(self, images: Dataset) -> Report:
        """End the workers; return their number, and the report of a replayed file (others report their own calls)."""
        own = self._describer.report(images) if self._kind == "replay" else Report()
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()
        return replace(own, facts={**own.facts, "workers": 0 if workers is None else workers.count})

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
        return Workers(
            _Describing, arguments, config.workers, gpu=on_gpu, most=config.concurrency if is_server else None
        )

    def _batches(self, requests: Iterator[Request]) -> Iterator[tuple[int, list[Any]]]:
        for number in itertools.count(len(self._asked)):
            batch = [] if self._fault else list(itertools.islice(requests, self._batch_size))
            if not batch:
                return
            self._asked[number] = batch
            yield number, [(replace(one, read=bytes, lost=bool), self._row_of[one.keys[0]]) for one in batch]

    def _unpacked(self, number: int, answers: Iterable[tuple[int, Answer]], fault: str) -> list[Answer]:
        self._fault = self._fault or fault
        batch, self._asked[number] = self._asked[number], []
        return [replace(answer, request=batch[position]) for position, answer in answers]


class _Describing:
    def __init__(self, options: DescriberOptions, settings: Mapping[str, Any], source: ImageSource) -> None:
        self._source, self._fault = source, ""
        self._describer = load_describer(options)
        here = self._describer.settings
        if names := sorted(name for name in {*here, *settings} if here.get(name) != settings.get(name)):
            differences = (f"{name}: {here.get(name)} and {settings.get(name)}" for name in names)
            raise DescriberError(
                f"A worker would describe with other settings than the driver: {first_few(differences)}. Use machines "
                "of one kind, or give these options."
            )

    def __call__(self, given: tuple[int, list[tuple[Request, int]]]) -> tuple[int, list[tuple[int, Any]], str]:
        lost = set[int]()  # positions of calls that may be billed: only the driver knows whether money is left

        def no_more(position: int) -> bool:
            lost.add(position)
            return self._describer.price in (None, FREE)

        rows = enumerate([] if self._fault else given[1])  # a fault stops every call: of the batches that wait too
        requests = [
            replace(request, read=partial(self._source.read, row), lost=partial(no_more, position))
            for position, (request, row) in rows
        ]
        positions, answers = {request.name: place for place, request in enumerate(requests)}, list[tuple[int, Any]]()
        try:
            for answer in itertools.chain.from_iterable(self._describer.describe(requests)):
                place = positions[answer.request.name]
                unpriced = answer.unpriced or place in lost
                answers.append((place, replace(answer, request=None, unpriced=unpriced)))  # type: ignore[arg-type]
        except Gpt4ImageError as error:
            self._fault = str(error)
        return given[0], answers, self._fault

"""Sends requests through OpenAI's Batch API: half the price, answers within a day; nothing is paid twice or lost.

A batch is noted in the ledger before it is sent, and what is on its way is waited for instead of being sent again. So
the process may be stopped or killed at any moment, and the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from gpt4image.artifacts.prompts import load_prompt, turns
from gpt4image.base.errors import ConfigError
from gpt4image.base.progress import console
from gpt4image.config import DescribeConfig, DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.batch.ledger import BatchLedger
from gpt4image.describing.describers.images import data_url
from gpt4image.describing.describers.openai.chat import Choice, Dialect, completion_of
from gpt4image.describing.describers.openai.client import Server, blocking_client, find_server
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.faults import Verdict, fault_of_response
from gpt4image.describing.describers.openai.jobs import Job
from gpt4image.describing.describers.openai.untrusted import one_line
from gpt4image.describing.prices import HALF_PRICE, Price

# An answer about 190 MB that were uploaded takes its time.
_TIMEOUT_S = 600.0


class BatchDescriber:
    """The model of ``openai:MODEL`` through the Batch API: the same identity, half the price.

    While it waits, ``describe`` yields empty groups about once a second: the caller may break off there, and everything
    on its way stays with the server for the next run.
    """

    def __init__(self, config: DescribeConfig) -> None:
        """Check that the requests can be sent this way.

        Raises:
            ConfigError: the describer is no ``openai:``, or a prompt has several turns.
        """
        kind, _, model = config.describer.partition(":")
        if kind != "openai":
            raise ConfigError(f"--batch goes with openai:MODEL, not with {config.describer}; leave it out.")
        for name in config.prompt:
            if len(turns(load_prompt(name), "")) > 1:
                raise _several_turns(name)
        self._config = config
        self._online = OpenAIDescriber(model, config)
        self._server = find_server(config.base_url)
        self._chat = _Chat(Dialect(model, config, self._server), config, self.price, self._server)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the same model asked directly."""
        return self._online.settings

    @property
    def price(self) -> Price | None:
        """Half the price of the same model asked directly."""
        price = self._online.price
        return None if price is None else price.scaled(HALF_PRICE)

    @property
    def repeatable(self) -> bool:
        """As for the same model asked directly."""
        return self._online.repeatable

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers as batches end; see ``Describer``."""
        from gpt4image.describing.describers.batch.api import BatchApi
        from gpt4image.describing.describers.batch.run import BatchRun

        config = self._config
        timeout = max(config.timeout, _TIMEOUT_S)
        with BatchLedger(config.store, self.settings) as ledger, blocking_client(self._server, timeout) as client:
            api = BatchApi(client, self._chat.one_line, retries=config.retries)
            run = BatchRun(ledger, api, self._chat, config.poll_seconds)
            try:
                yield from run.answers(map(_single_turn, requests))
            except (GeneratorExit, KeyboardInterrupt):
                if left := ledger.items_left():
                    console.print(f"{left:,} answers are on their way; the same command collects them.")
                raise

    def arrived(self) -> Sequence[Answer]:
        """Nothing: answers wait at the server."""
        return ()

    def report(self, images: ImageSet) -> Report:
        """Return what is still on its way."""
        with BatchLedger(self._config.store, self.settings) as ledger:
            count = len(ledger.open_batches())
            return Report(facts={"batches_open": count, "answers_on_their_way": ledger.items_left()} if count else {})


def _single_turn(request: Request) -> Request:
    if len(request.turns) > 1:
        raise _several_turns(request.prompt.name)
    return request


def _several_turns(name: str) -> ConfigError:
    return ConfigError(
        f"--batch: the prompt {name!r} has several turns, and a batch asks once; use a single-turn prompt or leave out "
        f"--batch."
    )


class _Chat:
    """Chat completions as lines of a batch, read as the answers to single calls are; see ``batch_run.Chat``."""

    def __init__(self, dialect: Dialect, options: DescriberOptions, price: Price | None, server: Server) -> None:
        self._dialect = dialect
        self._options = options
        self._price = price
        self._server = server

    def body(self, request: Request) -> bytes:
        image = data_url(request.read(), self._options.max_side, self._options.image_format)
        return self._dialect.body(Job(request=request, samples=request.samples, image_url=image))

    def answers(self, request: Request, count: int, status: int, body: Any) -> list[Answer]:
        job = Job(request=request, samples=tuple(range(count)))
        choices: Sequence[Choice] = ()
        if status == HTTPStatus.OK:
            completion = completion_of(body, self._server.keys)
            job.pay(completion)
            if not completion.choices:
                job.wasted, job.unpriced = 1, int(not completion.is_priced)
            choices, error = completion.choices, "the response holds no answer"
        else:
            fault = fault_of_response(status, {}, json.dumps(body).encode())
            error = self.one_line(fault.message)
            if fault.verdict is Verdict.FILTERED:
                choices = [Choice("", "content_filter")] * count
        return list(job.answers(choices, self._price) if choices else job.failures(error, self._price))

    def one_line(self, text: object) -> str:
        return one_line(str(text), self._server.secrets)

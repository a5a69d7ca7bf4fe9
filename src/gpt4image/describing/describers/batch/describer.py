"""Sends requests through OpenAI's Batch API: half the price, answers within a day; nothing is paid twice or lost.

A batch is noted in the ledger before it is sent, and what is on its way is waited for instead of being sent again. So
the process may be stopped or killed at any moment, and the same command goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gpt4image.artifacts.prompts import load_prompt, turns
from gpt4image.base.errors import ConfigError
from gpt4image.base.progress import say
from gpt4image.config import DescribeConfig
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.batch.ledger import BatchLedger
from gpt4image.describing.describers.openai.client import blocking_client
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.prices import HALF_PRICE, Price

# An answer about 190 MB that were uploaded takes its time.
_TIMEOUT_S = 600.0


class BatchDescriber(OpenAIDescriber):
    """The model of ``openai:MODEL`` through the Batch API: the same settings, half the price.

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
                raise ConfigError(
                    f"--batch: the prompt {name!r} has several turns, and a batch asks once; use a single-turn prompt "
                    f"or leave out --batch."
                )
        super().__init__(model, config)
        self._config = config
        self._dialect.refuse("logprobs")  # some models refuse every call that wants them: a day would be lost

    @property
    def price(self) -> Price | None:
        """Half the price of the same model asked directly."""
        return self._price and self._price.scaled(HALF_PRICE)

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers as batches end; see ``Describer``."""
        from gpt4image.describing.describers.batch.api import BatchApi
        from gpt4image.describing.describers.batch.run import BatchRun, Chat

        config, chat = self._config, Chat(self._dialect, self._config, self.price, self._server)
        timeout = max(config.timeout, _TIMEOUT_S)
        with BatchLedger(config.store, self.settings) as ledger, blocking_client(self._server, timeout) as client:
            api = BatchApi(client, chat.one_line, retries=config.retries)
            try:
                yield from BatchRun(ledger, api, chat, config.poll_seconds).answers(requests)
            except (GeneratorExit, KeyboardInterrupt):
                if left := ledger.items_left():
                    say(f"{left:,} answers are on their way; the same command collects them.")
                raise

    def arrived(self) -> Sequence[Answer]:
        """Nothing: answers wait at the server."""
        return ()

    def report(self, images: ImageSet) -> Report:
        """Return what is still on its way."""
        with BatchLedger(self._config.store, self.settings) as ledger:
            count = len(ledger.open_batches())
            return Report(facts={"batches_open": count, "answers_on_their_way": ledger.items_left()} if count else {})

"""Describes with a model behind any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, ..."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.config import DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.arrivals import Arrivals
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.openai.calls import Calls, Plan, Tally
from gpt4image.describing.describers.openai.chat import Dialect
from gpt4image.describing.describers.openai.client import OPENAI_URL, Client, Server, find_server
from gpt4image.describing.describers.openai.health import Health
from gpt4image.describing.describers.openai.pace import Pace
from gpt4image.describing.prices import FREE, Price, find_price

_RESERVED = ("messages", "model", "n", "stream")
_LIMITS = ("max_tokens", "max_completion_tokens")


class OpenAIDescriber:
    """Asks a model behind an OpenAI-compatible server, as many calls at a time as it takes."""

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the server and the price; nothing is sent.

        Args:
            name: name of the model, as the server knows it.
            options: options of the describer.

        Raises:
            ConfigError: the name, address, price table or a field of ``extra_body`` cannot be used, or OpenAI is asked
                without OPENAI_API_KEY.
            MissingExtraError: the client is not installed.
        """
        if not all(map(find_spec, ("openai", "genai_prices"))):
            raise MissingExtraError("openai:", "api")
        if not name:
            raise ConfigError(
                "openai:MODEL needs the name of a model, as the server knows it, e.g. openai:gpt-4.1-mini."
            )
        taken = [field for field in _RESERVED if field in options.extra_body]
        if taken:
            raise ConfigError(f"--extra-body: {taken[0]!r} is set by gpt4image itself; leave it out.")
        if any(field in options.extra_body for field in _LIMITS):
            raise ConfigError(
                "--extra-body: the limit of tokens is set by --max-tokens, which --max-cost reckons with."
            )
        self._options = options
        self._model = name
        self._server = find_server(options.base_url)
        self._price = _price(name, self._server, options.prices)
        self._pace = Pace(
            options.concurrency,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
        )
        self._plan = Plan(
            concurrency=options.concurrency,
            retries=options.retries,
            max_side=options.max_side,
            image_format=options.image_format,
            price=self._price,
        )
        self._dialect = Dialect(name, options, self._server)
        self._health = Health()
        self._tally = Tally()
        self._arrivals = Arrivals()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Model, server and everything that changes the text."""
        options = self._options
        return {
            "kind": "openai",
            "model": self._model,
            "server": options.server_name or self._server.url,
            "system": options.system,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "max_side": options.max_side,
            "image_format": options.image_format,
            "detail": options.detail,
            "extra_body": options.extra_body,
        }

    @property
    def price(self) -> Price | None:
        """As published for the server or told by the user; on the user's own machines nothing, but for a gateway."""
        return self._price

    @property
    def repeatable(self) -> bool:
        """Servers answer differently even at temperature 0."""
        return False

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield answers in groups as they arrive.

        Raises:
            DescriberError: the key, the quota, the model or the server is of no use; after all answers that came.
        """
        self._arrivals = arrivals = Arrivals()
        client = Client(self._server, self._options.timeout, self._options.concurrency)
        calls = Calls(self._plan, client, self._dialect, self._pace, self._health, self._tally)
        calls.start(requests, arrivals)
        try:
            while group := arrivals.wait():
                yield group
                calls.acknowledge(len(group))
        finally:
            calls.close()

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was broken off."""
        return self._arrivals.waiting()

    def report(self, images: ImageSet) -> Report:
        """Return how many calls were sent, how many for each answer, and how many failed with which fault."""
        tally = self._tally
        facts: dict[str, Any] = {"calls": tally.calls}
        if tally.answers:
            facts["calls_per_answer"] = round(tally.calls / tally.answers, 3)
        if tally.faults:
            facts["faults"] = dict(tally.faults.most_common())
        return Report(facts=facts)


def _price(model: str, server: Server, prices: Path | None) -> Price | None:
    """Return what a model costs: at a private address nothing, unless OpenAI sells it; then that is a gateway to it."""
    price = find_price(model, server.url, prices)
    if price is None and server.is_private:
        return find_price(model, OPENAI_URL, None) or FREE
    return price

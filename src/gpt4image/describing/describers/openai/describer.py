"""Describes with a model behind any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, ..."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.config import DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.openai.calls import Calls
from gpt4image.describing.describers.openai.client import OPENAI_URL, Client, find_server
from gpt4image.describing.describers.openai.dialect import Dialect
from gpt4image.describing.prices import FREE, Price, find_price

_RESERVED = ("messages", "model", "n", "stream")
_LIMITS = ("max_tokens", "max_completion_tokens")


class OpenAIDescriber:
    """Asks a model behind an OpenAI-compatible server, as many calls at a time as it takes."""

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the server and the price of the model ``name``; nothing is sent.

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
        for field in options.extra_body:
            if field in _RESERVED:
                raise ConfigError(f"--extra-body: {field!r} is set by gpt4image itself; leave it out.")
            if field in _LIMITS:
                raise ConfigError(
                    "--extra-body: the limit of tokens is set by --max-tokens, which --max-cost reckons with."
                )
        self._options = options
        self._model = name
        self._server = server = find_server(options.base_url)
        self._price = find_price(name, server.url, options.prices)
        if self._price is None and server.is_private:
            # At a private address models are free, unless OpenAI sells them: then it is a gateway to OpenAI.
            self._price = find_price(name, OPENAI_URL, None) or FREE
        self._dialect = Dialect(name, options, server)
        client = Client(server, options.timeout, options.concurrency)
        self._calls = Calls(options, self._price, client, self._dialect)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Model, server and everything that changes the text."""
        options = self._options
        names = ("system", "temperature", "max_tokens", "max_side", "image_format", "detail", "extra_body")
        return {
            "kind": "openai",
            "model": self._model,
            "server": options.server_name or self._server.url,
            **{name: getattr(options, name) for name in names},
            **options.clip_settings,
        }

    @property
    def price(self) -> Price | None:
        """As published for the server or given by the user; free on the user's own machines, except for a gateway."""
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
        yield from self._calls.answers(requests)

    def arrived(self) -> Sequence[Answer]:
        """Return answers that came but were not yielded because ``describe`` was broken off."""
        return self._calls.arrivals.waiting()

    def report(self, images: ImageSet) -> Report:
        """Return how many calls were sent, how many for each answer, and how many failed with which fault."""
        calls = self._calls
        facts: dict[str, Any] = {"calls": calls.sent}
        if calls.answered:
            facts["calls_per_answer"] = round(calls.sent / calls.answered, 3)
        if calls.faults:
            facts["faults"] = dict(calls.faults.most_common())
        return Report(facts=facts)

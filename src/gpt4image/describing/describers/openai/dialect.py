"""The body of a chat completion with images, and what models and servers accept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from gpt4image.base.errors import DescriberError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.openai.client import Server
from gpt4image.describing.describers.openai.faults import LONGEST_WAIT_S, REDIRECT, Fault
from gpt4image.describing.describers.openai.jobs import Job

_LIMIT_NAMES = ("max_completion_tokens", "max_tokens")
_IMAGE = b'{"type": "image_url", "image_url": {"url": "'


class Dialect:
    """How a job becomes the body of a call for one model; models and servers differ in what they accept."""

    def __init__(self, model: str, options: DescriberOptions, server: Server) -> None:
        self._model = model
        self._options = options
        self._server = server
        self._limit_name = _LIMIT_NAMES[0] if server.is_openai else _LIMIT_NAMES[1]
        self._refused = set[str]()

    def body(self, job: Job) -> bytes:
        """Return the JSON body of the next call of a job."""
        options, turns = self._options, job.request.turns
        fields: dict[str, Any] = {"model": self._model, self._limit_name: options.max_tokens}
        if options.temperature is not None:
            fields["temperature"] = options.temperature
        if len(job.samples) > 1:
            fields["n"] = len(job.samples)
        if job.request.schema is not None:
            fields |= self._structure(job.request.schema)
        job.sent = frozenset(fields)
        head = json.dumps({**fields, **options.extra_body})[:-1] + ', "messages": ['
        if options.system:
            head += json.dumps({"role": "system", "content": options.system}) + ", "
        head += '{"role": "user", "content": ['
        end = '"}}, ' if options.detail == "auto" else f'", "detail": "{options.detail}"}}}}, '
        tail = json.dumps({"type": "text", "text": turns[0]}) + "]}"
        for turn, answer in zip(turns[1:], job.turns, strict=False):
            tail += ", " + json.dumps({"role": "assistant", "content": answer.text})
            tail += ", " + json.dumps({"role": "user", "content": turn})
        # Images go between ready-made parts: as JSON they would be searched for characters to escape.
        images = (part for url in job.pictures for part in (_IMAGE, url, end.encode()))
        return b"".join((head.encode(), *images, tail.encode(), b"]}"))

    def _structure(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that hold the model to a schema, as far as the server was not seen to refuse them."""
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        fields: dict[str, Any] = {"response_format": form}
        if "class" in schema["properties"]:
            fields["logprobs"] = True
        return {name: value for name, value in fields.items() if name not in self._refused}

    def refuse(self, field: str) -> None:
        """Send a field no more: this server does not take it, or does not need it."""
        self._refused.add(field)

    def adapt(self, fault: Fault, job: Job) -> bool:
        """Change what is sent where the model does not accept it; return whether the job is worth another call.

        Raises:
            DescriberError: the user has to change an option.
        """
        if fault.parameter == "temperature" and self._options.temperature is not None:
            raise DescriberError(f"{self._model} takes no --temperature {self._options.temperature:g}: leave it out.")
        name = fault.parameter
        if name is None or name not in job.sent:
            return False
        if name in _LIMIT_NAMES and not self._refused.intersection(_LIMIT_NAMES):
            self._limit_name = next(other for other in _LIMIT_NAMES if other != name)
        self.refuse(name)
        return name != self._limit_name

    def explain(self, fault: Fault) -> str:
        """Return what a fault that stops the run means, and what to do."""
        url, reason = self._server.url, f"({fault.message})"
        if fault.kind == REDIRECT:
            return f"{url} sends the request elsewhere {reason}. If that is right, give its address as --base-url."
        if fault.kind == "401":
            return f"{url} does not accept the key in OPENAI_API_KEY {reason}."
        if fault.kind == "403":
            return f"{url} does not let this key use {self._model} {reason}."
        if fault.kind == "404":
            hint = "" if url.endswith("/v1") else "; most addresses end in /v1: is --base-url complete?"
            return f"{url} does not know the model {self._model} {reason}{hint}"
        if fault.retry_after is not None and fault.retry_after > LONGEST_WAIT_S:
            wait = timedelta(seconds=round(fault.retry_after))
            return f"{url} takes no more calls for {wait} {reason}; give the same command again then."
        return f"{url} wants to be paid before it answers: there is no quota left {reason}."

"""What tests of openai:MODEL share: requests, a describer of a stub server, and what it answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import openai_stub as server
from gpt4image.artifacts.store import DescriptionStore, Prompt, StoredAnswer
from gpt4image.config import DescribeConfig, DescriberOptions
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from worlds import encoded

PROMPT = Prompt("paper", 1, "Describe it.", class_conditioned=False)
KEY = "sk-secret-0123456789"


@pytest.fixture
def openai_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, no address in the environment, and short waits before retries."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(openai_describer, "BACKOFF_S", (0.01, 30.0))


def picture(number: int = 0) -> bytes:
    return encoded(Image.new("RGB", (40, 30), (number % 256, number // 256, 100)))


def request(number: int = 0, **changes: Any) -> Request:
    fields = {"digest": f"{number:064x}", "keys": (f"{number}.png",), "prompt": PROMPT, "question": PROMPT.text}
    return Request(**{**fields, "read": lambda: picture(number), **changes})


def describer(url: str, **options: Any) -> OpenAIDescriber:
    return OpenAIDescriber("tiny", DescriberOptions(describer="openai:tiny", base_url=url, **options))


def ask(maker: OpenAIDescriber, *requests: Request, into: list[Answer] | None = None) -> list[Answer]:
    """All answers; ``into`` also holds those that came before an error."""
    answers = [] if into is None else into
    for group in maker.describe(iter(requests)):
        answers += group
    return answers


def ask_one(
    handler: server.Handler, question: Request | None = None, **options: Any
) -> tuple[list[Answer], server.Stub]:
    with server.serve(handler) as stub:
        return ask(describer(stub.url, **options), question or request()), stub


def describe_by(handler: server.Handler, data: str, store: Path, **options: Any) -> tuple[Any, server.Stub]:
    """Describe a dataset by a server that answers like ``handler``."""
    with server.serve(handler) as stub:
        given: Any = {"data": data, "store": store, "describer": "openai:tiny", "base_url": stub.url}
        return describe(DescribeConfig(**{**given, "server_name": "stub", **options})), stub


def rows_of(store: Path, status: Any = "ok") -> list[Any]:
    with DescriptionStore(store) as opened:
        return list(opened.descriptions(status=status))


def answers_of(store: Path) -> list[StoredAnswer]:
    with DescriptionStore(store) as opened:
        return list(opened.answers())


def body(message: str = "no", **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()

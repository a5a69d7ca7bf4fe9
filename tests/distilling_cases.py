"""Pictures of three colours, answers about them, and a server that gives such answers for money."""

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from gpt4image.base.outcome import Outcome
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.prices import Price
from openai_stub import Call, Reply, Stub, answer
from worlds import COLOURS, write_photos

TINY = {"epochs": 2, "image_size": 16, "encoder": "bag-of-words:64", "features": "none", "precision": "fp32",
        "memory_format": "contiguous"}  # fmt: skip
WORDS = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]
CLASSES = ["blue", "green", "red: like blood, say"]
PER_COLOUR = 12
Paid = Callable[[Stub], list[str]]
Result = TypeVar("Result", bound=Outcome)


@dataclass(frozen=True)
class Photos:
    """Pictures of three colours and the answers about them, in class folders as far as they have a label."""

    folder: Path
    answers: Path

    @property
    def replay(self) -> str:
        return f"replay:{self.answers}"


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], Photos]:
    """Make pictures of which so many per colour have a label; without any they lie in one folder."""

    def make(labelled: int) -> Photos:
        rows, answers = write_photos(tmp_path / "photos", labelled, each=PER_COLOUR), tmp_path / "answers.jsonl"
        answers.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return Photos(tmp_path / "photos", answers)

    return make


@pytest.fixture
def bare(photos: Callable[[int], Photos]) -> Photos:
    """Pictures without a label, in one folder."""
    return photos(0)


def colour_of(call: Call) -> str:
    mean = np.asarray(call.pictures[0], float).mean(axis=(0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))


def good(call: Call) -> Reply:
    said = {"description": f"A {colour_of(call)} sheet.", "class": colour_of(call), "second": None, "confidence": 0.9}
    return answer(json.dumps(said))


@pytest.fixture
def paid(bare: Photos, monkeypatch: pytest.MonkeyPatch) -> Paid:
    """The words of a command that asks a server about ``bare``, at a dollar per million tokens in and ten out."""
    monkeypatch.setattr(openai_describer, "find_price", lambda *_: Price(1.0, 10.0))

    def words(stub: Stub) -> list[str]:
        server = ["--describer", "openai:tiny", "--base-url", stub.url, "--concurrency", "2"]
        return ["distill", str(bare.folder), *server, "--classes", "blue, green, red", *WORDS]

    return words


def made(kind: type[Result], **facts: Any) -> Result:
    """Return the result of a stage with these facts; others that it needs are 0."""
    needed = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]
    return kind(**{**dict.fromkeys(needed, 0), **facts})

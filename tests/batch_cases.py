"""A folder of pictures, a Batch API on loopback, and describe --batch between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch_server import BatchServer, serving
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.config import DescribeConfig
from gpt4image.data import load_dataset
from gpt4image.describing.describers import batch
from gpt4image.describing.describers.base import Request
from gpt4image.describing.describers.batch import BatchDescriber

KEY = "sk-test-51f0c0ffee"
ANYTHING = {"reject": ()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(batch, "SETTLING_S", 0.2)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with serving(BatchServer()) as script:
        yield script
    assert script.authorisations <= {f"Bearer {KEY}"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(8):
        add_picture(tmp_path / "set" / "unlabelled", number)
    return tmp_path / "set" / "unlabelled"


def add_picture(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(noise).save(folder / f"{number:02}.png")


@pytest.fixture
def config(server: BatchServer, pictures: Path, tmp_path: Path) -> Any:
    def with_options(**options: Any) -> DescribeConfig:
        values: dict[str, Any] = {
            "data": f"folder:{pictures.parent}",
            "store": tmp_path / "a.db",
            "describer": "openai:tiny",
            "base_url": server.url,
            "batch": True,
            "poll_seconds": 0.01,
            "retries": 2,
        }
        return DescribeConfig(**{**values, **ANYTHING, **options})

    return with_options


def texts(config: DescribeConfig) -> list[str]:
    with DescriptionStore(config.store) as store:
        return [row.text for row in store.texts()]


def requests_of(config: DescribeConfig) -> list[Request]:
    images = load_dataset(config.data)
    return [
        Request(
            digest=digest,
            keys=(key,),
            prompt=PROMPTS["short"],
            turns=(PROMPTS["short"].text,),
            read=lambda row=row: images.read(row),
        )
        for row, (key, digest) in enumerate(zip(images.keys, images.digests, strict=True))
    ]


def submit_only(server: BatchServer, config: DescribeConfig) -> None:
    """Break off while the requests are at the server."""
    polls, server.polls = server.polls, 1_000_000
    with DescriptionStore(config.store, write=True):
        groups = BatchDescriber(config).describe(requests_of(config))
        while not server.batches:
            assert next(groups) == []
        next(groups)
        groups.close()
    server.polls = polls


def on_their_way(config: DescribeConfig) -> Any:
    return BatchDescriber(config).report(load_dataset(config.data)).facts


def lines_of(server: BatchServer) -> list[int]:
    return [len(lines) for lines in server.inputs]

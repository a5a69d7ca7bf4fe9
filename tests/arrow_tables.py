"""Image sets as Hugging Face tables."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features


def table(columns: dict[str, list[Any]], **kinds: Any) -> Dataset:
    images = {
        name: [{"bytes": data, "path": None} for data in cells]
        for name, cells in columns.items()
        if name in ("image", "img")
    }
    return Dataset.from_dict({**columns, **images}, features=Features(kinds))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Local sets are read without a single connection, and `datasets` writes its cache into the test's folder."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")

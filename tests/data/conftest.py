"""Fixtures of the tests of datasets."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a user cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "gpt4image"


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """Makes a PNG file that differs from seed to seed: ``png(seed, side=8)``."""

    def make(seed: int, side: int = 8) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture
def write_images(png: Callable[..., bytes]) -> Callable[..., None]:
    """Writes a different picture to each path below a folder: ``write_images(root, "cat/1.png", ...)``."""

    def write(root: Path, *names: str) -> None:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(hash_of(name)))

    return write


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode()[-8:], "little")

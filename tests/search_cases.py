"""A run on colours and what is asked of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.outcome import Outcome
from gpt4image.config import EncodeConfig, SearchConfig
from gpt4image.data import pixels
from gpt4image.encoding.encode import encode
from gpt4image.searching.search import search
from gpt4image.training.train import train
from small_training import options

COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}


PROMPTS = [Prompt("paper", 1, "Describe this image in detail.", False), Prompt("short", 1, "In three words?", False)]


def noisy(colour: tuple[int, int, int], seed: int) -> Image.Image:
    values = np.array(colour) + np.random.default_rng(seed).normal(0, 30, (16, 16, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def paint(root: Path) -> Path:
    """Write 16 pictures of each of three colours in class folders."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(16):
            noisy(colour, 100 * len(name) + number).save(root / name / f"{number:02}.png")
    return root


def table_of(root: Path, out: Path, encoder: str, texts: Callable[[str], list[str]]) -> Path:
    """Describe the pictures of a folder, with as many prompts as there are texts, and encode what was written."""
    with DescriptionStore(out.with_suffix(".db"), write=True) as store:
        store.add(
            Description(
                digest=hashlib.sha256(file.read_bytes()).hexdigest(),
                prompt=prompt,
                describer={"name": "test"},
                created=0,
                text=text,
            )
            for file in sorted(root.rglob("*.png"))
            for prompt, text in zip(PROMPTS, texts(file.parent.name), strict=False)
        )
    encode(EncodeConfig(store=out.with_suffix(".db"), encoder=encoder, out=out))
    return out


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a run that learned their colours from two descriptions of each, and one that did not."""
    root = tmp_path_factory.mktemp("search")
    paint(root / "colours")
    table = table_of(
        root / "colours",
        root / "table",
        "bag-of-words:64",
        lambda name: [f"A plain {name} square with much noise.", f"{name}, {name}, {name}."],
    )
    train(options(root / "colours", root / "run", embeddings=table, epochs=10, lr=0.02))
    train(options(root / "colours", root / "plain", epochs=1))
    return root


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    for name in ("colours", "run"):
        shutil.copytree(trained / name, tmp_path / name, ignore=shutil.ignore_patterns("search"))
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes in bytes of the images of a set that were decoded."""
    sizes: list[int] = []
    decode = pixels.decode_square

    def counted(data: bytes, size: int, **options: Any) -> Any:
        sizes.append(len(data))
        return decode(data, size, **options)

    monkeypatch.setattr(pixels, "decode_square", counted)
    return sizes


def ask(root: Path, *texts: str, **changes: Any) -> Outcome:
    return search(SearchConfig(run_dir=root / "run", texts=texts, **{"data": f"folder:{root / 'colours'}", **changes}))


def keys(outcome: Outcome, query: int = 0) -> list[str]:
    return [result["key"] for result in outcome.record["queries"][query]["results"]]

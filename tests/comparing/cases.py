"""A small comparison on colours."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import ClassOption, Prompt
from gpt4image.config import CompareConfig
from gpt4image.data import load_dataset
from tables import make_table, write_store

SMALL: dict[str, Any] = {
    "model": "resnet10t", "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}, "image_size": 16, "batch_size": 8,
    "epochs": 1, "lr": 0.005, "precision": "fp32", "memory_format": "contiguous", "jobs": 1,
}  # fmt: skip
Small = Callable[..., CompareConfig]
BARE = {"init": "scratch", "stem": "small", **{name: SMALL[name] for name in ("image_size", "model", "model_args")}}


@pytest.fixture
def table(colour_folder: Path, tmp_path: Path) -> Path:
    """Embeddings that give the class away, as good descriptions do."""
    images = load_dataset(f"folder:{colour_folder}")
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[images.labels] + rng.normal(0, 0.2, (len(images), 8))
    make_table(tmp_path / "table", {digest: vectors[i : i + 1] for i, digest in enumerate(images.digests)})
    return tmp_path / "table"


@pytest.fixture
def answers(colour_folder: Path, tmp_path: Path) -> Path:
    """A store in which a describer answers the class of every image, wrong for each seventh one."""
    images = load_dataset(f"folder:{colour_folder}")
    said = np.where(np.arange(len(images)) % 7 == 0, images.labels + 1, images.labels) % len(images.classes)
    asked = {"class_conditioned": False, "ask": ("class",), "classes": tuple(map(ClassOption, images.classes))}
    prompt = Prompt(name="class", version=1, text="Which class?", **asked)
    said_of = [Answer(class_name=images.classes[number], confidence=0.9) for number in said.tolist()]
    rows = ({"digest": digest, "answer": answer} for digest, answer in zip(images.digests, said_of, strict=True))
    return write_store(tmp_path / "answers.db", rows, prompt=prompt)


def options(folder: Path, table: Path | None, out: Path, **changes: Any) -> CompareConfig:
    own = {"data": f"folder:{folder}", "embeddings": table, "out": out, "seeds": 2}
    return CompareConfig(**own | SMALL | changes)


@pytest.fixture
def small(colour_folder: Path, table: Path, tmp_path: Path) -> Small:
    """Options of a comparison in `cmp`; each test gives its own."""
    return partial(options, colour_folder, table, tmp_path / "cmp")

"""Indexing a dataset, and asking 100,000 images."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from gpt4image.config import DescribeConfig, EncodeConfig, SearchConfig, TrainConfig
from gpt4image.data.known_sets import DESCRIPTIONS
from measure import Row, seconds_in_turn

IMAGES, WIDTH = 100_000, 384


def search() -> list[Row]:
    return [_indexing(), _asking()]


def _indexing() -> Row:
    """Images a second of a new index, over decoding the same images and reading them as evaluate does."""
    from gpt4image.data import load_dataset
    from gpt4image.data.pixels import load_pixels
    from gpt4image.describing.describe import describe
    from gpt4image.encoding.encode import encode
    from gpt4image.searching.search import search
    from gpt4image.training.auto import stored_size
    from gpt4image.training.run_model import load_run_model
    from gpt4image.training.train import train

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        describe(DescribeConfig(data="openmoji", store=root / "a.db", describer=f"replay:{DESCRIPTIONS}"))
        encode(EncodeConfig(store=root / "a.db", encoder="bag-of-words", out=root / "table"))
        train(TrainConfig(data="openmoji", embeddings=root / "table", out=root / "run", epochs=1, precision="fp32"))
        images = load_dataset("openmoji")
        model = load_run_model(root / "run", None, images.classes)
        seconds: list[float] = []

        def indexed() -> None:
            shutil.rmtree(root / "index", ignore_errors=True)
            asked = SearchConfig(run_dir=root / "run", texts=("red",), data="openmoji", index=root / "index")
            seconds.append(search(asked).index_seconds)

        def read() -> None:
            pixels, _, _ = load_pixels(images, stored_size(model.config), memory_limit_gb=4, workers=None)
            model.read(pixels, np.arange(len(images)))

        _, limit = seconds_in_turn(indexed, read, rounds=5)
        ours = float(np.median(seconds[1:]))
    name = "images/s indexed, over images/s decoded and read by the model"
    return Row(name, len(images) / ours, len(images) / limit, "images/s", ">= 0.8")


def _asking() -> Row:
    """Seconds to find 10 of 100,000 images for one query."""
    from gpt4image.artifacts.image_index import most_similar, up_to_date

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((IMAGES, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    digests = np.unique(rng.integers(0, 256, (IMAGES, 32), dtype=np.uint8), axis=0)
    rows, readable = np.arange(len(digests)), np.ones(len(digests), bool)
    with tempfile.TemporaryDirectory() as folder:
        known = {"data": "random"}
        index, _ = up_to_date(Path(folder), known, digests, rows, WIDTH, lambda i: (vectors[i], readable[i]))
        ours, _ = seconds_in_turn(lambda: most_similar(index, vectors[:1], 10), lambda: None)
    name = f"seconds to ask {IMAGES:,} images of {WIDTH} numbers, over 0.1 s"
    return Row(name, ours, 0.1, "s", "<= 1")

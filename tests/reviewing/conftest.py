"""What the tests of the review share: pictures, a session and a client of its server."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4image.config import ReviewConfig
from gpt4image.data import load_dataset
from gpt4image.reviewing.labels_file import LabelsFile
from gpt4image.reviewing.review import kind_asked, open_session
from gpt4image.reviewing.session import Session
from reviewing.hostile_names import HOSTILE


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 20, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three cats, two dogs, and images without a label, of which some have hostile names."""
    for number, name in enumerate(("cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png")):
        write_picture(tmp_path / "photos" / name, number)
    for number, name in enumerate(("5.png", "6.png", *HOSTILE), 5):
        write_picture(tmp_path / "photos" / "unlabelled" / name, number)
    return tmp_path / "photos"


@pytest.fixture
def opened(pictures: Path) -> Iterator[Callable[..., Session]]:
    """Open sessions about those pictures; all are ended."""
    running: list[Session] = []

    def start(wait: bool = True, **options: Any) -> Session:
        config = ReviewConfig(**{"data": f"folder:{pictures}", "labels": pictures.parent / "labels.csv"} | options)
        file = LabelsFile(config.labels, load_dataset(config.data), kind_asked(config))
        running.append(open_session(config, file))
        while wait and running[-1].learning:
            time.sleep(0.01)
        return running[-1]

    yield start
    for session in running:
        session.end()
        session.file.close()

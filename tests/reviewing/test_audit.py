"""The stage audit, with looks by a person who knows the truth."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpt4image
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.data import load_dataset
from gpt4image.reviewing import review
from gpt4image.reviewing.session import Session
from tables import made_of

IMAGES = 80
CLASSES = ("cat", "dog")


def person(says: Callable[[str], tuple[str, str]], most: int = IMAGES) -> Callable[..., None]:
    """Return what labels the first images of the page, by key."""

    def serve(sessions: Mapping[str, Session], *_: Any) -> None:
        session = sessions["audit"]
        for _ in range(most):
            if cards := session.cards("label", 1):
                assert cards[0].proposal == "", "looks do not depend on the answers"
                session.mark({cards[0].id: says(cards[0].key)})

    return serve


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Options of images without a label; odd ones are dogs, and every tenth target is wrong, and unsure."""
    folder = tmp_path / "photos" / "unlabelled"
    folder.mkdir(parents=True)
    for number in range(IMAGES):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number:03}.png")
    images = load_dataset(f"folder:{tmp_path / 'photos'}")
    numbers = np.arange(IMAGES)
    right = np.where(numbers % 10 == 3, 0.4, 0.95).astype(np.float32)
    probabilities = np.where(np.arange(2) == (numbers % 2)[:, None], right[:, None], 1 - right[:, None])
    made_of(images, CLASSES, probabilities).save(tmp_path / "targets.parquet")
    return {
        "data": f"folder:{tmp_path / 'photos'}",
        "targets": tmp_path / "targets.parquet",
        "labels": tmp_path / "photos" / "audit.csv",
    }


def truth(key: str) -> tuple[str, str]:
    return CLASSES[int(key[-7:-4]) % 2], "checked"


def test_looks_are_kept_and_more_of_them_narrow_the_interval(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "serve", person(truth, 3))
    few = gpt4image.audit(**options, looks=20)
    assert few.looks == 3 and few.rows == [] and "nothing can be estimated yet" in few.text
    monkeypatch.setattr(review, "serve", person(truth))
    some = gpt4image.audit(**options, looks=20)
    assert (some.looks, some.images, some.split) == (20, IMAGES, "train")
    monkeypatch.setattr(review, "serve", person(lambda _: ("", "unsure")))
    again = gpt4image.audit(**options, looks=20)
    assert again.shares == some.shares, "all were looked at: no page opens"
    monkeypatch.setattr(review, "serve", person(truth))
    every = gpt4image.audit(**options, looks=IMAGES)
    [row] = every.rows
    assert row["share"] == row["low"] == row["high"] == pytest.approx(0.9)
    assert some.shares["targets"]["low"] < 0.9 < some.shares["targets"]["high"]
    assert "targets" in every.text and "90.0%" in every.text


def test_what_cannot_be_audited_is_named(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing to audit: give"):
        gpt4image.audit(data=options["data"])
    with pytest.raises(TableError, match="there is no file of targets here"):
        gpt4image.audit(**options | {"targets": tmp_path / "gone.parquet"})
    with pytest.raises(DataError, match="no images to audit in its test split"):
        gpt4image.audit(**options, split="test")

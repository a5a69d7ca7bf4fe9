"""The order of asking: covers, then goes where answers leave the class open, and says what was reached."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gpt4image
from gpt4image.describing.order import Order, Reached, round_size
from gpt4image.labelling.texts import classify
from gpt4image.models.backbones import pretrained_weights
from worlds import COLOURS, write_colours

RARE = 12


def clusters(seed: int, each: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Return unit features (N, 8) of three classes, one of them rare, and the numbers (N,) of the classes."""
    rng = np.random.default_rng(seed)
    true = np.repeat([0, 1, 2], [each, each, RARE])
    centres = np.eye(3, 8)
    vectors = centres[true] + rng.normal(0, 0.35, (len(true), 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), true


def order(vectors: np.ndarray, true: np.ndarray, n_classes: int = 3) -> tuple[Order, np.ndarray]:
    said = np.full(len(true), -1)
    names = [f"{row * 2654435761 % 2**64:064x}" for row in range(len(true))]
    return Order(names, vectors, np.ones(len(true), bool), n_classes, lambda: said), said


def test_every_wanted_image_comes_once_and_what_is_no_image_of_the_order_last() -> None:
    vectors, true = clusters(0)
    ordered, _ = order(vectors, true, n_classes=0)
    wanted = {*ordered.digests[10:60], "f" * 64}
    rounds = [*ordered.rounds(wanted, 20)]
    assert sorted(itertools.chain(*rounds)) == sorted(wanted) and rounds[-1] == ["f" * 64]
    assert max(map(len, rounds)) <= 20 and not ordered.curve, "nothing is said of classes that nobody answers"


def test_a_rare_class_is_met_and_what_was_reached_is_true_within_its_interval() -> None:
    inside = met = 0
    for seed in range(6):
        vectors, true = clusters(seed)
        ordered, said = order(vectors, true)
        row_of = {name: row for row, name in enumerate(ordered.digests)}
        for number, names in enumerate(ordered.rounds(set(ordered.digests), 16)):
            if number == 5:
                break
            rows = [row_of[name] for name in names]
            said[rows] = true[rows]
        met += int((said == 2).sum())
        reached = ordered.curve[-1]
        best = classify(vectors, said, 3, seed=0).probabilities.argmax(axis=1)
        share = np.where(said >= 0, True, best == true).mean()
        assert reached.asked == 80 and reached.low <= reached.share <= reached.high
        inside += reached.low <= share <= reached.high
    assert inside >= 5
    assert met / (6 * RARE) > 1.2 * 80 / len(true), "a rare class is asked about more often than at random"


def test_the_forecast_continues_errors_that_fall_by_a_power_law() -> None:
    vectors, true = clusters(1)
    ordered, _ = order(vectors, true)
    assert ordered.gain() is None
    ordered.curve = [Reached(n, 2000, 1 - 2 / n, 0.0, 1.0) for n in (100, 200, 400)]
    assert ordered.gain() == pytest.approx(2 / 400 - 2 / 600)


@given(st.integers(1, 10**6), st.integers(1, 100), st.booleans())
def test_rounds_fill_their_calls(images: int, per_call: int, batches: bool) -> None:
    size = round_size(images, per_call, batches=batches)
    assert size % per_call == 0 and size >= 1 and (not batches or images <= 3 * size)


def test_describe_stops_at_a_share_and_says_what_that_brought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if pretrained_weights("tf_efficientnet_lite0") != "here":
        pytest.skip("the weights of the extra demo are not installed")
    spec = f"folder:{write_colours(tmp_path / 'photos', each=60)}"
    options = {"data": spec, "store": tmp_path / "a.db", "ask": "class", "splits": "train"}
    names = [*COLOURS]

    def look(picture: Image.Image, question: str) -> str:
        del question
        mean = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(axis=0)
        nearest = int(np.abs(np.array([*COLOURS.values()]) - mean).sum(axis=1).argmin())
        return json.dumps({"class": names[nearest]})

    found = gpt4image.describe(describer=("colours", look), share=0.5, **options)
    assert found.stopped_by == "share" and found.described == -(-found.distinct_images // 2)
    assert 0.5 < found.details["as_if_all_asked"] <= 1.0
    assert "have the class that asking about all would give" in capsys.readouterr().err
    again = gpt4image.describe(describer=("colours", look), share=0.5, **options)
    assert again.described == 0 and again.stopped_by == "share"

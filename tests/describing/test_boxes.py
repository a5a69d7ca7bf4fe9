"""Which images show how a describer writes boxes, which convention fits them, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import Description, DescriptionStore
from gpt4image.data.dataset import Dataset
from gpt4image.data.regions import Boxes
from gpt4image.describing.boxes import IMAGES_PROBED, find_box_format, how_read, probed_images
from loaded_sets import in_memory, masks_of

ME: dict[str, Any] = {"kind": "test"}
KEY = '{"kind":"test"}'


def dataset(count: int, *, weights: float = 1.0, splits: Sequence[str] | None = None, drawn: bool = True) -> Dataset:
    """Images without content that can be shown, each with a box of its own."""
    corners = [np.array([[0.1, 0.2, 0.5, 0.3 + 0.6 * n / count]], np.float32) for n in range(count)]
    each = [(box, np.zeros(1, np.int64), np.full(1, weights, np.float32)) for box in corners]
    return in_memory(
        [f"{n}".encode() for n in range(count)],
        classes=("cat",),
        labels=np.ones((count, 1), np.int8),
        splits=np.array(splits or ["train"] * count),
        regions=Boxes.of_images(each) if drawn else None,
    )


def result(digest: str, *boxes: Sequence[float], **more: Any) -> Description:
    found = tuple({"label": "cat", "box_2d": list(map(float, box))} for box in boxes)
    answer = Answer(boxes=found, picture=more.pop("picture", (640, 480)))
    values = {"prompt": PROMPTS["short"], "describer": ME, "created": 0.0, "answer": answer, **more}
    return Description(digest=digest, **values)


def test_a_few_training_images_with_boxes_are_probed_always_the_same() -> None:
    images = dataset(100, splits=["train", "test", "val", "train"] * 25)
    probed = probed_images(images)
    train = {images.digests[row] for row in images.indices("train")}
    assert len(probed) == IMAGES_PROBED and probed.keys() <= train and probed.keys() == probed_images(images).keys()
    row = images.digests.index(next(iter(probed)))
    np.testing.assert_allclose(probed[images.digests[row]], [[100, 200, 500, 300 + 6 * row]], rtol=1e-5)
    assert probed_images(dataset(4, weights=0.0)) == probed_images(dataset(4, drawn=False)) == {}


def test_around_masks_only_what_is_in_one_piece_is_probed() -> None:
    masks = np.zeros((2, 100, 200), np.uint8)
    masks[0, 20:40, 100:150] = 1  # one object
    masks[0, 60:70, 0:20] = masks[0, 80:90, 100:120] = 2  # two
    images = in_memory(
        [b"0", b"1"],
        classes=("background", "cat", "dog", "tree"),
        labels=np.ones((2, 4), np.int8),
        splits=np.array(["train", "test"]),
        regions=masks_of(masks),
    )
    (boxes,) = probed_images(images).values()
    np.testing.assert_allclose(boxes, [[500, 200, 750, 400]], atol=5)


def test_of_conventions_that_fit_equally_that_of_the_question_is_taken(tmp_path: Path) -> None:
    images = dataset(6)
    human = probed_images(images)
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(result(digest, *box, picture=(1000, 1000)) for digest, box in human.items())
        assert how_read(store, KEY)["box_format"].startswith("xyxy-1000 (as asked")
        assert find_box_format(store, ME, images) == {"box_format_iou": 1.0, "box_format_human_boxes": 6}
        assert how_read(store, KEY) == {"box_format": "xyxy-1000"}


def test_answers_of_others_and_files_and_too_few_show_nothing(tmp_path: Path) -> None:
    images = dataset(12)
    human = list(probed_images(images).items())
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(result(digest, *box) for digest, box in human[:4])
        store.add(result(digest, *box, picture=None) for digest, box in human[4:])
        store.add(result(digest, *box, describer={"kind": "other"}) for digest, box in human)
        assert find_box_format(store, ME, images) == find_box_format(store, ME, dataset(3, drawn=False)) == {}
        assert store.box_formats() == {}
        store.add([result(human[4][0], *human[4][1], sample=1)])
        assert find_box_format(store, ME, images)["box_format_human_boxes"] == 5

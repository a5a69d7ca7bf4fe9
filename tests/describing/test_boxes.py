"""Boxes from servers in other conventions than asked for, cut, broken and hostile; what is good is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpt4image.describing.asking
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import BOX_FORMATS, InspectConfig
from gpt4image.data.dataset import Dataset
from gpt4image.data.regions import Boxes
from gpt4image.describing.boxes import probed_images
from gpt4image.describing.inspection import inspect
from openai_cases import answers_of, describe_by
from openai_stub import Call, Handler, Reply, answer
from worlds import encoded, in_memory, masks_of

SIZE, MAX_SIDE, SENT = (160, 80), 64, (64, 32)
Make = Callable[[int, int], Dataset]


def picture(number: int) -> bytes:
    """Two objects on grey: where they are depends on the number."""
    image = Image.new("RGB", SIZE, (128, 128, 128))
    for colour, place in zip(((0, 0, 255), (255, 0, 0)), objects(number), strict=True):
        image.paste(colour, place)
    return encoded(image)


def objects(number: int) -> list[tuple[int, int, int, int]]:
    """A cat and a ball, in pixels."""
    left, top = 4 + number % 26, 4 + 7 * number % 23
    return [(left, top, left + 40, top + 24), (left + 60, top + 10, left + 100, top + 40)]


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A maker of datasets of so many images, of which the first few have human boxes."""

    def make(count: int, drawn: int) -> Dataset:
        scale, two = np.array([*SIZE, *SIZE]), np.ones(2, np.float32)
        one = [(np.array(objects(n), np.float32) / scale, np.arange(2), two) for n in range(drawn)]
        regions = Boxes.of_images([*one, *[None] * (count - drawn)]) if drawn else None
        none: Any = {"labels": np.full((count, 2), -1, np.int8), "classes": ("cat", "sport_ball")}
        found = in_memory([picture(n) for n in range(count)], **none, regions=regions)
        monkeypatch.setattr(gpt4image.describing.asking, "load_with_splits", lambda _spec, **_: found)
        return found

    return make


def box(label: str, numbers: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "box_2d": numbers, "truncated": False, **more}


def listed(*boxes: Any) -> str:
    return json.dumps({"boxes": boxes})


def says(name: str = "xyxy-1000") -> Handler:
    """The objects of the picture that was sent, in one of the conventions."""
    order, unit = name.split("-")
    width, height = {"1000": (1000, 1000), "1": (1, 1), "sent": SENT, "original": SIZE}[unit]

    def reply(call: Call) -> Reply:
        pixels, found = np.asarray(call.pictures[0]).astype(int), []
        for colour, other in ((2, 0), (0, 2)):
            y, x = np.nonzero(pixels[..., colour] - pixels[..., other] > 128)
            x0, x1 = (float(side) / SENT[0] * width for side in (x.min(), x.max() + 1))
            y0, y1 = (float(side) / SENT[1] * height for side in (y.min(), y.max() + 1))
            corners = {"xyxy": [x0, y0, x1, y1], "yxyx": [y0, x0, y1, x1]}
            sizes = {"xywh": [x0, y0, x1 - x0, y1 - y0], "yxhw": [y0, x0, y1 - y0, x1 - x0]}
            found.append({**corners, **sizes}[order])
        return answer(listed(box("cat", found[0]), box("sport ball", found[1])))

    return reply


def run(folder: Path, handler: Handler, **options: Any) -> tuple[Any, list[Call]]:
    how: Any = {"ask": "boxes", "max_side": MAX_SIDE, "image_format": "png", **options}
    outcome, stub = describe_by(handler, "memory", folder / "a.db", **how)
    assert outcome.skipped == ()
    return {**outcome.facts, **outcome.details}, stub.calls


def error_of(folder: Path, images: Dataset) -> float:
    """The largest distance of a stored box from the true one, in thousandths; 45 are the pixels of a small picture."""
    true = dict(zip(images.digests, map(objects, range(len(images))), strict=True))
    scale = np.array([*SIZE, *SIZE]) / 1000
    return max(
        float(np.abs(np.array(found["box_2d"]) - np.array(one) / scale).max())
        for row in answers_of(folder / "a.db")
        for found, one in zip(row.answer.boxes or (), true[row.digest], strict=True)
    )


@pytest.mark.parametrize("name", BOX_FORMATS[::5])  # one of each order and unit
def test_the_convention_is_found_on_human_boxes_and_remembered(tmp_path: Path, images: Make, name: str) -> None:
    some = images(6, 4)
    summary, calls = run(tmp_path, says(name))
    assert len(calls) == 6 and summary["boxes"] == 12
    assert (summary["box_format"], summary["box_format_human_boxes"]) == (name, 8) and summary["box_format_iou"] > 0.75
    assert error_of(tmp_path, some) < 45
    more = images(9, 0)
    summary, calls = run(tmp_path, says(name))
    assert len(calls) == 3 and summary["box_format"] == name and error_of(tmp_path, more) < 45


def test_images_with_human_boxes_are_asked_about_first_and_a_wrong_model_is_stopped_there(
    tmp_path: Path, images: Make
) -> None:
    images(30, 4)
    asked: list[Call] = []

    def elsewhere(call: Call) -> Reply:
        asked.append(call)
        return answer(listed(box("cat", [880, 890, 990, 990]), box("cat", [900, 1, 950, 40])))

    with pytest.raises(DescriberError, match=r"fit 8 human boxes in no convention: .*xyxy-1000 0\.0") as error:
        run(tmp_path, elsewhere)
    assert len(asked) == 4 and all(name in str(error.value) for name in BOX_FORMATS)
    summary, calls = run(tmp_path, elsewhere, box_format="xyxy-1000")
    assert len(calls) == 26 and summary["box_format"] == "xyxy-1000"


def test_without_human_boxes_the_convention_of_the_question_is_taken_and_another_costs_nothing(
    tmp_path: Path, images: Make
) -> None:
    some = images(5, 0)
    summary, calls = run(tmp_path, says("yxyx-sent"))
    assert len(calls) == 5 and summary["box_format"] == "xyxy-1000 (as asked: not probed on human boxes)"
    assert error_of(tmp_path, some) > 100
    images(5, 3)
    summary, calls = run(tmp_path, says())
    assert not calls and summary["box_format"] == "yxyx-sent", "answers that are there are probed when human boxes come"
    assert error_of(tmp_path, some) < 45
    for given in ({"box_format": "xyxy-1000"}, {}):  # what was given stays
        summary, calls = run(tmp_path, says(), **given)
        assert not calls and summary["box_format"] == "xyxy-1000" and error_of(tmp_path, some) > 100
    with pytest.raises(ConfigError, match=r"box_format.*'xyyx-1000'.*Did you mean"):
        run(tmp_path, says(), box_format="xyyx-1000")


GOOD = box("cat", [100, 100, 400, 500])


@pytest.mark.parametrize(
    ("text", "finish", "faults"),
    [
        (listed(GOOD)[:-2], "stop", {}),
        (listed(GOOD, box("dog", [1, 2, 300, 412])).partition("12]")[0], "length", {"cut_off": 1}),
        (f"```json\n{json.dumps([GOOD])}\n```", "stop", {}),
        (f"Two: {json.dumps(GOOD)}, and {{'label': 'dog', }}", "stop", {}),
        (listed(GOOD).replace("]}", '], }, {"label": "x", "box_2d": [1, 2, 3 4]}', 1), "stop", {}),
        (listed(GOOD, {**GOOD, "box_2d": [float("nan"), 1, 2, 3]}), "stop", {"unusable": 1}),
        (listed(GOOD, "cat", None, 7, {"box_2d": [1, 2, 3, 4]}, []), "stop", {"unusable": 5}),
        (listed(GOOD, box("cat", ["1", "2", "3", "4"]), box("cat", [1, 2, 3])), "stop", {"unusable": 2}),
        (listed(GOOD, box("cat", [0, 0, 1000, 1000])), "stop", {"whole_image": 1}),
        (listed(GOOD, GOOD, box("cat", [5, 5, 5, 9])), "stop", {"duplicates": 1, "no_area": 1}),
        (listed({**GOOD, "truncated": "no", "confidence": "very", "x": {}}), "stop", {}),
    ],
)
def test_good_boxes_are_kept_from_broken_answers(
    tmp_path: Path, images: Make, text: str, finish: str, faults: dict[str, int]
) -> None:
    images(1, 0)
    summary, calls = run(tmp_path, lambda _: answer(text, finish=finish))
    (row,) = answers_of(tmp_path / "a.db")
    assert [(found["label"], found["box_2d"]) for found in row.answer.boxes or ()] == [("cat", GOOD["box_2d"])]
    for counted in (summary, inspect(InspectConfig(store=tmp_path / "a.db")).counted):
        assert {name[6:]: n for name, n in counted.items() if name.startswith("boxes_") and n} == faults
    assert len(calls) == 1


# The convention, found on human boxes


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

"""Boxes from servers: in other conventions than asked for, cut, broken and hostile; what is good is kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpt4image.describing.missing
from gpt4image.artifacts.store import DescriptionStore, StoredAnswer
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import BOX_FORMATS, DescribeConfig, StatsConfig
from gpt4image.data.dataset import Dataset
from gpt4image.data.regions import Boxes
from gpt4image.describing.describe import describe
from gpt4image.describing.description_stats import stats
from loaded_sets import in_memory
from openai_cases import openai_settings
from openai_stub import Call, Handler, answer, serve

__all__ = ["openai_settings"]
pytestmark = pytest.mark.usefixtures("openai_settings")
SIZE, MAX_SIDE = (160, 80), 64
SENT = (64, 32)
CLASSES = ("cat", "sport_ball")


def picture(number: int) -> bytes:
    """Two objects on grey: where they are, and of which colour, depends on the number."""
    image = Image.new("RGB", SIZE, (128, 128, 128))
    for k, (left, top, right, bottom) in enumerate(objects(number)):
        image.paste((255, 0, 0) if k else (0, 0, 255), (left, top, right, bottom))
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def objects(number: int) -> list[tuple[int, int, int, int]]:
    """A cat and a ball, in pixels."""
    left, top = 4 + number % 26, 4 + 7 * number % 23
    return [(left, top, left + 40, top + 24), (left + 60, top + 10, left + 100, top + 40)]


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Dataset]]:
    """A maker of datasets of so many images, of which the first few have human boxes."""

    def make(count: int, drawn: int) -> Dataset:
        scale = np.array([*SIZE, *SIZE])
        one = [(np.array(objects(n), np.float32) / scale, np.arange(2), np.ones(2, np.float32)) for n in range(drawn)]
        found = in_memory(
            [picture(n) for n in range(count)],
            labels=np.full((count, 2), -1, np.int8),
            classes=CLASSES,
            regions=Boxes.of_images([*one, *[None] * (count - drawn)]) if drawn else None,
        )
        monkeypatch.setattr(gpt4image.describing.missing, "load_with_splits", lambda _spec, **_: found)
        return found

    yield make


def where(call: Call) -> list[list[int]]:
    """The objects of the picture that was sent, in its pixels."""
    pixels = np.asarray(Image.open(io.BytesIO(call.image)).convert("RGB")).astype(int)
    blue, red = pixels[..., 2] - pixels[..., 0], pixels[..., 0] - pixels[..., 2]
    return [
        [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
        for y, x in (np.nonzero(blue > 128), np.nonzero(red > 128))
    ]


def written(call: Call, name: str) -> list[list[float]]:
    """The objects in one of the conventions."""
    order, unit = name.split("-")
    width, height = {"1000": (1000, 1000), "1": (1, 1), "sent": SENT, "original": SIZE}[unit]
    found = []
    for x0, y0, x1, y1 in where(call):
        x0, x1, y0, y1 = (x0 / SENT[0] * width, x1 / SENT[0] * width, y0 / SENT[1] * height, y1 / SENT[1] * height)
        corners = {"xyxy": [x0, y0, x1, y1], "yxyx": [y0, x0, y1, x1]}
        sizes = {"xywh": [x0, y0, x1 - x0, y1 - y0], "yxhw": [y0, x0, y1 - y0, x1 - x0]}
        found.append({**corners, **sizes}[order])
    return found


def box(label: str, numbers: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "box_2d": numbers, "truncated": False, "words": f"the {label}", **more}


def says(name: str = "xyxy-1000") -> Handler:
    def reply(call: Call) -> Any:
        cat, ball = written(call, name)
        return answer(json.dumps({"boxes": [box("cat", cat), box("sport ball", ball)]}))

    return reply


def run(folder: Path, handler: Handler, **options: Any) -> tuple[Any, list[Call]]:
    with serve(handler) as stub:
        config = DescribeConfig(
            data="memory",
            store=folder / "a.db",
            describer="openai:tiny",
            base_url=stub.url,
            **{"ask": "boxes", "server_name": "stub", "max_side": MAX_SIDE, "image_format": "png", **options},
        )
        return describe(config), stub.calls


def stored(folder: Path) -> list[StoredAnswer]:
    with DescriptionStore(folder / "a.db") as store:
        return list(store.answers())


def error_of(folder: Path, images: Dataset) -> float:
    """The largest distance of a stored box from the true one, in thousandths."""
    true = dict(zip(images.digests, map(objects, range(len(images))), strict=True))
    scale = np.array([*SIZE, *SIZE]) / 1000
    return max(
        float(np.abs(np.array(found["box_2d"]) - np.array(one) / scale).max())
        for row in stored(folder)
        for found, one in zip(row.answer.boxes or (), true[row.digest], strict=True)
    )


@pytest.mark.parametrize("name", BOX_FORMATS[::5])  # one of each order and unit
def test_the_convention_is_found_on_human_boxes_and_remembered(
    tmp_path: Path, images: Callable[[int, int], Dataset], name: str
) -> None:
    some = images(6, 4)
    outcome, calls = run(tmp_path, says(name))
    assert len(calls) == 6 and outcome.summary["boxes"] == 12
    assert outcome.summary["box_format"] == name and outcome.summary["box_format_human_boxes"] == 8
    assert outcome.summary["box_format_iou"] > 0.75
    assert error_of(tmp_path, some) < 45, "the pixels of a small picture"
    more = images(9, 0)
    outcome, calls = run(tmp_path, says(name))
    assert len(calls) == 3 and outcome.summary["box_format"] == name and error_of(tmp_path, more) < 45


def test_images_with_human_boxes_are_asked_about_first_and_a_wrong_model_is_stopped_there(
    tmp_path: Path, images: Callable[[int, int], Dataset]
) -> None:
    images(30, 4)
    asked: list[Call] = []

    def elsewhere(call: Call) -> Any:
        asked.append(call)
        return answer(json.dumps({"boxes": [box("cat", [880, 890, 990, 990]), box("cat", [900, 1, 950, 40])]}))

    with pytest.raises(DescriberError, match=r"fit 8 human boxes in no convention: .*xyxy-1000 0\.0") as error:
        run(tmp_path, elsewhere)
    assert len(asked) == 4 and all(name in str(error.value) for name in BOX_FORMATS)
    outcome, calls = run(tmp_path, elsewhere, box_format="xyxy-1000")
    assert len(calls) == 26 and outcome.summary["box_format"] == "xyxy-1000"


def test_without_human_boxes_the_convention_of_the_question_is_taken_and_another_costs_nothing(
    tmp_path: Path, images: Callable[[int, int], Dataset]
) -> None:
    some = images(5, 0)
    outcome, calls = run(tmp_path, says("yxyx-sent"))
    assert len(calls) == 5 and outcome.summary["box_format"] == "xyxy-1000 (as asked: not probed on human boxes)"
    assert error_of(tmp_path, some) > 100
    outcome, calls = run(tmp_path, says(), box_format="yxyx-sent")
    assert not calls and outcome.summary["box_format"] == "yxyx-sent" and error_of(tmp_path, some) < 45
    outcome, calls = run(tmp_path, says(), box_format="xyxy-1000")
    images(5, 4)
    outcome, calls = run(tmp_path, says())
    assert not calls and outcome.summary["box_format"] == "xyxy-1000", "what was given stays"


def test_answers_that_are_there_are_probed_when_human_boxes_come(
    tmp_path: Path, images: Callable[[int, int], Dataset]
) -> None:
    images(5, 0)
    run(tmp_path, says("yxyx-1000"))
    some = images(5, 3)
    outcome, calls = run(tmp_path, says())
    assert not calls and outcome.summary["box_format"] == "yxyx-1000" and error_of(tmp_path, some) < 45


GOOD = box("cat", [100, 100, 400, 500])


def listed(*boxes: Any) -> str:
    return json.dumps({"boxes": boxes})


@pytest.mark.parametrize(
    ("text", "finish", "faults"),
    [
        (listed(GOOD)[:-2], "stop", {}),
        (listed(GOOD, box("dog", [1, 2, 300, 412])).partition("12]")[0], "length", {"cut_off": 1}),
        (listed(GOOD, box("dog", [1, 2, 3, 4])).rpartition("the")[0], "length", {"cut_off": 1}),
        (f"```json\n{json.dumps([GOOD])}\n```", "stop", {}),
        (f"Two: {json.dumps(GOOD)}, and {{'label': 'dog', }}", "stop", {}),
        (listed(GOOD).replace("]}", '], }, {"label": "x", "box_2d": [1, 2, 3 4]}', 1), "stop", {}),
        (listed(GOOD, {**GOOD, "box_2d": [float("nan"), 1, 2, 3]}), "stop", {"unusable": 1}),
        (listed(GOOD, "cat", None, 7, {"box_2d": [1, 2, 3, 4]}, []), "stop", {"unusable": 5}),
        (listed(GOOD, box("cat", ["1", "2", "3", "4"]), box("cat", [1, 2, 3])), "stop", {"unusable": 2}),
        (listed(GOOD, box("cat", [1e300, 0, 1, 1]), box("cat", [10**400, 0, 1, 1])), "stop", {"unusable": 2}),
        (listed(GOOD, box("cat", [0, 0, 1000, 1000])), "stop", {"whole_image": 1}),
        (listed(GOOD, GOOD, box("cat", [5, 5, 5, 9])), "stop", {"duplicates": 1, "no_area": 1}),
        (listed({**GOOD, "words": ["a"], "truncated": "no", "confidence": "very", "x": {}}), "stop", {}),
    ],
)
def test_good_boxes_are_kept_from_broken_answers(
    tmp_path: Path,
    images: Callable[[int, int], Dataset],
    text: str,
    finish: str,
    faults: dict[str, int],
) -> None:
    images(1, 0)
    outcome, calls = run(tmp_path, lambda _: answer(text, finish=finish))
    assert len(calls) == 1 and outcome.skipped == ()
    (row,) = stored(tmp_path)
    assert [(found["label"], found["box_2d"]) for found in row.answer.boxes or ()] == [("cat", GOOD["box_2d"])]
    counted = {name[6:]: n for name, n in outcome.summary.items() if name.startswith("boxes_") and n}
    assert counted == faults
    whole = stats(StatsConfig(store=tmp_path / "a.db")).summary
    assert {name[6:]: n for name, n in whole.items() if name.startswith("boxes_") and n} == faults


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"box-format.*'xyyx-1000'.*Did you mean"):
        DescribeConfig(data="a", store=Path("a.db"), describer="openai:a", box_format="xyyx-1000")

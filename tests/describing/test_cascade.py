"""describe --second-describer: asked where it is expected to correct most, and nothing is paid for twice."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt4image.describing.asking
from gpt4image.base.errors import ConfigError
from gpt4image.config import DescribeConfig
from gpt4image.describing.cascade import PILOT, Known, forecast
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.base import Answer, FreeDescriber, Request
from gpt4image.describing.describers.registry import DESCRIBERS
from gpt4image.describing.prices import Price
from gpt4image.labelling.evidence import read_by_describer
from tables import made_of
from worlds import in_memory

IMAGES = 400
CLASSES = ("cat", "dog")


class Model(FreeDescriber):
    """A describer with a name, whose answers cost ``usd`` each."""

    def __init__(self, name: str, says: Callable[[int], tuple[str, float]], usd: float) -> None:
        self.settings: Mapping[str, Any] = {"kind": "scripted", "model": name}
        self.says, self.usd, self.price = says, usd, Price(1.0, 1.0)
        self.asked: list[int] = []
        self.stops_after = IMAGES * 9

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        waiting = iter(requests)
        while group := list(itertools.islice(waiting, 4)):
            yield [self.answer(request) for request in group]
            if len(self.asked) >= self.stops_after:
                raise KeyboardInterrupt

    def answer(self, request: Request) -> Answer:
        number = int(request.read().split()[1])
        self.asked.append(number)
        name, sure = self.says(number)
        text = f'{{"class": "{name}", "second": null, "confidence": {sure}}}'
        return Answer(request=request, text=text, tokens_in=1, tokens_out=1, cost_usd=self.usd)


CONTENTS = [f"image {number}".encode() for number in range(IMAGES)]


def truth(number: int) -> str:
    return CLASSES[number % 2]


def cheap(number: int) -> tuple[str, float]:
    """Right where it is sure; of a fifth it is unsure, and wrong of every other."""
    unsure = number % 5 == 0
    return (CLASSES[(number + (number % 10 == 0)) % 2], 0.6) if unsure else (truth(number), 0.97)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Model, Model]]:
    images = in_memory(CONTENTS, np.full(IMAGES, -1))
    monkeypatch.setattr(gpt4image.describing.asking, "load_with_splits", lambda _spec, **_: images)

    def run_with(stops_after: int = 9 * IMAGES, **options: Any) -> tuple[Any, Model, Model]:
        first, second = Model("cheap", cheap, 0.001), Model("dear", lambda number: (truth(number), 0.95), 0.1)
        second.stops_after = stops_after
        for model in (first, second):
            name = model.settings["model"]
            monkeypatch.setitem(DESCRIBERS, name, lambda _name, _options, model=model: model)  # type: ignore[arg-type]
        config = DescribeConfig(
            **{
                "data": "memory",
                "store": tmp_path / "a.db",
                "describer": "cheap",
                "ask": "class",
                "second_describer": "dear",
            }
            | {"classes": ",".join(CLASSES)}
            | options
        )
        try:
            return describe(config), first, second
        except KeyboardInterrupt:
            return None, first, second

    return run_with


def test_the_second_is_asked_a_pilot_and_where_the_first_is_unsure(run: Any, tmp_path: Path) -> None:
    found, first, second = run()
    assert sorted(first.asked) == list(range(IMAGES)) and len(set(second.asked)) == len(second.asked)
    beyond = second.asked[PILOT:]
    unsure = {number for number in range(IMAGES) if number % 5 == 0}
    assert unsure <= {*second.asked} and {*beyond} <= unsure, "confidence is calibrated: of sure ones none is wrong"
    assert found.details["second_answered"] == len(second.asked)
    assert found.cost_usd == pytest.approx(0.4 + 0.1 * len(second.asked))
    assert "these are worth it" in found.text and found.details["second_expected_right"] > 0.9
    read = read_by_describer(tmp_path / "a.db", in_memory(CONTENTS).digests, CLASSES)
    assert {name: int(one.answers.given.sum()) for name, one in read.items()} == {
        "scripted:cheap": IMAGES,
        "scripted:dear": found.details["second_answered"],
    }
    again, *models = run()
    assert [model.asked for model in models] == [[], []]
    assert again.details["second_answered"] == found.details["second_answered"]


def test_a_run_that_was_killed_goes_on_and_pays_for_nothing_twice(run: Any) -> None:
    whole = set[int]()
    for stop in (20, 60, 4000):
        _, first, second = run(stops_after=stop)
        assert not whole & {*second.asked}
        whole |= {*second.asked}
        assert len(first.asked) in (0, IMAGES)
    assert {number for number in range(IMAGES) if number % 5 == 0} <= whole and len(whole) < IMAGES // 2


def test_the_estimate_is_of_both(run: Any) -> None:
    found, first, second = run(dry_run=True, max_cost=2.0)
    assert "dear for all. The rest: 400 requests, at most $" in found.text and found.cost_usd is None
    run(second_describer=None, limit=8), run(second_describer=None, limit=8, describer="dear")
    found, *more = run(dry_run=True, max_cost=2.0)
    assert not any(model.asked for model in (first, second, *more)), "a dry run asks nobody"
    assert "dear for all. The rest: 392" in found.text and "$39.20" in found.text, "0.1 dollars for each"


def test_a_limit_is_of_both_describers_and_holds_after_images_are_added(run: Any, monkeypatch: Any) -> None:
    found, _, second = run(max_cost=8.0, max_tokens=1)
    assert len(second.asked) > 60 and found.cost_usd <= 8.0
    more = in_memory([f"image {number}".encode() for number in range(20 * IMAGES)], np.full(20 * IMAGES, -1))
    monkeypatch.setattr(gpt4image.describing.asking, "load_with_splits", lambda _spec, **_: more)
    found, first, _ = run(max_cost=8.0, max_tokens=1)
    assert len(first.asked) < 20 * IMAGES and found.cost_usd <= 8.0 and found.stopped_by == "max_cost"


def test_money_ends_it(run: Any) -> None:
    found, _, second = run(max_cost=0.4 + 5.5, max_tokens=1)
    assert 0 < len(second.asked) <= 55 and found.cost_usd <= 5.9
    assert found.stopped_by == "max_cost" and "a higher number asks dear for more" in found.text
    found, _, second = run(max_cost=0.2, max_tokens=1)
    assert second.asked == [] and found.stopped_by == "max_cost"


def test_an_answer_that_is_worth_less_than_its_price_is_not_asked(run: Any) -> None:
    _, _, second = run(value_per_label=0.1)
    assert len(second.asked) == PILOT, "no gain is above 1"
    _, _, more = run(value_per_label=1.0)
    assert len(more.asked) > 0


def test_labels_show_that_the_second_is_no_better(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = in_memory(CONTENTS, [CLASSES.index(cheap(number)[0]) for number in range(IMAGES)])
    monkeypatch.setattr(gpt4image.describing.asking, "load_with_splits", lambda _spec, **_: images)
    found, _, second = run()
    assert len(second.asked) < PILOT + 60 and found.details["second_answered"] == len(second.asked)


def test_what_does_not_go_together_is_named(run: Any) -> None:
    with pytest.raises(ConfigError, match=r"--second-describer .*--ask is description"):
        run(ask="description", classes=None)
    with pytest.raises(ConfigError, match="--second-describer cheap is the describer that was asked first"):
        run(second_describer="cheap")


def test_with_targets_the_second_is_asked_where_they_are_in_doubt(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answers do not show it: all are stated with the same confidence."""
    monkeypatch.setitem(globals(), "cheap", lambda number: (CLASSES[(number + (number % 8 == 3)) % 2], 0.97))
    images = in_memory(CONTENTS, np.full(IMAGES, -1))
    sure = np.where(np.arange(IMAGES) % 8 == 3, 0.55, 0.99)
    made_of(images, CLASSES, np.stack([sure, 1 - sure], axis=1).astype(np.float32)).save(tmp_path / "t.parquet")
    _, _, second = run(second_targets=tmp_path / "t.parquet")
    assert {number for number in range(IMAGES) if number % 8 == 3} <= {*second.asked}
    assert all(number % 8 == 3 for number in second.asked[PILOT:])


def test_few_looks_stay_near_the_stated_confidence_and_many_correct_it() -> None:
    def other(sure: float, looks: int) -> float:
        """Chance of another answer at 0.9, after looks of which a half differ."""
        confidence = np.array([sure, *[sure] * looks])
        differs = np.array([-1, *(number % 2 for number in range(looks))])
        total = len(differs)
        known = Known(np.zeros(total, int), confidence, np.zeros(total, bool), differs, np.full((total, 2), -1))
        return float(forecast(known).gain[0])

    assert other(0.9, 0) < other(0.9, 4) < other(0.9, 400) == pytest.approx(0.5 * (7 - 1.5) / 10, abs=0.02)

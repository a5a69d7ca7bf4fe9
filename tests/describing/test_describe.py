"""describe: asks once, keeps every answer, goes on after kill -9 and Ctrl-C."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import gpt4image.describing.asking
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import DescribeConfig
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describe import USELESS, describe
from gpt4image.describing.describers.base import Answer, FreeDescriber, Request
from gpt4image.describing.describers.registry import DESCRIBERS
from gpt4image.describing.prices import FREE, Price
from gpt4image.labelling.evidence import read_answers
from openai_cases import rows_of
from worlds import in_memory


def of(count: int, **others: Any) -> Dataset:
    """N images; the last one has the bytes of the first."""
    return in_memory([f"image {number}".encode() for number in range(count - 1)] + [b"image 0"], **others)


class Scripted(FreeDescriber):
    """A describer that answers what a function says, in reversed groups: answers come in any order."""

    settings: Mapping[str, Any] = MappingProxyType({"kind": "scripted"})

    def __init__(self, answer: Any, price: Price | None = FREE, repeatable: bool = False, group: int = 3) -> None:
        self.answer, self.price, self.repeatable, self.group = answer, price, repeatable, group
        self.asked: list[Request] = []

    @property
    def keys(self) -> set[str]:
        return {request.keys[0] for request in self.asked}

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        waiting = iter(requests)
        while group := list(itertools.islice(waiting, self.group)):
            self.asked += group
            yield [self.answer(request) for request in reversed(group)]


Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_with(describer: Any, images: Dataset, /, **options: Any) -> Any:
        for kind in ("scripted", "openai"):
            monkeypatch.setitem(DESCRIBERS, kind, lambda _name, _options: describer)  # type: ignore[arg-type]
        monkeypatch.setattr(gpt4image.describing.asking, "load_with_splits", lambda _spec, **_fractions: images)
        options = {"data": "memory", "store": tmp_path / "a.db", "describer": "scripted", **options}
        return describe(DescribeConfig(**options))

    return run_with


def ok(request: Request) -> Answer:
    return Answer(request=request, text=f"text of {request.read().decode()}", tokens_in=1, tokens_out=1, cost_usd=0.5)


def test_every_distinct_image_is_asked_once_and_a_second_run_asks_nothing(run: Run, tmp_path: Path) -> None:
    describer = Scripted(ok)
    outcome = run(describer, of(10))
    counts = {"images": 10, "distinct_images": 9, "described": 9, "answered_by_split": {"train": 10}, "cost_usd": 4.5}
    none = dict.fromkeys(("already_described", "failed", "rejected", "without_description"), 0)
    assert outcome.facts == counts | none | {"details": {}} and outcome.skipped == ()
    assert next(r for r in describer.asked if "k0" in r.keys).keys == ("k0", "k9")
    again = Scripted(ok)
    assert run(again, of(10)).already_described == 9 and not again.asked
    more = Scripted(ok)
    run(more, of(12))  # two new images, each paid for once
    assert len(more.asked) == 2
    images = of(12)
    assert {row.digest: row.text for row in rows_of(tmp_path / "a.db")} == {
        digest: f"text of {images.read(i).decode()}" for i, digest in enumerate(images.digests)
    }


def test_an_answer_that_is_no_description_is_asked_once_more_and_then_set_aside_with_its_text(
    run: Run, tmp_path: Path
) -> None:
    def refuses(request: Request) -> Answer:
        tries[request.keys[0]] += 1
        if request.keys[0] == "k2" or (request.keys[0] == "k3" and tries["k3"] == 1):
            return Answer(request=request, text="I'm sorry, but I can't assist with that.", cost_usd=0.5)
        return ok(request)

    tries: Counter[str] = Counter()
    outcome = run(Scripted(refuses), of(8))
    assert tries["k2"] == tries["k3"] == 2 and tries.total() == 9
    assert [(item.name, item.reason) for item in outcome.skipped] == [("k2", "the answer is no description: refusal")]
    assert outcome.rejected == 1 and outcome.described == 6
    assert outcome.cost_usd == 4.5
    rows = [*rows_of(tmp_path / "a.db", "failed"), *rows_of(tmp_path / "a.db")]
    assert [(row.error, row.text) for row in rows[:1]] == [("refusal", "I'm sorry, but I can't assist with that.")]
    assert sum(row.cost_usd or 0 for row in rows) == 4.5  # what was spent, tries that failed included
    again = run(Scripted(ok), of(8))
    assert again.described == 0 and again.already_described == 6
    assert [item.name for item in again.skipped] == ["k2"] and "--retry-rejected" in again.skipped[0].reason
    assert run(Scripted(ok), of(8), retry_rejected=True).described == 1
    same = Scripted(lambda request: Answer(request=request, text="I cannot help with that."), repeatable=True)
    assert run(same, of(4), store=tmp_path / "b.db").rejected == 3
    assert len(same.asked) == 3, "only chance is asked again"


def test_a_run_without_one_good_answer_ends_before_the_whole_set_is_paid_for(run: Run, tmp_path: Path) -> None:
    def empty(request: Request) -> Answer:
        return Answer(request=request, text="", cost_usd=0.5)

    useless = Scripted(empty)
    with pytest.raises(DescriberError, match=r"none of the first 5\d images .*no description: empty\)"):
        run(useless, of(200))
    assert 2 * USELESS <= len(useless.asked) <= 2 * (USELESS + useless.group), "each is asked twice"
    assert len({*rows_of(tmp_path / "a.db", "failed")}) >= USELESS, "what was paid for is kept"
    assert run(Scripted(empty), of(10), store=tmp_path / "few.db").rejected == 9
    late = Scripted(lambda request: ok(request) if request.keys[0] in good else empty(request))
    good = {request.keys[0] for request in useless.asked[-1:]}
    assert run(late, of(200), store=tmp_path / "late.db").described == 1, "one good answer: all are asked"


SERVER = {"describer": "openai:tiny", "base_url": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prompt": ("paper", "paper")}, "each name once"),
        ({"prompt": "my own name"}, "nothing is known to ask"),
        ({"ask": "description", "classes": "a,b"}, "--classes belongs to --ask class"),
        ({"ask": "class", "classes": " "}, "0 classes"),
        ({"ask": "class", "prompt": ("short", "paper")}, "goes with one --prompt"),
        ({"ask": "class", "prompt": "class-conditioned"}, "tells the class"),
        ({"ask": "clas"}, "class"),
        ({"ask": ""}, "nothing is asked for"),
        ({"per_call": 4}, "--per-call goes with openai:"),
        ({**SERVER, "per_call": 4, "prompt": "class-conditioned"}, "tells the class"),
        ({"batch": True}, "--batch goes with openai:MODEL"),
        ({**SERVER, "batch": True, "per_call": 4}, "one image per request"),
        ({**SERVER, "examples": 1}, "add class"),
        ({"examples": 1, "ask": "class"}, "--examples goes with"),
        ({**SERVER, "examples": 1, "ask": "class", "engine": "ray"}, "--engine local"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is(run: Run, options: dict[str, Any], reason: str) -> None:
    describer = Scripted(ok, repeatable=True)
    with pytest.raises(ConfigError, match=reason):
        run(describer, of(4), **options)
    assert not describer.asked


def test_an_empty_answer_of_a_model_that_thought_up_to_the_limit_names_the_option(run: Run) -> None:
    outcome = run(Scripted(lambda request: Answer(request=request, text="", finish_reason="length")), of(1))
    told = "the answer is no description: empty; it ends at the limit of tokens (--max-tokens)"
    assert [item.reason for item in outcome.skipped] == [told]


def test_the_training_split_alone_is_asked_about_unless_others_are_named(run: Run, tmp_path: Path) -> None:
    splits = np.array(["train"] * 4 + ["val"] * 2 + ["test"] * 3)
    images = in_memory([f"image {number}".encode() for number in range(9)], splits=splits)
    describer = Scripted(ok)
    outcome = run(describer, images)
    assert describer.keys == {"k0", "k1", "k2", "k3"}
    counts = {name: outcome.answered_by_split[name] for name in ("train", "val", "test")}
    assert counts == {"train": 4, "val": 0, "test": 0} and outcome.images == 4
    more = Scripted(ok)
    summary = run(more, images, splits="test,train")
    assert more.keys == {"k6", "k7", "k8"} and summary.answered_by_split["test"] == 3
    with pytest.raises(ConfigError, match="--splits val: memory has no image of it, only 10 of train"):
        run(Scripted(ok), of(10), splits="val")
    with pytest.raises(ConfigError, match="'tets' is not one of"):
        run(Scripted(ok), images, splits="tets")


def test_a_misspelt_class_is_told_before_the_first_call(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    describer = Scripted(ok)
    with pytest.raises(ConfigError, match=r"'dogg' \(of the data: 'dog'\) is almost the name of a class of memory"):
        run(describer, of(4), ask="class", classes="cat, dogg, bird")
    assert not describer.asked
    run(Scripted(classes_of({})), of(4), ask="class", classes="Cats, bird")
    told = " ".join(capsys.readouterr().err.split())
    assert "'bird': in --classes, but no labelled image" in told and "'dog': class of memory, but not in" in told


def classes_of(said: Mapping[str, tuple[str, float, str]]) -> Any:
    """Answers by key: class, confidence, description; "cat", 0.97 of others."""

    def answer(request: Request) -> Answer:
        name, sure, text = said.get(request.keys[0], ("cat", 0.97, "A cat asleep on a sofa."))
        whole = {"description": text, "class": name, "second": None, "confidence": sure}
        asked = {part: whole[part] for part in (*request.prompt.ask, "second", "confidence") if part in whole}
        return Answer(request=request, text=json.dumps(asked), tokens_in=10, tokens_out=10, cost_usd=1.0)

    return answer


def test_after_a_class_is_added_only_images_that_may_be_of_it_are_asked_again(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "k1": ("none of these", 0.99, "An animal."),
        "k2": ("dog", 0.6, "A furry animal in the grass."),
        "k3": ("dog", 0.97, "A fox in the snow, with a bushy tail."),
        "k4": ("dog", 0.97, "A dog with a stick, a puppy."),
    }
    options = {"ask": "description,class", "classes": "cat, dog"}
    run(Scripted(classes_of(said)), of(8), **options)
    longer = {**options, "classes": "cat, dog, fox"}
    again = Scripted(classes_of({"k3": ("fox", 0.97, "")}))
    outcome = run(again, of(8), **longer)
    assert again.keys == {"k1", "k2", "k3"}
    assert {request.prompt.ask for request in again.asked} == {("class",)}, "their descriptions stay"
    told = " ".join(capsys.readouterr().err.split())
    assert "of 7 images with an answer, 3 may be of an added class and are asked again" in told
    assert outcome.without_description == 0 and outcome.answered_by_split["train"] == 8
    nothing = Scripted(classes_of({}))
    run(nothing, of(8), **longer)
    assert not nothing.asked
    images = of(8)
    read = read_answers(tmp_path / "a.db", images.digests, ("cat", "dog", "fox")).answers
    assert read.given.all() and read.first.tolist() == [0, 0, 0, 2, 1, 0, 0, 0]
    other = Scripted(classes_of({}))
    run(other, of(8), **{**options, "classes": "cat, wolf"})
    assert len(other.asked) == 7, "another list is another question"


def test_a_dry_run_asks_nobody_and_estimates_the_rest_by_the_answers_that_are_there(run: Run) -> None:
    def priced(request: Request) -> Answer:
        return Answer(request=request, text="fine", tokens_in=1000, tokens_out=100, cost_usd=0.0012, latency_s=4.0)

    describer = Scripted(priced, price=Price(1.0, 2.0))
    outcome = run(describer, of(1001), dry_run=True)
    assert outcome.estimate_requests == 1000 and outcome.estimate_usd is None
    assert outcome.text.startswith("The rest: 1,000 requests, at most $")
    run(describer, of(1001), limit=8)
    outcome = run(describer, of(1001), dry_run=True, batch_size=8)
    assert len(describer.asked) == 8
    assert outcome.estimate_requests == 992
    assert outcome.estimate_tokens_in == 992_000 and outcome.estimate_tokens_out == 99_200
    assert outcome.estimate_usd == pytest.approx(992 * 0.0012, abs=1e-4)
    assert outcome.estimate_seconds == 992 * 4 / 8
    assert outcome.text == (
        "The rest: 992 requests, 992,000 tokens in and 99,200 out, $1.19 ($1.19 to 1.19), "
        "0:08:16 at the speed of the stored answers. In all $1.2000, of it $0.0096 spent already."
    )
    again = Scripted(priced, price=Price(1.0, 2.0))
    assert run(again, of(1001), dry_run=True).estimate_requests == 992 and not again.asked
    halved = run(again, of(1001), dry_run=True, batch=True, describer="openai:tiny").facts
    assert halved["estimate_usd"] == pytest.approx(992 * 0.0006, abs=1e-4) and "estimate_seconds" not in halved
    slow = run(again, of(1001), dry_run=True, requests_per_minute=1.0, limit=60)
    assert slow.estimate_seconds == 3600

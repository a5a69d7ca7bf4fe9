"""trial: describers and prompts on one sample; what is shown, what is recommended, and nothing is paid for twice."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openai_stub as server
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import DescribeConfig, TrialConfig
from gpt4image.data import load_dataset
from gpt4image.describing.describe import describe
from gpt4image.describing.trial import trial
from gpt4image.describing.tried import Tried, find
from worlds import COLOURS, write_colours, write_photos

CLASSES = ",".join(COLOURS)


def named(call: server.Call) -> str:
    """The colour that a picture shows."""
    mean = np.asarray(call.pictures[0], float).mean((0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))


def answers(call: server.Call) -> server.Reply:
    """Of the model ``good`` the colour, of ``bad`` always red, of ``shy`` a refusal of red; described if asked."""
    name = {"good": named(call), "bad": "red", "shy": named(call)}[call.body["model"]]
    if call.body["model"] == "shy" and name == "red":
        return server.answer("I'm sorry, I can't help with that.")
    described = {"description": "A square of one colour on no ground."} if b"description" in call.content else {}
    return server.answer(json.dumps({**described, "class": name, "second": None, "confidence": 0.9}))


@pytest.fixture
def stub() -> Iterator[server.Stub]:
    with server.serve(answers) as served:
        yield served


@pytest.fixture
def run(tmp_path: Path, stub: server.Stub) -> Callable[..., tuple[Any, list[str]]]:
    """Try describers on colours; return the result and the model of each call."""
    write_colours(tmp_path / "photos", each=12)

    def run_with(describers: str = "openai:good,openai:bad", **options: Any) -> tuple[Any, list[str]]:
        before = stub.count
        given: dict[str, Any] = {"data": tmp_path / "photos", "store": tmp_path / "t.db", "base_url": stub.url}
        given |= {"price": (1.0, 1.0, 0.1, 0.1), "sample": 20, "yes": True, "test_fraction": 0.0}
        every: dict[str, Any] = {**given, "describers": describers, **options}
        found = trial(TrialConfig(**every))
        return found, [call.body["model"] for call in stub.calls[before:]]

    return run_with


def test_the_cheap_one_is_worse_and_the_dear_one_recommended(run: Any, tmp_path: Path) -> None:
    found, calls = run()
    assert Counter(calls) == {"good": 20, "bad": 20}
    good, bad = found.rows
    assert (
        found.recommended == "openai:good" and good["accuracy"] == 1.0 and good["usd_per_1000"] == pytest.approx(0.11)
    )
    assert bad["accuracy"] < 0.6 and bad["p"] < 0.05 and bad["usd_per_1000"] == pytest.approx(0.011)
    assert ("blue", "red") in {tuple(pair[:2]) for pair in bad["confuses"]}
    page = found.page.read_text("utf-8")
    assert page.count('<article class="card">') == found.differ == 20 - round(20 * bad["accuracy"])
    assert "worse" in found.text and "openai:good" in found.next


def test_its_answers_stay_and_a_larger_sample_contains_it(run: Any, tmp_path: Path, stub: server.Stub) -> None:
    first, _ = run()
    again, calls = run()
    assert not calls and again.rows == first.rows
    larger, calls = run(sample=30)
    assert Counter(calls) == {"good": 10, "bad": 10} and larger.images == 30
    before = stub.count
    given: dict[str, Any] = {"data": tmp_path / "photos", "store": tmp_path / "t.db", "base_url": stub.url}
    described = describe(DescribeConfig(**given, describer="openai:good", ask="class", test_fraction=0.0))
    assert stub.count - before == described.described == described.distinct_images - 30


def test_each_prompt_is_asked_also_where_another_brought_the_class(run: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("Name the colour.", "utf-8")
    found, calls = run("openai:good", prompts=f"short,{own}", price=None)
    assert Counter(calls) == {"good": 40} and [row["asked"] for row in found.rows] == [20, 20]
    assert [row["name"] for row in found.rows] == ["openai:good short", "openai:good own"]
    with DescriptionStore(tmp_path / "t.db") as store:
        assert {(prompt.name, count) for prompt, _, _, count in store.counts()} == {("short", 20), ("own", 20)}
    assert not run("openai:good", prompts=f"short,{own}", price=None)[1]


def test_refusals_count_as_wrong_and_a_server_that_is_not_there_stops_no_other(run: Any, stub: server.Stub) -> None:
    gone = f"{stub.url},{stub.url},http://127.0.0.1:9/v1"
    found, _ = run("openai:shy,openai:good,openai:gone", base_url=gone, price=None)
    shy = found.rows[0]
    assert shy["failed"] == {"refusal": shy["asked"] - shy["answered"]} and 0 < shy["accuracy"] < 1
    assert found.rows[2]["asked"] == 0 and "openai:gone" in {item.name for item in found.skipped}
    with pytest.raises(DescriberError, match=r"gone.*one"):
        run("openai:gone,openai:one", base_url="http://127.0.0.1:9/v1")


def test_without_labels_it_says_what_labels_would_tell(run: Any, tmp_path: Path) -> None:
    write_photos(tmp_path / "plain", 0)
    found, _ = run(data=tmp_path / "plain", classes=CLASSES)
    assert found.recommended is None and found.labelled == 0 and found.differ > 5
    assert found.rows[0]["agreement"] == found.rows[1]["agreement"] == pytest.approx(1 - found.differ / found.images)
    assert "labels of these alone tell which is better" in found.text
    plain = load_dataset(str(tmp_path / "plain"))
    colour = {name[0]: name for name in COLOURS}
    lines = [f"{digest},{colour[key[0]]},checked" for key, digest in zip(plain.keys, plain.digests, strict=True)]
    (tmp_path / "audit.csv").write_text("\n".join(["digest,label,review", *lines]), "utf-8")
    looked, calls = run(data=tmp_path / "plain", classes=CLASSES, audit=tmp_path / "audit.csv")
    assert looked.labelled == looked.images and looked.recommended == "openai:good" and not calls


def test_money_makes_the_sample_smaller_for_all_alike(run: Any) -> None:
    found, calls = run(sample=30, max_cost=15 * 0.000121, yes=False, max_tokens=10, max_side=32)
    assert 4 <= found.images < 16 and found.cost_usd <= 15 * 0.000121
    assert len({row["asked"] for row in found.rows}) == 1 and len(calls) == 2 * found.images


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("describers", {"describers": "openai:good"}),
        ("max_cost", {"yes": False}),
        ("price", {"price": (1.0, 2.0, 3.0)}),
        ("base_url", {"base_url": "http://127.0.0.1:1/v1,http://127.0.0.1:2/v1,http://127.0.0.1:3/v1"}),
        ("prompts", {"prompts": "short,class-conditioned"}),
    ],
)
def test_what_cannot_be_tried_is_refused_before_a_call(run: Any, field: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        run(**options)
    assert error.value.field == field


def tried(name: str, said: str, usd: float | None = None) -> Tried:
    names = np.array(list(said), object)
    return Tried(name, np.where(names == "-", "", names), np.ones(len(said), bool), usd)


def test_the_cheapest_that_is_not_shown_to_be_worse() -> None:
    truth = list("ab" * 30)
    dear = tried("dear", "ab" * 30, 0.1)
    near, far = tried("near", "ab" * 28 + "aaaa", 0.01), tried("far", "aa" * 30, 0.001)
    found = find([dear, near, far], truth)
    assert found.best == 1 and found.rows[2]["p"] < 0.05
    assert found.rows[0]["difference"] == pytest.approx(2 / 60) and 100 < found.rows[0]["decided"] < 1000
    assert any("dear was right more often" in line and "inconclusive" in line for line in found.why)
    unknown = find([dear, tried("near", "ab" * 28 + "aaaa"), far], truth)
    assert unknown.best == 0, "what costs nobody knows how much is not the cheapest"
    some = Tried("few", np.array(["a", *[""] * 59], object), np.arange(60) < 1, 0.0)
    assert find([dear, some], truth).best == 0, "one image recommends nobody"

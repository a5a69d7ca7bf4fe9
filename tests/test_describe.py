"""describe: asks once, keeps every answer, goes on after kill -9 and Ctrl-C."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import gpt4image.describe
from gpt4image.config import DescribeConfig
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.describe import describe
from gpt4image.describers import DESCRIBERS, Answer, Report, Request
from gpt4image.describers.prompts import PROMPTS
from gpt4image.errors import ModelError, StoreError
from gpt4image.store import DescriptionStore


def image_set(count: int, **others: Any) -> ImageSet:
    """N images; the last one has the bytes of the first."""
    contents = [f"image {number}".encode() for number in range(count - 1)] + [b"image 0"]
    values: dict[str, Any] = {
        "spec": "memory",
        "classes": ("cat", "dog"),
        "keys": tuple(f"k{number}" for number in range(count)),
        "labels": np.arange(count) % 2,
        "splits": np.full(count, "train"),
        "source": MemorySource(contents),
        "rows": np.arange(count),
    }
    return ImageSet(**{**values, **others})


class Scripted:
    """A describer that answers what a function says, in reversed groups of three: answers come in any order."""

    settings: Mapping[str, Any] = MappingProxyType({"kind": "scripted"})

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Request] = []

    def describe(self, requests: Iterable[Request]) -> Iterator[Answer]:
        group: list[Request] = []
        for request in requests:
            self.asked.append(request)
            group.append(request)
            if len(group) == 3:
                yield from map(self.answer, reversed(group))
                group = []
        yield from map(self.answer, group)

    def report(self, images: ImageSet) -> Report:
        return Report()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run_with(describer: Any, images: ImageSet, **options: Any) -> Any:
        monkeypatch.setitem(DESCRIBERS, "scripted", lambda _name: describer)  # type: ignore[arg-type]
        monkeypatch.setattr(gpt4image.describe, "load_image_set", lambda _spec: images)
        config = DescribeConfig(data="memory", store=tmp_path / "a.db", describer="scripted", **options)
        return describe(config)

    return run_with


def ok(request: Request) -> Answer:
    return Answer(request=request, text=f"text of {request.read().decode()}", tokens_in=1, cost_usd=0.5)


def test_every_distinct_image_is_asked_once_and_a_second_run_asks_nothing(run: Any, tmp_path: Path) -> None:
    describer = Scripted(ok)
    outcome = run(describer, image_set(10))
    assert outcome.summary == {
        "images": 10,
        "distinct_images": 9,
        "already_described": 0,
        "described": 9,
        "failed": 0,
        "without_description": 0,
    }
    assert outcome.set_aside == ()
    assert next(r for r in describer.asked if "k0" in r.keys).keys == ("k0", "k9")
    again = Scripted(ok)
    assert run(again, image_set(10)).summary["already_described"] == 9 and not again.asked
    more = Scripted(ok)
    run(more, image_set(12))  # two new images, each paid for once
    assert len(more.asked) == 2
    with DescriptionStore(tmp_path / "a.db") as store:
        texts = {row.digest: row.text for row in store.texts()}
    images = image_set(12)
    assert texts == {digest: f"text of {images.read(i).decode()}" for i, digest in enumerate(images.digests)}


def test_failures_are_named_kept_with_their_reason_and_asked_again(run: Any, tmp_path: Path) -> None:
    def sometimes(request: Request) -> Answer:
        if request.keys[0] in ("k2", "k5"):
            return Answer(request=request, error="refused", finish_reason="content_filter")
        return ok(request)

    outcome = run(Scripted(sometimes), image_set(8))
    assert sorted((item.name, item.reason) for item in outcome.set_aside) == [("k2", "refused"), ("k5", "refused")]
    assert outcome.summary["failed"] == 2 and outcome.summary["without_description"] == 2
    with DescriptionStore(tmp_path / "a.db") as store:
        assert [row.finish_reason for row in store.descriptions(status="failed")] == ["content_filter"] * 2
    again = Scripted(ok)
    assert run(again, image_set(8)).summary["described"] == 2 and len(again.asked) == 2


def test_images_that_the_describer_says_nothing_about_are_counted_not_stored(run: Any, tmp_path: Path) -> None:
    outcome = run(Scripted(lambda request: Answer(request=request)), image_set(5))
    assert outcome.summary["without_description"] == 4 and outcome.set_aside == ()
    with DescriptionStore(tmp_path / "a.db") as store:
        assert store.counts() == []


def test_limit_counts_only_images_that_can_be_described(run: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"key": f"k{number}", "description": f"text {number}"}) for number in range(5, 9)]
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    from gpt4image.describers.replay import ReplayDescriber

    for described in (2, 2, 0):
        outcome = run(ReplayDescriber(str(tmp_path / "d.jsonl")), image_set(12), limit=2)
        assert outcome.summary["described"] == described
    assert outcome.summary["already_described"] == 4


def test_a_class_conditioned_prompt_tells_the_class_and_sets_unlabelled_images_aside(run: Any) -> None:
    describer = Scripted(ok)
    labels = np.array([0, 1, -1, 1, -1])
    outcome = run(describer, image_set(5, labels=labels), prompt="class-conditioned")
    assert {request.keys[0]: request.prompt for request in describer.asked} == {
        key: PROMPTS["class-conditioned"].text.replace("{class_name}", name)
        for key, name in (("k0", "cat"), ("k1", "dog"), ("k3", "dog"))
    }
    assert [item.name for item in outcome.set_aside] == ["k2"]


def test_what_stops_the_describer_is_raised_after_its_answers_are_kept(run: Any, tmp_path: Path) -> None:
    def quota(request: Request) -> Answer:
        if request.keys[0] == "k4":
            raise ModelError("quota exhausted")
        return ok(request)

    with pytest.raises(ModelError, match="quota exhausted"):
        run(Scripted(quota), image_set(9))
    with DescriptionStore(tmp_path / "a.db") as store:
        assert len(store.described(PROMPTS["paper"], Scripted.settings)) == 4


def test_a_full_disk_stops_the_run_and_leaves_no_thread_behind(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_store: DescriptionStore, _rows: Any) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr(DescriptionStore, "add", full)
    with pytest.raises(StoreError, match="disk is full"):
        run(Scripted(ok), image_set(2000))


SLOW = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    import numpy as np
    import gpt4image.describe as stage
    from gpt4image.config import DescribeConfig
    from gpt4image.data.image_set import ImageSet, MemorySource
    from gpt4image.describers import DESCRIBERS, Answer, Report

    folder, delay = Path(sys.argv[1]), float(sys.argv[2])
    n = 400
    images = ImageSet(spec="memory", classes=(), keys=tuple(f"k{i}" for i in range(n)), labels=np.full(n, -1),
                      splits=np.full(n, "train"), source=MemorySource([str(i).encode() for i in range(n)]),
                      rows=np.arange(n))

    class Slow:
        settings = {"kind": "slow"}
        def describe(self, requests):
            with open(folder / "paid", "a", buffering=1) as paid:
                for request in requests:
                    time.sleep(delay)
                    paid.write(request.keys[0] + "\\n")
                    yield Answer(request=request, text="text of " + request.keys[0])
        def report(self, images):
            return Report()

    DESCRIBERS["slow"] = lambda name: Slow()
    stage.load_image_set = lambda spec: images
    print("start", flush=True)
    try:
        outcome = stage.describe(DescribeConfig(data="memory", store=folder / "a.db", describer="slow"))
    except KeyboardInterrupt:
        sys.exit(130)
    print(outcome.summary)
""")


def start(folder: Path, delay: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SLOW, str(folder), str(delay)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def paid(folder: Path) -> list[str]:
    return (folder / "paid").read_text().split() if (folder / "paid").exists() else []


def stored(folder: Path) -> list[str]:
    with DescriptionStore(folder / "a.db") as store:
        return [text.removeprefix("text of ") for _, text, _, _ in store.texts()]


def test_kill_9_anywhere_loses_and_repeats_only_what_was_on_its_way(tmp_path: Path) -> None:
    kills = 4
    for seed in range(kills):
        process = start(tmp_path, 0.002)
        time.sleep(random.Random(seed).uniform(0.02, 0.35))
        process.kill()
        process.communicate()
    process = start(tmp_path, 0.0)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "'without_description': 0" in out
    assert sorted(stored(tmp_path)) == sorted(f"k{i}" for i in range(400))
    # What may be paid twice is what arrived while one transaction was on its way to the disk.
    assert len(paid(tmp_path)) - 400 <= 30 * kills


def test_ctrl_c_keeps_every_answer_and_ends_with_130(tmp_path: Path) -> None:
    process = start(tmp_path, 0.005)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert 0 < len(paid(tmp_path)) < 400
    assert sorted(stored(tmp_path)) == sorted(paid(tmp_path))

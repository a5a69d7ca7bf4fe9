"""Random histories of a store, against a server that keeps the true bill: it stays within the limit whatever happens.

A step of a history is a function in STEPS, of ``History``; another way of asking adds its own there.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_server import BatchServer, serving
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError, DescriberError, StoreError
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers import batch
from gpt4image.describing.describers.batch import BatchDescriber, Ledger
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.describers.openai import limiter
from gpt4image.describing.prices import Price
from openai_cases import picture
from openai_stub import Call, Reply, Stub, completion, failure, json_reply, serve

pytestmark = pytest.mark.usefixtures("openai_settings")
PRICES = {"tiny": Price(1.0, 4.0), "dear": Price(5.0, 20.0)}
MAX_TOKENS, AT_ONCE, TIMEOUT = 40, 4, 0.3
TRUE_INPUT = range(400, 440)
UNTOLD: list[Any] = [
    *(None, {}, "12", {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 410, "completion_tokens": 0}),
    *({"prompt_tokens": "410", "completion_tokens": "30"}, {"prompt_tokens": -410, "completion_tokens": -9}),
    *({"prompt_tokens": float("nan"), "completion_tokens": 30}, {"prompt_tokens": 10**15, "completion_tokens": 10**15}),
]


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that cost money, and short waits for a server that is busy."""
    monkeypatch.setattr(openai_describer, "find_price", lambda name, _: PRICES[name])
    monkeypatch.setattr(limiter, "PAUSE_S", (0.005, 0.02))
    monkeypatch.setattr(limiter, "_SLOWEST", 50.0)


class Killed(BaseException):
    """What a process that is killed never sees."""


class Biller:
    """Answers as its ``moods`` are, and notes what each answer costs; after ``quiet``, it only answers well."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.usd, self.calls, self.quiet = rng, 0.0, 0, False
        self.moods = rng.choices(["untold", "empty", "late", "cut", "garbage", "429", "500"], k=rng.randint(1, 4))
        self.calm = rng.choice([0.2, 0.6, 0.95])

    def __call__(self, call: Call) -> Reply:
        rng, self.calls = self.rng, self.calls + 1
        mood = "well" if self.quiet or rng.random() < self.calm else rng.choice(self.moods)
        if mood in ("429", "500"):
            return failure(int(mood), retry_after="0.01")
        tokens = len(call.images) * rng.choice(TRUE_INPUT), len(call.images) * rng.randint(1, MAX_TOKENS)
        self.usd += PRICES[call.body["model"]].of(*tokens)
        said = json.dumps({"class": rng.choice(["cat", "dog"]), "second": None, "confidence": 0.6})
        body = completion("" if mood == "empty" else said, tokens=tokens)
        if mood in ("untold", "empty"):
            body["usage"] = rng.choice(UNTOLD)
        reply = json_reply(body, delay=2 * TIMEOUT if mood == "late" else rng.choice([0.0, 0.01]))
        if mood == "cut":
            return Reply(200, reply.content, cut=rng.choice([0, 20, 150]), reset=rng.random() < 0.5)
        return Reply(200, b"<html>") if mood == "garbage" else reply


class History:
    """A store, its images, and what may have been spent by the words of ``--max-cost``."""

    def __init__(self, folder: Path, seed: int, stub: Stub, biller: Biller) -> None:
        self.rng, self.folder, self.stub, self.biller = random.Random(seed), folder, stub, biller
        self.limit, self.kills, self.images = 0.0, 0, 0
        self.options: dict[str, Any] = {"per_call": self.rng.choice([1, 1, 3])}
        self.add_images()

    def add_images(self) -> None:
        for _ in range(self.rng.choice([5, 20, 60])):
            path = self.folder / "images" / "unlabelled" / f"{self.images}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(self.images))
            self.images += 1

    def raise_limit(self) -> None:
        self.limit += self.rng.choice([0.002, 0.01, 0.05, 0.2])

    def config(self, **more: Any) -> DescribeConfig:
        given: Any = {
            "data": f"folder:{self.folder / 'images'}",
            "store": self.folder / "a.db",
            "base_url": self.stub.url,
        }
        given |= {"describer": "openai:tiny", "ask": "class", "classes": "cat, dog", "server_name": "stub"}
        given |= {"timeout": TIMEOUT, "retries": 2, "concurrency": AT_ONCE, "max_tokens": MAX_TOKENS, "max_side": 32}
        return DescribeConfig(**{**given, "max_cost": self.limit, **self.options, **more})

    def run(self, **more: Any) -> Any:
        try:
            return describe(self.config(**more))
        except DescriberError:  # a server that is of no use
            return None

    def run_two(self) -> None:
        self.run(second_describer="openai:dear")

    def estimate(self) -> None:
        before = self.biller.calls
        self.run(second_describer=self.rng.choice([None, "openai:dear"]), dry_run=True)
        assert self.biller.calls == before, "a dry run asks nobody"

    def killed(self) -> None:
        """A run that is killed before or after some answers are on disk."""
        add, left, after = DescriptionStore.add, self.rng.randint(0, 12), self.rng.random() < 0.5

        def kills(store: DescriptionStore, rows: Any) -> int:
            nonlocal left
            left -= 1
            found = add(store, rows) if left >= 0 or after else 0
            if left < 0:
                raise Killed
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DescriptionStore, "add", kills)
            try:
                self.run(second_describer=self.rng.choice([None, "openai:dear"]))
            except Killed:
                self.kills += 1

    def killed_for_good(self) -> None:
        """The same in a process of its own."""
        words = [sys.executable, "-m", "gpt4image", "describe", *self.words()]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            asked, many = self.biller.calls, self.rng.randint(1, 30)
            while process.poll() is None and self.biller.calls < asked + many:
                time.sleep(0.002)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                self.kills += 1

    def words(self) -> list[str]:
        config = self.config(price=(1.0, 4.0))
        given = config.changed({**dict(config), "price": None})
        words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return [*words, "--price", "1", "4"]


STEPS: list[Callable[[History], Any]] = [
    *(History.run, History.run, History.run_two, History.estimate, History.killed),
    *(History.add_images, History.raise_limit, History.raise_limit),
]


def follow(folder: Path, seed: int, steps: int, of: list[Callable[[History], Any]]) -> None:
    biller = Biller(random.Random(seed))
    with serve(biller) as stub:
        history = History(folder, seed, stub, biller)
        history.raise_limit()
        for _ in range(steps):
            step = history.rng.choice(of)
            step(history)
            dearest = history.options["per_call"] * PRICES["dear"].of(TRUE_INPUT[-1], MAX_TOKENS)
            most = history.limit + history.kills * AT_ONCE * dearest + 1e-6
            assert biller.usd <= most, (step.__name__, biller.moods)
        biller.quiet = True
        last = history.run(max_cost=history.limit + 100.0, retry_rejected=True)
        assert last.without_description == 0 and last.stopped_by is None, "what was not asked, the next run asks"
        assert last.cost_usd >= biller.usd - 1e-6, "each call is counted, those in flight at a kill too"


class BatchBiller(Biller):
    """The same for a Batch API, whose lines get lost, too."""

    def line(self, body: dict[str, Any]) -> Any:
        rng = self.rng
        mood = (
            "well" if self.quiet or rng.random() < self.calm else rng.choice(["untold", "none", "torn", "500", "error"])
        )
        if mood in ("500", "error"):
            return (500, {"message": "no", "code": None}) if mood == "500" else {"code": "no", "message": "no"}
        tokens = rng.choice(TRUE_INPUT), rng.randint(1, MAX_TOKENS)
        self.usd += PRICES[body["model"]].of(*tokens) / 2
        said = json.dumps({"class": rng.choice(["cat", "dog"]), "second": None, "confidence": 0.6})
        answer = completion(said, tokens=tokens) | ({"usage": rng.choice(UNTOLD)} if mood == "untold" else {})
        return {"none": None, "torn": '{"custom_id": "1'}.get(mood, answer)

    def spoil(self, body: bytes) -> bytes:
        """Return what becomes of a file of answers, each time the same."""
        rng, lines = random.Random(body), body.splitlines(keepends=True)
        if self.quiet or rng.random() < self.calm:
            return body
        bad = [json.dumps({"custom_id": str(i), "response": None, "error": {"message": "no"}}).encode() for i in (0, 1)]
        ways = (
            lines[1:],
            [line[:-9] + b"\n" for line in lines],
            [*bad, *lines],
            [*lines, *lines],
            [body[:-9]],
            [b"<html>"],
        )
        return b"".join(rng.choice(ways))


class BatchHistory(History):
    """The same through the Batch API, in two sizes of pictures."""

    stub: Any

    def run(self, **more: Any) -> Any:
        server, rng = self.stub, self.rng
        server.late, server.counts = (
            (0, True) if self.biller.quiet else (rng.choice([0, 0, 3, 100]), rng.random() < 0.7)
        )
        given: Any = {"batch": True, "poll_seconds": 0.001, "max_side": rng.choice([32, 64])}
        given["retry_rejected"] = rng.random() < 0.2
        try:
            return super().run(**{**given, **more, "per_call": 1})
        except ConfigError as error:  # what is pending is not asked for in another way
            assert "pending" in str(error)

    def run_without(self) -> None:
        self.run(batch=False)

    def stopped(self) -> None:
        """A run that is killed at one of the moments of a batch, before or after."""
        at, left, after = self.rng.choice(MOMENTS), self.rng.randint(0, 3), self.rng.random() < 0.5
        do = getattr(*at)

        def kills(*given: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 and not after:
                raise Killed
            found = do(*given)
            if left < 0:
                raise Killed
            return found

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(*at, kills)
            self.run()

    def lose_file(self) -> None:
        self.stub.deleted += [name for name in self.stub.files if "output" in name and self.rng.random() < 0.3]


MOMENTS = [
    *((Ledger, name) for name in ("add", "note_id", "forget", "close_batch")),
    *((BatchDescriber, name) for name in ("_create", "_poll")),
    (DescriptionStore, "add"),
]
BATCH_STEPS: list[Callable[..., Any]] = [
    *(BatchHistory.run, BatchHistory.run, BatchHistory.run_without, History.estimate, BatchHistory.lose_file),
    *(BatchHistory.stopped, BatchHistory.stopped, History.add_images, History.raise_limit, History.raise_limit),
]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("prices")
def test_the_bill_of_batches_stays_within_the_limit(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SETTLING_S", 0.0)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    biller = BatchBiller(random.Random(seed))
    with serving(BatchServer(answer=biller.line, spoil=biller.spoil)) as server:
        history: Any = BatchHistory(tmp_path, seed, server, biller)
        history.raise_limit()
        for _ in range(10):
            step = history.rng.choice(BATCH_STEPS)
            step(history)
            assert biller.usd <= history.limit + 1e-6, step.__name__
        biller.quiet = True
        for side in (32, 64):
            rest: Any = {"max_cost": history.limit + 100.0, "max_side": side}
            while (last := history.run(**rest)).failed:  # what was lost is asked for once more
                pass
            assert last.without_description == 0 and last.stopped_by is None, (last.facts, last.skipped[:2])
        assert last.cost_usd >= biller.usd - 1e-6


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("prices")
def test_the_bill_stays_within_the_limit(seed: int, tmp_path: Path) -> None:
    follow(tmp_path, seed, 8, STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("prices")
def test_the_bill_stays_within_the_limit_when_processes_are_killed(seed: int, tmp_path: Path) -> None:
    follow(tmp_path, seed, 8, [*STEPS, *[History.killed_for_good] * 8])


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_a_store_that_goes_away_ends_the_run_at_once(how: str, tmp_path: Path) -> None:
    store, aside = tmp_path / "a.db", tmp_path / "aside.db"

    def reply(call: Call) -> Reply:
        if call.number == 20:
            store.unlink() if how == "deleted" else store.rename(aside)
            if how == "replaced":
                store.write_bytes(b"")
        return json_reply(completion("A cat."), delay=0.01)

    with serve(reply) as stub:
        history = History(tmp_path, 0, stub, Biller(random.Random(0)))
        history.options = {"max_cost": None, "ask": "description", "classes": None}
        while history.images < 100:
            history.add_images()
        with pytest.raises(StoreError, match=rf"{store} was deleted, moved or replaced"):
            describe(history.config())
        assert stub.count <= 20 + 2 * AT_ONCE + 8, "those in flight, and those that are made ready"
        if how != "deleted":
            paid = stub.count
            aside.rename(store)
            assert describe(history.config()).already_described == paid, "it has all answers"
            assert stub.count == history.images


@pytest.mark.usefixtures("prices")
def test_after_a_kill_the_bill_settles_what_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    biller = Biller(random.Random(0))
    biller.quiet = True
    with serve(biller) as stub:
        history = History(tmp_path, 3, stub, biller)
        history.limit = 0.02
        while history.images < 60:
            history.add_images()
        while not history.kills:
            history.killed()
        told = " ".join((history.run(dry_run=True).text, capsys.readouterr().err))
        assert "calls in flight" in told and "--billed" in told
        uncertain = history.run(dry_run=True).cost_usd
        assert biller.usd < uncertain <= biller.usd + 2 * AT_ONCE * PRICES["tiny"].of(600, MAX_TOKENS), "no wide margin"
        for bill in (biller.usd + 0.01, biller.usd):
            settled = history.run(dry_run=True, billed=bill)
            assert settled.cost_usd == pytest.approx(bill, abs=1e-6) and "did not tell" not in settled.text
        last = history.run()
        assert last.cost_usd <= 0.02 and last.text.startswith(f"Cost: ${last.cost_usd:.4f}, of it $")
        for options in ({"dry_run": True, "billed": 0.0001}, {"billed": 1.0}):
            with pytest.raises((ConfigError, StoreError), match="--billed"):
                history.run(**options)

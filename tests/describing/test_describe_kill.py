"""Ten kill -9 with calls in flight: no answer is lost, and no more is asked again than was in flight.

Each trial is a process forked off one that has imported everything, so that they take seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts.store import DescriptionStore
from gpt4image.config import DescribeConfig
from openai_stub import Call, Reply, Stub, answer, serve

IMAGES, CONCURRENCY = 300, 16
KILLS_OF_A_STORE = 10


class Zygote:
    """A process that forks a process for each trial."""

    def __init__(self) -> None:
        environment = {**os.environ, "OPENAI_API_KEY": "sk-local", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # of the helpers beside the rooms
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def describe(self, options: dict[str, object]) -> int:
        """Start to describe and return the process id."""
        self._tell(json.dumps(options))
        return int(self._hear())

    def outcome(self) -> dict[str, int]:
        """Wait for the end and return the summary of the stage; empty where it was killed."""
        summary: dict[str, int] = json.loads(self._hear())
        return summary

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the zygote has no input")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            self._process.wait(10)
            raise RuntimeError(f"the zygote died: {self._process.stderr.read() if self._process.stderr else ''}")
        return line


class Chatty:
    """The server's side: answers after 20 to 50 ms and counts what it was asked about each image."""

    def __init__(self) -> None:
        self.chance = random.Random(0)
        self.calls: Counter[bytes] = Counter()

    def __call__(self, call: Call) -> Reply:
        image = call.image
        if not image:
            raise RuntimeError("a call without an image")
        self.calls[image] += 1
        return answer(text_about(image), delay=self.chance.uniform(0.02, 0.05))


def text_about(image: bytes) -> str:
    return f"A small noisy picture whose bytes, as they were sent, have the checksum {hash(image)}."


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    running = Zygote()
    yield running
    running.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "unlabelled").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(root / "unlabelled" / f"{number:03}.png")
    return root


def stored(path: Path) -> dict[str, str]:
    """Return text by digest; nothing where the process was killed before it had made the store."""
    if not path.exists():
        return {}
    with DescriptionStore(path, write=True) as store:  # killed while the file was made, only a writer goes on with it
        return {row.digest: row.text for row in store.texts()}


def kill_at_random(process: int, stub: Stub, chance: random.Random) -> None:
    """Kill at some moment of the start, or once some calls were made and a little later."""
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0, 0.2))
    else:
        wanted = stub.count + chance.randint(1, 30)
        deadline = time.monotonic() + 5
        while stub.count < wanted and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.06))
    os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_kill_9_loses_no_answer_and_asks_again_only_what_was_in_flight(
    zygote: Zygote, pictures: Path, tmp_path: Path
) -> None:
    chatty, chance = Chatty(), random.Random(0)
    store = tmp_path / "s.db"
    with serve(chatty) as stub:
        stub.keep_calls = False
        options: dict[str, object] = {
            "data": f"folder:{pictures}",
            "store": str(store),
            "describer": "openai:tiny",
            "base_url": stub.url,
            "concurrency": CONCURRENCY,
            "image_format": "png",
        }
        kept: dict[str, str] = {}
        in_flight_at_kills = 0
        for _ in range(KILLS_OF_A_STORE):
            before = stub.count
            kill_at_random(zygote.describe(options), stub, chance)
            assert zygote.outcome() == {}
            time.sleep(0.01)  # requests may wait in the socket to be counted
            now = stored(store)
            assert now.items() >= kept.items(), "a stored answer was lost"
            unstored = stub.count - before - (len(now) - len(kept))
            assert unstored <= CONCURRENCY, "more calls were lost than may be in flight"
            in_flight_at_kills += unstored
            kept = now
        assert len(kept) < IMAGES, "the kills came too late to prove anything"
        assert in_flight_at_kills > KILLS_OF_A_STORE

        zygote.describe(options)
        assert zygote.outcome()["without_description"] == 0
        assert len(chatty.calls) == IMAGES
        assert stub.count <= IMAGES + in_flight_at_kills
        assert sorted(stored(store).values()) == sorted(map(text_about, chatty.calls))
        assert stored(store).items() >= kept.items()
        assert stub.most_in_flight <= 2 * CONCURRENCY  # the killed process's calls may still wait for their delay

        count = stub.count
        zygote.describe(options)
        assert zygote.outcome()["already_described"] == IMAGES
        assert stub.count == count


def serve_trials() -> None:
    """Fork a process for each line of options; write its id, then the summary it ended with."""
    for module in ("genai_prices", "openai", "gpt4image.describing.describers.openai.describer"):
        importlib.import_module(module)  # what every trial needs
    from gpt4image.describing.describe import describe

    for line in sys.stdin:
        reading, writing = os.pipe()
        trial = os.fork()
        if trial == 0:
            summary = dict(describe(DescribeConfig(**json.loads(line))).summary)
            os.write(writing, json.dumps(summary, default=str).encode())
            os._exit(0)
        os.close(writing)
        print(trial, flush=True)
        with os.fdopen(reading) as summary:
            print(summary.read() or "{}", flush=True)
        os.waitpid(trial, 0)


if __name__ == "__main__":
    serve_trials()

"""The same work by gpt4image and by bespokelabs-curator, side by side, against the same servers.

Installs curator from PyPI into bench-out the first time; so this benchmark runs only when it is named.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from describe_servers import Running, serving
from describing import ask, photographs, resumed
from measure import Row
from rivals import python_with

CURATOR = "bespokelabs-curator==0.1.31"
ROUNDS = 3


def curator() -> list[Row]:
    python = python_with(CURATOR)
    return [*_speed(python), *_capped(python), *_one_added(python)]


def _speed(python: Path) -> list[Row]:
    """Calls a second and CPU seconds per call where the server takes no time."""
    images, concurrency = 1500, 64
    with photographs(images) as folder, photographs(1) as one, TemporaryDirectory() as caches, serving() as server:
        ask(one, server)  # imports are not counted on either side

        def ours(number: int) -> dict[str, float]:
            start, cpu = time.perf_counter(), time.process_time()
            ask(folder, server, concurrency=concurrency, server_name=f"round {number}")
            return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}

        def theirs(number: int) -> dict[str, float]:
            return _curator(python, folder, server, Path(caches, f"{number}"), concurrency=concurrency)

        mine, limit = _medians_in_turn(ours, theirs)
    return [
        Row(
            name=f"zero latency, {concurrency} in flight: answers/s over curator's",
            ours=images / mine["seconds"],
            limit=images / limit["seconds"],
            unit="answers/s",
            goal=(">=", 2),
        ),
        Row(
            name="zero latency: client's CPU time per answer over curator's",
            ours=1000 * mine["cpu_seconds"] / images,
            limit=1000 * limit["cpu_seconds"] / images,
            unit="ms",
            goal=("<=", 0.5),
        ),
    ]


def _capped(python: Path) -> list[Row]:
    """Requests for an answer where the server takes 20 a second."""
    images, concurrency = 300, 64
    with photographs(images) as folder, TemporaryDirectory() as cache:
        with serving(cap=20, latency=0.5) as server:
            ask(folder, server, concurrency=concurrency)
            mine = server.stats()
        with serving(cap=20, latency=0.5) as server:
            _curator(python, folder, server, Path(cache), concurrency=concurrency)
            theirs = server.stats()
    return [
        Row(
            name="cap of 20/s: requests an answer, and curator's",
            ours=mine["requests"] / mine["paid"],
            limit=theirs["requests"] / theirs["paid"],
            unit="requests",
            goal=("<=", 1),
        )
    ]


def _one_added(python: Path) -> list[Row]:
    """Calls after one image was added to a finished set; bytes on disk."""
    images, concurrency = 300, 16
    with photographs(images + 1) as folder, TemporaryDirectory() as name, serving(latency=0.2) as server:
        cache = Path(name)
        added = max(folder.rglob("*.jpg"))
        kept = added.rename(folder / "later.bin")
        _curator(python, folder, server, cache, concurrency=concurrency)
        paid = server.stats()["paid"]
        size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / images
        kept.rename(added)
        _curator(python, folder, server, cache, concurrency=concurrency)
        again = server.stats()["paid"] - paid
    mine = resumed(images, concurrency)
    return [
        Row(
            name=f"calls for an image added to {images}, and curator's",
            ours=mine.calls_for_added,
            limit=again,
            unit="calls",
            goal=("<=", 0.1),
        ),
        Row(
            name="bytes on disk per image of 14 KB, and curator's",
            ours=mine.bytes_per_image,
            limit=size,
            unit="bytes",
            goal=("<=", 0.1),
        ),
    ]


def _medians_in_turn(*sides: Callable[[int], dict[str, float]]) -> list[dict[str, float]]:
    rounds = [[side(number) for side in sides] for number in range(ROUNDS)]
    names = ("seconds", "cpu_seconds")
    return [
        {name: statistics.median(run[name] for run in runs) for name in names} for runs in zip(*rounds, strict=True)
    ]


def _curator(python: Path, folder: Path, server: Running, cache: Path, **options: Any) -> dict[str, float]:
    """Run curator to its end and return what it measured; nothing where it gave up."""
    log = _start(python, folder, server, cache, **options)
    log.wait()
    lines = (cache / "log.txt").read_text(encoding="utf-8").splitlines()
    return next((json.loads(line) for line in reversed(lines) if line.startswith("{")), {})


def _start(python: Path, folder: Path, server: Running, cache: Path, **options: Any) -> subprocess.Popen[bytes]:
    cache.mkdir(exist_ok=True)
    script = Path(__file__).with_name("curator_run.py")
    words = [f"--{name}={value}" for name, value in options.items()]
    with (cache / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [str(python), str(script), str(folder), server.url, str(cache), *words], stdout=log, stderr=log
        )

"""Describing: how close a server's limit is reached, what faults cost, and what is paid twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from describe_servers import Running, serving
from gpt4image.base.outcome import Outcome
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from measure import Row, now

os.environ["OPENAI_API_KEY"] = "sk-local"
MANY = 100_000


def throughput() -> list[Row]:
    """A server that always takes two seconds: 256 calls in flight should bring 128 answers a second."""
    concurrency, rounds, latency = 256, 20, 2.0
    images = concurrency * rounds
    with photographs(images) as folder, serving(latency=latency) as server:
        ask(folder, server, concurrency=concurrency)
        stats = server.stats()
    return [
        Row(
            name=f"answers/s at {concurrency} in flight over concurrency/latency",
            ours=images / stats["seconds"],
            limit=concurrency / latency,
            unit="answers/s",
            goal=(">=", 0.97),
        )
    ]


def capped() -> list[Row]:
    """A server that takes 20 requests a second, and refuses those beyond."""
    servers = {"windows of 1 s": {"cap": 20}, "token bucket, Retry-After": {"cap": 20, "bucket": 20, "retry_after": 1}}
    return [row for name, behaviour in servers.items() for row in _capped(f"cap of 20/s ({name})", 500, behaviour)]


def _capped(name: str, images: int, behaviour: Mapping[str, float]) -> list[Row]:
    with photographs(images) as folder, serving(latency=0.5, **behaviour) as server:
        ask(folder, server, concurrency=64)
        stats = server.stats()
    return [
        Row(
            name=f"{name}: answers/s over the cap",
            ours=images / stats["seconds"],
            limit=behaviour["cap"],
            unit="answers/s",
            goal=(">=", 0.97),
        ),
        Row(
            name=f"{name}: requests over answers",
            ours=stats["requests"],
            limit=images,
            unit="requests",
            goal=("<=", 1.05),
        ),
    ]


def chaos() -> list[Row]:
    """A capped server: 30 % of the calls fail, 5 % hang, 5 % come malformed, and 3 % of the images are refused."""
    images, cap = 1800, 60
    behaviour = {"latency": 0.2, "cap": cap, "errors": 0.3, "hangs": 0.05, "malformed": 0.05, "refused": 0.03}
    with photographs(images) as folder, serving(**behaviour) as server:
        outcome = ask(folder, server, concurrency=64, timeout=2.0, retries=30)
        stats = server.stats()
    refused, taken = stats["refused_images"], stats["requests"] - stats["outcomes"].get("429", 0)
    return [
        Row(
            name="chaos: images described over images that can be",
            ours=outcome.described,
            limit=images - refused,
            unit="images",
            goal=(">=", 1),
        ),
        Row(
            name="chaos: time over calls the server took / cap",
            ours=stats["seconds"],
            limit=taken / cap,
            unit="s",
            goal=("<=", 1.1),
        ),
        Row(
            name="chaos: refusals beyond the first over refused images",
            ours=stats["refusals"] - refused,
            limit=refused,
            unit="calls",
            goal=("<=", 1),
        ),
    ]


@dataclass(frozen=True)
class Resumed:
    """What it cost to be killed, and to add an image; calls, and bytes of the store per image."""

    paid_twice: int
    calls_for_added: int
    bytes_per_image: float


def resumed(images: int, concurrency: int) -> Resumed:
    """Kill -9 the command half-way, go on, then add one image."""
    with photographs(images + 1) as folder, serving(latency=0.2) as server:
        added = max(folder.rglob("*.jpg"))
        kept = added.rename(folder / "later.bin")
        command = [sys.executable, "-m", "gpt4image", "describe", f"--data=folder:{folder}"]
        command += [f"--store={store_of(folder)}", "--describer=openai:gpt-4o-mini", f"--base-url={server.url}"]
        command += [f"--concurrency={concurrency}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while server.stats()["paid"] < images / 2 and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        ask(folder, server, concurrency=concurrency)
        paid = server.stats()["paid"]
        size = store_of(folder).stat().st_size / images
        kept.rename(added)
        ask(folder, server, concurrency=concurrency)
        return Resumed(paid - images, server.stats()["paid"] - paid, size)


def resuming() -> list[Row]:
    """What is paid twice, and what is stored."""
    images, concurrency = 300, 16
    cost = resumed(images, concurrency)
    return [
        Row(
            name="calls paid twice after kill -9 over calls in flight",
            ours=cost.paid_twice,
            limit=concurrency,
            unit="calls",
            goal=("<=", 1),
        ),
        Row(name="calls for one image added", ours=cost.calls_for_added, limit=1, unit="calls", goal=("<=", 1)),
        Row(name="store size per image", ours=cost.bytes_per_image, limit=2048, unit="bytes", goal=("<=", 1)),
    ]


def many() -> list[Row]:
    """Describe 1,000 and 100,000 small images, then ask about the 100,000 again."""
    with serving() as server, tempfile.TemporaryDirectory() as name:
        few, lots = Path(name) / "few", Path(name) / "lots"
        peaks = []
        for folder, images in ((few, 1000), (lots, MANY)):
            _write_specks(folder, images)
            peaks.append(_peak_bytes(folder, server))
        before = server.stats()["requests"]
        start = now()
        ask(lots, server)
        seconds = now() - start
        if server.stats()["requests"] != before:
            raise SystemExit("a finished store asked for descriptions again")
    return [
        Row(
            name=f"asking a finished store of {MANY:,} images again", ours=seconds, limit=2.0, unit="s", goal=("<=", 1)
        ),
        Row(
            name=f"memory from 1,000 to {MANY:,} images, for each",
            ours=(peaks[1] - peaks[0]) / (MANY - 1000),
            limit=1024,
            unit="bytes",
            goal=("<=", 1),
        ),
    ]


def _peak_bytes(folder: Path, server: Running) -> int:
    """Describe in a process of its own and return its peak memory."""
    code = "import sys, describing as d, resource as r; d.ask(d.Path(sys.argv[1]), d.Running(sys.argv[2])); "
    code += "print(r.getrusage(r.RUSAGE_SELF).ru_maxrss * 1024)"
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder), server.url],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(result.stdout)


def ask(folder: Path, server: Running, **options: Any) -> Outcome:
    """Describe the images of a folder as a user would."""
    config = DescribeConfig(
        splits=("train", "val", "test"),
        data=f"folder:{folder}",
        store=store_of(folder),
        describer="openai:gpt-4o-mini",
        base_url=server.url,
        **options,
    )
    return describe(config)


def store_of(folder: Path) -> Path:
    return folder / "store.db"


@contextmanager
def photographs(count: int) -> Iterator[Path]:
    """A folder of distinct JPEGs of 224 x 224 pixels and about 14 KB, as photographs have."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 9, (8, 224, 224, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        folder.mkdir()
        for number in range(count):
            scene = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            smooth = np.asarray(scene.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
            noisy = np.clip(smooth + grain[number % len(grain)], 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{number:05}.jpg", quality=80)
        yield Path(name)


def _write_specks(folder: Path, count: int) -> None:
    """Write images of one pixel, each of another colour."""
    (folder / "specks").mkdir(parents=True)
    for number in range(count):
        colour = (number & 255, number >> 8 & 255, number >> 16)
        Image.new("RGB", (1, 1), colour).save(folder / "specks" / f"{number}.bmp")

"""Describing: how close a server's limit is reached, what faults cost, and what is paid twice."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    name = f"answers/s at {concurrency} in flight over concurrency/latency"
    return [Row(name, images / stats["seconds"], concurrency / latency, "answers/s", ">= 0.97")]


def capped() -> list[Row]:
    """A server that takes 20 requests a second, and refuses those beyond."""
    servers = {"windows of 1 s": {"cap": 20}, "token bucket, Retry-After": {"cap": 20, "bucket": 20, "retry_after": 1}}
    return [row for name, behaviour in servers.items() for row in _capped(f"cap of 20/s ({name})", 500, behaviour)]


def _capped(name: str, images: int, behaviour: Mapping[str, float]) -> list[Row]:
    with photographs(images) as folder, serving(latency=0.5, **behaviour) as server:
        ask(folder, server, concurrency=64)
        stats = server.stats()
    return [
        Row(f"{name}: answers/s over the cap", images / stats["seconds"], behaviour["cap"], "answers/s", ">= 0.97"),
        Row(f"{name}: requests over answers", stats["requests"], images, "requests", "<= 1.05"),
    ]


def chaos() -> list[Row]:
    """A capped server: 30 % of the calls fail, 5 % hang, 5 % come malformed, and 3 % of the images are refused."""
    images, cap = 1800, 60
    behaviour = {"latency": 0.2, "cap": cap, "errors": 0.3, "hangs": 0.05, "malformed": 0.05, "refused": 0.03}
    with photographs(images) as folder, serving(**behaviour) as server:
        outcome = ask(folder, server, concurrency=64, timeout=2.0, retries=30)
        stats = server.stats()
    refused, taken = stats["refused_images"], stats["requests"] - stats["outcomes"].get("429", 0)
    again = stats["refusals"] - refused
    return [
        Row("chaos: images described over images that can be", outcome.described, images - refused, "images", ">= 1"),
        Row("chaos: time over calls the server took / cap", stats["seconds"], taken / cap, "s", "<= 1.1"),
        Row("chaos: refusals beyond the first over refused images", again, refused, "calls", "<= 1"),
    ]


def resuming() -> list[Row]:
    """What is paid twice after kill -9 half-way, what one more image costs, and what is stored."""
    images, concurrency = 300, 16
    with photographs(images + 1) as folder, serving(latency=0.2) as server:
        added = max(folder.rglob("*.jpg"))
        kept = added.rename(folder / "later.bin")
        command = [sys.executable, "-m", "gpt4image", "describe", f"--data=folder:{folder}"]
        command += [f"--store={store_of(folder)}", "--describer=openai:gpt-4o-mini", f"--base-url={server.url}"]
        command += [f"--concurrency={concurrency}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while server.stats()["paid"] < images / 2 and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        ask(folder, server, concurrency=concurrency)
        paid = server.stats()["paid"]
        size = store_of(folder).stat().st_size / images
        kept.rename(added)
        ask(folder, server, concurrency=concurrency)
        for_added = server.stats()["paid"] - paid
    return [
        Row("calls paid twice after kill -9 over calls in flight", paid - images, concurrency, "calls", "<= 1"),
        Row("calls for one image added", for_added, 1, "calls", "<= 1"),
        Row("store size per image", size, 2048, "bytes", "<= 1"),
    ]


def many() -> list[Row]:
    """Describe 1,000 and 100,000 small images, then ask about the 100,000 again."""
    few = 1000
    with serving() as server, tempfile.TemporaryDirectory() as name:
        peaks = [_peak_bytes(specks(Path(name) / str(images), images), server) for images in (few, MANY)]
        before, start = server.stats()["requests"], now()
        ask(Path(name) / str(MANY), server)
        seconds = now() - start
        if server.stats()["requests"] != before:
            raise SystemExit("a finished store asked for descriptions again")
    grown = (peaks[1] - peaks[0]) / (MANY - few)
    return [
        Row(f"asking a finished store of {MANY:,} images again", seconds, 2.0, "s", "<= 1"),
        Row(f"memory from 1,000 to {MANY:,} images, for each", grown, 1024, "bytes", "<= 1"),
    ]


def _peak_bytes(folder: Path, server: Running) -> int:
    """Describe in a process of its own and return its peak memory."""
    code = "import sys, describing as d, resource as r; d.ask(d.Path(sys.argv[1]), d.Running(sys.argv[2])); "
    code += "print(r.getrusage(r.RUSAGE_SELF).ru_maxrss * 1024)"
    command = [sys.executable, "-c", code, str(folder), server.url]
    return int(subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True).stdout)


def ask(folder: Path, server: Running, **options: Any) -> Outcome:
    """Describe the images of a folder as a user would."""
    own = {"splits": ("train", "val", "test"), "describer": "openai:gpt-4o-mini", "base_url": server.url}
    return describe(DescribeConfig(data=f"folder:{folder}", store=store_of(folder), **own, **options))


def store_of(folder: Path) -> Path:
    return folder / "store.db"


@contextmanager
def photographs(count: int, size: tuple[int, int] = (224, 224)) -> Iterator[Path]:
    """A folder of distinct JPEGs with the detail of photographs; of 224 x 224 pixels they have about 14 KB."""
    rng, (width, height) = np.random.default_rng(0), size
    grain = rng.normal(0, 9, (8, height, width, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        folder.mkdir()
        for number in range(count):
            scene = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            smooth = np.asarray(scene.resize(size, Image.Resampling.BICUBIC), np.float32)
            noisy = np.clip(smooth + grain[number % len(grain)], 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{number:05}.jpg", quality=80)
        yield Path(name)


def specks(folder: Path, count: int) -> Path:
    """Write images of one pixel, each of another colour."""
    (folder / "specks").mkdir(parents=True)
    for number in range(count):
        colour = (number & 255, number >> 8 & 255, number >> 16)
        Image.new("RGB", (1, 1), colour).save(folder / "specks" / f"{number}.bmp")
    return folder

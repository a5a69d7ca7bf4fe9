"""A real ``transformers serve`` on this machine, for tests: an OpenAI-compatible server that others wrote."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_S = 120.0


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        base_url: address for OpenAI clients, e.g. http://127.0.0.1:8000/v1.
        model: name of the one model that it serves.
    """

    base_url: str
    model: str


@pytest.fixture(scope="session")
def transformers_serve(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the tiny model in fp32, which gives every image the same text in a batch as alone."""
    with serve(tiny_vlm, tmp_path_factory.mktemp("serve") / "log.txt") as server:
        yield server


@contextlib.contextmanager
def serve(model: Path, log: Path, *, dtype: str = "float32") -> Iterator[Server]:
    """Serve ``model`` on a free port of the loopback interface until the block ends; what it prints goes to ``log``."""
    port = _free_port()
    command = [
        *(str(Path(sys.executable).with_name("transformers")), "serve", str(model)),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", dtype),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield Server(base_url=f"http://127.0.0.1:{port}/v1", model=str(model))
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"transformers serve did not start: {log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            return

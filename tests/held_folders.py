"""Folders that another process trains in, for tests of what keeps its hands off them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from gpt4image.artifacts import runs
with runs.writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held_by_another(folder: Path) -> Iterator[int]:
    """Let another process hold a folder for the block, then kill it as kill -9 does; yield its id."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

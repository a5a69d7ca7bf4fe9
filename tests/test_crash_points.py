"""Stages that are stopped at every durable operation, and under faults: nothing is lost, and nothing is paid twice.

All stages at all disks take minutes: ``python tests/crash_stages.py --points``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crash_stages import SHM, Disk

PROGRAM = Path(__file__).with_name("crash_stages.py")
pytestmark = pytest.mark.skipif(not Path(SHM).is_dir(), reason="fork, /proc and /dev/shm are those of Linux")


@pytest.mark.slow
def test_stopped_anywhere_or_disturbed_the_next_run_ends_as_if_nothing_had_happened() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    points = ["describe: server", "describe: batch", "train: segmentation", "distill: changed"]
    words = [sys.executable, str(PROGRAM), "--most", "3", "--points", *points, "--faults", "describe: server", "search"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows.keys() == {*points, "search"} and [row["wrong"] for row in rows.values()] == [[]] * 5
    assert all(rows[name]["operations"] > 5 and rows[name]["disks"] > 2 for name in points), "there is what to stop"
    assert rows["describe: server"]["in_flight"] > 0, "a call that was in flight is asked again, and no other"


def test_the_harness_sees_what_is_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is written in place, without fsync, is lost."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "old").write_bytes(b"whole")
    disk = Disk(folder)
    (folder / "old").write_bytes(b"whole and more")
    (folder / "new").write_bytes(b"12")
    disk.sync(str(folder / "new"))
    assert disk.ends()["killed"] == {"old": b"whole and more", "new": b"12"}
    assert disk.ends()["dropped"] == {"old": b"whole"}, "the name of the new file was not on disk"
    disk.sync(str(folder))
    assert disk.ends()["dropped"] == {"old": b"whole", "new": b"12"}

"""Stages that are stopped at every durable operation, and under faults: nothing is lost, and nothing is paid twice.

The whole table, of all stages, takes minutes: ``python tests/crash_stages.py points``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crash_stages import READERS, STAGES
from gpt4image.cli import COMMANDS, main

PROGRAM = Path(__file__).with_name("crash_stages.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork, and /proc")

POINTS_FAST = ["describe: server", "descriptions export", "review"]
POINTS_SLOW = [
    "describe: batch",
    "encode",
    "train: segmentation",
    "train: clips",
    "train: pretrain",
    "evaluate",
    "export: timm",
    "search",
]
POINTS_OF_ALL = ["compare", "distill", "distill: changed"]  # stages that carry out others
FAULTS_FAST = ["describe: server"]
FAULTS_SLOW = ["review", "compare", "predict", "search", "distill"]


def tried(wanted: str, names: list[str]) -> list[dict[str, Any]]:
    """Run the program, which forks off a process that computes nothing, and return what it found of each stage."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(PROGRAM), wanted, *names]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("points", POINTS_FAST),
        pytest.param("points/4", POINTS_SLOW, marks=pytest.mark.slow),
        pytest.param("points/40", POINTS_OF_ALL, marks=pytest.mark.slow),
    ],
    ids=["all points", "each fourth disk", "each fortieth disk"],
)
def test_stopped_anywhere_the_next_run_ends_as_if_nothing_had_happened(wanted: str, names: list[str]) -> None:
    rows = tried(wanted, names)
    assert {row["stage"] for row in rows} == set(names)
    for row in rows:
        assert row["points"] > row["operations"] > 5 and row["disks"] > 2, "there is something to stop"
        assert (row["lost"], row["twice"] or 0) == (0, 0), "\n".join(row["faults"])
    if "describe: server" in names:
        assert rows[0]["in_flight"] > 0, "a call that was in flight is asked again, and no other"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("faults", FAULTS_FAST),
        pytest.param("faults", FAULTS_SLOW, marks=pytest.mark.slow),
        pytest.param("streams", [*READERS], marks=pytest.mark.slow),
    ],
    ids=["fast", "slow", "readers"],
)
def test_disks_folders_streams_signals_clocks_and_other_writers_cost_nothing(wanted: str, names: list[str]) -> None:
    rows = tried(wanted, names)
    assert {row["stage"] for row in rows} == set(names)
    assert [fault for row in rows for fault in row["faults"]] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_works_for_a_closed_output(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(name.split()) == 2
    sys.stdout.close()
    assert capsys.readouterr().err.startswith("Error: standard output is closed")


def test_the_program_sees_what_is_lost(tmp_path: Path) -> None:
    """A stage that writes in place, without fsync, is torn; names of stages are those of the table."""
    from crash_points import Disk

    (tmp_path / "old").write_bytes(b"whole")
    disk = Disk(tmp_path)
    (tmp_path / "old").write_bytes(b"whole and more")
    (tmp_path / "new").write_bytes(b"12")
    disk.sync(str(tmp_path / "new"))
    found = disk.disks()
    assert found["killed"] == {"old": b"whole and more", "new": b"12"}
    assert found["torn"] == {"old": b"whole and", "new": b"12"}
    assert found["dropped"] == {"old": b"whole"}, "the name of the new file was not on disk"
    (tmp_path / "folder").mkdir()
    disk.sync(str(tmp_path))
    (tmp_path / "folder").rmdir()
    assert disk.disks()["dropped"] == {"old": b"whole", "new": b"12", "folder": None}
    assert {*POINTS_FAST, *POINTS_SLOW, *POINTS_OF_ALL, *FAULTS_FAST, *FAULTS_SLOW} <= STAGES.keys()

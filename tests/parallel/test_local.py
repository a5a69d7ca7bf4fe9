"""Jobs in worker processes: all results in order, errors as they were raised, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.errors import DataError, RunError
from gpt4image.parallel.local import run_jobs


def double(job: int, progress: Any) -> int:
    progress(1, 2, "half")
    time.sleep(0.02 * (3 - job))
    return 2 * job


def fail_late(job: tuple[Path, bool], progress: Any) -> int:
    folder, fails = job
    if fails:
        raise DataError("picture 1 is missing")
    (folder / str(time.monotonic_ns())).touch()
    time.sleep(0.3)
    return 0


def die(job: int, progress: Any) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_results_come_in_order_of_the_jobs() -> None:
    assert run_jobs(double, [0, 1, 2, 3], list("abcd"), processes=2, title="t") == [0, 2, 4, 6]
    assert run_jobs(double, [], [], processes=2, title="t") == []


def test_no_job_begins_after_one_that_failed_and_a_killed_worker_is_explained(tmp_path: Path) -> None:
    jobs = [(tmp_path, True)] + [(tmp_path, False)] * 5
    with pytest.raises(DataError, match=r"^a: picture"):
        run_jobs(fail_late, jobs, list("abcdef"), processes=1, title="t")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match="smaller --jobs"):
        run_jobs(die, [0], ["a"], processes=1, title="t")


SLEEPER = """
import sys, time
from pathlib import Path
from gpt4image.parallel.local import run_jobs

def sleep(job, progress):
    Path(sys.argv[1], str(job)).touch()
    time.sleep(60)

if __name__ == "__main__":
    try:
        run_jobs(sleep, [0, 1, 2, 3], list("abcd"), processes=2, title="t")
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_stopping_the_parent_stops_the_workers(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    script, started = tmp_path / "sleeper.py", tmp_path / "started"
    script.write_text(SLEEPER)
    started.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(started)],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    while len(list(started.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True).stdout.split()
    parent.send_signal(sent)
    assert parent.wait(timeout=20) == code
    deadline = time.monotonic() + 10
    while alive := [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists() and running(pid)]:
        assert time.monotonic() < deadline, f"workers {alive} outlive their parent"
        time.sleep(0.1)
    assert len(list(started.iterdir())) == 2, "jobs that had not started were not started"


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

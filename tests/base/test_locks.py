"""One writer at a time: the other one learns who it is, and a process that dies leaves no lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4image.base.locks import acquire_lock

HOLDER = """
import sys
from pathlib import Path
from gpt4image.base.locks import acquire_lock
lock = acquire_lock(Path(sys.argv[1]), wait_s=0)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_owner_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=rf"another process \(id {owner.pid}\)"):
            acquire_lock(path, wait_s=0.05)
        path.write_bytes(b"\xff")
        with pytest.raises(RuntimeError, match="another process"):
            acquire_lock(path, wait_s=0.05)
        owner.kill()
    lock = acquire_lock(path, wait_s=5)
    assert path.read_text() == str(os.getpid())
    lock.release()
    assert path.exists(), "the file stays, so that all who wait look at the same one"

"""Faults that leave a stage alive: full disks, read-only folders, streams that are gone, signals, clocks, two writers.

Each function runs a stage under one of them, and returns what was not as promised.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import time
from collections.abc import Callable

from crash_points import Ended, ended, forked, read_tree, write_tree
from crash_stages import Bench, Stage, differences

YEAR = 365 * 86_400.0
OVERRIDE = 1 << 1  # CAP_DAC_OVERRIDE: root's right to write where nobody may


class Trial:
    """A stage, how it ends undisturbed, and what was found wrong."""

    def __init__(self, bench: Bench, name: str, stage: Stage) -> None:
        self.bench, self.name, self.stage, self.wrong = bench, name, stage, list[str]()
        self.expected, self.volatile = bench.reference(stage)
        self.paid = bench.paid()
        (bench.folder / "count").write_text("0")

        def counted(number: int, _when: str, _kind: str) -> None:
            (bench.folder / "count").write_text(str(number + 1))

        self.begin()
        bench.run(stage, act=counted)
        self.count = int((bench.folder / "count").read_text())

    def begin(self) -> None:
        """Lay out what the stage starts from."""
        if self.bench.server:
            self.bench.server.back_to(0)
        write_tree(self.bench.root, self.bench.start(self.stage))

    def expect(self, what: str, done: Ended, *codes: int, says: str = "") -> None:
        """Note an exit code that is not one of ``codes``, a traceback, or an error that does not say something."""
        if done.code not in codes or "Traceback" in done.err or (done.code == 2 and says not in done.err):
            self.wrong.append(f"{self.name}, {what}: exit {done.code}: {(done.out + done.err).strip()[-700:]}")

    def ends(self, what: str, *, again: bool = True) -> None:
        """Note what the next run leaves other than an undisturbed one."""
        if again:
            done = self.bench.run(self.stage)
            if not (self.stage.done and self.stage.done in done.err):
                self.expect(f"{what}, the next run", done, 0)
        found = differences(self.expected, read_tree(self.bench.root), self.volatile)
        more = self.bench.paid() - self.paid
        if more > (self.stage.server == "chat"):
            found.append(f"{more} paid twice")
        self.wrong += [f"{self.name}, {what}: {'; '.join(found)}"] if found else []

    def at(self, *parts: float) -> list[int]:
        """Return the operations at these parts of the stage."""
        return sorted({min(self.count - 1, int(part * self.count)) for part in parts})


def full_disk(trial: Trial) -> None:
    """No space is left, for files that Python writes and for those that libraries write."""
    for number in trial.at(0.3, 0.9):
        trial.begin()

        def full(current: int, when: str, kind: str, number: int = number) -> None:
            if current >= number and when == "before" and kind in ("fsync", "write", "append", "make", "mkdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        trial.expect(f"disk full at operation {number}", trial.bench.run(trial.stage, act=full), 0, 1, 2, says="Error")
        trial.ends(f"disk full at operation {number}")
    trial.begin()

    def little(*_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))

    trial.expect("files of at most 2 KB", trial.bench.run(trial.stage, act=little), 0, 1, 2, says="Error")
    trial.ends("files of at most 2 KB")


def read_only(trial: Trial) -> None:
    """Nothing may be written; what is there stays."""
    trial.begin()
    for folder in (trial.bench.root, *(path for path in trial.bench.root.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    before = read_tree(trial.bench.root)
    done = trial.bench.run(trial.stage, first=without_rights)
    for folder in (trial.bench.root, *(path for path in trial.bench.root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    trial.expect("read-only folder", done, 2, says="Error")
    if read_tree(trial.bench.root) != before:
        trial.wrong.append(f"{trial.name}: a read-only folder was changed")
    trial.ends("read-only folder")


def without_rights() -> None:
    """Take from root, in this process, the right to write where nobody may."""
    if os.geteuid():
        return
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable rights; then those of higher numbers
    assert libc.capget(header, sets) == 0
    sets[0] &= ~OVERRIDE
    assert libc.capset(header, sets) == 0


def streams(trial: Trial) -> None:
    """Standard output or error is closed, or its reader has gone."""
    trial.begin()
    start = read_tree(trial.bench.root)
    done = trial.bench.run(trial.stage, closed=(1,))
    trial.expect("output closed", done, 2, says="standard output is closed")
    if read_tree(trial.bench.root) != start:
        trial.wrong.append(f"{trial.name}: without standard output, something was written")
    for what, how in (
        ("error closed", {"closed": (2,)}),
        ("| head -0", {"gone": (1,)}),
        ("2>&1 | head -0", {"gone": (1, 2)}),
    ):
        trial.begin()
        trial.expect(what, trial.bench.run(trial.stage, **how), 0)
        trial.ends(what, again=False)


def signals(trial: Trial) -> None:
    """SIGTERM and SIGHUP stop a stage as Ctrl-C does, and it goes on afterwards."""
    for name, part in (("SIGINT", 0.2), ("SIGTERM", 0.5), ("SIGHUP", 0.8)):
        (number,) = trial.at(part)
        trial.begin()

        def sent(current: int, when: str, _: str, number: int = number, name: str = name) -> None:
            if (current, when) == (number, "before"):
                os.kill(os.getpid(), getattr(signal, name))

        done = trial.bench.run(trial.stage, act=sent)
        codes = (130,) if number < trial.count - 1 else (0, 130)
        trial.expect(f"{name} at operation {number}", done, *codes)
        if done.code == 130 and "Interrupted" not in done.err:
            trial.wrong.append(f"{trial.name}, {name}: it does not say that it was interrupted")
        trial.ends(f"{name} at operation {number}")


def clocks(trial: Trial) -> None:
    """The clock jumps by a year, to and fro, at each look."""
    real, looks = time.time, [0]

    def jumping() -> float:
        looks[0] += 1
        return real() + YEAR * (-1) ** looks[0]

    def change() -> None:
        time.time = jumping

    trial.begin()
    trial.expect("clock jumps", trial.bench.run(trial.stage, first=change), 0)
    trial.ends("clock jumps", again=False)


def two_writers(trial: Trial) -> None:
    """While one process waits in the middle, another gives the same command; then the first one goes on."""
    bench = trial.bench
    for number in trial.at(0.5):
        trial.begin()
        there, go = os.pipe(), os.pipe()

        def waits(
            current: int, when: str, _: str, number: int = number, there: int = there[1], go: int = go[0]
        ) -> None:
            if (current, when) == (number, "before"):
                os.write(there, b"!")
                os.read(go, 1)

        other = bench.folder / "other"
        other.mkdir(exist_ok=True)
        first = forked(bench.injected(trial.stage, waits), other)
        os.close(there[1])
        os.read(there[0], 1)
        second = bench.run(trial.stage)
        os.write(go[1], b"!")
        trial.expect(f"second writer at operation {number}", second, 0, 2, says="")
        done = ended(first, other)
        codes = (0, 2) if second.code == 0 else (0,)
        trial.expect(f"first writer, held at operation {number}", done, *codes)
        for pipe in (*go, there[0]):
            os.close(pipe)
        trial.ends(f"two writers at operation {number}")


FAULTS: dict[str, Callable[[Trial], None]] = {
    "full disk": full_disk,
    "read-only folder": read_only,
    "streams": streams,
    "signals": signals,
    "clock": clocks,
    "two writers": two_writers,
}


def found_wrong(bench: Bench, name: str, stage: Stage, faults: list[str]) -> list[str]:
    """Return what is not as promised of a stage under some faults."""
    with bench.serving(stage):
        trial = Trial(bench, name, stage)
        for fault in faults:
            FAULTS[fault](trial)
    return trial.wrong

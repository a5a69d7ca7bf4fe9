"""A forked process that asks before each durable operation, and the disks that kill -9 or a power failure leave then.

Operations are names (rename, link, unlink, mkdir), files that are made or cut, fsync, and commits of SQLite. Three
disks may be left at each:

- ``killed``: what kill -9 leaves, which is all that was written;
- ``torn``: a power failure that kept all names, and half of what no fsync had secured;
- ``dropped``: a power failure that kept nothing beyond fsync, neither content nor names.

Files of SQLite stand as they are, as SQLite syncs them itself with ``synchronous = FULL``.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import sqlite3
import stat
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Tree = dict[str, bytes | None]
"""Content by path below the folder of a test; None is a folder."""
Each = Callable[[int, str, str], bytes]
"""What an operation is answered, by its number, kind and path: b"." lets it happen, b"E" says that the disk is full,
the number of a signal sends it."""
SQLITE = re.compile(r"\.(db|sqlite)(-wal|-shm|-journal)?$")
EVENTS = {"os.remove": (0, 1), "os.rmdir": (0, 1), "os.mkdir": (0, 2), "os.rename": (1, 3), "os.link": (1, 3)}
"""Operations that Python tells its audit hooks: where in it the path is, and the folder that it may be relative to."""


def read_tree(root: Path) -> Tree:
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        place = os.path.relpath(folder, root)
        tree |= {os.path.normpath(f"{place}/{name}"): None for name in folders}
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                tree[os.path.normpath(f"{place}/{name}")] = Path(folder, name).read_bytes()
    return tree


def write_tree(root: Path, tree: Tree) -> None:
    """Make a folder what ``tree`` says."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in sorted(tree):
        if (content := tree[name]) is None:
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


class Disk:
    """What a folder in memory, whose inodes have numbers of their own for ever, holds for sure."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._content: dict[int, bytes] = {}
        for folder, _, files in os.walk(root):
            for name in (".", *files):
                self.sync(f"{folder}/{name}")

    def sync(self, path: str) -> None:
        """Note that a file, or the names in a folder, are on disk."""
        facts = Path(path).stat()
        if stat.S_ISDIR(facts.st_mode):
            with os.scandir(path) as entries:
                self._names[facts.st_ino] = {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}
        else:
            self._content[facts.st_ino] = Path(path).read_bytes()

    def ends(self) -> dict[str, Tree]:
        killed = read_tree(self.root)
        torn = {name: value if value is None else self._torn(name, value) for name, value in killed.items()}
        dropped: Tree = {}
        self._rebuild(self.root.stat().st_ino, "", dropped)
        for name in [name for name in dropped if SQLITE.search(name)]:
            dropped |= {side: killed[side] for end in ("", "-wal", "-shm") if (side := name + end) in killed}
        return {"killed": killed, "torn": torn, "dropped": dropped}

    def _torn(self, name: str, now: bytes) -> bytes:
        safe = self._content.get((self.root / name).stat().st_ino, b"")
        if safe == now or SQLITE.search(name):
            return now
        kept = len(safe) if now.startswith(safe) else 0
        return now[: kept + (len(now) - kept) // 2]

    def _rebuild(self, folder: int, place: str, tree: Tree) -> None:
        for name, (inode, is_folder) in self._names.get(folder, {}).items():
            tree[place + name] = None if is_folder else self._content.get(inode, b"")
            if is_folder:
                self._rebuild(inode, f"{place}{name}/", tree)


class Ended(NamedTuple):
    """How a forked process ended, what it printed, and how many operations it asked about."""

    code: int
    out: str
    err: str
    operations: int


def forked(work: Callable[[], int], root: Path, folder: Path, each: Each | None = None, **streams: Any) -> Ended:
    """Do ``work`` in a process of its own, which asks ``each`` before its operations on files below ``root``.

    Streams may be ``closed``, as by ``>&-``, or be pipes whose reader has ``gone``.
    """
    asked, answered = os.pipe(), os.pipe()
    if not (child := os.fork()):
        code = 99
        try:
            redirect(folder, **streams)
            if each:
                Asking(root, asked[1], answered[0]).install()
            code = work()
        except BaseException:  # noqa: BLE001  (the test is to read it)
            with (folder / "err").open("a") as file:
                file.write(traceback.format_exc())
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)
    os.close(asked[1])
    number = 0
    with open(asked[0], encoding="utf-8") as questions:  # noqa: PTH123
        for line in questions:
            kind, _, path = line.removesuffix("\n").partition(" ")
            os.write(answered[1], each(number, kind, path) if each else b".")
            number += kind != "synced"
    for end in answered:
        os.close(end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, *((folder / name).read_text("utf-8", "replace") for name in ("out", "err")), number)


def redirect(folder: Path, closed: tuple[int, ...] = (), gone: tuple[int, ...] = ()) -> None:
    """Write what this process prints to ``out`` and ``err`` in a folder."""
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        if number in gone:
            reader, file = os.pipe()
            os.close(reader)
        os.dup2(file, number)
        text = None if number in closed else io.TextIOWrapper(io.FileIO(number, "w"), write_through=number == 2)
        setattr(sys, f"std{name}", text)
        if number in closed:
            os.close(number)


class Asking:
    """Asks, from when it is installed in this process, before each operation; after an fsync tells that it is done."""

    def __init__(self, root: Path, ask: int, answer: int) -> None:
        self._root, self._ask, self._answer = str(root), ask, answer
        self._lock, self._process, self._connect = threading.RLock(), os.getpid(), sqlite3.connect

    def install(self) -> None:
        os.fsync = self._synced(os.fsync, lambda file: file)
        np.memmap.flush = self._synced(np.memmap.flush, lambda array: array.filename)  # type: ignore[method-assign]
        sqlite3.connect = self._connected  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def _about(self, kind: str, path: Any, folder: int = -1) -> None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
        near = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()  # noqa: PTH109, PTH115
        path = os.path.normpath(os.path.join(near, os.fsdecode(path)))  # noqa: PTH118
        if os.getpid() == self._process and path.startswith(self._root):
            with self._lock:
                os.write(self._ask, f"{kind} {path}\n".encode())
                if (reply := os.read(self._answer, 1)) == b"E":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
                if reply != b".":
                    os.kill(self._process, reply[0])

    def _hook(self, event: str, told: tuple[Any, ...]) -> None:
        if event == "open" and told[2] & (os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            self._about("open", told[0])
        elif event in EVENTS:
            path, folder = EVENTS[event]
            self._about(event.removeprefix("os."), told[path], told[folder])

    def _connected(self, database: Any, *given: Any, **options: Any) -> sqlite3.Connection:
        path = str(database).removeprefix("file:").removeprefix("//").partition("?")[0]
        connection = self._connect(database, *given, **options)
        if self._root in path:
            connection.set_trace_callback(lambda sql: self._traced(sql, path))
        return connection

    def _traced(self, sql: str, path: str) -> None:
        if re.search(r"synchronous\s*=\s*(OFF|NORMAL|0|1)", sql):
            os._exit(98)  # commits would not be on disk when they return
        if sql == "COMMIT":
            self._about("commit", path)

    def _synced(self, real: Callable[[Any], Any], path_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(file: Any) -> Any:
            if path_of(file):
                self._about("fsync", path_of(file))
            done = real(file)
            if path_of(file):
                self._about("synced", path_of(file))
            return done

        return call

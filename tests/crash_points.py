"""Every durable operation of a stage, and what the disk holds where the stage stops before or after it.

A stage runs once, in a forked process whose operations on files are wrapped: names (rename, link, unlink, mkdir), files
that are made or cut, fsync, and commits of SQLite. Before and after each, three disks are kept:

- ``killed``: what kill -9 leaves, which is all that was written;
- ``torn``: a power failure that kept all names, and half of what no fsync had secured;
- ``dropped``: a power failure that kept nothing beyond fsync, neither content nor names.

What is secured: the content of a file at its last fsync, the names in a folder at that folder's. Files of SQLite stand
as they are, as SQLite syncs them itself: ``synchronous = FULL`` is checked at each commit. Disks that are equal to the
byte, and have cost the same, are tried once.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import io
import itertools
import os
import pickle
import re
import shutil
import sqlite3
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Tree = dict[str, bytes | None]
"""Content by path below the folder of a test; None is a folder."""
Act = Callable[[int, str, str], None]
"""What happens at an operation: its number, before or after, and what it is."""
SQLITE = re.compile(r"\.(db|sqlite)(-wal|-shm|-journal)?$")
UNFINISHED = re.compile(r"[^/]*\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.tmp.*")
LONG_AGO = 1_600_000_000.0


def read_tree(root: Path, known: dict[tuple[int, int], bytes] | None = None) -> Tree:
    """Read all files; those that were not touched since ``write_tree`` come from ``known``."""
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        place = os.path.relpath(folder, root)
        tree |= {os.path.normpath(f"{place}/{name}"): None for name in folders}
        for name in files:
            path = f"{folder}/{name}"
            with contextlib.suppress(FileNotFoundError):
                facts = Path(path).stat()
                key = (facts.st_ino, facts.st_size)
                old = known is not None and facts.st_mtime == LONG_AGO
                content = known.get(key) if old and known else None
                if content is None:
                    content = Path(path).read_bytes()
                    if old and known is not None:
                        known[key] = content
                tree[os.path.normpath(f"{place}/{name}")] = content
    return tree


def write_tree(root: Path, tree: Tree) -> None:
    """Make a folder what ``tree`` says."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in sorted(tree):
        content, path = tree[name], root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (LONG_AGO, LONG_AGO))


class Disk:
    """What a folder holds for sure, and the disks that a power failure may leave."""

    def __init__(self, root: Path) -> None:
        self.root, self._count = root, itertools.count()
        self._serials: dict[int, int] = {}  # of the file or folder that has an inode now
        self._names: dict[int, dict[str, int]] = {}
        self._folders: set[int] = set()
        self._content: dict[int, bytes] = {}
        self._known: dict[tuple[int, int], bytes] = {}
        for folder, _, files in os.walk(root):
            self.sync(folder)
            for name in files:
                self.sync(f"{folder}/{name}")

    def sync(self, path: str) -> None:
        """Note that a file, or the names in a folder, are on disk."""
        facts = Path(path).stat()
        if stat.S_ISDIR(facts.st_mode):
            with os.scandir(path) as entries:
                found = {entry.name: (self._serial(entry.inode()), entry.is_dir()) for entry in entries}
            self._names[self._serial(facts.st_ino)] = {name: serial for name, (serial, _) in found.items()}
            self._folders |= {serial for serial, is_folder in found.values() if is_folder}
        else:
            self._content[self._serial(facts.st_ino)] = Path(path).read_bytes()

    def forget(self, path: str) -> None:
        """Note that a name is about to go: its inode may be given to another file."""
        with contextlib.suppress(OSError):
            facts = os.lstat(path)
            if stat.S_ISDIR(facts.st_mode) or facts.st_nlink == 1:
                self._serials.pop(facts.st_ino, None)

    def disks(self) -> dict[str, Tree]:
        killed = read_tree(self.root, self._known)
        torn = {name: value if value is None else self._torn(name, value) for name, value in killed.items()}
        dropped: Tree = {}
        self._rebuild(self._serial(self.root.stat().st_ino), "", dropped)
        for name in [name for name in dropped if SQLITE.search(name)]:
            sides = (name + side for side in ("", "-wal", "-shm", "-journal"))
            dropped |= {side: killed[side] for side in sides if side in killed}
        return {"killed": killed, "torn": torn, "dropped": dropped}

    def _serial(self, inode: int) -> int:
        if inode not in self._serials:
            self._serials[inode] = next(self._count)
        return self._serials[inode]

    def _torn(self, name: str, now: bytes) -> bytes:
        safe = self._content.get(self._serial((self.root / name).stat().st_ino), b"")
        if safe == now or SQLITE.search(name):
            return now
        kept = len(safe) if now.startswith(safe) else 0
        return now[: kept + (len(now) - kept) // 2]

    def _rebuild(self, folder: int, place: str, tree: Tree) -> None:
        for name, serial in self._names.get(folder, {}).items():
            path = os.path.normpath(f"{place}/{name}") if place else name
            tree[path] = None if serial in self._folders else self._content.get(serial, b"")
            if serial in self._folders:
                self._rebuild(serial, path, tree)


class Injector:
    """Wraps the operations of this process on files below a folder, and calls ``act`` before and after each."""

    def __init__(self, root: Path, act: Act, disk: Disk | None = None) -> None:
        self.count, self.kinds = 0, list[str]()
        self._root, self._act, self._disk = str(root), act, disk
        self._lock, self._busy, self._process = threading.RLock(), False, os.getpid()

    def around(self, kind: str, path: str, call: Callable[[], Any], gone: str = "") -> Any:
        """Do ``call``, an operation on ``path``; ``gone`` loses its file by it."""
        path = os.path.normpath(Path.cwd() / path)
        if self._process != os.getpid() or not path.startswith(self._root):
            return call()
        with self._lock:
            if self._busy:
                return call()
            self._busy = True
            try:
                number = self.count
                self.count += 1
                self.kinds.append(kind)
                self._act(number, "before", kind)
                if gone and self._disk is not None:
                    self._disk.forget(gone)
                result = call()
                if kind == "fsync" and self._disk is not None:
                    self._disk.sync(path)
                self._act(number, "after", kind)
                return result
            finally:
                self._busy = False

    def install(self) -> None:
        """Wrap what changes files, for the rest of the life of this process."""
        for name in ("unlink", "remove", "rmdir", "mkdir", "truncate"):
            self._wrap(os, name, self._of_one)
        for name in ("replace", "rename", "link", "symlink"):
            self._wrap(os, name, self._of_two)
        self._wrap(os, "fsync", self._fsync)
        self._wrap(os, "open", self._os_open)
        self._wrap(io, "open", self._open)
        builtins.open = io.open
        self._wrap(np.memmap, "flush", self._flush)
        connection, real = self._connection(), sqlite3.connect
        sqlite3.connect = lambda *given, **options: real(*given, **{"factory": connection, **options})  # type: ignore

    def _wrap(self, owner: Any, name: str, how: Callable[..., Any]) -> None:
        real = getattr(owner, name)
        setattr(owner, name, lambda *given, **options: how(name, lambda: real(*given, **options), *given, **options))

    def _of_one(self, name: str, call: Any, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> Any:
        whole = os.fspath(path) if dir_fd is None else f"{_file_of(dir_fd)}/{os.fspath(path)}"
        return self.around(name, whole, call, gone="" if name in ("mkdir", "truncate") else whole)

    def _of_two(self, name: str, call: Any, _source: Any, path: Any, **__: Any) -> Any:
        return self.around(name, os.fspath(path), call, gone=os.fspath(path))

    def _fsync(self, name: str, call: Any, file: int) -> Any:
        return self.around(name, _file_of(file), call)

    def _os_open(self, _: str, call: Any, path: Any, flags: int, *__: Any, **___: Any) -> Any:
        return self.around("make", os.fspath(path), call) if flags & os.O_CREAT else call()

    def _open(self, _: str, call: Any, file: Any, mode: str = "r", *__: Any, **___: Any) -> Any:
        written = set(mode) & set("wax+") and not isinstance(file, int)
        return self.around("append" if "a" in mode else "write", os.fspath(file), call) if written else call()

    def _flush(self, _: str, call: Any, array: Any) -> Any:
        return self.around("fsync", str(array.filename), call) if array.filename else call()

    def _connection(self) -> type[sqlite3.Connection]:
        around = self.around

        class Connection(sqlite3.Connection):
            """Commits are operations; each is on disk when it returns."""

            def __init__(self, database: Any, *given: Any, **options: Any) -> None:
                super().__init__(database, *given, **options)
                self.path = str(database).removeprefix("file://").split("?")[0]

            def _committing(self, call: Callable[[], Any]) -> Any:
                if not self.in_transaction or self.path == ":memory:":
                    return call()
                (level,) = self.execute("PRAGMA synchronous").fetchone()
                assert level >= 2, f"{self.path}: commits are not on disk when they return"
                return around("commit", self.path, call)

            def commit(self) -> None:
                self._committing(super().commit)

            def __exit__(self, *error: Any) -> Any:
                leave = super().__exit__
                return leave(*error) if error[0] else self._committing(lambda: leave(*error))

        return Connection


@dataclass
class Shot:
    """One moment: before or after which operation, how it ended, and the disk of that end."""

    number: int
    when: str
    kind: str
    end: str
    disk: str


@dataclass
class Shots:
    """All moments of a run; disks by their digest, and what the server had then seen, by number."""

    moments: list[Shot] = field(default_factory=list)
    disks: dict[str, tuple[Tree, int]] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """How a forked process ended."""

    code: int
    out: str
    err: str


def _file_of(number: int) -> str:
    return str(Path(f"/proc/self/fd/{number}").readlink())


def photographed(root: Path, tell: Callable[[], int], work: Callable[[], int], result: Path) -> int:
    """Do ``work`` in this process, and write ``Shots`` of it; ``tell`` returns the number of the server's state."""
    disk, shots = Disk(root), Shots()

    def act(number: int, when: str, kind: str) -> None:
        server = tell()
        for end, tree in disk.disks().items():
            name = _digest(tree, server)
            shots.disks.setdefault(name, (tree, server))
            shots.moments.append(Shot(number, when, kind, end, name))

    injector = Injector(root, act, disk)
    injector.install()
    code = work()
    shots.kinds = injector.kinds
    injector._process = 0
    result.write_bytes(pickle.dumps(shots))
    return code


def _digest(tree: Tree, server: int) -> str:
    whole = hashlib.sha256(str(server).encode())
    shown = {UNFINISHED.sub("unfinished", name): content for name, content in tree.items()}
    for name in sorted(shown):  # of what has a name by chance, nobody reads the content
        content = b"" if name.endswith("unfinished") else shown[name]
        whole.update(f"\0{name}\0".encode() + (b"folder" if content is None else hashlib.sha256(content).digest()))
    return whole.hexdigest()


def forked(work: Callable[[], int], folder: Path, closed: tuple[int, ...] = (), gone: tuple[int, ...] = ()) -> int:
    """Do ``work`` in a process of its own, and return its id; what it prints goes to ``out`` and ``err`` in a folder.

    Streams may be ``closed``, as by ``>&-``, or be pipes whose reader has ``gone``.
    """
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            if number in gone:
                reader, file = os.pipe()
                os.close(reader)
            os.dup2(file, number)
            os.close(file)
            text = None if number in closed else io.TextIOWrapper(io.FileIO(number, "w"), write_through=number == 2)
            setattr(sys, ("stdout", "stderr")[number - 1], text)
            if number in closed:
                os.close(number)
        code = work()
    except BaseException:  # noqa: BLE001  (the test is to read it)
        with contextlib.suppress(Exception):
            (folder / "err").open("a").write(traceback.format_exc())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def ended(child: int, folder: Path, seconds: float = 120.0) -> Ended:
    """Wait for a process, and return how it ended; one that hangs is killed and has the code -9."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.002)
    said = [(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")]
    return Ended(os.waitstatus_to_exitcode(status), *said)

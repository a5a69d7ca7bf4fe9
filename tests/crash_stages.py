"""Small stages, stopped before every durable operation and put under faults; the next run must end as if undisturbed.

PYTHONPATH=src:tests python tests/crash_stages.py [--points [STAGE ...]] [--faults [STAGE ...]] [--most N]

``--points`` stops stages, or all of them, at N disks each or at all; ``--faults`` are full disks, signals and a second
writer. A line of JSON per stage tells operations, distinct disks, and what was lost, left behind or paid twice.

A stage runs in a forked process, which asks before each durable operation: names (rename, link, unlink, mkdir), files
that are made or cut, fsync, and commits of SQLite. Two disks may be left there: ``killed``, all that was written; and
``dropped``, a power failure that kept neither content nor names beyond fsync. Files of SQLite stand as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import errno
import gc
import importlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import batch_server
import drawn_masks
import openai_stub
from box_cases import answer_squares, write_squares
from coloured import COLOURS, noisy

Tree = dict[str, bytes | None]
"""Content by path below the folder of a test; None is a folder."""
Each = Callable[[int, str, str], bytes]
"""The answer to an operation, by its number, kind and path: b"." lets it happen, b"E" says that the disk is full, the
number of a signal sends it."""
SHM = "/dev/shm"  # memory, where fsync takes no time, and no inode has the number of an earlier one
SQLITE = re.compile(r"\.(db|sqlite)(-wal|-shm|-journal)?$")
EVENTS = {"os.remove": (0, 1), "os.rmdir": (0, 1), "os.mkdir": (0, 2), "os.rename": (1, 3), "os.link": (1, 3)}
"""Audit events: where in them the path is, and the folder that it may be relative to."""
TINY = ["--device", "cpu", "--threads", "1", "--precision", "fp32", "--memory-format", "contiguous", "--model",
        "resnet10t", "--model-args", '{"channels": [8, 8, 16, 16], "stem_width": 8}', "--image-size", "16",
        "--batch-size", "4"]  # fmt: skip
VOLATILE = {"created", "seconds", "checksum", "latency_s", "images_per_second", "peak_memory_bytes", "time", "bytes",
            "texts_per_second", "sha256", "record_sha256", "run_file_sha256"}  # fmt: skip
"""What differs from run to run: times, and sums of files with times."""
RESUMED = {"described", "already_described", "class_in_list", "texts_encoded", "texts_kept", "notes"}
"""What distill.json says of the run that ended a stage, not of what the stage made."""
IGNORED = re.compile(r"^cache(/|$)|\.(lock|count)$")
EARLIER = re.compile(r"earlier-\d+")  # after a stop, distill puts the model into another one than the run
UNFINISHED = re.compile(r"[^/]*\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.tmp.*")


class Stage(NamedTuple):
    """A command, what lies in the folder at the start, whom it pays, and what it says where it had finished."""

    words: str
    needs: str
    server: str = ""
    done: str = ""


TRAIN = "train --data folder:pictures --embeddings table"
DESCRIBE = "describe --describer openai:tiny --base-url URL --data folder:few"
DISTILL = "distill pictures --describer replay:answers.jsonl --out all --encoder bag-of-words:64 TINY --epochs 1"
STAGES = {
    "describe: server": Stage(f"{DESCRIBE} --store new/s.db --concurrency 1 --ask description,class", "few", "chat"),
    "describe: batch": Stage(f"{DESCRIBE} --store s.db --batch --poll-seconds 0.01", "few", "batch"),
    "describe: replay": Stage("describe --data folder:pictures --store texts.db --describer replay:answers.jsonl"
                              " --ask description,class", "pictures answers.jsonl"),
    "describe: then": Stage("describe --describer replay:answers.jsonl --then openai:tiny --base-url URL --store t.db"
                            " --data folder:few --concurrency 1 --ask description,class", "few answers.jsonl", "chat"),
    "descriptions import": Stage("descriptions import answers.jsonl --data folder:pictures --store i.db"
                                 " --classes blue,green,red", "pictures answers.jsonl"),
    "descriptions export": Stage("descriptions export out.csv --data folder:pictures --store texts.db",
                                 "pictures texts.db"),
    "encode": Stage("encode --store texts.db --encoder bag-of-words:64 --out table", "texts.db"),
    "label": Stage("label --data folder:pictures --embeddings table --answers texts.db --out labels.parquet",
                   "pictures table texts.db"),
    "label: boxes": Stage("label --data coco:squares/train.json --answers boxes.db --out boxes.parquet",
                          "squares boxes.db"),
    "train": Stage(f"{TRAIN} --out run RESUMABLE", "pictures table texts.db"),
    "train: detection": Stage("train --data coco:squares/train.json --out det RESUMABLE --image-size 32", "squares"),
    "train: segmentation": Stage("train --data masks:shapes --out segmenter RESUMABLE", "shapes"),
    "evaluate": Stage("evaluate run", "pictures run table texts.db"),
    "report": Stage("report run", "pictures run table texts.db"),
    "compare": Stage("compare --data folder:pictures --embeddings table --arms baseline,aligned --seeds 1"
                     " --out comparison TINY --epochs 1", "pictures table texts.db"),
    "export: timm": Stage("export run --format timm --out model", "pictures run", done="exists already"),
    "export: onnx": Stage("export run --format onnx --out model.onnx", "pictures run", done="exists already"),
    "predict": Stage("predict run pictures --format csv --out found.csv --device cpu", "pictures run"),
    "search": Stage("search run red --index index --html found.html", "pictures run table texts.db"),
    "review": Stage("review --data folder:pictures --labels labels.csv", "pictures"),
    "discover": Stage("discover --data folder:pictures --embeddings table --classes 2 --no-page",
                      "pictures table texts.db"),
    "distill": Stage(DISTILL, "pictures answers.jsonl"),
    "distill: changed": Stage(f"{DISTILL} --lr 0.01", "pictures answers.jsonl all"),
}  # fmt: skip
MAKERS = {"texts.db": "describe: replay", "table": "encode", "run": "train", "all": "distill"}
"""Which stage makes what others start from."""


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
    for name in ("", *sorted(tree)):
        content = tree.get(name)
        (root / name if content is None else (root / name).parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
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
        killed, dropped = read_tree(self.root), Tree()
        self._rebuild(self.root.stat().st_ino, "", dropped)
        for name in [name for name in dropped if SQLITE.search(name)]:
            dropped |= {side: killed[side] for end in ("", "-wal", "-shm") if (side := name + end) in killed}
        return {"killed": killed, "dropped": dropped}

    def _rebuild(self, folder: int, place: str, tree: Tree) -> None:
        for name, (inode, is_folder) in self._names.get(folder, {}).items():
            tree[place + name] = None if is_folder else self._content.get(inode, b"")
            if is_folder:
                self._rebuild(inode, f"{place}{name}/", tree)


class Ended(NamedTuple):
    """How a forked process ended, what it printed, and how many operations it asked about."""

    code: int
    said: str
    operations: int


def forked(work: Callable[[], int], root: Path, said: Path, each: Each | None = None) -> Ended:
    """Do ``work`` in a process of its own, which asks ``each`` before its operations on files below ``root``."""
    asked, answered = os.pipe(), os.pipe()
    if not (child := os.fork()):
        code = 99
        sys.stdout = sys.stderr = open(said, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        try:
            if each:
                Asking(root, asked[1], answered[0]).install()
            code = work()
        except BaseException:  # noqa: BLE001  (the test is to read it)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
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
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read_text("utf-8", "replace"), number)


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
        def call(file: Any) -> None:
            if path_of(file):
                self._about("fsync", path_of(file))
            real(file)
            if path_of(file):
                self._about("synced", path_of(file))

        return call


class Server:
    """What is paid for: chat completions or batches, with states that can be gone back to; "" is nobody."""

    def __init__(self, kind: str, stack: contextlib.ExitStack) -> None:
        self._paid: dict[Any, int] = {}
        self._batch = stack.enter_context(batch_server.serving(batch_server.BatchServer())) if kind == "batch" else None
        chat = stack.enter_context(openai_stub.serve(self._answer)) if kind == "chat" else None
        self.url = chat.url if chat else self._batch.url if self._batch else ""
        self._states: list[Any] = [self._state()]

    def _answer(self, call: openai_stub.Call) -> openai_stub.Reply:
        self._paid[call.image] = self._paid.get(call.image, 0) + 1
        mean = np.asarray(Image.open(io.BytesIO(call.image)).convert("RGB"), float).mean(axis=(0, 1))
        name = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
        said = {"description": f"A {name} sheet.", "class": name, "second": None, "confidence": 0.9}
        return openai_stub.answer(json.dumps(said))

    def _state(self) -> Any:
        if not self._batch:
            return dict(self._paid)
        own = ("lock", "answer", "url", "requests", "authorisations")  # kept whatever state it goes back to
        with self._batch.lock:
            return copy.deepcopy({name: value for name, value in vars(self._batch).items() if name not in own})

    def count(self) -> int:
        """Return how many answers were paid for."""
        return sum((self._batch.paid if self._batch else self._paid).values())

    def save(self) -> int:
        """Keep the state, and return its number."""
        if repr(self._states[-1]) != repr(state := self._state()):
            self._states.append(state)
        return len(self._states) - 1

    def back_to(self, number: int) -> None:
        state = copy.deepcopy(self._states[number])
        if self._batch:
            with self._batch.lock:
                vars(self._batch).update(state)
        else:
            self._paid = state


def make_inputs(root: Path) -> int:
    """Draw what the first stages start from."""
    rng, rows = np.random.default_rng(0), list[str]()
    for name, colour in COLOURS.items():
        for number in range(6):
            picture = noisy(colour, rng)
            for folder in ("pictures", "few") if number == 0 else ("pictures",):
                (root / folder / name).mkdir(parents=True, exist_ok=True)
                picture.save(root / folder / name / f"{number}.png")
            said = {"description": f"A {name} sheet, number {number}.", "class": name, "confidence": 0.9}
            rows.append(json.dumps({"key": f"{name}/{number}.png", **said}))
    (root / "answers.jsonl").write_text("\n".join(rows), encoding="utf-8")
    drawn_masks.draw(root / "shapes", train=8, test=4)
    answer_squares(write_squares(root / "squares"), root / "boxes.db")
    return 0


class Bench:
    """Runs stages in forked processes, and notes all that is then not as promised.

    Libraries are imported once, and no process computes before it is forked.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.root, self.stack = folder, folder / "root", stack
        self.root.mkdir()
        forked(lambda: make_inputs(self.root), self.root, folder / "said")
        self.base, self.server = read_tree(self.root), Server("", stack)

    def run(self, stage: Stage, each: Each | None = None) -> Ended:
        """Run a stage on the folder as it is; ``each`` is called before each operation."""
        known = {"TINY": TINY, "URL": [self.server.url]}
        known["RESUMABLE"] = [*TINY, "--epochs", "2", "--checkpoint-seconds", "0", "--resume"]
        words = [part for word in stage.words.split() for part in known.get(word, [word])]

        def work() -> int:
            from gpt4image import cli

            os.chdir(self.root)
            os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")  # free to be lost
            return cli.main(words)

        return forked(work, self.root, Path(tempfile.mkstemp(dir=self.folder)[1]), each)

    def begin(self, stage: Stage) -> None:
        """Lay out what a stage starts from; what other stages make of it is made once."""
        needs = stage.needs.split()
        for need in needs:
            if not any(path.split("/")[0] == need for path in self.base):
                self.base |= self.finished(STAGES[MAKERS[need]])
        self.server.back_to(0)
        write_tree(self.root, {name: value for name, value in self.base.items() if name.split("/")[0] in needs})

    def finished(self, stage: Stage) -> Tree:
        """Run a stage that nothing disturbs, and return what is in the folder then."""
        self.begin(stage)
        done = self.run(stage)
        assert done.code == 0, f"{stage.words}: {done.code}\n{done.said}"
        return read_tree(self.root)

    def take(self, name: str) -> None:
        """Take a stage, and run it undisturbed: what differs between two such runs says nothing."""
        self.name, self.stage, self.server = name, STAGES[name], Server(STAGES[name].server, self.stack)
        self.expected, again = self.finished(self.stage), self.finished(self.stage)
        self.paid, self.in_flight, self.wrong = self.server.count(), 0, list[str]()
        self.volatile = set[str]()
        self.volatile = {line.removesuffix(" differs") for line in self.differences(again)}

    def differences(self, found: Tree) -> list[str]:
        """Return what differs from an undisturbed run; names that only an observer would see do not count."""
        ours, theirs = ({EARLIER.sub("earlier", name): tree[name] for name in tree if not IGNORED.search(name)}
                        for tree in (self.expected, found))  # fmt: skip
        names = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
        names += [f"{name} is left behind" for name in theirs.keys() - ours.keys()]
        both = sorted(ours.keys() & theirs.keys())
        return names + [f"{name} differs" for name in both if not self._same(name, ours[name], theirs[name])]

    def _same(self, name: str, ours: bytes | None, theirs: bytes | None) -> bool:
        if ours and theirs and re.search(r"embeddings-[0-9a-f]+\.npy$", name) and ours[:128] == theirs[:128]:
            vectors = (np.load(io.BytesIO(content)) for content in (ours, theirs))
            return np.allclose(*vectors, rtol=0, atol=1e-3)  # a run that goes on computes the rest in smaller batches
        return self._facts(name, ours) == self._facts(name, theirs)

    def _facts(self, name: str, content: bytes | None) -> Any:
        if content is None or name.endswith(("-wal", "-shm")):
            return None
        if name.endswith(".db"):
            return rows_of(content)
        if name.endswith((".json", ".jsonl")):
            parts = content.splitlines() if name.endswith("l") else [content]
            return [steady(json.loads(part), VOLATILE | (RESUMED if "distill" in name else set())) for part in parts]
        return re.sub(rb"\d+", b"0", content) if name in self.volatile or name.endswith(".html") else content

    def expect(self, what: str, done: Ended, *codes: int, says: str = "") -> None:
        if done.code not in codes or "Traceback" in done.said or (done.code not in (0, 1) and says not in done.said):
            self.wrong.append(f"{self.name}, {what}: exit {done.code}: {done.said.strip()[-700:]}")

    def ends(self, what: str) -> None:
        """Give the command again, and note what it leaves other than an undisturbed one."""
        done = self.run(self.stage)
        if not (finished := bool(self.stage.done) and self.stage.done in done.said):
            self.expect(f"{what}, the next run", done, 0)
        found = self.differences(read_tree(self.root))
        found = [line for line in found if not (finished and UNFINISHED.search(line))]  # the next writer removes those
        more, allowed = self.server.count() - self.paid, int(self.stage.server == "chat")
        self.in_flight += min(more, allowed)
        found += [f"{more} paid twice"] if more > allowed else []
        self.wrong += [f"{self.name}, {what}: {'; '.join(found)}"] if found else []

    def stopped_everywhere(self, most: int | None) -> dict[str, Any]:
        """Stop the stage before every operation, run it again from each distinct disk, and compare."""
        contents = dict[bytes, bytes]()
        self.begin(self.stage)
        disk, moments = Disk(self.root), dict[Any, tuple[str, Tree, int]]()

        def photographed(number: int, kind: str, path: str) -> bytes:
            if kind == "synced":
                disk.sync(path)
            state = self.server.save()
            for end, tree in disk.ends().items():  # of what has a name by chance, nobody reads the content
                tree = {name: value and contents.setdefault(value, value) for name, value in tree.items()}
                shown = {UNFINISHED.sub("unfinished", name): value for name, value in tree.items()}
                key = frozenset((name, None if name.endswith("unfinished") else value) for name, value in shown.items())
                moments.setdefault((state, key), (f"{end} at operation {number} ({kind})", tree, state))
            return b"."

        done = self.run(self.stage, photographed)
        self.expect("undisturbed", done, 0)
        photographed(done.operations, "end", "")
        found = list(moments.values())
        for what, tree, state in found[:: max(1, -(-len(found) // most)) if most else 1]:
            write_tree(self.root, tree)
            self.server.back_to(state)
            self.ends(what)
        return {"operations": done.operations, "disks": len(found)}

    def under_faults(self) -> None:
        """A disk that fills, signals and a second writer cost nothing."""
        kinds, second = list[str](), list[Ended]()
        self.begin(self.stage)
        self.run(self.stage, lambda number, kind, _: kinds.append(kind) or b".")
        files = [number for number, kind in enumerate(kind for kind in kinds if kind != "synced") if kind != "commit"]

        def disturbed(what: str, share: float, reply: Callable[[], bytes], *codes: int, says: str) -> Ended:
            number = files[int(share * (len(files) - 1))]

            def each(now: int, kind: str, _: str) -> bytes:
                full = says == "Error" and not second and now > number and kind in ("open", "mkdir", "fsync")
                return reply() if full or (now == number and kind != "synced") else b"."

            self.begin(self.stage)
            done = self.run(self.stage, each)
            self.expect(f"{what} at operation {number}", done, *codes, says=says)
            self.ends(f"{what} at operation {number}")
            return done

        for share in (0.3, 0.9):
            disturbed("disk full", share, lambda: b"E", 0, 1, 2, says="Error")
        for sign, share, codes in (
            (signal.SIGINT, 0.2, (130,)), (signal.SIGTERM, 0.5, (130,)), (signal.SIGHUP, 0.8, (0, 130))
        ):  # fmt: skip
            disturbed(sign.name, share, lambda sign=sign: bytes([sign]), *codes, says="Interrupted")
        first = disturbed("two writers", 0.5, lambda: second.append(self.run(self.stage)) or b".", 0, 2, says="Error")
        self.expect("second writer", second[0], 0, *([2] if first.code == 0 else []))


def steady(value: Any, skip: set[str]) -> Any:
    """Return a value of JSON without the names in ``skip``."""
    if isinstance(value, dict):
        return {name: steady(each, skip) for name, each in value.items() if name not in skip}
    return [steady(each, skip) for each in value] if isinstance(value, list) else value


def rows_of(content: bytes) -> list[Any]:
    """Return what a description store says, without times."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content[:18] + b"\1\1" + content[20:])
        return connection.execute(
            "SELECT hex(digest), sample, status, results.text, finish_reason, error, answer, prompts.name, settings "
            "FROM results JOIN prompts ON prompt = prompts.id JOIN describers ON describer = describers.id "
            "ORDER BY 1, 2, 8"
        ).fetchall()


def imported() -> None:
    """Import what stages import, without computing anything; what would wait or leave this process is replaced."""
    from gpt4image import cli
    from gpt4image.comparing import compare as jobs
    from gpt4image.describing.describers import batch
    from gpt4image.reviewing import review

    for name in ["timm", "torchvision", "torchmetrics", "sklearn.linear_model", "openai", "genai_prices",
                 "pyarrow.parquet", "gpt4image.training.trainer", "gpt4image.describing.describers.openai.describer",
                 *(f"gpt4image.{command.stage.split(':')[0]}" for command in cli.COMMANDS.values())]:  # fmt: skip
        importlib.import_module(name)

    def click(sessions: Any, *_: Any) -> None:
        session = sessions["label"]
        for card, _ in session.all_cards()[:4]:  # as a person does: each label is on disk when it is shown as saved
            session.mark({card.id: ("red", "checked")})

    jobs.run_jobs = lambda work, todo, names, **_: [work(job, lambda *_: None) for job in todo]
    review.serve = click
    batch.MAX_LINES, batch.SETTLING_S, batch._FIRST_WAIT_S = 2, 0.0, 0.01
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--points", "--faults"):
        parser.add_argument(option, nargs="*", default=[None], metavar="STAGE", help="these stages, or all")
    parser.add_argument("--most", type=int, help="distinct disks that are tried of each stage (default: all)")
    given = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a background job ignores some, and its children with it
        signal.signal(ending, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"OPENAI_API_KEY": "sk-local", "CUDA_VISIBLE_DEVICES": ""}
    imported()
    with tempfile.TemporaryDirectory(dir=SHM) as folder, contextlib.ExitStack() as stack:
        bench = Bench(Path(folder).resolve(), stack)
        for name in STAGES:
            points, faults = (not names or name in names for names in (given.points, given.faults))
            if points or faults:
                begun = time.monotonic()
                bench.take(name)
                row = bench.stopped_everywhere(given.most) if points else {}
                if faults:
                    bench.under_faults()
                row |= {"in_flight": bench.in_flight, "wrong": bench.wrong}
                print(json.dumps({"stage": name, **row, "seconds": round(time.monotonic() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main()

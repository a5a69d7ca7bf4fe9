"""Small stages, killed before every durable operation and put under faults; the next run must end as if undisturbed.

PYTHONPATH=src:tests python tests/test_crash_points.py [--points [STAGE ...]] [--faults [STAGE ...]] [--most N]

A line of JSON per stage tells the operations, and what was lost, left behind or paid twice. A stage runs in a forked
process, which stops before the durable operation that was asked for: names (rename, link, unlink, mkdir), files that
are made or cut, fsync, and commits of SQLite.
"""

import argparse
import contextlib
import errno
import gc
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import openai_stub
from batch_server import BatchServer, images_of, serving
from worlds import write_colours, write_photos, write_shapes

Tree = dict[str, bytes | None]  # content by path below the folder of a test; None is a folder
SHM = "/dev/shm"  # memory, where fsync takes no time
# Audit events: where in them the path is, and the folder that it may be relative to.
EVENTS = {"os.remove": (0, 1), "os.rmdir": (0, 1), "os.mkdir": (0, 2), "os.rename": (1, 3), "os.link": (1, 3)}
TINY = ["--device", "cpu", "--threads", "1", "--precision", "fp32", "--memory-format", "contiguous", "--model",
        "resnet10t", "--model-args", '{"channels": [8, 8, 16, 16], "stem_width": 8}', "--image-size", "16",
        "--batch-size", "4"]  # fmt: skip
# Times, sizes, and sums of files with times differ from run to run.
VOLATILE = {"created", "seconds", "checksum", "latency_s", "images_per_second", "peak_memory_bytes", "time", "bytes",
            "texts_per_second", "files"}  # fmt: skip
# distill.json tells these of the run that ended a stage; the text of an export has milliseconds.
RESUMED = {"described", "already_described", "class_in_list", "texts_encoded", "texts_kept", "notes", "text"}
IGNORED = re.compile(r"^cache(/|$)|\.lock$")
EARLIER = re.compile(r"earlier-\d+")  # after a stop, distill puts the model into another one than the run

DESCRIBE = "describe --describer openai:tiny --base-url URL --data folder:few"
DISTILL = "distill pictures --describer replay:answers.jsonl --out all --encoder bag-of-words:64 TINY --epochs 1"
STAGES: dict[str, tuple[str, str]] = {  # a command, and what lies in the folder at the start
    "describe: server": (f"{DESCRIBE} --store new/s.db --concurrency 1 --ask description,class", "few"),
    "describe: batch": (f"{DESCRIBE} --store s.db --batch --poll-seconds 0.01", "few"),
    "trial": ("trial few --describers openai:tiny,openai:other --base-url URL --store new/t.db --concurrency 1 --yes",
              "few"),
    "describe: replay": ("describe --data folder:pictures --store texts.db --describer replay:answers.jsonl"
                              " --ask description,class", "pictures answers.jsonl"),
    "descriptions import": ("descriptions import answers.jsonl --data folder:pictures --store i.db"
                                 " --classes blue,green,red", "pictures answers.jsonl"),
    "encode": ("encode --store texts.db --encoder bag-of-words:64 --out table", "texts.db"),
    "label": ("label --data folder:pictures --embeddings table --answers texts.db --out labels.parquet",
                   "pictures table texts.db"),
    "train": ("train --data folder:pictures --embeddings table --out run RESUMABLE", "pictures table texts.db"),
    "train: segmentation": ("train --data masks:shapes --out segmenter RESUMABLE", "shapes"),
    "compare": ("compare --data folder:pictures --embeddings table --arms baseline,aligned --seeds 1"
                     " --out comparison TINY --epochs 1", "pictures table texts.db"),
    "review": ("review --data folder:pictures --labels labels.csv", "pictures"),
    "distill": (DISTILL, "pictures answers.jsonl"),
    "distill: changed": (f"{DISTILL} --lr 0.01", "pictures answers.jsonl all"),
    "improve": ("improve all newer --looks 1 --ask 2 --force --out better", "pictures newer answers.jsonl all"),
}  # fmt: skip
FAULTS: dict[str, tuple[Sequence[int], str]] = {  # exit codes, and what is said then
    "SIGKILL": ([-9], ""), "SIGINT": ([130], "Interrupted"), "SIGTERM": ([130], "Interrupted"),
    "SIGHUP": ([0, 130], "Interrupted"), "full disk": ([0, 1, 2], "Error"), "second writer": ([0, 2], "Error"),
}  # fmt: skip
MAKERS = {"texts.db": "describe: replay", "table": "encode", "all": "distill"}  # others start from it


def read_tree(root: Path) -> Tree:
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def write_tree(root: Path, tree: Tree) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for name in ("", *sorted(tree)):
        content = tree.get(name)
        (root / name if content is None else (root / name).parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            (root / name).write_bytes(content)


def watch(root: Path, count: Any, stop_at: int, full_from: int) -> None:
    """Count the operations of this process on files below a folder, and stop or fail at one of them."""
    lock, process, connect, fsync = threading.RLock(), os.getpid(), sqlite3.connect, os.fsync

    def about(kind: str, path: Any, folder: int = -1) -> None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
        near = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()  # noqa: PTH109, PTH115
        path = os.path.normpath(os.path.join(near, os.fsdecode(path)))  # noqa: PTH118
        if os.getpid() != process or not path.startswith(str(root)):
            return
        with lock:
            number = count.value
            count.value += 1
            if number == stop_at:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            if 0 <= full_from <= number and kind in ("open", "os.mkdir", "fsync"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def hook(event: str, told: tuple[Any, ...]) -> None:
        if event == "open" and told[2] & (os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            about(event, told[0])
        elif event in EVENTS:
            path, folder = EVENTS[event]
            about(event, told[path], told[folder])

    def connected(database: Any, *given: Any, **options: Any) -> sqlite3.Connection:
        path = str(database).removeprefix("file:").removeprefix("//").partition("?")[0]
        connection = connect(database, *given, **options)
        connection.set_trace_callback(lambda sql: about("commit", path) if sql == "COMMIT" else None)
        return connection

    sqlite3.connect = connected  # type: ignore[assignment]
    os.fsync = lambda file: (about("fsync", file), fsync(file))[1]
    sys.addaudithook(hook)


class Ended(NamedTuple):  # of a forked process
    code: int
    said: str
    operations: int


def forked(
    work: Callable[[], int], root: Path, then: Callable[[int], Any] = bool, stop_at: int = -1, full_from: int = -1
) -> Ended:
    """Do ``work`` in a process of its own; where that stops, ``then`` is called with its id before it goes on."""
    count, said = multiprocessing.get_context("fork").Value("q", 0), Path(tempfile.mkstemp(dir=root.parent)[1])
    if not (child := os.fork()):
        code = 99
        sys.stdout = sys.stderr = said.open("w", encoding="utf-8")
        try:
            watch(root, count, stop_at, full_from)
            code = work()
        except BaseException:  # noqa: BLE001  (the test is to read it)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    status = os.waitpid(child, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        then(child)
        os.kill(child, signal.SIGCONT)
        status = os.waitpid(child, 0)[1]
    return Ended(os.waitstatus_to_exitcode(status), said.read_text("utf-8", "replace"), count.value)


def describe(body: dict[str, Any]) -> dict[str, Any]:
    said = {"description": f"A sheet of {len(images_of(body)[0])} letters.", "class": "red", "second": None}
    return openai_stub.completion(json.dumps(said | {"confidence": 0.9}))


def make_inputs(root: Path) -> int:
    write_colours(root / "few", each=1)
    rows = [
        {"key": path.relative_to(root / "pictures").as_posix(), "class": path.parent.name, "confidence": 0.9,
         "description": f"A {path.parent.name} sheet, number {path.stem}."}
        for path in sorted(write_colours(root / "pictures", each=6).glob("*/*"))
    ]  # fmt: skip
    rows += write_photos(root / "newer", 0, each=2)
    (root / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    write_shapes(root / "shapes", train=8, test=4)
    return 0


class Bench:
    """Runs stages in forked processes, none of which computed before, and notes all that is not as promised."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        forked(lambda: make_inputs(self.root), self.root)
        self.base, self.server = read_tree(self.root), stack.enter_context(serving(BatchServer(answer=describe)))

    def run(self, stage: tuple[str, str], **disturbed: Any) -> Ended:
        long = ["--epochs", "2", "--checkpoint-seconds", "0", "--resume"]
        known = {"TINY": TINY, "RESUMABLE": TINY + long, "URL": [self.server.url]}
        words = [part for word in stage[0].split() for part in known.get(word, [word])]

        def work() -> int:
            from gpt4image import cli

            os.chdir(self.root)
            os.environ["XDG_CACHE_HOME"] = str(self.root.parent / "cache")  # free to be lost
            return cli.main(words)

        return forked(work, self.root, **disturbed)

    def begin(self, stage: tuple[str, str]) -> None:
        """Lay out what a stage starts from; what other stages make of it is made once."""
        needs = stage[1].split()
        for need in needs:
            if not any(path.split("/")[0] == need for path in self.base):
                self.base |= self.finished(STAGES[MAKERS[need]])[0]
        with self.server.lock:
            new = vars(BatchServer())
            vars(self.server).update({name: new[name] for name in ("files", "batches", "paid")})
        write_tree(self.root, {name: value for name, value in self.base.items() if name.split("/")[0] in needs})

    def finished(self, stage: tuple[str, str]) -> tuple[Tree, int]:
        """Run a stage that nothing disturbs; return what is in the folder then, and the number of operations."""
        self.begin(stage)
        done = self.run(stage)
        assert done.code == 0, f"{stage}: {done.code}\n{done.said}"
        return read_tree(self.root), done.operations

    def take(self, name: str) -> None:
        """Take a stage, and run it undisturbed: what differs between two such runs is no difference."""
        self.name, self.stage = name, STAGES[name]
        (self.expected, self.operations), (again, _) = self.finished(self.stage), self.finished(self.stage)
        self.paid, self.wrong = self.server.paid.total(), list[str]()
        self.volatile = set[str]()
        self.volatile = {line.removesuffix(" differs") for line in self.differences(again)}

    def differences(self, found: Tree) -> list[str]:
        ours, theirs = ({EARLIER.sub("earlier", name): tree[name] for name in tree if not IGNORED.search(name)}
                        for tree in (self.expected, found))  # fmt: skip
        names = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
        names += [f"{name} is left behind" for name in theirs.keys() - ours.keys()]
        return names + [f"{name} differs" for name in sorted(ours.keys() & theirs.keys())
                        if self._facts(name, ours[name]) != self._facts(name, theirs[name])]  # fmt: skip

    def _facts(self, name: str, content: bytes | None) -> Any:
        if content is None or name.endswith(("-wal", "-shm")):
            return None
        if name.endswith(".db"):
            return rows_of(content)
        if name.endswith((".json", ".jsonl")):
            skip = VOLATILE | (RESUMED if "distill" in name else set())
            steady = json.JSONDecoder(object_pairs_hook=lambda pairs: [x for x in pairs if x[0] not in skip])
            return [*map(steady.decode, content.decode().splitlines() if name[-1] == "l" else [content.decode()])]
        return re.sub(rb"\d+", b"0", content) if name in self.volatile or name.endswith(".html") else content

    def disturb(self, fault: str, at: int) -> None:
        """Run the stage with a fault at an operation, then again, and note what is other than without the fault."""
        second = list[Ended]()

        def then(child: int) -> None:
            if fault == "second writer":
                second.append(self.run(self.stage))
            else:
                os.kill(child, getattr(signal, fault))

        codes, says = FAULTS[fault]
        what = f"{self.name}, {fault} at operation {at}"
        self.begin(self.stage)
        where = {"full_from": at} if fault == "full disk" else {"stop_at": at, "then": then}
        first = self.run(self.stage, **where)
        self.expect(what, first, codes if first.operations > at else [0], says)  # a run may need fewer, as time passes
        for other in second:
            self.expect(f"{what}, the other one", other, [0] if first.code else [0, 2], says)
        done = self.run(self.stage)
        self.expect(f"{what}, the next run", done, [0], "")
        found = self.differences(read_tree(self.root))
        more = self.server.paid.total() - self.paid - ("--concurrency 1" in self.stage[0])  # one was on its way
        found += [f"{more} paid twice"] if more > 0 else []
        self.wrong += [f"{what}: {'; '.join(found)}"] if found else []

    def expect(self, what: str, done: Ended, codes: Sequence[int], says: str) -> None:
        if done.code not in codes or "Traceback" in done.said or (done.code > 1 and says not in done.said):
            self.wrong.append(f"{what}: exit {done.code}: {done.said.strip()[-700:]}")


def rows_of(content: bytes) -> list[Any]:
    """Return what a description store says, without times."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content[:18] + b"\1\1" + content[20:])
        return connection.execute(
            "SELECT hex(digest), sample, status, results.text, finish_reason, error, answer, prompts.content, settings "
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
        for card in session.cards("label", 4):  # as a person does: each label is on disk when it is shown as saved
            session.mark({card.id: ("red", "checked")})

    jobs.run_jobs = lambda work, todo, names, **_: [work(job, lambda *_: None) for job in todo]
    review.serve = click
    batch.MAX_LINES, batch.SETTLING_S = 2, 0.0
    gc.freeze()


@pytest.mark.skipif(not Path(SHM).is_dir(), reason="fork, /proc and /dev/shm are those of Linux")
@pytest.mark.slow
def test_stopped_anywhere_or_disturbed_the_next_run_ends_as_if_nothing_had_happened() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    points = ["describe: server", "describe: batch", "train: segmentation", "distill: changed"]
    words = [sys.executable, __file__, "--most", "2", "--points", *points, "--faults", "describe: server"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert [*rows] == points and [row["wrong"] for row in rows.values()] == [[]] * 4
    assert all(row["operations"] > 5 for row in rows.values()), "there is what to stop"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--points", "--faults"):
        parser.add_argument(option, nargs="*", default=[None], metavar="STAGE", help="these stages, or all")
    parser.add_argument("--most", type=int, default=10**9, help="operations at which each stage is killed (all)")
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
                bench.take(name)
                last = bench.operations - 1
                for at in range(last, -1, last // -given.most) if points else ():
                    bench.disturb("SIGKILL", at)
                for at, fault in enumerate(list(FAULTS)[1:] if faults else (), start=1):
                    bench.disturb(fault, at * last // len(FAULTS))
                print(json.dumps({"stage": name, "operations": bench.operations, "wrong": bench.wrong}), flush=True)


if __name__ == "__main__":
    main()

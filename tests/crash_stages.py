"""The stages that are stopped at every durable operation and put under faults, small ones, and what they start from.

PYTHONPATH=src:tests python tests/crash_stages.py points [--most N] [STAGE ...]   stops them, at N disks each or at all
PYTHONPATH=src:tests python tests/crash_stages.py faults [STAGE ...]              full disks, streams, signals, clocks

Both print a line of JSON per stage: operations, distinct disks, and what was lost, left behind or paid twice.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import io
import itertools
import json
import os
import re
import resource
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crash_disk import Disk, Each, Ended, Tree, forked, read_tree, write_tree
from crash_inputs import Server, make_inputs

TINY = ["--device", "cpu", "--threads", "1", "--precision", "fp32", "--memory-format", "contiguous",
        "--model", "resnet10t", "--model-args", '{"channels": [8, 8, 16, 16], "stem_width": 8}', "--image-size", "16",
        "--batch-size", "4"]  # fmt: skip
SHM = "/dev/shm"  # memory, where fsync takes no time, and no inode has the number of an earlier one
VOLATILE = {"created", "seconds", "checksum", "latency_s", "images_per_second", "peak_memory_bytes", "time",
            "texts_per_second", "bytes", "sha256", "record_sha256", "run_file_sha256"}  # fmt: skip
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
    "descriptions import": Stage("descriptions import answers.jsonl --data folder:pictures --store i.db"
                                 " --classes blue,green,red", "pictures answers.jsonl"),
    "descriptions export": Stage("descriptions export out.csv --data folder:pictures --store texts.db",
                                 "pictures texts.db"),
    "descriptions backup": Stage("descriptions backup --store texts.db --out copy.db", "texts.db", done="already"),
    "encode": Stage("encode --store texts.db --encoder bag-of-words:64 --out table", "texts.db"),
    "label": Stage("label --data folder:pictures --embeddings table --answers texts.db --out labels.parquet",
                   "pictures table texts.db"),
    "label: boxes": Stage("label --data coco:squares/train.json --answers boxes.db --out boxes.parquet",
                          "squares boxes.db"),
    "train": Stage(f"{TRAIN} --out run RESUMABLE", "pictures table texts.db"),
    "train: detection": Stage("train --data coco:squares/train.json --out detector RESUMABLE --image-size 32",
                              "squares"),
    "train: segmentation": Stage("train --data masks:shapes --out segmenter RESUMABLE", "shapes"),
    "train: clips": Stage("train --data clips:dots --frames 2 --out clips RESUMABLE", "dots"),
    "train: pretrain": Stage("train --data folder:pictures --task pretrain --pretrain simclr --out pre RESUMABLE",
                             "pictures"),
    "evaluate": Stage("evaluate run", "pictures run table texts.db"),
    "report": Stage("report run", "pictures run table texts.db"),
    "compare": Stage("compare --data folder:pictures --embeddings table --arms baseline,aligned --seeds 1"
                     " --out comparison TINY --epochs 1", "pictures table texts.db"),
    "export: timm": Stage("export run --format timm --out model", "pictures run", done="exists already"),
    "export: onnx": Stage("export run --format onnx --out model.onnx", "pictures run", done="exists already"),
    "export: torch-export": Stage("export run --format torch-export --out m.pt2", "pictures run",
                                  done="exists already"),
    "predict": Stage("predict run pictures --format csv --out found.csv --device cpu", "pictures run"),
    "search": Stage("search run red --index index --html found.html", "pictures run table texts.db"),
    "review": Stage("review --data folder:pictures --labels labels.csv", "pictures"),
    "distill": Stage(DISTILL, "pictures answers.jsonl"),
    "distill: changed": Stage(f"{DISTILL} --lr 0.01", "pictures answers.jsonl all"),
}  # fmt: skip
READERS = {
    "descriptions stats": Stage("descriptions stats --store texts.db", "texts.db"),
    "descriptions check": Stage("descriptions check --store texts.db --data folder:pictures", "pictures texts.db"),
    "descriptions view": Stage("descriptions view --store texts.db --out view.html", "texts.db"),
    "doctor": Stage("doctor texts.db", "texts.db"),
}
"""Commands that change nothing, or a page; only what becomes of their output is tried."""
MAKERS = {"texts.db": "describe: replay", "table": "encode", "run": "train", "all": "distill"}
"""Which stage makes what others start from."""


class Bench:
    """Runs stages in forked processes: libraries are imported once, and no process computes before it is forked."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.root = folder, folder / "root"
        self.server, self._stack = Server("", stack), stack
        self._runs = 0
        self.root.mkdir()
        forked(lambda: make_inputs(self.root) or 0, self.root, folder)
        self.base = read_tree(self.root)

    def run(
        self, stage: Stage, each: Each | None = None, first: Callable[[], None] | None = None, **streams: Any
    ) -> Ended:
        """Run a stage on the folder as it is; ``each`` is called before each operation, ``first`` at once."""
        known = {
            "TINY": TINY,
            "RESUMABLE": [*TINY, "--epochs", "2", "--checkpoint-seconds", "0", "--resume"],
            "URL": [self.server.url],
        }
        words = [part for word in stage.words.split() for part in known.get(word, [word])]
        (place := self.folder / f"said-{self._runs}").mkdir()
        self._runs += 1

        def work() -> int:
            os.chdir(self.root)
            os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")  # free to be lost
            if first:
                first()
            from gpt4image import cli

            return cli.main(words)

        return forked(work, self.root, place, each, **streams)

    def begin(self, stage: Stage) -> None:
        """Lay out what a stage starts from; what other stages make of it is made once."""
        for need in stage.needs.split():
            if not any(path.split("/")[0] == need for path in self.base):
                self.base |= self.finished(STAGES[MAKERS[need]])
        self.server.back_to(0)
        needs = {*stage.needs.split()}
        write_tree(self.root, {name: value for name, value in self.base.items() if name.split("/")[0] in needs})

    def finished(self, stage: Stage) -> Tree:
        """Run a stage that nothing disturbs, and return what is in the folder then."""
        self.begin(stage)
        done = self.run(stage)
        assert done.code == 0, f"{stage.words}: {done.code}\n{done.out}\n{done.err}"
        return read_tree(self.root)


class Trial:
    """A stage that is disturbed, and all that is then not as promised."""

    def __init__(self, bench: Bench, name: str, most: int | None) -> None:
        self.bench, self.name, self.most, self.stage = bench, name, most, (STAGES | READERS)[name]
        bench.server = Server(self.stage.server, bench._stack)
        self.expected, again = bench.finished(self.stage), bench.finished(self.stage)
        self.paid = bench.server.count()
        self.volatile = frozenset[str]()
        self.volatile = frozenset(line.removesuffix(" differs") for line in self.differences(again))
        self.wrong: list[str] = []
        self.in_flight = 0

    def differences(self, found: Tree) -> list[str]:
        """Return what differs from an undisturbed run; names that only an observer would see do not count."""
        ours, theirs = ({EARLIER.sub("earlier", name): tree[name] for name in tree if not IGNORED.search(name)}
                        for tree in (self.expected, found))  # fmt: skip
        names = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
        names += [f"{name} is left behind" for name in theirs.keys() - ours.keys()]
        both = ours.keys() & theirs.keys()
        return sorted(names + [f"{name} differs" for name in both if not self._same(name, ours[name], theirs[name])])

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
            skip = VOLATILE | (RESUMED if name.endswith("distill.json") else set())
            return [
                steady(json.loads(each), skip) for each in (content.splitlines() if name.endswith("l") else [content])
            ]
        return re.sub(rb"\d+", b"0", content) if name in self.volatile or name.endswith(".html") else content

    def runs(
        self, what: str, *codes: int, says: str = "Error", again: bool = True, ends: bool = True, **how: Any
    ) -> Ended:
        """Run the stage under a fault, then once more, and note what is wrong."""
        self.bench.begin(self.stage)
        done = self.bench.run(self.stage, **how)
        self.expect(what, done, *codes, says=says)
        if ends:
            self.ends(what, again=again)
        return done

    def expect(self, what: str, done: Ended, *codes: int, says: str = "") -> None:
        if done.code not in codes or "Traceback" in done.err or (done.code not in (0, 1) and says not in done.err):
            self.wrong.append(f"{self.name}, {what}: exit {done.code}: {(done.out + done.err).strip()[-700:]}")

    def ends(self, what: str, *, again: bool = True) -> None:
        """Note what the next run leaves other than an undisturbed one."""
        finished = False
        if again:
            done = self.bench.run(self.stage)
            if not (finished := bool(self.stage.done) and self.stage.done in done.err):
                self.expect(f"{what}, the next run", done, 0)
        found = self.differences(read_tree(self.bench.root))
        found = [line for line in found if not (finished and UNFINISHED.search(line))]  # the next writer removes those
        more, allowed = self.bench.server.count() - self.paid, int(self.stage.server == "chat")
        self.in_flight += min(more, allowed)
        found += [f"{more} paid twice"] if more > allowed else []
        self.wrong += [f"{self.name}, {what}: {'; '.join(found)}"] if found else []


def stopped_everywhere(trial: Trial) -> dict[str, Any]:
    """Stop a stage before every operation, run it again from each distinct disk, and compare."""
    most, bench, stage = trial.most, trial.bench, trial.stage
    bench.begin(stage)
    disk, contents = Disk(bench.root), dict[bytes, bytes]()
    moments: dict[Any, tuple[str, Tree, int]] = {}

    def photographed(number: int, kind: str, path: str) -> bytes:
        if kind == "synced":
            disk.sync(path)
        state = bench.server.save()
        for end, tree in disk.ends().items():  # of what has a name by chance, nobody reads the content
            tree = {name: value and contents.setdefault(value, value) for name, value in tree.items()}
            shown = {UNFINISHED.sub("unfinished", name): value for name, value in tree.items()}
            key = frozenset((name, None if name.endswith("unfinished") else value) for name, value in shown.items())
            moments.setdefault((state, key), (f"{end} at operation {number} ({kind})", tree, state))
        return b"."

    done = bench.run(stage, photographed)
    trial.expect("undisturbed", done, 0)
    photographed(done.operations, "end", "")
    found = list(moments.values())
    step = max(1, -(-len(found) // most)) if most else 1
    for what, tree, state in found[::step]:
        write_tree(bench.root, tree)
        bench.server.back_to(state)
        trial.ends(what)
    return {"operations": done.operations, "disks": len(found)}


def under_faults(trial: Trial) -> dict[str, Any]:
    """Full disks, read-only folders, streams that are gone, signals, clocks and other writers cost nothing."""
    bench, stage, kinds = trial.bench, trial.stage, list[str]()
    bench.begin(stage)
    bench.run(stage, lambda number, kind, _: kinds.append(kind) or b".")
    kinds = [kind for kind in kinds if kind != "synced"]
    files = [number for number, kind in enumerate(kinds) if kind != "commit"]

    def at(share: float, reply: Callable[[], bytes], *, later: bool = False) -> tuple[str, Each]:
        number = files[int(share * (len(files) - 1))]

        def each(now: int, kind: str, _: str) -> bytes:
            full = later and now > number and kind in ("open", "mkdir", "fsync")
            return reply() if full or (now == number and kind != "synced") else b"."

        return f"at operation {number}", each

    for share in (0.3, 0.9):
        where, each = at(share, lambda: b"E", later=True)
        trial.runs(f"disk full {where}", 0, 1, 2, each=each)
    limit = (2048, resource.RLIM_INFINITY)
    trial.runs("files of at most 2 KB", 0, 1, 2, first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    bench.begin(stage)
    folders = [bench.root, *(path for path in bench.root.rglob("*") if path.is_dir())]
    before = read_tree(bench.root)
    for folder in folders:
        folder.chmod(0o555)
    trial.expect("read-only folder", bench.run(stage, first=without_rights), 2, says="Error")
    for folder in folders:
        folder.chmod(0o755)
    trial.wrong += ["a read-only folder was changed"] if read_tree(bench.root) != before else []
    trial.ends("read-only folder")
    for sign, share in ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.5), (signal.SIGHUP, 0.8)):
        where, each = at(share, lambda sign=sign: bytes([sign]))
        codes = (130,) if share < 0.8 else (0, 130)
        trial.runs(f"{sign.name} {where}", *codes, says="Interrupted", each=each)
    real, jumps = time.time, itertools.cycle([365 * 86_400.0, -365 * 86_400.0])
    trial.runs("clock jumps", 0, again=False, first=lambda: setattr(time, "time", lambda: real() + next(jumps)))
    second: list[Ended] = []
    where, each = at(0.5, lambda: second.append(bench.run(stage)) or b".")
    first = trial.runs(f"two writers {where}", 0, 2, each=each)
    trial.expect("second writer", second[0], 0, *([2] if first.code == 0 else []))
    return closed_and_gone(trial)


def closed_and_gone(trial: Trial) -> dict[str, Any]:
    """Standard output or error is closed, or its reader has gone."""
    trial.bench.begin(trial.stage)
    start = read_tree(trial.bench.root)
    trial.runs("output closed", 2, says="standard output is closed", ends=False, closed=(1,))
    trial.wrong += ["something was written without standard output"] if read_tree(trial.bench.root) != start else []
    for what, how in (("closed", (2,)), ("gone", (1,)), ("gone", (1, 2))):
        trial.runs(f"{what} {how}", 0, again=False, **{what: how})
    return {}


def without_rights() -> None:
    """Take from root, in this process, the right to write where nobody may (CAP_DAC_OVERRIDE)."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable rights; then those of higher numbers
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 1)
    assert libc.capset(header, sets) == 0


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


def imported(*, exports: bool) -> None:
    """Import what stages import, without computing anything; what would wait or leave this process is replaced."""
    from gpt4image import cli
    from gpt4image.comparing import jobs
    from gpt4image.describing.describers import batch
    from gpt4image.reviewing import review
    from gpt4image.reviewing.labels_file import Mark

    for command in cli.COMMANDS.values():
        importlib.import_module("gpt4image." + command.stage.split(":")[0])
    names = ["timm", "torchvision", "torchmetrics", "sklearn.linear_model", "openai", "genai_prices", "pyarrow.parquet",
             "gpt4image.training.trainer", "gpt4image.describing.describers.openai.describer"]  # fmt: skip
    for name in [
        *names,
        *(["onnxscript", "onnxruntime", "torch._dynamo", "torch.export", "torch.onnx"] if exports else []),
    ]:
        importlib.import_module(name)

    def click(session: Any, *_: Any) -> None:
        for card in session.all_cards()[:4]:  # as a person does: each label is on disk when it is shown as saved
            session.mark({card.id: Mark("red", "checked")})

    jobs.run_jobs = lambda work, todo, names, **_: [work(job, lambda *_: None) for job in todo]
    review.serve = click
    batch.MAX_LINES, batch.SETTLING_S, batch._FIRST_WAIT_S = 2, 0.0, 0.01
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", choices=["points", "faults", "streams"])
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--most", type=int, help="distinct disks that are tried of each stage (default: all)")
    given = parser.parse_intermixed_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a background job ignores some, and its children with it
        signal.signal(ending, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"OPENAI_API_KEY": "sk-local", "CUDA_VISIBLE_DEVICES": ""}
    names = given.stages or list(STAGES)
    imported(exports=any(name in names for name in ("export: onnx", "export: torch-export")))
    with tempfile.TemporaryDirectory(dir=SHM) as folder, contextlib.ExitStack() as stack:
        bench = Bench(Path(folder).resolve(), stack)
        for name in names:
            begun, trial = time.monotonic(), Trial(bench, name, given.most)
            what = {"points": stopped_everywhere, "faults": under_faults, "streams": closed_and_gone}[given.wanted]
            row = {"stage": name, **what(trial), "in_flight": trial.in_flight, "wrong": trial.wrong}
            print(json.dumps(row | {"seconds": round(time.monotonic() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main()

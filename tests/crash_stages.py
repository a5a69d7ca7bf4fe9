"""The stages that are stopped at every operation, small ones, and what they start from.

``python tests/crash_stages.py points [STAGE ...]`` stops each at every point, ``faults`` tries the faults of
``crash_faults.py`` on them; each prints a line of JSON per stage. ``table`` makes the table of
docs/research/log/2026-11-29-damage.md of lines of ``points`` on standard input.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pickle
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crash_points import (
    UNFINISHED,
    Act,
    Ended,
    Injector,
    Shots,
    Tree,
    ended,
    forked,
    photographed,
    read_tree,
    write_tree,
)
from crash_server import Server, make_inputs

TINY = ("--device", "cpu", "--threads", "1", "--precision", "fp32", "--memory-format", "contiguous", "--epochs", "2")
TINY += ("--model", "resnet10t", "--model-args", '{"channels": [8, 8, 16, 16], "stem_width": 8}', "--image-size", "16")
TINY += ("--batch-size", "4", "--checkpoint-seconds", "0")
SHM = Path("/dev/shm")  # memory, where fsync takes no time
VOLATILE = {"created", "seconds", "checksum", "latency_s", "images_per_second", "peak_memory_bytes", "time"}
VOLATILE |= {"texts_per_second", "bytes", "sha256", "record_sha256", "run_file_sha256"}  # sums of files with times
RESUMED = {"described", "already_described", "class_in_list", "texts_encoded", "texts_kept", "notes"}
"""What distill.json says of the run that ended a stage, not of what the stage made."""
IGNORED = re.compile(r"^cache(/|$)|\.(lock|count)$")
EARLIER = re.compile(r"earlier-\d+")  # after a stop, distill puts the model into another one than the run


@dataclass(frozen=True)
class Stage:
    """A command, and what it is given.

    Attributes:
        needs: what lies in the folder at the start, by its first names.
        server: chat or batch, where it is paid for.
        done: said by the next run where the first one had finished.
    """

    words: str
    needs: str
    server: str = ""
    done: str = ""


def click(_: Any, session: Any) -> None:
    """Click as a person does, in place of the page: each label is on disk when it is shown as saved."""
    from gpt4image.reviewing.labels_file import Mark

    for card in session.all_cards()[:4]:
        session.mark({card.id: Mark("red", "checked")})


TRAIN = "train --data folder:pictures --embeddings table"
STAGES = {
    "describe: server": Stage("describe --data folder:few --store new/s.db --describer openai:tiny --base-url URL"
                              " --concurrency 1 --ask description,class", "few", server="chat"),
    "describe: batch": Stage("describe --data folder:few --store s.db --describer openai:tiny --base-url URL"
                             " --batch --poll-seconds 0.01", "few", server="batch"),
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
    "train": Stage(f"{TRAIN} --out run TINY --resume", "pictures table texts.db"),
    "train: detection": Stage("train --data coco:squares/train.json --out detector TINY --image-size 32 --resume",
                              "squares"),
    "train: segmentation": Stage("train --data masks:shapes --out segmenter TINY --resume", "shapes"),
    "train: clips": Stage("train --data clips:dots --frames 2 --out of-clips TINY --resume", "dots"),
    "train: pretrain": Stage("train --data folder:pictures --task pretrain --pretrain simclr --out pre TINY --resume",
                             "pictures"),
    "evaluate": Stage("evaluate run", "pictures run table texts.db"),
    "report": Stage("report run", "pictures run table texts.db"),
    "compare": Stage("compare --data folder:pictures --embeddings table --arms baseline,aligned --seeds 1"
                     " --out comparison SMALL", "pictures table texts.db"),
    "export: timm": Stage("export run --format timm --out model", "pictures run", done="exists already"),
    "export: onnx": Stage("export run --format onnx --out model.onnx", "pictures run", done="exists already"),
    "export: torch-export": Stage("export run --format torch-export --out model.pt2", "pictures run",
                                  done="exists already"),
    "predict": Stage("predict run pictures --format csv --out found.csv --device cpu", "pictures run"),
    "search": Stage("search run red --index index --html found.html", "pictures run table texts.db"),
    "review": Stage("review --data folder:pictures --labels labels.csv", "pictures"),
    "distill": Stage("distill pictures --describer replay:answers.jsonl --out all --encoder bag-of-words:64 SMALL",
                     "pictures answers.jsonl"),
    "distill: changed": Stage("distill pictures --describer replay:answers.jsonl --out all --encoder bag-of-words:64"
                              " SMALL --lr 0.01", "pictures answers.jsonl all"),
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

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.base: Tree = {}
        self.server: Server | None = None
        self.root.mkdir(parents=True)
        (folder / "made").mkdir()
        self._fork(lambda: make_inputs(self.root) or 0)
        self.base = read_tree(self.root)

    def words(self, stage: Stage) -> list[str]:
        known = {"TINY": list(TINY), "SMALL": list(TINY[:-2]), "URL": [self.server.url if self.server else ""]}
        return [part for word in stage.words.split() for part in known.get(word, [word])]

    def start(self, stage: Stage) -> Tree:
        """Return what lies in the folder when a stage begins."""
        needs = {*stage.needs.split()}
        return {name: value for name, value in self.base.items() if name.split("/")[0] in needs}

    def run(
        self, stage: Stage, *, act: Act | None = None, first: Callable[[], None] | None = None, **how: Any
    ) -> Ended:
        """Run a stage on the folder as it is; ``act`` is called before and after each operation, ``first`` at once."""
        return self._fork(self.injected(stage, act, first), **how)

    def injected(
        self, stage: Stage, act: Act | None = None, first: Callable[[], None] | None = None
    ) -> Callable[[], int]:
        """Return the stage as what a forked process does, with what happens at its operations."""

        def work() -> int:
            os.chdir(self.root)
            os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")  # free to be lost
            if first is not None:
                first()
            if act is not None:
                Injector(self.root, act).install()
            from gpt4image import cli

            return cli.main(self.words(stage))

        return work

    def _fork(self, work: Callable[[], int], **how: Any) -> Ended:
        return ended(forked(work, self.folder, **how), self.folder)

    def prepare(self, name: str) -> None:
        """Run the stages that make what a stage starts from."""
        for need in (STAGES | READERS)[name].needs.split():
            if not any(path.split("/")[0] == need for path in self.base):
                maker = MAKERS[need]
                self.prepare(maker)
                self.base |= self.finished(STAGES[maker])

    @contextmanager
    def serving(self, stage: Stage) -> Iterator[None]:
        with ExitStack() as stack:
            self.server = Server(stage.server, stack) if stage.server else None
            yield
        self.server = None

    def finished(self, stage: Stage) -> Tree:
        """Run a stage that nothing disturbs, and return what is in the folder then."""
        if self.server:
            self.server.back_to(0)
        write_tree(self.root, self.start(stage))
        done = self.run(stage)
        assert done.code == 0, f"{stage.words}: {done.code}\n{done.out}\n{done.err}"
        return read_tree(self.root)

    def reference(self, stage: Stage) -> tuple[Tree, frozenset[str]]:
        """Return what an undisturbed run leaves, and the files whose numbers differ from run to run."""
        found = [self.finished(stage) for _ in range(2)]
        return found[0], frozenset(line.removesuffix(" differs") for line in differences(*found, frozenset()))

    def paid(self) -> int:
        """Return how many answers were paid for."""
        return sum(self.server.paid.values()) if self.server else 0

    def shots(self, stage: Stage) -> Shots:
        """Run a stage, and keep the disk at every moment."""
        write_tree(self.root, self.start(stage))
        asked, told = os.pipe(), os.pipe()

        def tell() -> int:
            if self.server is None:
                return 0
            os.write(asked[1], b"?")
            return int.from_bytes(os.read(told[0], 4), "big")

        file = self.folder / "shots"
        child = forked(lambda: photographed(self.root, tell, self.injected(stage), file), self.folder)
        os.close(asked[1])
        while os.read(asked[0], 1):
            assert self.server is not None
            os.write(told[1], self.server.save().to_bytes(4, "big"))
        for number in (asked[0], *told):
            os.close(number)
        done = ended(child, self.folder)
        assert done.code == 0, f"{stage.words}: {done.code}\n{done.out}\n{done.err}"
        return pickle.loads(file.read_bytes())  # noqa: S301  (our own process wrote it)


def differences(expected: Tree, found: Tree, volatile: frozenset[str]) -> list[str]:
    """Return what differs between two folders; names that only an observer would see do not count."""
    kept = ({name: value for name, value in tree.items() if not IGNORED.search(name)} for tree in (expected, found))
    ours, theirs = ({EARLIER.sub("earlier", name): value for name, value in tree.items()} for tree in kept)
    names = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
    names += [f"{name} is left behind" for name in theirs.keys() - ours.keys()]
    both = ours.keys() & theirs.keys()
    return sorted(names + [f"{name} differs" for name in both if not same(name, ours[name], theirs[name], volatile)])


def same(name: str, ours: bytes | None, theirs: bytes | None, volatile: frozenset[str]) -> bool:
    """Return whether two files say the same.

    Vectors of an index may differ by rounding: a run that goes on computes those that are left in a smaller batch.
    """
    if ours and theirs and re.search(r"embeddings-[0-9a-f]+\.npy$", name) and ours[:128] == theirs[:128]:
        first, second = (np.load(io.BytesIO(content)) for content in (ours, theirs))
        return np.allclose(first, second, rtol=0, atol=1e-3)
    return facts(name, ours, volatile) == facts(name, theirs, volatile)


def facts(name: str, content: bytes | None, volatile: frozenset[str]) -> Any:
    """Return what a file says, without times; ``volatile`` names files whose numbers differ from run to run."""
    if content is None or name.endswith(("-wal", "-shm")):
        return None
    if name.endswith(".db"):
        return _rows(content)
    if name.endswith((".json", ".jsonl")):
        skip = VOLATILE | (RESUMED if name.endswith("distill.json") else set())
        return [_steady(json.loads(each), skip) for each in (content.splitlines() if name.endswith("l") else [content])]
    return re.sub(rb"\d+", b"0", content) if name in volatile or name.endswith(".html") else content


def _steady(value: Any, skip: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _steady(each, skip) for name, each in value.items() if name not in skip}
    return [_steady(each, skip) for each in value] if isinstance(value, list) else value


def _rows(content: bytes) -> list[Any]:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content[:18] + b"\1\1" + content[20:])
    sql = "SELECT hex(digest), sample, status, results.text, finish_reason, error, answer, prompts.name, settings "
    sql += "FROM results "
    sql += "JOIN prompts ON prompt = prompts.id JOIN describers ON describer = describers.id ORDER BY 1, 2, 8"
    rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


@dataclass
class Row:
    """A row of the table: a stage, and what came of stopping it everywhere."""

    stage: str
    operations: int
    points: int
    disks: int
    lost: int = 0
    twice: int | None = None
    in_flight: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def stopped_everywhere(bench: Bench, name: str, every: int = 1) -> Row:
    """Stop a stage at every point, run it again, and compare with a run that nothing disturbed.

    With ``every``, only each so-many-th of the distinct disks is tried.
    """
    stage, begun = STAGES[name], time.monotonic()
    with bench.serving(stage):
        expected, volatile = bench.reference(stage)
        paid = bench.paid()
        if bench.server:
            bench.server.back_to(0)
        shots = bench.shots(stage)
        row = Row(name, len(shots.kinds), len(shots.moments), len(shots.disks))
        row.twice = 0 if bench.server else None
        for digest, (tree, state) in list(shots.disks.items())[::every]:
            moment = next(shot for shot in shots.moments if shot.disk == digest)
            write_tree(bench.root, tree)
            if bench.server:
                bench.server.back_to(state)
            done = bench.run(stage)
            found = differences(expected, read_tree(bench.root), volatile)
            told = f"{name}, {moment.end} {moment.when} operation {moment.number} ({moment.kind}): "
            if (
                stage.done and done.code == 2 and stage.done in done.err
            ):  # what a kill left is removed by the next writer
                found = [line for line in found if not UNFINISHED.search(line)]
            elif done.code != 0:
                found.insert(0, f"exit {done.code}: {done.err.strip()[-600:]}")
            if found:
                row.lost += 1
                row.faults.append(told + "; ".join(found))
            if bench.server and row.twice is not None:
                more = bench.paid() - paid
                allowed = 1 if stage.server == "chat" else 0
                row.in_flight += min(more, allowed)
                if more > allowed:
                    row.twice += 1
                    row.faults.append(f"{told}{more} paid again")
    row.seconds = time.monotonic() - begun
    return row


def imported(*, exports: bool) -> None:
    """Import what stages import, without computing anything."""
    from gpt4image import cli
    from gpt4image.comparing import jobs
    from gpt4image.describing.describers.batch import api as batch_api
    from gpt4image.describing.describers.batch import run as batch_run
    from gpt4image.reporting import charts
    from gpt4image.reviewing import review

    for command in cli.COMMANDS.values():
        importlib.import_module("gpt4image." + command.stage.split(":")[0])
    names = ["timm", "torchvision", "torchmetrics", "sklearn.linear_model", "openai", "genai_prices", "pyarrow.parquet",
             "gpt4image.training.trainer", "gpt4image.describing.describers.openai.describer",
             "gpt4image.reviewing.labels_file", "gpt4image.training.loop"]  # fmt: skip
    names += ["onnxscript", "onnxruntime", "torch._dynamo", "torch.export", "torch.onnx"] if exports else []
    for name in names:
        importlib.import_module(name)
    jobs.run_jobs, review._serve = one_after_the_other, click
    charts._both_widths = lambda *said: charts.Markup(said[:3])  # half of the time; no number of a page is compared
    batch_run.MAX_LINES, batch_run.SETTLING_S, batch_api._FIRST_WAIT_S = 2, 0.0, 0.01
    gc.freeze()


def one_after_the_other(work: Any, todo: Any, names: Any, **_: Any) -> list[Any]:
    """Do the jobs of a comparison in this process, whose operations are counted."""
    return [work(job, lambda *_: None) for job in todo]


def main(wanted: str, names: list[str]) -> None:
    """Stop stages everywhere, or try faults on them; print what came of it as JSON, one line per stage."""
    from crash_faults import FAULTS, found_wrong

    for ending in (signal.SIGTERM, signal.SIGHUP):  # a background job ignores some, and its children with it
        signal.signal(ending, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"OPENAI_API_KEY": "sk-local", "CUDA_VISIBLE_DEVICES": ""}
    wanted, _, every = wanted.partition("/")
    stages = STAGES | READERS if names else STAGES
    chosen = [name for name in stages if not names or name in names]
    imported(exports=any(name in chosen for name in ("export: onnx", "export: torch-export")))
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as folder:
        bench = Bench(Path(folder).resolve())
        for name in chosen:
            bench.prepare(name)
            if wanted == "points":
                result = asdict(stopped_everywhere(bench, name, int(every or 1)))
            else:
                faults = list(FAULTS) if wanted == "faults" else [wanted]
                result = {"stage": name, "faults": found_wrong(bench, name, stages[name], faults)}
            print(json.dumps(result), flush=True)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table of the documentation from lines that ``points`` printed, by stage."""
    cells = [["stage", "operations", "crash points", "distinct disks", "lost", "paid twice"], ["---"] * 6]
    for row in (rows[name] for name in STAGES if name in rows):
        twice = "-" if row["twice"] is None else str(row["twice"])
        cells.append([row["stage"], *(f"{row[name]:,}" for name in ("operations", "points", "disks", "lost")), twice])
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    if sys.argv[1] == "table":
        print(table({row["stage"]: row for row in map(json.loads, sys.stdin)}))
    else:
        main(sys.argv[1], sys.argv[2:])

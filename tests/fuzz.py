"""Damaged inputs for every parser, each within bounds of time and memory: what `make fuzz` runs.

    python tests/fuzz.py                                    100,000 inputs for each parser
    python tests/fuzz.py coco voc --count 5000 --seed 7     some parsers, with inputs of another seed
    python tests/fuzz.py coco --input fuzz-out/coco-ab12    one input again, with its traceback

A parser runs in a process of its own, so that one that crashes it, hangs or takes too much memory ends no other. An
input that fails is written to --out, and the command that repeats it is printed. Inputs depend on the seed alone.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import logging
import math
import multiprocessing as mp
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SECONDS = 20.0  # an input may take; a busy machine is slow
MEBIBYTES = 512  # an input may add to what the parser has, and a process to its address space four times as much
TOLERATED = 5  # failures of a parser after which the rest of its inputs is left out
SAID_ALIKE = 3  # inputs that fail alike are written so often


class TooSlowError(BaseException):
    """An input takes too long; no parser takes it for an error of its own."""


@contextlib.contextmanager
def deadline(seconds: float) -> Generator[None]:
    """Raise TooSlowError where the block takes longer."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"it took more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failure(
    read: Callable[[bytes], None], content: bytes, allowed: tuple[type[Exception], ...], seconds: float | None = None
) -> str:
    """Return the traceback of what a parser must not do with an input, or nothing."""
    before = peak()
    try:
        with deadline(seconds or SECONDS):
            read(content)
    except allowed:
        pass
    except (Exception, TooSlowError):  # noqa: BLE001  (whatever else comes is what is looked for)
        return traceback.format_exc()
    grown = (peak() - before) / 2**20
    return f"MemoryError: it took {grown:.0f} MiB" if grown > MEBIBYTES else ""


def peak() -> int:
    """Return the most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prepared(name: str, folder: Path) -> tuple[Any, Any, Any]:
    """Return a target with its valid inputs and what reads one."""
    from fuzz_targets import TARGETS

    os.environ.update(XDG_CACHE_HOME=str(folder / "cache"), HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(folder / "hf"))
    logging.disable(logging.CRITICAL)
    seeds, read = TARGETS[name].prepare(folder)
    return TARGETS[name], seeds, read


def at_once(_: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
    """Do the work of a pool of threads in this thread: to start one takes longer than most inputs."""
    done = Future[Any]()
    try:
        done.set_result(function(*args, **keywords))
    except Exception as error:  # noqa: BLE001  (as a pool keeps it)
        done.set_exception(error)
    return done


def work(name: str, numbers: Iterable[int], seed: int, end: float, at: Synchronized[int], told: Any) -> None:
    """Try inputs in this process until ``end``; tell what fails, and at the end how much memory was taken."""
    from fuzz_targets import input_of

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C speak there
    ThreadPoolExecutor.submit = at_once  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target, seeds, read = prepared(name, Path(place))
        for content in seeds:  # libraries load here
            if found := failure(read, content, (), 30 * SECONDS):
                told.send(("failed", -1, f"a valid input: {found}"))
                return
        first, size = peak(), int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEBIBYTES * 2**20, resource.RLIM_INFINITY))
        for number in numbers:
            if time.monotonic() > end:
                break
            at.value = number
            if found := failure(read, input_of(name, seeds, number, seed), target.allowed):
                told.send(("failed", number, found))
        told.send(("done", round((peak() - first) / 2**20), ""))


def fuzz(name: str, count: int, seed: int, out: Path, seconds: float = math.inf) -> dict[str, Any]:
    """Try ``count`` inputs of a parser, or those of so many seconds, and return what came of it.

    Inputs that fail are written to ``out``.
    """
    importlib.import_module("fuzz_targets")  # once, for all processes that are forked from this one

    context, begun, failures = mp.get_context("fork"), time.monotonic(), dict[str, list[int]]()
    grown, next_one, tried = 0, 0, 0
    while next_one < count and sum(map(len, failures.values())) < TOLERATED * SAID_ALIKE:
        at, (ours, theirs) = context.Value("q", next_one), context.Pipe(duplex=False)
        process = context.Process(target=work, args=(name, range(next_one, count), seed, begun + seconds, at, theirs))
        process.start()
        theirs.close()
        last, since = -1, time.monotonic()
        while True:
            if ours.poll(1.0):
                try:
                    kind, number, text = ours.recv()
                except EOFError:
                    break
                if kind == "done":
                    grown, next_one = max(grown, number), count
                else:
                    note(failures, name, number, seed, text, out)
                    if number < 0 or sum(map(len, failures.values())) >= TOLERATED * SAID_ALIKE:
                        process.kill()
                        next_one = count
            if at.value != last:
                last, since = at.value, time.monotonic()
            elif time.monotonic() - since > 3 * SECONDS + 60:  # code of C does not hear the alarm
                process.kill()
                break
        process.join()
        tried = at.value + 1
        if next_one < count:
            note(failures, name, at.value, seed, f"the process ended with {process.exitcode}", out)
            next_one = at.value + 1
    took, failed = round(time.monotonic() - begun, 1), sum(map(len, failures.values()))
    return {"parser": name, "inputs": tried, "failures": failed, "seconds": took, "MiB": grown}


def note(failures: dict[str, list[int]], name: str, number: int, seed: int, text: str, out: Path) -> None:
    """Write an input that failed, and print how it is repeated; of those that fail alike only the first ones."""
    import fuzz_targets

    reason = text.strip().splitlines()[-1][:200]
    alike = failures.setdefault(reason.partition(":")[0] + str(text.count("\n")), [])
    alike.append(number)
    if len(alike) > SAID_ALIKE or number < 0:
        print(f"{name}, input {number} of seed {seed}: {reason}", flush=True)
        return
    with tempfile.TemporaryDirectory() as place:
        content = fuzz_targets.input_of(name, prepared(name, Path(place))[1], number, seed)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"
    path.write_bytes(content)
    print(f"{name}, input {number} of seed {seed}: {reason}\n  python tests/fuzz.py {name} --input {path}", flush=True)


def again(name: str, path: Path) -> int:
    """Try one input in this process, and print what comes of it."""
    with tempfile.TemporaryDirectory() as place:
        target, _, read = prepared(name, Path(place))
        found = failure(read, path.read_bytes(), target.allowed)
    print(found or "it is read, or refused with an error of gpt4image")
    return bool(found)


def main() -> int:
    """Run the command."""
    import fuzz_targets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", choices=[[], *fuzz_targets.TARGETS], help="default: all of them")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per parser (default 100,000)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="most seconds per parser (default: no limit)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz-out"), help="folder of inputs that fail, and of the record"
    )
    parser.add_argument("--input", type=Path, help="try only this file, by one parser")
    given = parser.parse_args()
    names = given.parsers or list(fuzz_targets.TARGETS)
    if given.input is not None:
        return again(names[0], given.input)
    failed = 0
    given.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        row = {"seed": given.seed, **fuzz(name, given.count, given.seed, given.out, given.seconds)}
        failed += row["failures"]
        print(json.dumps(row), flush=True)
        with (given.out / "record.jsonl").open("a", encoding="utf-8") as record:
            record.write(json.dumps(row) + "\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Damaged inputs for every parser, each within bounds of time and memory: what `make fuzz` runs.

    python tests/fuzz.py                                    100,000 inputs for each parser
    python tests/fuzz.py coco voc --count 5000 --seed 7     some parsers, with inputs of another seed

A parser runs in a process of its own, so that one that crashes it, hangs or takes too much memory ends no other. An
input that fails is in --out; in fuzz_corpus/PARSER, `pytest tests/test_fuzz.py -k PARSER` tries it first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

CORPUS = Path(__file__).parent / "fuzz_corpus"
SECONDS = 60  # an input may take; a busy machine is slow
MEBIBYTES = 512  # an input may add to what the parser has, and a process to its address space four times as much
TOLERATED = 10  # failures of a parser after which the rest of its inputs is left out
# Deep nesting, numbers out of range, characters that end or turn texts; put in somewhere, or in place of something.
TOKENS = (b"[" * 100_000, b'{"a":' * 20_000, b"1e999", b"-1e999", b"9" * 400, b"9" * 5000, b"18446744073709551616",
          b"NaN", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b'"', b"\r", b"null", b"true",
          b"x" * 200_000)  # fmt: skip


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy: cut, zeroed, bits turned over, parts swapped or too much for a parser."""
    content = bytearray(whole or b"\0")
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((1, 4, 64, 512, 4096)))
    kind = rng.choice(("cut", "zero", "bits", "bits", "token", "token", "swap"))
    if kind == "cut":
        del content[start:]
    elif kind == "zero":
        content[start:end] = bytes(end - start)
    elif kind == "token":
        content[start : rng.choice((start, min(end, start + 4)))] = rng.choice(TOKENS)
    elif kind == "swap":
        other = rng.randrange(len(content))
        content[start:end] = content[other : other + end - start]
    else:
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def inputs(name: str, seeds: Sequence[bytes], numbers: range, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield inputs by number: first those that once failed, then valid ones, then damaged ones."""
    known = [*(path.read_bytes() for path in sorted((CORPUS / name).glob("*"))), *seeds]
    for number in numbers:
        rng = random.Random(f"{name} {seed} {number}")
        content = known[number] if number < len(known) else rng.choice(known)
        for _ in range(rng.choice((1, 1, 1, 2, 3)) if number >= len(known) else 0):
            content = mutated(content, rng)
        yield number, content[: 2**20]


def failure(read: Callable[[bytes], Any], content: bytes, allowed: tuple[type[Exception], ...]) -> str:
    """Return the traceback of what a parser must not do with an input, or nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(content)
    except allowed:
        pass
    except Exception:  # noqa: BLE001  (whatever else comes is what is looked for)
        return traceback.format_exc()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"MemoryError: it took {grown:.0f} MiB" if grown > MEBIBYTES else ""


def work(name: str, numbers: range, seed: int, out: Path, at: Any) -> None:
    """Try inputs in this process, until one fails; the alarm ends it at one that takes too long, also in code of C."""
    from fuzz_targets import ALLOWED, TARGETS

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C speak there
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(XDG_CACHE_HOME=f"{place}/cache", HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=f"{place}/hf")
        seeds, read = TARGETS[name](Path(place))
        for content in seeds:  # libraries load here
            read(content)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEBIBYTES * 2**20, resource.RLIM_INFINITY))
        for at.value, content in inputs(name, seeds, numbers, seed):
            (out / name).write_bytes(content)
            signal.alarm(SECONDS)
            if found := failure(read, content, ALLOWED):
                print(f"{name}: {found.strip().splitlines()[-1][:200]}", flush=True)
                os._exit(2)


def fuzz(name: str, count: int, seed: int, out: Path) -> dict[str, Any]:
    """Try ``count`` inputs of a parser, and return what came of it; those that fail are kept in ``out``."""
    context, begun, failures = multiprocessing.get_context("fork"), time.monotonic(), 0
    at = context.Value("q", -1)
    out.mkdir(parents=True, exist_ok=True)
    while at.value + 1 < count and failures < TOLERATED:
        process = context.Process(target=work, args=(name, range(at.value + 1, count), seed, out, at))
        process.start()
        process.join()
        if process.exitcode:
            failures += 1
            (out / name).rename(out / f"{name}-{at.value}")
    (out / name).unlink(missing_ok=True)
    seconds = round(time.monotonic() - begun, 1)
    return {"parser": name, "seed": seed, "inputs": at.value + 1, "failures": failures, "seconds": seconds}


def main() -> int:
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", choices=[[], *TARGETS], help="default: all of them")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per parser (default 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default 0)")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder of inputs that fail")
    given = parser.parse_args()
    failures = 0
    for name in given.parsers or TARGETS:
        print(json.dumps(row := fuzz(name, given.count, given.seed, given.out)), flush=True)
        failures += row["failures"]
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

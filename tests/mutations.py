"""Damaged copies of valid files: cut, zeroed, bits turned over, and parts that are too much for a parser."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

# Deep nesting, numbers out of range, characters that end or turn texts; put in somewhere, or in place of something.
TOKENS = (
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b"9" * 5000,
    b"18446744073709551616",
    b"NaN",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b'"',
    b"\r",
    b"null",
    b"true",
    b"x" * 200_000,
)


def mutations(whole: bytes, count: int, seed: int = 0, tokens: Sequence[bytes] = TOKENS) -> Iterator[bytes]:
    """Yield ``count`` damaged copies of the content of a file, the same ones each time."""
    rng = random.Random(seed)
    for _ in range(count):
        yield mutated(whole, rng, tokens)


def mutated(whole: bytes, rng: random.Random, tokens: Sequence[bytes] = TOKENS) -> bytes:
    """Return one damaged copy of the content of a file."""
    content = bytearray(whole)
    kind = rng.choice(("cut", "zero", "bits", "bits", "token", "token", "swap"))
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((1, 4, 64, 512, 4096)))
    if kind == "cut":
        del content[start:]
    elif kind == "zero":
        content[start:end] = bytes(end - start)
    elif kind == "token":
        content[start : rng.choice((start, min(end, start + 4)))] = rng.choice(tokens)
    elif kind == "swap":
        other = rng.randrange(len(content))
        content[start:end] = content[other : other + end - start]
    else:
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)

"""Two things timed in turn, and the ratio of their medians; GPT4IMAGE_BENCH_CPU=1 takes CPU time for the clock."""

from __future__ import annotations

import operator
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: ``ours`` over ``limit`` in ``unit``, and the goal of this ratio: ">= 0.97"."""

    name: str
    ours: float
    limit: float
    unit: str
    goal: str

    @property
    def ratio(self) -> float:
        return self.ours / self.limit

    @property
    def met(self) -> bool:
        kind, number = self.goal.split()
        return (operator.ge if kind == ">=" else operator.le)(self.ratio, float(number))


def now() -> float:
    """Return seconds of the clock, or of CPU time of this process and of those it has waited for."""
    return sum(os.times()[:4]) if os.environ.get("GPT4IMAGE_BENCH_CPU") else time.perf_counter()


def seconds_in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int = 7) -> tuple[float, float]:
    """Return the median seconds of two functions, called in turn after one warm-up each."""
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, kept in zip((first, second), times, strict=True):
            start = now()
            function()
            kept.append(now() - start)
    return statistics.median(times[0]), statistics.median(times[1])

"""Device, precision and memory format: chosen by what the machine computes fast, and reported.

bf16 and channels_last are used where a probe of a few steps finds them faster on this machine, and bf16 only where the
device computes it natively.
"""

from __future__ import annotations

import contextlib
import functools
import math
import resource
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from gpt4image.base.errors import ConfigError
from gpt4image.parallel import processes

PROBE_STEPS = 5  # of each choice at most: the first one is slow, the fastest counts
PROBE_SECONDS = 0.25  # for each choice, beyond which no further step begins
HOPELESS = 1.5  # times the fastest choice so far: not tried further


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; auto takes cuda, then mps, then cpu. Raises ConfigError: it is not there."""
    counts = {"cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0}
    counts |= {"mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in counts.items() if count))
    with contextlib.suppress(RuntimeError):  # no name of a device
        device = torch.device(name)
        if (device.index or 0) < counts.get(device.type, 0):
            return device
    there = ", ".join(kind for kind in ("cpu", "cuda", "mps") if counts[kind])
    raise ConfigError(f"--device {name} is not available here; available: auto, {there}.")


def device_name(device: torch.device) -> str:
    """Return a device as records name it: a GPU with what it is."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def use_gpu(name: str, number: int) -> None:
    """Let ``cuda`` mean the GPU with a number, of several processes one each; more processes than GPUs share them."""
    device = choose_device(name)
    if str(device) == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())


@functools.cache
def computes_bf16(device_type: str) -> bool:
    """Say whether a device multiplies bfloat16 matrices natively (on CPUs: AVX512-BF16 or AMX)."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = ""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if device_type == "cpu" else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context of a precision: bf16, or none for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def memory_format_of(name: str) -> torch.memory_format:
    """Return the torch memory format called ``name``."""
    return torch.channels_last if name == "channels_last" else torch.contiguous_format


def probe(
    step: Callable[[str, str], None],
    device: torch.device,
    precision: str,
    memory_format: str,
    *,
    ready: Callable[[str, str], None] = lambda _precision, _memory_format: None,
) -> tuple[str, str, dict[str, float]]:
    """Time one training step in each allowed combination and return the fastest.

    Args:
        step: runs one whole step with (precision, memory_format); must leave no trace in what is trained.
        device: where it runs.
        precision, memory_format: auto, or the only one allowed.
        ready: makes what the steps of a combination need; not timed, since it takes longest for the first one.

    Returns:
        precision, memory format, and seconds per step of each combination tried ("bf16 channels_last": 0.01) that fits
        into memory.

    Raises:
        torch.OutOfMemoryError: none fits.
    """
    precisions = [precision] if precision != "auto" else ["bf16", "fp32"] if computes_bf16(device.type) else ["fp32"]
    formats = [memory_format] if memory_format != "auto" else ["channels_last", "contiguous"]
    choices = [(one, other) for one in precisions for other in formats]
    if len(choices) == 1:
        return *choices[0], {}
    seconds: dict[tuple[str, str], float] = {}
    for choice in choices:
        fastest = min(seconds.values(), default=math.inf)
        make, once = functools.partial(ready, *choice), functools.partial(step, *choice)
        seconds[choice] = _seconds_per_step(make, once, device, fastest)
    best = min(seconds, key=lambda choice: seconds[choice])
    if math.isinf(seconds[best]):
        raise torch.OutOfMemoryError(f"one step of training fits in no precision: {', '.join(precisions)}")
    return *best, {" ".join(choice): round(value, 5) for choice, value in seconds.items() if not math.isinf(value)}


def _seconds_per_step(
    ready: Callable[[], None], step: Callable[[], None], device: torch.device, fastest: float
) -> float:
    """Return the seconds of the fastest of some steps; fewer of a choice that takes long, or longer than ``fastest``.

    A GPU's first step loads libraries and tells nothing, so that a second one follows.
    """
    times: list[float] = []
    least = 1 if device.type == "cpu" else 2
    try:
        ready()
        while len(times) < PROBE_STEPS:
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(processes.from_first(time.perf_counter() - start))  # all take as many steps
            hopeless = len(times) > 1 and min(times) > HOPELESS * fastest
            if len(times) >= least and (hopeless or sum(times) > PROBE_SECONDS):
                break
    except torch.OutOfMemoryError:
        if processes.count() > 1:  # the others are in the middle of the step
            raise
        return math.inf
    return min(times)


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Generator[None]:
    """Let torch, and numpy and scipy, use ``count`` CPU threads each inside the block; None leaves their choice."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory, where the system can (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # Writing 5 to clear_refs resets VmHWM (Linux man page proc_pid_clear_refs); elsewhere the peak is the process's.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory since ``reset_peak_memory``: of the GPU on CUDA, of the process elsewhere, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

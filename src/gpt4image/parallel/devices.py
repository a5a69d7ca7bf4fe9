"""Device, precision and memory format: chosen by what the device computes natively, never by timing, and recorded.

The same seed gives the same bits only if these are the same, whatever else the machine does meanwhile.
"""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; auto takes cuda, then mps, then cpu. Raises ConfigError: it is not there.

    A process that computes on a CPU keeps the memory that it frees.
    """
    counts = {"cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0}
    counts |= {"mps": int(torch.backends.mps.is_available()), "cpu": 1}
    with contextlib.suppress(RuntimeError):  # no name of a device
        device = torch.device(next(kind for kind, count in counts.items() if count) if name == "auto" else name)
        if (device.index or 0) < counts.get(device.type, 0):
            if device.type == "cpu":
                _keep_freed_memory()
            return device
    there = ", ".join(kind for kind in ("cpu", "cuda", "mps") if counts[kind])
    raise ConfigError(f"--device {name} is not available here; available: auto, {there}.")


@functools.cache
def _keep_freed_memory() -> None:
    """Let malloc of glibc keep what is freed. By default it gives large blocks back to the system, and the activations
    of each step fault every page in anew, which took up to half of a step on CPUs."""
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h; see mallopt(3)
    with contextlib.suppress(AttributeError, TypeError):  # another C library; Windows has none that belongs to all
        mallopt = ctypes.CDLL(None).mallopt
        for what, value in ((mmap_max, 0), (trim_threshold, -1), (top_pad, 64 << 20)):
            mallopt(what, value)


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


def suited_precision(device_type: str) -> Literal["bf16", "fp32"]:
    """Return the precision that a device trains in by default."""
    return "bf16" if computes_bf16(device_type) else "fp32"


def suited_memory_format(device_type: str, *, convolves: bool) -> Literal["channels_last", "contiguous"]:
    """Return the memory format that a device trains in by default, a model that ``convolves`` or another one."""
    fast = device_type == "cpu" or (device_type == "cuda" and computes_bf16(device_type))
    return "channels_last" if fast and convolves else "contiguous"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context of a precision: bf16, or none for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


class _DepthwiseInFp32(nn.Module):
    """A part of the class of a convolution, which learns in fp32 within autocast."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        if not torch.is_grad_enabled():
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def depthwise_in_fp32(model: nn.Module) -> None:
    """Let the depthwise convolutions of a model learn in fp32 on CPUs: their gradient takes 3 times as long in bf16.

    Other convolutions, grouped ones too, are faster in bf16, and so are these without a gradient.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            kind = type(module)
            module.__class__ = type(kind.__name__, (_DepthwiseInFp32, kind), {})  # as torch's parametrize does


def memory_format_of(name: str) -> torch.memory_format:
    """Return the torch memory format called ``name``."""
    return torch.channels_last if name == "channels_last" else torch.contiguous_format


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
    """Return the peak memory since ``reset_peak_memory``: of the GPU on CUDA, of the process elsewhere, in bytes.

    On Windows, where it is not known, 0.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        if sys.platform == "win32":
            return 0
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

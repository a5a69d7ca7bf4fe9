"""Device and precision: the fastest is taken, what is not there is refused."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from gpt4image.base.errors import ConfigError
from gpt4image.parallel.devices import (
    choose_device,
    computes_bf16,
    cpu_threads,
    probe,
)

CPU = torch.device("cpu")


def test_the_probe_takes_the_fastest_and_reports_all() -> None:
    tried: list[str] = []

    def step(_precision: str, memory_format: str) -> None:
        tried.append(memory_format)
        time.sleep(seconds_of[memory_format])

    seconds_of = {"channels_last": 0.1, "contiguous": 0.001}
    precision, memory_format, seconds = probe(step, CPU, "fp32", "auto")
    assert (precision, memory_format) == ("fp32", "contiguous")
    assert seconds.keys() == {"fp32 contiguous", "fp32 channels_last"}
    assert seconds["fp32 contiguous"] < seconds["fp32 channels_last"]
    tried.clear()
    seconds_of = {"channels_last": 0.001, "contiguous": 0.1}
    assert probe(step, CPU, "fp32", "auto")[1] == "channels_last"
    assert tried.count("contiguous") == 2, "what is much slower is not tried to the end"
    tried.clear()
    seconds_of = {"channels_last": 0.6, "contiguous": 0.6}
    probe(step, CPU, "fp32", "auto")
    assert len(tried) == 2, "one long step of each tells enough"


def test_what_is_made_for_the_steps_of_a_choice_costs_it_nothing() -> None:
    made: list[str] = []

    def ready(_precision: str, memory_format: str) -> None:
        time.sleep(0.0 if made else 0.4)  # as imports and files that only the first one reads
        made.append(memory_format)

    def step(_precision: str, memory_format: str) -> None:
        assert made[-1] == memory_format
        time.sleep({"channels_last": 0.01, "contiguous": 0.05}[memory_format])

    _, memory_format, seconds = probe(step, CPU, "fp32", "auto", ready=ready)
    assert made == ["channels_last", "contiguous"]
    assert memory_format == "channels_last" and seconds["fp32 channels_last"] < 0.3


def test_what_does_not_fit_into_memory_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4image.parallel.devices.computes_bf16", lambda _kind: True)
    fits = {"bf16"}

    def step(precision: str, _memory_format: str) -> None:
        if precision not in fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    precision, _, seconds = probe(step, CPU, "auto", "contiguous")
    assert precision == "bf16" and seconds.keys() == {"bf16 contiguous"}
    fits.clear()
    with pytest.raises(torch.OutOfMemoryError, match="fits in no precision: bf16, fp32"):
        probe(step, CPU, "auto", "contiguous")


def test_bf16_is_tried_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[str] = set()
    monkeypatch.setattr("gpt4image.parallel.devices.computes_bf16", lambda _kind: False)
    probe(lambda precision, _: tried.add(precision), CPU, "auto", "auto")
    assert tried == {"fp32"}
    assert probe(lambda *_: pytest.fail("timed"), CPU, "bf16", "contiguous") == ("bf16", "contiguous", {})
    assert isinstance(computes_bf16("cpu"), bool)


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert choose_device("cpu") == CPU
    for name in ("tpu", "cpu:x", "cuda", ""):
        with pytest.raises(ConfigError, match="available: auto, cpu"):
            choose_device(name)


def test_a_gpu_beyond_those_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="cuda:2 is not available here; available: auto, cpu, cuda"):
        choose_device("cuda:2")


def test_threads_are_those_of_torch_numpy_and_scipy_and_given_back() -> None:
    def counts() -> list[int]:
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return [torch.get_num_threads(), *blas]

    with threadpool_limits(2, user_api="blas"):
        before = counts()
        assert len(before) > 1, "numpy has its own threads, or the test sees nothing"
        with cpu_threads(None):
            assert counts() == before
        with cpu_threads(1):
            assert set(counts()) == {1}
        assert counts() == before


def test_peak_memory_counts_what_was_used_since_the_reset() -> None:
    # In a process of its own: one that has freed much memory before may reuse it without growing.
    code = (
        "import torch; from gpt4image.parallel.devices import peak_memory_bytes as peak, reset_peak_memory as reset\n"
        "cpu = torch.device('cpu'); reset(cpu); low = peak(cpu); block = torch.ones(50_000_000); high = peak(cpu)\n"
        "del block; assert high - low > 150e6, (low, high); assert peak(cpu) > 0.98 * high"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

"""Device and precision: chosen by what the device computes natively, and what is not there is refused."""

from __future__ import annotations

import sys

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from gpt4image.base.errors import ConfigError
from gpt4image.cli import main
from gpt4image.parallel import launch
from gpt4image.parallel.devices import (
    choose_device,
    cpu_threads,
    suited_memory_format,
    suited_precision,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "native", "precision", "convolutions", "others"),
    [
        ("cpu", True, "bf16", "channels_last", "contiguous"),
        ("cpu", False, "fp32", "channels_last", "contiguous"),
        ("cuda", True, "bf16", "channels_last", "contiguous"),
        ("cuda", False, "fp32", "contiguous", "contiguous"),
        ("mps", False, "fp32", "contiguous", "contiguous"),
    ],
)
def test_precision_and_memory_format_follow_what_a_device_computes_natively(
    device: str, native: bool, precision: str, convolutions: str, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4image.parallel.devices.computes_bf16", lambda _kind: native)
    assert suited_precision(device) == precision
    assert [suited_memory_format(device, convolves=there) for there in (True, False)] == [convolutions, others]


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert choose_device("cpu") == CPU
    for name in ("tpu", "cpu:x", "cuda", ""):
        with pytest.raises(ConfigError, match="available: auto, cpu"):
            choose_device(name)


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


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_process_alone_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (launch.count(), launch.rank(), launch.local_rank(), launch.local_count()) == (1, 0, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as cluster managers set it for jobs of one process too
    assert (launch.count(), launch.rank(), launch.local_count()) == (1, 0, 1)


def test_only_the_first_process_speaks(second_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (launch.count(), launch.rank(), launch.local_rank(), launch.local_count()) == (2, 1, 1, 2)
    with launch.only_first_speaks():
        print("second")
        print("second", file=sys.stderr)
    second_of_two.setenv("RANK", "0")
    with launch.only_first_speaks():
        print("first")
    assert capsys.readouterr() == ("first\n", "")


@pytest.mark.parametrize("words", [["compare", "--data", "openmoji", "--out", "x"], ["descriptions", "stats"]])
def test_commands_that_run_in_one_process_are_refused_once(
    words: list[str], second_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", "")
    second_of_two.setenv("RANK", "0")
    assert main(words) == 2
    assert "was started in 2 processes" in (said := capsys.readouterr().err)
    assert "Processes can share train and evaluate." in said

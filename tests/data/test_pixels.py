"""Pixels in memory and by workers: same interface, same pictures, broken ones named."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4image.base.errors import DataError
from gpt4image.data import Dataset, MemorySource, pixels
from gpt4image.data.decode import decode_square
from gpt4image.data.pixels import MemoryPixels, WorkerPixels, load_pixels
from worlds import in_memory, png

COUNT = 700  # several chunks


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [png(seed) for seed in range(COUNT)]


BATCHES = [np.array([5, 3, 699]), np.array([0]), np.arange(300, 420)]


@pytest.mark.parametrize("workers", [0, 2])
def test_both_kinds_give_the_same_pictures(files: list[bytes], workers: int) -> None:
    loaded, *_ = load_pixels(in_memory(files), 16, memory_limit_gb=1, workers=workers)
    lazy = WorkerPixels(in_memory(files), 16, workers=workers)
    assert isinstance(loaded, MemoryPixels)
    for indices, first, second in zip(BATCHES, loaded.stream(BATCHES), lazy.stream(BATCHES), strict=True):
        expected = np.stack([decode_square(files[i], 16) for i in indices]).transpose(0, 3, 1, 2)
        assert first.dtype == second.dtype == torch.uint8
        np.testing.assert_array_equal(first.numpy(), expected)
        np.testing.assert_array_equal(second.numpy(), expected)
    assert len(loaded) == len(lazy) == COUNT


class Garbage:
    """An object that only the garbage collector can free; the file then names the process that did."""

    def __init__(self, file: Path) -> None:
        self.file, self.cycle = file, self

    def __del__(self) -> None:
        self.file.write_text(str(os.getpid()))


def test_workers_free_nothing_of_the_process_that_they_are_copied_from(files: list[bytes], tmp_path: Path) -> None:
    freed = tmp_path / "freed"

    def collect(images: torch.Tensor, _indices: object, _number: int) -> torch.Tensor:
        gc.collect()
        return images

    gc.disable()
    try:
        Garbage(freed)
        for _ in WorkerPixels(in_memory(files[:4]), 8, workers=1).stream([np.arange(4)], collect):
            assert freed.read_text() == str(os.getpid())
    finally:
        gc.enable()


def test_workers_take_over_where_decoding_takes_long(files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, *_ = load_pixels(in_memory(files), 8, memory_limit_gb=1, workers=2)
    monkeypatch.setattr(pixels, "WORTH_WORKERS_SECONDS", 0.0)
    seen: list[int] = []
    stream = WorkerPixels.stream
    monkeypatch.setattr(
        WorkerPixels, "stream", lambda self, batches: seen.append(self.workers) or stream(self, batches)
    )
    parallel, *_ = load_pixels(in_memory(files), 8, memory_limit_gb=1, workers=2)
    assert seen == [0, 2]
    assert isinstance(plain, MemoryPixels)
    assert isinstance(parallel, MemoryPixels)
    assert torch.equal(plain.images, parallel.images)


def test_the_memory_limit_that_processes_of_a_machine_share_chooses(
    files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "available_cores", lambda: 8)
    exact = COUNT * 3 * 8 * 8 / 1e9
    for processes in (1, 2):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        for name, value in (("WORLD_SIZE", "4"), ("RANK", "2")):
            monkeypatch.setenv(name, value)
        limit = exact * processes
        assert isinstance(load_pixels(in_memory(files), 8, memory_limit_gb=limit * 1.01, workers=0)[0], MemoryPixels)
        lazy = load_pixels(in_memory(files), 8, memory_limit_gb=limit * 0.99, workers=None)[0]
        assert isinstance(lazy, WorkerPixels) and lazy.workers == 8 // processes


class SomeGone(MemorySource):
    def read(self, row: int) -> bytes:
        if row == 5:
            raise FileNotFoundError(2, "No such file or directory", "x.png")
        return super().read(row)


def with_broken(files: list[bytes]) -> Dataset:
    content = [files[0], b"", files[2], files[3][:60], b"text", b""]
    return in_memory(content, source=SomeGone(content))


def test_broken_images_in_memory_are_known_at_once(files: list[bytes]) -> None:
    loaded, bad, ok = load_pixels(with_broken(files), 8, memory_limit_gb=1, workers=0)
    assert ok.tolist() == [True, False, True, False, False, False]
    assert [item.name for item in bad] == ["k1", "k3", "k4", "k5"] and loaded.skipped == bad
    for item, words in ((bad[0], "empty"), (bad[2], "not an image"), (bad[3], "No such file")):
        assert words in item.reason
    with pytest.raises(DataError, match="no image can be decoded"):
        load_pixels(in_memory([b"", b"x"]), 8, memory_limit_gb=1, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_with_workers_are_white_and_named_when_met(files: list[bytes], workers: int) -> None:
    loaded, bad, ok = load_pixels(with_broken(files), 8, memory_limit_gb=0, workers=workers)
    assert bad == () and ok.all() and isinstance(loaded, WorkerPixels)
    before = torch.get_rng_state()
    (batch,) = loaded.stream([np.array([0, 1])])
    assert torch.equal(before, torch.get_rng_state())
    assert (batch[1] == 255).all() and not (batch[0] == 255).all()
    assert [item.name for item in loaded.skipped] == ["k1"]
    list(loaded.stream([np.arange(5)]))
    assert [item.name for item in loaded.skipped] == ["k1", "k3", "k4"]
    assert loaded.broken(np.arange(5)).tolist() == [False, True, False, True, True]

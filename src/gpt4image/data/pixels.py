"""What training reads: uint8 pixels of a square size, held in memory or decoded by worker processes.

With workers, a broken image gives a white picture, and is named in ``pixels.skipped`` from then on.
"""

import gc
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from gpt4image.base.errors import DataError, DecodeError
from gpt4image.base.interrupts import started, starting_processes
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.data.dataset import Dataset
from gpt4image.data.decode import decode_square
from gpt4image.data.video import Frames, decode_clip
from gpt4image.parallel import launch

BLANK = 255
CHUNK = 64  # images per message between processes: 64 of 224 x 224 are 10 MB of shared memory
MOST_WORKERS = 16  # each holds batches in shared memory, of which containers have little
WORTH_WORKERS_SECONDS = 4.0  # decoding that takes less is done before worker processes have started

Indices = NDArray[np.int64]  # positions of images
Broken = list[tuple[int, str]]  # index and reason of each image that could not be decoded
Edit = Callable[[torch.Tensor, Indices, int], torch.Tensor]  # of pixels, positions, number of the batch


class MemoryPixels:
    """N images in one tensor (N, C, size, size) uint8, of clips of T frames C = 3 T; those ``skipped`` are white."""

    def __init__(self, images: torch.Tensor, skipped: tuple[Skipped, ...] = ()) -> None:
        self.images, self.size, self.skipped = images, images.shape[-1], skipped

    def __len__(self) -> int:
        return len(self.images)

    def broken(self, indices: Indices) -> NDArray[np.bool_]:
        """Return (B,) False: broken images are known, and left out, before a batch is made."""
        return np.zeros(len(indices), dtype=bool)

    def stream(self, batches: Iterable[Indices], edit: Edit | None = None, first: int = 0) -> Iterator[torch.Tensor]:
        """Yield the pixels of each batch of positions: uint8 (B, C, size, size); batches count from ``first``."""
        for number, indices in enumerate(batches, first):
            images = self.images.index_select(0, torch.from_numpy(indices))  # [...] would copy each byte
            yield images if edit is None else edit(images, indices, number)


class WorkerPixels:
    """N images decoded a few batches ahead by ``workers`` processes, or by this one with 0; see ``MemoryPixels``."""

    def __init__(
        self, image_set: Dataset, size: int, *, workers: int, squash: bool = False, frames: Frames | None = None
    ) -> None:
        self.size, self.workers, self._squash, self.frames = size, workers, squash, frames
        self._image_set = image_set
        self._broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._image_set)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that could not be decoded so far, in order of the dataset."""
        keys = self._image_set.keys
        return tuple(Skipped(keys[i], self._broken[i]) for i in sorted(self._broken))

    def broken(self, indices: Indices) -> NDArray[np.bool_]:
        """Return (B,) which of the images at ``indices`` could not be decoded when they were met."""
        return np.array([index in self._broken for index in indices.tolist()], dtype=bool)

    def decode(self, indices: Indices) -> tuple[torch.Tensor, Broken]:
        """Return pixels of the images at ``indices``, decoded in this process, and those that are broken."""
        images = np.full((len(indices), channels(self.frames), self.size, self.size), BLANK, dtype=np.uint8)
        broken: Broken = []
        for position, index in enumerate(indices.tolist()):
            try:
                data = self._image_set.read(index)
                images[position] = decoded(data, self.size, squash=self._squash, frames=self.frames)
            except (DecodeError, OSError) as error:
                broken.append((index, str(error)))
        return torch.from_numpy(images), broken

    def stream(self, batches: Iterable[Indices], edit: Edit | None = None, first: int = 0) -> Iterator[torch.Tensor]:
        """Yield the pixels of each batch, edited in the worker. Workers live as long as one stream."""
        if self.workers:
            gc.collect()  # what a worker frees in place of its parent may wait for threads that no worker has
        loader = DataLoader(
            _Decoding(self, edit),
            batch_sampler=enumerate(batches, first),  # pyright: ignore[reportArgumentType]  (passed on as they are)
            num_workers=self.workers,
            worker_init_fn=_start_decoding,
            collate_fn=_Decoding.unchanged,
            generator=torch.Generator(),  # else the loader uses, and so changes, the global random state
        )
        with starting_processes():
            decoded_batches = iter(loader)
        for images, broken in decoded_batches:
            self._broken.update(broken)
            yield images


class KeptFeatures(MemoryPixels):
    """What layers that stay as they are make of N images, in place of their pixels.

    ``features`` are (M, C) float32, pooled, where only the classifier learns, else (M, C, H, W) float16. ``rows``,
    (N, V), are those of the V views of each image, of which the first is the plain one; without it N = M.
    """

    def __init__(
        self, features: torch.Tensor, of: MemoryPixels | WorkerPixels, rows: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__(features, of.skipped)
        self.size, self._of = of.size, of
        self.rows = np.arange(len(features))[:, None] if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def broken(self, indices: Indices) -> NDArray[np.bool_]:
        """Return (B,) which of the images at ``indices`` could not be decoded."""
        return self._of.broken(indices)

    def stream(self, batches: Iterable[Indices], edit: Edit | None = None, first: int = 0) -> Iterator[torch.Tensor]:
        """Yield the features of the plain views of each batch; there are no pixels that could be edited."""
        return super().stream(self.rows[indices, 0] for indices in batches)

    def drawn(self, batches: Iterable[Indices], seed: int, first: int) -> Iterator[torch.Tensor]:
        """Yield the features of a random view of each image, a function of the seed and the number of the batch."""
        for number, indices in enumerate(batches, first):
            views = np.random.default_rng((seed, number)).integers(self.rows.shape[1], size=len(indices))
            yield from super().stream([self.rows[indices, views]])


Pixels = MemoryPixels | WorkerPixels


def load_pixels(
    image_set: Dataset,
    size: int,
    *,
    memory_limit_gb: float,
    workers: int | None,
    squash: bool = False,
    frames: Frames | None = None,
) -> tuple[Pixels, tuple[Skipped, ...], NDArray[np.bool_]]:
    """Decode the N images into memory if their pixels fit, else prepare worker processes.

    Training processes of a machine share ``memory_limit_gb`` (10^9 bytes) and the cores. Returns the pixels; the images
    that cannot be decoded; the (N,) mask of those that can, as far as they are decoded yet.
    """
    workers = min(MOST_WORKERS, available_cores() // launch.local_count()) if workers is None else workers
    decoder = WorkerPixels(image_set, size, workers=0, squash=squash, frames=frames)
    if len(image_set) * channels(frames) * size * size > memory_limit_gb * 1e9 / launch.local_count():
        decoder.workers = max(1, workers)
        return decoder, (), np.ones(len(image_set), dtype=bool)
    images = _decode_all(decoder, workers)
    skipped, decodable = decoder.skipped, ~decoder.broken(np.arange(len(image_set)))
    if not decodable.any():
        raise DataError(f"{image_set.spec}: no image can be decoded. The first: {skipped[0].reason}.")
    return MemoryPixels(images, skipped), skipped, decodable


def decoded(data: bytes, size: int, *, squash: bool, frames: Frames | None) -> NDArray[np.uint8]:
    """Return the pixels (C, size, size) of an image or a clip. Raises DecodeError."""
    if frames is None:
        return decode_square(data, size, squash=squash).transpose(2, 0, 1)
    return decode_clip(data, size, frames, squash=squash).transpose(0, 3, 1, 2).reshape(-1, size, size)


def channels(frames: Frames | None) -> int:
    """Return C, the channels that an image or a clip is kept with."""
    return 3 if frames is None else 3 * frames.count


def available_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode_all(decoder: WorkerPixels, workers: int) -> torch.Tensor:
    """Decode in this process; where the rest takes long enough to pay for their start, let workers go on."""
    count = len(decoder)
    images = torch.empty((count, channels(decoder.frames), decoder.size, decoder.size), dtype=torch.uint8)
    chunks = [np.arange(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    started = time.monotonic()
    images[: len(chunks[0])] = next(decoder.stream(chunks[:1]))
    remaining_seconds = (time.monotonic() - started) * (len(chunks) - 1)
    if remaining_seconds > WORTH_WORKERS_SECONDS and workers > 1:
        decoder.workers = workers
    with progress_bar(quiet=remaining_seconds < WORTH_WORKERS_SECONDS) as progress:
        task = progress.add_task("Decoding", total=count, completed=len(chunks[0]), note="")
        for indices, batch in zip(chunks[1:], decoder.stream(chunks[1:]), strict=True):
            images[indices[0] : indices[-1] + 1] = batch
            progress.advance(task, len(indices))
    return images


class _Decoding(torch.utils.data.Dataset[tuple[torch.Tensor, Broken]]):
    """Decodes and edits whole batches: what a worker process runs."""

    def __init__(self, of: WorkerPixels, edit: Edit | None) -> None:
        self.of, self.edit = of, edit

    def __getitems__(self, batch: tuple[int, Indices]) -> tuple[torch.Tensor, Broken]:
        number, indices = batch
        pixels, broken = self.of.decode(indices)
        return pixels if self.edit is None else self.edit(pixels, indices, number), broken

    @staticmethod
    def unchanged(batch: Any) -> Any:
        return batch


def _start_decoding(_worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to decoding processes too, to the process that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started(forget=True)

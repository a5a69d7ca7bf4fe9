"""Images given as files, folders and patterns: found one after the other, and decoded ahead of whoever uses them."""

from __future__ import annotations

import glob
import itertools
import os
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DecodeError
from gpt4image.base.outcome import Skipped
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import read_bounded
from gpt4image.deploying.preprocessing import Preprocessing


class Decoded(NamedTuple):
    """Images or clips in the order in which they were found: n paths, (n, ...) pixels, and those that were skipped.

    ``sizes`` are width and height of the n upright pictures, zeros unless they are asked for.
    """

    paths: list[str]
    pixels: NDArray[np.uint8]
    skipped: list[Skipped]
    sizes: list[tuple[int, int]]


def find_images(names: Iterable[str], extensions: Collection[str] = EXTENSIONS) -> Iterator[str | Skipped]:
    """Yield the path of every image that is named, in order; none is kept, so that folders may be of any size.

    A file is taken whatever its extension. Of a folder, the files below it that have one of ``extensions`` are, in
    order of their names; hidden ones are left out, and links to folders are not followed. Other names are patterns,
    with ``*``, ``?``, ``[...]`` and ``**``. What leads to no image is yielded as skipped.
    """
    for name in names:
        matches = [name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        folders = {Path(match) for match in matches if os.path.isdir(match)}  # noqa: PTH112
        empty = True
        for match in matches:
            if not folders.isdisjoint(Path(match).parents):
                continue  # it is found in the folder above, which ``**`` matches too
            for found in _below(match, extensions) if os.path.isdir(match) else (match,):  # noqa: PTH112
                empty = False
                yield found
        if empty:
            yield Skipped(name=name, reason="holds no image" if matches else "there is no such file, folder or pattern")


def _below(folder: str, extensions: Collection[str]) -> Iterator[str | Skipped]:
    unreadable: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in extensions:  # noqa: PTH122
                yield os.path.join(parent, file)  # noqa: PTH118
    for error in unreadable:
        yield Skipped(name=str(error.filename), reason=f"cannot be read: {error.strerror}")


def decode_ahead(
    found: Iterable[str | Skipped], preprocessing: Preprocessing, *, batch_size: int, threads: int, sized: bool = False
) -> Generator[Decoded]:
    """Yield images in batches, in order, while threads decode the next ones: two batches per thread are held.

    Args:
        found: paths, and what was skipped already.
        preprocessing: what makes pixels of a file.
        batch_size: files per batch.
        threads: how many decode side by side.
        sized: whether the sides of the pictures themselves are asked for: their headers are read a second time.
    """
    remaining = iter(found)
    batches = iter(lambda: list(itertools.islice(remaining, batch_size)), [])
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(_decode, batch, preprocessing, sized))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(found: Sequence[str | Skipped], preprocessing: Preprocessing, sized: bool) -> Decoded:
    pixels = np.empty((len(found), *preprocessing.shape), np.uint8)
    paths: list[str] = []
    skipped: list[Skipped] = []
    sizes: list[tuple[int, int]] = []
    for item in found:
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        try:
            if not os.path.isfile(item):  # noqa: PTH113  (a pipe would never end)
                raise DecodeError("a link to nothing" if os.path.islink(item) else "no file")  # noqa: PTH114
            data = read_bounded(item)
            pixels[len(paths)] = preprocessing.pixels(data)
            sizes.append(preprocessing.sides(data) if sized else (0, 0))
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(name=item, reason=getattr(error, "strerror", None) or str(error)))
        else:
            paths.append(item)
    return Decoded(paths, pixels[: len(paths)], skipped, sizes)

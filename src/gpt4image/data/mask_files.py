"""Masks in files of one number per pixel: read, compared with their pictures, and what classes they show."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError
from gpt4image.base.progress import progress_bar
from gpt4image.data.box_checks import Faults
from gpt4image.data.decode import decode_numbers, sides
from gpt4image.data.image_set import ImageSource
from gpt4image.data.regions import VOID, Masks

BACKGROUND = ("background", "foreground")
"""Names of the two classes of masks of 0 and 255 that have no names."""
BAR_FROM = 2000


class MaskFiles:
    """Masks that are files of one number per pixel, see ``regions.MaskSource``.

    Args:
        source: where the files are.
        rows: those that images have; the others may lack a file.
    """

    def __init__(self, source: ImageSource, rows: NDArray[np.int64]) -> None:
        self._source, self._rows = source, np.unique(rows[rows >= 0])

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the numbers of the pixels. Raises DecodeError, OSError."""
        return decode_numbers(self._source.read(row))

    def digest(self, row: int) -> str:
        """Return the sha256 hex digest of the file."""
        return self._digests[row]

    @cached_property
    def _digests(self) -> dict[int, str]:
        return dict(zip(self._rows.tolist(), self._source.digests(self._rows), strict=True))


def masks_of(
    masks: MaskFiles,
    rows: NDArray[np.int64],
    pictures: ImageSource,
    picture_rows: NDArray[np.int64],
    keys: Sequence[str],
    names: Sequence[str] | None,
    faults: Faults,
    spec: str,
) -> tuple[Masks, tuple[str, ...]]:
    """Return the masks of images and the class names; every mask is read once, and damaged ones go to ``faults``.

    Args:
        masks: where they are.
        rows: (N,) of each image in ``masks``, -1 without one.
        pictures: where the images are.
        picture_rows: (N,) of each image in ``pictures``.
        keys: of the images.
        names: of the classes by number; None where the numbers are all that is known.
        faults: collects masks that are not used.
        spec: of the dataset.

    Raises:
        DataError: no mask can be used.
    """
    used = np.zeros((len(rows), VOID + 1), np.bool_)
    with_mask = np.flatnonzero(rows >= 0).tolist()

    def look(image: int) -> NDArray[np.uint8] | str:
        try:
            numbers = masks.read(int(rows[image]))
        except (DecodeError, OSError) as error:
            return f"the mask cannot be used: {error}"
        try:
            size = sides(pictures.read(int(picture_rows[image])))
        except (DecodeError, OSError):  # it is named when its pixels are read
            size = numbers.shape[::-1]
        if numbers.shape[::-1] != size:
            return "the mask has another size than its picture"
        return np.unique(numbers)

    with ThreadPoolExecutor() as pool, progress_bar(quiet=len(with_mask) < BAR_FROM) as progress:
        task = progress.add_task("Reading masks", total=len(with_mask), note="")
        for image, found in zip(with_mask, pool.map(look, with_mask), strict=True):
            progress.advance(task, 1)
            if isinstance(found, str):
                faults.add(keys[image], found)
            else:
                used[image, found] = True
    place = np.arange(VOID + 1, dtype=np.uint8)
    if used[:, VOID].any() and not used[:, 1:VOID].any() and (names is None or len(names) == 2):
        place[VOID] = 1  # two classes, written as black and white
        used[:, 1], used[:, VOID] = used[:, VOID], False
        names = BACKGROUND if names is None else names
    if names is None:
        names = tuple(map(str, range(int(np.flatnonzero(used[:, :VOID].any(axis=0)).max(initial=-1)) + 1)))
    beyond = np.asarray(used[:, len(names) : VOID].any(axis=1))
    for image in np.flatnonzero(beyond).tolist():
        largest = int(np.flatnonzero(used[image, :VOID]).max())
        faults.add(keys[image], f"the mask has numbers above {len(names) - 1}, such as {largest}, that have no class")
    known = np.asarray(used.any(axis=1)) & ~beyond
    if not known.any():
        first = "".join(f" {item.name}: {item.reason}." for item in faults.skipped(spec)[:3])
        raise DataError(f"{spec}: no image has a mask that can be used.{first}")
    present = np.where(known[:, None], used[:, : len(names)], np.int8(-1)).astype(np.int8)
    found = Masks(source=masks, rows=np.where(known, rows, -1), presence_of_classes=present, place=place)
    return found, tuple(names)

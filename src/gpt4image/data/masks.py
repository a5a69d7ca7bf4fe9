"""`masks:DIR`: images, and masks of the same paths with the number of a class in each pixel.

They lie in ``images`` and ``masks``; ``images=`` and ``masks=`` name other folders. 255 counts for nothing, unless
there are two classes and masks of 0 and 255 only. An image without a mask is not annotated, except by its tags in
``tags.csv``. Splits are those of folders, or of VOC's lists in ImageSets/Segmentation.
"""

import contextlib
import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError, first_few, parsing
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import from_csv_cell
from gpt4image.data.dataset import Dataset, ImageSource
from gpt4image.data.decode import decode_numbers, sides
from gpt4image.data.file_source import FileSource, files_below, lines_of
from gpt4image.data.labels import SEPARATOR
from gpt4image.data.records import Faults, Record, require_some, to_dataset
from gpt4image.data.regions import VOID, Masks
from gpt4image.data.spec import Spec
from gpt4image.data.voc import paired, splits_of

NAMES, TAGS = "classes.txt", "tags.csv"
UNSEEN = ("background", "_background_")  # classes that tags do not name, whether they are present or not
BACKGROUND = ("background", "foreground")  # names of the two classes of masks of 0 and 255 that have no names
BAR_FROM = 2000


def load_masks(spec: Spec) -> Dataset:
    """Load images and masks; keys are paths of images from the folder."""
    root, images, folder = spec.path, spec.folder("images", "images"), spec.folder("masks", "masks")
    keys, skipped = files_below(root, images)
    masks, broken = files_below(root, folder)
    if not keys or not masks:
        counts = f"{len(keys):,} images in {images} and {len(masks):,} masks in {folder}"
        raise DataError(f"{spec}: {counts}; give images=FOLDER and masks=FOLDER.")
    names, faults = _class_names(root / NAMES, spec), Faults()
    row_of = {path: row for row, path in enumerate(masks)}
    mask_of = paired(root, (images, keys), (folder, masks), faults)
    splits = splits_of(spec, "Segmentation", keys, mask_of, skipped)
    rows = np.array([row_of.get(mask_of.get(key, ""), -1) for key in splits], np.int64)
    source, records = FileSource(root, [*splits]), [Record(key=key, split=split) for key, split in splits.items()]
    found = masks_of(MaskFiles(FileSource(root, masks)), rows, records, source, names, faults, spec.text)
    regions, classes = found
    if (root / TAGS).is_file():
        below = {key: (root / key).relative_to(images).as_posix() for key in splits}
        present = _tagged(root / TAGS, below, classes, faults, spec)
        tagged = np.where(regions.known[:, None], regions.presence_of_classes, present)
        regions = replace(regions, presence_of_classes=tagged)
    skipped += [*broken, *faults.skipped("masks and tags")]
    return to_dataset(spec.text, records, source, classes=classes, regions=regions, skipped=skipped)


class MaskFiles:
    """Masks that are files of one number per pixel, see ``MaskSource``."""

    def __init__(self, source: ImageSource) -> None:
        self._source, self.content = source, source.read

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the numbers of the pixels. Raises DecodeError, OSError."""
        return decode_numbers(self._source.read(row))


def masks_of(
    masks: MaskFiles,
    rows: NDArray[np.int64],
    records: Sequence[Record],
    pictures: ImageSource,
    names: Sequence[str] | None,
    faults: Faults,
    spec: str,
) -> tuple[Masks, tuple[str, ...]]:
    """Return the masks of N images and the class names; damaged masks go to ``faults``. Raises DataError.

    ``rows`` (N,) is the place of each image in ``masks``, -1 without one; ``names`` are the classes by number, if
    known.
    """
    used = np.zeros((len(rows), VOID + 1), np.bool_)
    with_mask = np.flatnonzero(rows >= 0).tolist()

    def look(image: int) -> NDArray[np.uint8] | str:
        try:
            numbers = masks.read(int(rows[image]))
        except (DecodeError, OSError) as error:
            return f"the mask cannot be used: {error}"
        with contextlib.suppress(DecodeError, OSError):  # it is named when its pixels are read
            if numbers.shape[::-1] != sides(pictures.read(image)):
                return "the mask has another size than its picture"
        return np.unique(numbers)

    with ThreadPoolExecutor() as pool, progress_bar(quiet=len(with_mask) < BAR_FROM) as progress:
        looked = progress.track(pool.map(look, with_mask), len(with_mask), description="Reading masks")
        for image, found in zip(with_mask, looked, strict=True):
            if isinstance(found, str):
                faults.add(records[image].key, found)
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
        such = f"numbers above {len(names) - 1}, such as {int(np.flatnonzero(used[image, :VOID]).max())}"
        faults.add(records[image].key, f"the mask has {such}, that have no class")
    known = np.asarray(used.any(axis=1)) & ~beyond
    require_some(np.flatnonzero(known), f"{spec}: no image has a mask that can be used.", faults.skipped("masks"))
    present = np.where(known[:, None], used[:, : len(names)], np.int8(-1)).astype(np.int8)
    found = Masks(source=masks, rows=np.where(known, rows, -1), presence_of_classes=present, place=place)
    return found, tuple(names)


def _class_names(file: Path, spec: Spec) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    names = tuple(lines_of(file, f"{spec}: {NAMES} is no list of names"))
    if "" in names or len(set(names)) < len(names) or not 2 <= len(names) <= VOID:
        raise DataError(f"{spec}: {NAMES} has {len(names)} lines; give 2 to {VOID} class names, each once, one a line.")
    return names


def _tagged(
    file: Path, below: Mapping[str, str], classes: Sequence[str], faults: Faults, spec: Spec
) -> NDArray[np.int8]:
    """Return (N, K) int8 what tags say of images: by the path below the images, or by its name without the ending."""
    what = f"{spec}: {file.name} is no CSV file in UTF-8"
    lines = lines_of(file, what)
    with parsing(what):
        header, *rows = [row for row in csv.reader(lines, strict=True) if row] or [[]]
    if [cell.strip() for cell in header] != ["key", "tags"]:
        raise DataError(f"{spec}: the first line of {file.name} is {','.join(header)[:100]!r}; it must be 'key,tags'.")
    stems = Counter(PurePosixPath(path).stem for path in below.values())
    row_of = {path: row for row, path in enumerate(below.values())}
    row_of |= {stem: row for path, row in row_of.items() if stems[stem := PurePosixPath(path).stem] == 1}
    number = {name: label for label, name in enumerate(classes)}
    unseen = [number[name] for name in classes if name.lower() in UNSEEN]
    found, tagged = np.full((len(below), len(classes)), -1, np.int8), set[int]()
    for position, (given, *rest) in enumerate(rows, 1):
        key, cell = from_csv_cell(given), rest[0] if rest else ""
        row, tags = row_of.get(key, -1), [tag.strip() for tag in cell.split(SEPARATOR) if tag.strip()]
        unknown = [tag for tag in tags if tag not in number]
        if row < 0 or row in tagged:
            faults.add(f"{file.name}, row {position}", "its key is of no image, of several, or comes again")
            continue
        if unknown:
            faults.add(f"{key}: {first_few(unknown)}", "a tag is no class")
        if not cell.strip() or (unknown and len(unknown) == len(tags)):
            continue
        tagged.add(row)
        found[row] = -1 if unknown else 0  # a tag that is no class may be one of these, misspelt
        found[row, unseen] = -1
        found[row, [number[tag] for tag in tags if tag in number]] = 1
    return found

"""`hf:NAME_OR_PATH`: a dataset of the Hugging Face hub, or a local one (Parquet, Arrow, tar shards, `save_to_disk`).

Images stay undecoded in the memory-mapped Arrow files of `datasets`; they are read from there row by row. Local sets
need no network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError, DataError, MissingExtraError, first_few, parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.arrow_source import ArrowSource, cells_of
from gpt4image.data.box_checks import Faults
from gpt4image.data.file_source import expanded
from gpt4image.data.hf_regions import boxes_of, mask_column, masks_from, objects_column
from gpt4image.data.image_set import NO_LABEL, SPLIT_OF, ImageSet
from gpt4image.data.labels import LABEL_NAMES, LIST_NAMES, encode_labels, encode_several, label_matrix, refuse_gaps
from gpt4image.data.regions import Regions

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_NAMES = ("image", "img", "picture", "jpg", "png")
# Types of the two fields of an image; "null" where no row has one.
IMAGE_FIELDS = {"bytes": ("binary", "large_binary", "null"), "path": ("string", "large_string", "null")}
KEY_NAMES = ("key", "__key__")  # the second: of samples in tar shards, as WebDataset writes them
MAX_CAUSE = 400  # letters of what `datasets` says that are shown


def load_hf(argument: str) -> ImageSet:
    """Load the splits of a dataset that `datasets` reads.

    The image column is found by its type, the label column by name or type (ClassLabel, numbers or names; None and -1
    mean no label). A list of these is several classes per image. A column of objects with boxes, or a second column of
    images that are masks, comes before labels. Keys are the column ``key`` or ``__key__``, else ``SPLIT/ROW``; where
    splits share keys, those outside train get the split's name in front.

    Raises:
        ConfigError: no name is given.
        DataError: the dataset cannot be loaded; a split has no image column; no row can be used; the labels of two
            splits do not fit together.
        MissingExtraError: `datasets` is not installed.
    """
    spec = f"hf:{argument}"
    if not argument:
        raise ConfigError("--data 'hf:' lacks a name: hf:NAME_OR_PATH.")
    parts, unknown = _known_splits(_load(argument, spec))
    if not parts:
        raise DataError(f"{spec}: none of its splits {first_few(unknown)} is train, validation or test.")
    image = _image_column(parts, spec)
    source = ArrowSource([part for _, part in parts], image, _allowed_folders(argument))
    splits = np.repeat([SPLIT_OF[name] for name, _ in parts], [len(part) for _, part in parts])
    keys = _keys(parts, splits)
    with parsing(f"{spec}: the column {image!r} is damaged"):
        faults = source.faults()
    rows = np.setdiff1d(np.arange(len(keys)), list(faults))
    if not len(rows):
        reasons = f" The first: {first_few(f'{keys[row]} {why}' for row, why in faults.items())}." if faults else ""
        raise DataError(f"{spec}: none of its {len(keys)} rows has an image that can be used.{reasons}")
    classes, labels, regions, dropped = _annotations(parts, source, image, keys, faults, argument)
    return ImageSet(
        spec=spec,
        classes=classes,
        keys=tuple(keys[row] for row in rows),
        labels=labels[rows],
        splits=splits[rows],
        source=source,
        rows=rows,
        regions=None if regions is None else regions[rows],
        skipped=(
            *dropped,
            *(Skipped(name=f"split {name}", reason="is not one of train, validation and test") for name in unknown),
            *(Skipped(name=keys[row], reason=reason) for row, reason in faults.items()),
        ),
    )


def _annotations(
    parts: Sequence[tuple[str, Dataset]],
    source: ArrowSource,
    image: str,
    keys: Sequence[str],
    faults: Mapping[int, str],
    argument: str,
) -> tuple[tuple[str, ...], NDArray[Any], Regions | None, tuple[Skipped, ...]]:
    """Return classes and labels of all rows, boxes or masks if a column holds them, and what of these is skipped."""
    spec, dropped = f"hf:{argument}", Faults()
    column = mask_column(parts, image)
    if objects_column(parts[0][1]) is not None:
        regions, classes = boxes_of(parts, keys, source, dropped, spec)
    elif column is not None:
        masks = ArrowSource([part for _, part in parts], column, _allowed_folders(argument))
        regions, classes = masks_from(masks, source, keys, dropped, spec)
    else:
        return *_labels(parts, faults, spec), None, ()
    return classes, regions.presence(len(classes)), regions, dropped.skipped(spec)


def _load(argument: str, spec: str) -> Mapping[str, Dataset]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("A dataset of the kind hf", "hf") from None
    path = expanded(argument)
    local = path.exists()
    if not local and (path.is_absolute() or argument.startswith((".", "~"))):
        raise DataError(f"{spec}: there is no such file or folder.")
    if path.is_file() and path.suffix not in (".parquet", ".arrow"):
        raise DataError(f"{spec}: a single file is .parquet or .arrow, got {path.suffix or 'no extension'!r}.")
    loaded: Any
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file():
            # load_dataset("parquet", ...) would report its use over the network, and wait where there is none.
            read = datasets.Dataset.from_parquet if path.suffix == ".parquet" else datasets.Dataset.from_file
            loaded = read(str(path))
        else:
            loaded = datasets.load_dataset(str(path) if local else argument)
        if isinstance(loaded, datasets.Dataset):
            loaded = {str(loaded.split or "train"): loaded}
        return {name: part.flatten_indices() if part._indices is not None else part for name, part in loaded.items()}
    except Exception as error:  # what `datasets` raises on damaged or foreign files has no common base
        where = "could not be read" if local else "is neither a local path nor could it be loaded from the hub"
        advice = " The library `datasets` itself must be able to load it." if local else ""
        raise DataError(f"{spec} {where}: {_why(error)}.{advice}") from error


def _known_splits(loaded: Mapping[str, Dataset]) -> tuple[list[tuple[str, Dataset]], list[str]]:
    """Return the splits whose name is known, train first, and the names of the others; a single split is train."""
    if len(loaded) == 1 and not set(loaded) & set(SPLIT_OF):
        return [("train", next(iter(loaded.values())))], []
    known = sorted((name for name in loaded if name in SPLIT_OF), key=list(SPLIT_OF).index)
    return [(name, loaded[name]) for name in known], [name for name in loaded if name not in SPLIT_OF]


def _why(error: BaseException) -> str:
    """Return what an error of `datasets` says, and what led to it, each in one line that may be cut."""
    text = " ".join(str(error).split())[:MAX_CAUSE].rstrip(".")
    named = text if text and isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"
    return named if error.__cause__ is None else f"{named} ({_why(error.__cause__)})"


def _image_column(parts: Sequence[tuple[str, Dataset]], spec: str) -> str:
    """Return the name of the column that holds the images, in every split."""
    image = _first([name for name, kind in parts[0][1].features.items() if _holds_image(kind)], IMAGE_NAMES)
    for split, part in parts:
        if image is None or not _holds_image(part.features.get(image)):
            first = f"the images of {parts[0][0]} are in column {image!r}, but " if image else ""
            raise DataError(
                f"{spec}: {first}no column of {split} holds {'these' if image else 'images'}; its columns are "
                f"{first_few(part.features, 20)}. Images are a column of the type Image, or of structs of 'bytes' "
                "(binary) and 'path' (text), in all splits the same."
            )
    return str(image)


def _holds_image(kind: Any) -> bool:
    import datasets

    if not isinstance(kind, dict) or set(kind) != {"bytes", "path"}:
        return isinstance(kind, datasets.Image)
    return all(getattr(kind[name], "dtype", "") in IMAGE_FIELDS[name] for name in kind)


def _first(names: Sequence[str], preferred: Sequence[str]) -> str | None:
    return next((name for name in preferred if name in names), next(iter(names), None))


def _keys(parts: Sequence[tuple[str, Dataset]], splits: NDArray[np.str_]) -> list[str]:
    column = next((name for name in KEY_NAMES if all(name in part.features for _, part in parts)), None)
    if column is None:
        return [f"{name}/{row:07d}" for name, part in parts for row in range(len(part))]
    keys = [str(key) for _, part in parts for key in cells_of(part, column)]
    if len(set(keys)) == len(keys):
        return keys
    return [key if split == "train" else f"{split}/{key}" for key, split in zip(keys, splits, strict=True)]


def _labels(
    parts: Sequence[tuple[str, Dataset]], faults: Mapping[int, str], spec: str
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Return the class names, and the label of each row; rows with a fault have none."""
    import datasets

    features = parts[0][1].features
    named_so = [name for name in LIST_NAMES if name in features and (name in LABEL_NAMES or _is_list(features[name]))]
    class_columns = [name for name, kind in features.items() if isinstance(_element(kind), datasets.ClassLabel)]
    name = _first([*named_so, *class_columns], LIST_NAMES)
    if name is None:
        return (), np.full(sum(len(part) for _, part in parts), NO_LABEL)
    # A split without the column has no labels, as the test splits of some published sets.
    columns = {split: cells_of(part, name) if name in part.features else [None] * len(part) for split, part in parts}
    kinds = {split: part.features[name] for split, part in parts if name in part.features}
    named = {
        split: _element(kind).names for split, kind in kinds.items() if isinstance(_element(kind), datasets.ClassLabel)
    }
    several = [split for split, kind in kinds.items() if _is_list(kind)]
    for some, what in ((list(named), "a ClassLabel"), (several, "a list")):
        if some and (others := [split for split in kinds if split not in some]):
            raise DataError(
                f"{spec}: the label column {name!r} is {what} in {first_few(some)}, but not in {first_few(others)}; "
                "cast it to the same type in all splits."
            )
    classes = tuple(named[parts[0][0]]) if named else ()
    if named:
        columns = {
            split: _renumbered(cells, named.get(split, ()), classes, f"{spec}: split {split!r}")
            for split, cells in columns.items()
        }
    cells = [cell for column in columns.values() for cell in column]
    for row in faults:
        cells[row] = None
    if named and several:
        return classes, label_matrix(cells, len(classes))
    if named:
        return classes, np.array([NO_LABEL if cell is None else cell for cell in cells], dtype=np.int64)
    classes, labels = encode_several(cells, spec) if several else encode_labels(cells, spec)
    refuse_gaps(classes, labels, spec)
    return classes, labels


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "feature")  # List, LargeList and Sequence of `datasets`


def _element(kind: Any) -> Any:
    return kind.feature if _is_list(kind) else kind


def _renumbered(cells: Sequence[Any], own: Sequence[str], classes: Sequence[str], where: str) -> list[Any]:
    """Return class numbers, or lists of them, of a split whose ClassLabel has its ``own`` names, as of ``classes``."""
    label_of = {name: label for label, name in enumerate(classes)}
    if unknown := [name for name in own if name not in label_of]:
        raise DataError(
            f"{where}: its ClassLabel has the class {first_few(unknown)}, which that of the first split lacks: "
            f"{first_few(classes, 20)}. Cast the label to the same ClassLabel in all splits."
        )
    number_of = {number: label_of[name] for number, name in enumerate(own)}

    def renumbered(cell: Any) -> Any:
        if isinstance(cell, list):
            return [number_of[number] for number in cell]
        return None if cell in (None, NO_LABEL) else number_of[cell]

    try:
        return [renumbered(cell) for cell in cells]
    except KeyError as error:
        raise DataError(f"{where}: labels must be in 0..{len(own) - 1}, or {NO_LABEL} for none; got {error}.") from None


def _allowed_folders(argument: str) -> list[str]:
    """Return where the files of a set without embedded bytes may lie: its own folder and the caches of downloads."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    path = expanded(argument)
    own = path if path.is_dir() else path.parent
    folders = [own, HF_DATASETS_CACHE, HF_HUB_CACHE] if path.exists() else [HF_HUB_CACHE]
    return [os.path.realpath(folder) for folder in folders]

"""`webdataset:PATTERN`: samples in tar files (shards), as the library WebDataset writes them.

    imagenet-train-{000000..000146}.tar        n01440764_10026.jpg   n01440764_10026.cls   n01440764_10026.json
    imagenet-validation-*.tar                  NAME.EXTENSION: files of one name are one sample

Braces and ``*`` name several files. Images are read by position, so that batches may have any order and a resumed run
goes on where it stopped; WebDataset itself streams. Only images, ``cls`` and ``json`` are read.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.data.file_source import expanded
from gpt4image.data.image_set import ImageSet, split_of_file
from gpt4image.data.labels import encode_labels, encode_several, refuse_gaps
from gpt4image.data.shards import ShardIndex, ShardSource, index_shard

CLASS_NAMES = "classnames.txt"
MAX_SHARDS = 1_000_000
BAR_FROM_SHARDS = 16
_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<words>[^{}]*,[^{}]*))\}")


def load_webdataset(argument: str) -> ImageSet:
    """Load the samples of all shards of a pattern, or in a folder, in order of shards and members.

    The split of a shard is the first of train, val (valid, validation) and test that is a word of its file name, else
    the name of its folder, else train. The label is ``cls`` (class number or name), else the field ``label``
    (``labels``, ``fine_label``, ``class``, ``target``) of ``json``; lists there are several classes per image. Class
    numbers get their names from ``classnames.txt``, a name a line, beside the shards or one folder above. The key of an
    image is its sample's name; where splits share names, those outside train get the split's name in front.

    Skipped by name: samples without an image, with an unreadable label, cut off or linked; shards from where they are
    damaged on.

    Raises:
        ConfigError: no pattern is given, or it is no path on this machine.
        DataError: a part of the pattern fits no file, there are no images, two shards of a split share a name, some
            labels are lists, most class numbers are empty, or ``classnames.txt`` does not fit.
    """
    spec = f"webdataset:{argument}"
    if not argument:
        raise ConfigError("--data 'webdataset:' lacks a pattern: webdataset:shards/train-{000..146}.tar.")
    if re.match(r"\w{2,}:", argument):
        raise ConfigError(f"--data {spec!r}: shards are files on this machine; addresses and commands are not opened.")
    paths = _shards(argument, spec)
    indices = _index_all(paths)
    skipped = tuple(Skipped(name=name, reason=reason) for index in indices for name, reason in index.skipped)
    counts = [len(index.images) for index in indices]
    if not sum(counts):
        why = f" Skipped: {first_few(f'{item.name}: {item.reason}' for item in skipped)}." if skipped else ""
        raise DataError(
            f"{spec}: no images in {len(paths)} shards; images are members named NAME.jpg and the like.{why}"
        )
    names, starts, lengths, cells = zip(*(image for index in indices for image in index.images), strict=True)
    splits = np.repeat([split_of_file(Path(path)) for path in paths], counts)
    several = any(isinstance(cell, list) for cell in cells)
    if several and (others := [names[row] for row, cell in enumerate(cells) if not isinstance(cell, list | NoneType)]):
        raise DataError(
            f"{spec}: the label of some samples is a list, but not that of {first_few(others)}; give all of them lists "
            "for several classes per image, or none."
        )
    classes, labels = encode_several(cells, spec) if several else encode_labels(cells, spec)
    named = _class_names(classes, paths[0], spec)
    if named == classes:
        refuse_gaps(classes, labels, spec)
    shard = np.repeat(np.arange(len(paths), dtype=np.int32), counts)
    return ImageSet(
        spec=spec,
        classes=named,
        keys=tuple(_keys(names, splits.tolist())),
        labels=labels,
        splits=splits,
        source=ShardSource(paths, shard, np.array([starts, lengths], np.int64).T),
        rows=np.arange(len(names)),
        skipped=skipped,
    )


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield the expansions of a pattern, as in a shell: each word of ``{a,b}``, numbers of ``{08..11}`` of that width.

    Several stand side by side, and the last one changes fastest; one is never inside another.
    """
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found["first"], found["last"]
    words: Iterable[str] = found["words"].split(",") if first is None else _numbers(first, last)
    for word in words:
        for rest in expand_braces(pattern[found.end() :]):
            yield pattern[: found.start()] + word + rest


def _numbers(first: str, last: str) -> Iterator[str]:
    step = 1 if int(last) >= int(first) else -1
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    return (f"{number:0{width}}" for number in range(int(first), int(last) + step, step))


def _shards(argument: str, spec: str) -> list[str]:
    """Return the paths of the shards, absolute, each once; in order of the braces, then of names."""
    paths: dict[str, None] = {}
    missing: list[str] = []
    place = expanded(argument)
    if place.is_dir():
        return sorted(os.path.abspath(shard) for shard in place.glob("*.tar"))  # noqa: PTH100
    for number, pattern in enumerate(expand_braces(str(place))):
        if number == MAX_SHARDS:
            raise DataError(f"{spec}: the pattern names more than {MAX_SHARDS:,} shards; correct it.")
        names = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))  # noqa: PTH113, PTH207
        found = [name for name in names if os.path.isfile(name)]  # noqa: PTH113
        paths |= dict.fromkeys(map(os.path.abspath, found))
        if not found:
            missing.append(pattern)
    if missing:
        raise DataError(
            f"{spec}: there is no file {first_few(missing)}. Restore missing shards, or correct the pattern."
        )
    return list(paths)


def _index_all(paths: Sequence[str]) -> list[ShardIndex]:
    found: list[ShardIndex] = []
    with ThreadPoolExecutor() as pool, progress_bar(quiet=len(paths) < BAR_FROM_SHARDS) as bar:
        task = bar.add_task("Reading shards", total=len(paths), note="")
        for index in pool.map(index_shard, paths):
            found.append(index)
            bar.advance(task)
    return found


def _keys(names: Sequence[str], splits: Sequence[str]) -> list[str]:
    splits_of = Counter(name for name, _ in set(zip(names, splits, strict=True)))
    if all(count == 1 for count in splits_of.values()):
        return list(names)
    return [name if split == "train" else f"{split}/{name}" for name, split in zip(names, splits, strict=True)]


def _class_names(classes: tuple[str, ...], first_shard: str, spec: str) -> tuple[str, ...]:
    """Return the classes with the names that a file beside the shards gives to class numbers."""
    folder = Path(first_shard).parent
    file = next((place / CLASS_NAMES for place in (folder, folder.parent) if (place / CLASS_NAMES).is_file()), None)
    if file is None or classes != tuple(map(str, range(len(classes)))):
        return classes
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{spec}: {file} is not UTF-8 ({error.reason} at byte {error.start}); save it so.") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{spec}: {file} has {first_few(twice)} more than once; give each class a name of its own.")
    if len(names) < len(classes):
        raise DataError(f"{spec}: {file} has {len(names)} names, but there are classes up to {len(classes) - 1}.")
    return names

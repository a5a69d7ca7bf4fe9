"""`folder:PATH`: one folder per class, with or without train, val and test above them; docs/data.md has the layouts.

`clips:PATH` reads video files in class folders in the same way, or a table of them, as `manifest:` does. Digests are
those of the files. Which frames are read is an option of the stages (``--frames``).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gpt4image.base.errors import DataError, first_few, install_command
from gpt4image.base.outcome import Skipped
from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.dataset import SPLIT_OF, Dataset, note_once
from gpt4image.data.decode import EXTENSIONS, HEIF, PICTURES
from gpt4image.data.file_source import FileSource, expanded, files_below
from gpt4image.data.manifest import load_manifest
from gpt4image.data.records import Record, require_some, to_dataset
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder

UNLABELLED = ("unlabelled", "unlabeled")
_SPLITS = {**SPLIT_OF, "training": "train", "dev": "val", "testing": "test", "eval": "test", "evaluation": "test"}

_PAIRED = {"images", "imgs", "jpegimages", "masks", "annotations", "labels", "segmentationclass"}
"""Folders of images and of their masks, which would make two classes."""


def load_folder(argument: str) -> Dataset:
    """Load the images below a folder; keys are paths relative to it, with forward slashes."""
    return _class_folders("folder", argument, EXTENSIONS)


def load_clips(argument: str) -> Dataset:
    """Load the clips below a folder, or those that a table lists."""
    require_decoder("clips:")
    if expanded(argument.partition(IMAGE_ROOT)[0]).suffix in (".csv", ".parquet"):
        return replace(load_manifest(argument, "clips"), clips=True)
    return replace(_class_folders("clips", argument, VIDEO_EXTENSIONS), clips=True)


def _class_folders(name: str, argument: str, extensions: Collection[str]) -> Dataset:
    spec, root, skipped = f"{name}:{argument}", expanded(argument), list[Skipped]()
    if not root.is_dir():
        raise DataError(f"{spec}: it is no folder.")
    files, faults = files_below(root, root, {*extensions, *(PICTURES if name == "folder" else ())})
    kinds = Counter(kind for file in files if (kind := PurePosixPath(file).suffix.lower()) not in extensions)
    for kind, count in sorted(kinds.items()):
        heic = f"are read after `{install_command('heic')}`"
        way = heic if kind in HEIF else "cannot be read: save them as JPEG or PNG"
        skipped.append(Skipped(f"{count:,} *{kind}", f"left out: pictures of this kind {way}"))
    parts = [file.split("/") for file in files if PurePosixPath(file).suffix.lower() in extensions]
    tops = {top: _SPLITS.get(top.lower()) for top, *below in parts if below}
    holding = {part[0] for part in parts if len(part) == 2}  # folders with images of their own
    nested = {part[0] for part in parts if len(part) > 2}
    classes = [top for top, split in tops.items() if not split and not _is_unlabelled(top)]
    in_train = [top for top, split in tops.items() if split == "train" and top in nested]
    held_out = [top for top, split in tops.items() if split in ("val", "test")]
    # Class folders lie below train, or train is a class of trains.
    above = bool(in_train) and bool(held_out or not classes or holding.isdisjoint(in_train))
    if not above:
        held_out = [top for top in held_out if top not in holding]
        named = [top for top, split in tops.items() if split and top not in held_out]
        require_some(
            parts, f"{spec}: it holds no image; put images into CLASS, or into {UNLABELLED[0]}.", [*faults, *skipped]
        )
        if named and not classes:
            are = f"there are {first_few(tops)}, but" if tops else "there are"
            below = "train/" if tops else ""
            where = f"put images into {below}CLASS, or into {below}unlabelled where they have no label."
            none = f"{spec}: {are} no class folders{' in train' if tops else ''}; {where}"
            require_some((), none, [*faults, *skipped])
        if named:
            note_once(f"{spec}: {first_few(named)} holds images, not class folders, and is taken for a class.")
    records, left_out = list[Record](), Counter[str]()
    depths = {top: int(bool(split) and (above or top in held_out)) for top, split in tops.items()}

    def place(part: list[str]) -> tuple[bool, list[str], str, str]:
        """Sort held out classes behind those beside them, and images of a class by folder and name."""
        depth = depths.get(part[0], 0)
        return bool(depth and not above), part[:-1][: depth + 1], "/".join(part[:-1]), part[-1]

    for part in sorted(parts, key=place):
        top, depth = part[0], depths.get(part[0], 0)
        if tops and len(part) < depth + 2:
            skipped.append(Skipped("/".join(part), "lies outside the class folders"))
        elif above and not depth and not _is_unlabelled(top):
            left_out[top] += 1
        else:
            label = unicodedata.normalize("NFC", part[depth]) if tops and not _is_unlabelled(part[depth]) else None
            records.append(Record(key="/".join(part), split=(depth and tops[top]) or "train", label=label))
    if tops and (empty := _without_images(root, parts, [f"{top}/" for top in in_train] if above else [""])):
        note_once(
            f"{spec}: no image lies in {first_few(empty)}: no class. --classes names one without labelled images."
        )
    other = f"is none of train, val, test and {UNLABELLED[0]}; images left out with it: "
    skipped += [Skipped(top, f"{other}{count:,}") for top, count in left_out.items()]
    source = FileSource(root, [record.key for record in records])
    names = sorted({record.label for record in records if record.label is not None})
    if len(names) > 1 and {each.lower() for each in names} <= _PAIRED:
        raise DataError(
            f"{spec}: its class folders are {first_few(names)}, which are no classes. If these are images and masks, "
            "give masks:IMAGES,MASKS: two folders, with the folders of splits below each."
        )
    return to_dataset(spec, records, source, classes=names, skipped=[*faults, *skipped])


def _without_images(root: Path, parts: Sequence[Sequence[str]], above: Sequence[str]) -> list[str]:
    """Return the folders without an image beside the class folders, which lie in ``above``."""
    used = {"/".join(part[:depth]) for part in parts for depth in range(1, len(part))}
    beside = [f"{place}{path.name}" for place in above for path in (root / place).iterdir() if path.is_dir()]
    names = {name: name.rpartition("/")[2] for name in beside if name not in used}
    return sorted(
        name
        for name, own in names.items()
        if not (own.startswith(".") or own.lower() in _SPLITS or _is_unlabelled(own) or own.lower() in _PAIRED)
    )


def _is_unlabelled(name: str) -> bool:
    return name.lower() in UNLABELLED

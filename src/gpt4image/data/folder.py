"""`folder:PATH`: one folder per class, with or without train, val and test above them; docs/data.md has the layouts.

`clips:PATH` reads video files in class folders in the same way, or a table of them, as `manifest:` does. Digests are
those of the files. Which frames are read is an option of the stages (``--frames``).
"""

import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import PurePosixPath

from gpt4image.base.errors import DataError, first_few, install_command
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.decode import EXTENSIONS, HEIF, PICTURES
from gpt4image.data.file_source import FileSource, files_below
from gpt4image.data.manifest import load_manifest
from gpt4image.data.records import Record, require_some, to_dataset
from gpt4image.data.spec import Spec
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder

UNLABELLED = ("unlabelled", "unlabeled")
_SPLITS = {**SPLIT_OF, "training": "train", "dev": "val", "testing": "test", "eval": "test", "evaluation": "test"}


def load_folder(spec: Spec) -> Dataset:
    """Load the images below a folder; keys are paths relative to it, with forward slashes."""
    return _class_folders(spec, EXTENSIONS, PICTURES)


def load_clips(spec: Spec) -> Dataset:
    """Load the clips below a folder, or those that a table lists."""
    require_decoder("clips:")
    if spec.path.is_file():
        return load_manifest(spec)
    return replace(_class_folders(spec, VIDEO_EXTENSIONS, ()), clips=True)


def _class_folders(spec: Spec, extensions: Collection[str], others: Collection[str]) -> Dataset:
    if not spec.path.is_dir():
        raise DataError(f"{spec}: it is no folder.")
    files, skipped = files_below(spec.path, spec.path, {*extensions, *others})
    kinds = Counter(PurePosixPath(file).suffix.lower() for file in files)
    for kind in sorted(kinds.keys() - extensions):
        way = (
            f"are read after `{install_command('heic')}`"
            if kind in HEIF
            else "cannot be read: save them as JPEG or PNG"
        )
        skipped.append(Skipped(f"{kinds[kind]:,} *{kind}", f"left out: pictures of this kind {way}"))
    parts = [file.split("/") for file in files if PurePosixPath(file).suffix.lower() in extensions]
    is_table = not parts and any(spec.path.rglob("*.parquet"))
    way = f"its Parquet files are read by hf:{spec.where}" if is_table else f"put images into CLASS, or {UNLABELLED[0]}"
    require_some(parts, f"{spec}: it holds no image; {way}.", skipped)
    # A folder named after a split holds class folders; alone, and with images of its own, it is a class of that name.
    split_of = {part[0]: split for part in parts if len(part) > 2 and (split := _SPLITS.get(part[0].lower()))}
    if len(split_of) == 1 and split_of.keys() <= {part[0] for part in parts if len(part) == 2}:
        split_of = {}
    above, without_folder = "train" in split_of.values(), all(len(part) == 1 for part in parts)
    records = list[Record]()
    for part in parts:
        *folders, _ = part
        split = split_of.get(folders[0]) if folders else None
        if split is not None:
            del folders[0]
        elif above:
            skipped.append(
                Skipped("/".join(part), f"lies in no folder of a split, beside {', '.join(sorted(split_of))}")
            )
            continue
        if not folders and not without_folder:
            skipped.append(Skipped("/".join(part), "lies outside the class folders"))
            continue
        name = folders[0] if folders and folders[0].lower() not in UNLABELLED else None
        label = None if name is None else unicodedata.normalize("NFC", name)
        records.append(Record(key="/".join(part), split=split or "train", label=label))
    require_some(records, f"{spec}: no image lies in a class folder.", skipped)
    source = FileSource(spec.path, [record.key for record in records])
    names = sorted({record.label for record in records if record.label is not None})
    if names and all(name.lower() in _SPLITS for name in names):
        raise DataError(f"{spec}: {first_few(names)} hold images and no class folders; put them into train/CLASS.")
    return to_dataset(spec.text, records, source, classes=names, skipped=skipped)

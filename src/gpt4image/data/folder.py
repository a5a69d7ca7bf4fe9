"""`folder:PATH`: one folder per class, with or without train, val and test above them.

    photos/cat/1.jpg              photos/train/cat/1.jpg
    photos/dog/a/2.jpg            photos/val/cat/2.jpg
    photos/unlabelled/3.jpg       photos/test/dog/3.jpg

    photos/cat/1.jpg              photos/Test/cat/2.jpg   (the classes lie beside the test split)

    photos/1.jpg                  (no folder: no image has a label)

Names of splits and of ``unlabelled`` may be written with capitals. Hidden files are ignored; files whose extension is
not that of an image are counted by extension.

`clips:PATH` reads video files in class folders in the same way, or a table of them, as `manifest:` does. Digests are
those of the files. Which frames are read is an option of the stages (``--frames``).
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gpt4image.base.errors import DataError, first_few, install_command
from gpt4image.base.outcome import Skipped
from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.dataset import SPLIT_OF, Dataset, is_unicode
from gpt4image.data.decode import EXTENSIONS, HEIF, PICTURES
from gpt4image.data.file_source import FileSource, expanded, is_below
from gpt4image.data.labels import note_once
from gpt4image.data.manifest import load_manifest
from gpt4image.data.records import Record, to_dataset
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder

UNLABELLED = ("unlabelled", "unlabeled")
_SPLITS = {**SPLIT_OF, "training": "train", "dev": "val", "testing": "test", "eval": "test", "evaluation": "test"}


def load_folder(argument: str) -> Dataset:
    """Load the images below a folder; keys are paths relative to it, with forward slashes.

    Skipped by name: links that lead out of the folder, nowhere, or to a folder that was read already; images outside
    the class folders; folders beside train that are no split; folders that cannot be read.
    """
    return _class_folder_images("folder", argument, EXTENSIONS)


def load_clips(argument: str) -> Dataset:
    """Load the clips below a folder, or those that a table lists."""
    require_decoder("clips:")
    if expanded(argument.partition(IMAGE_ROOT)[0]).suffix in (".csv", ".parquet"):
        return replace(load_manifest(argument, "clips"), clips=True)
    return replace(_class_folder_images("clips", argument, VIDEO_EXTENSIONS), clips=True)


def _class_folder_images(name: str, argument: str, extensions: Collection[str]) -> Dataset:
    spec, what = f"{name}:{argument}", "clips" if name == "clips" else "images"
    root = expanded(argument)
    if not root.is_dir():
        raise DataError(f"{spec}: it is no folder.")
    tree = _Tree(os.path.realpath(root), extensions)
    split_of = _class_folders(tree, spec)
    classes = _class_names(split_of, spec)
    keys = {folder: tree.images_below(folder) for folder in split_of}
    unread = _other_files(tree.others, spec, what)
    if empty := [folder for folder, own in keys.items() if not own and not _is_unlabelled(folder)]:
        aside = "".join(f" {item.name} {item.reason}." for item in unread) or tree.skipped()
        raise DataError(
            f"{spec}: no {what} in class folder {first_few(empty)}.{aside} Remove the folder or fill it; {what} are "
            f"files named {', '.join('*' + suffix for suffix in sorted(extensions))}."
        )
    records = [
        Record(key=key, split=split, label=None if _is_unlabelled(folder) else _name(folder))
        for folder, split in split_of.items()
        for key in keys[folder]
    ]
    source = FileSource(root, [record.key for record in records])
    skipped = [*(Skipped(name=path, reason=reason) for path, reason in tree.reasons.items()), *unread]
    return to_dataset(spec, records, source, classes=classes, skipped=skipped)


def _other_files(counts: Mapping[str, int], spec: str, what: str) -> list[Skipped]:
    """Return kinds of pictures that are left out as skipped items, and note other files; ``counts`` is by extension."""
    pictures = sorted(kind for kind in counts if kind in PICTURES and what == "images")
    if rest := {kind or "no extension": counts[kind] for kind in sorted(counts) if kind not in pictures}:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in rest.items())
        way = " clips:PATH reads videos." if what == "images" and not rest.keys().isdisjoint(VIDEO_EXTENSIONS) else ""
        note_once(f"{spec}: files left out, since they are no {what}: {listed}.{way}")
    heic, other = f"are read after `{install_command('heic')}`", "cannot be read: save them as JPEG or PNG"
    reasons = {kind: f"left out: pictures of this kind {heic if kind in HEIF else other}" for kind in pictures}
    return [Skipped(name=f"{counts[kind]:,} *{kind}", reason=reason) for kind, reason in reasons.items()]


def _class_folders(tree: _Tree, spec: str) -> dict[str, str]:
    top = tree.folders("")
    if not top and tree.images(""):
        return {"": "train"}
    tree.skip_images("")
    train = [name for name in top if _split(name) == "train" and tree.folders(name)]
    has_others = any(_split(name) not in (None, "train") for name in top)
    has_classes = any(_split(name) is None and not _is_unlabelled(name) for name in top)
    # Class folders lie below train, or train is a class of trains.
    if train and (has_others or not (has_classes and any(map(tree.images, train)))):
        return _below_splits(tree, top)
    held_out = [name for name in top if _split(name) not in (None, "train") and tree.holds_only_folders(name)]
    in_train = [name for name in top if name not in held_out]
    classes = [name for name in in_train if not _is_unlabelled(name)]
    if not in_train or (classes and all(map(_split, classes))):
        found = f"there are {first_few(top)}, but no class folders in train" if top else "there are no class folders"
        place = "train/CLASS, or into train/" if top else "folders named after their class, or into one named "
        way = f"put images into {place}{UNLABELLED[0]!r} where they have no label."
        raise DataError(f"{spec}: {found}; {way}{tree.skipped()}")
    _note_slips(tree, spec, classes)
    inside = {f"{name}/{child}": str(_split(name)) for name in held_out for child in tree.folders(name)}
    return dict.fromkeys(in_train, "train") | inside


def _note_slips(tree: _Tree, spec: str, classes: Sequence[str]) -> None:
    if named := [name for name in classes if _split(name)]:
        note_once(f"{spec}: {first_few(named)} holds images, not class folders, and is taken for a class.")
    below = {tuple(tree.folders(name)) for name in classes}
    inside = next(iter(below), ())
    if len(classes) > 1 and len(inside) > 1 and len(below) == 1 and all(map(tree.holds_only_folders, classes)):
        note_once(
            f"{spec} has the classes {first_few(classes)}, and in each of them are the folders {first_few(inside)}; if "
            "these are the classes, those are splits: call them train, val and test."
        )


def _below_splits(tree: _Tree, top: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in top:
        if _is_unlabelled(name):
            found[name] = "train"
        elif (split := _split(name)) is not None:
            tree.skip_images(name)
            found |= {f"{name}/{child}": split for child in tree.folders(name)}
        elif count := len(tree.images_below(name)):
            tree.reasons[name] = f"is none of train, val, test and {UNLABELLED[0]}; images left out with it: {count:,}"
    return found


def _class_names(split_of: dict[str, str], spec: str) -> tuple[str, ...]:
    named = {folder: _name(folder) for folder in split_of if not _is_unlabelled(folder)}
    # Where no image of train has a label, the classes are those of val and test.
    trained = {own for folder, own in named.items() if split_of[folder] == "train"} or set(named.values())
    if unknown := [folder for folder, own in named.items() if own not in trained]:
        raise DataError(
            f"{spec}: train lacks the class of {first_few(unknown)}; its classes are {first_few(sorted(trained), 20)}. "
            "Every class of val and test needs a folder of that name in train."
        )
    return tuple(sorted(trained))


def _name(path: str) -> str:
    return unicodedata.normalize("NFC", path.rsplit("/", 1)[-1])


def _split(name: str) -> str | None:
    return _SPLITS.get(name.lower())


def _is_unlabelled(path: str) -> bool:
    return not path or _name(path).lower() in UNLABELLED


class _Tree:
    def __init__(self, real_root: str, extensions: Collection[str]) -> None:
        self._root, self._extensions = real_root, extensions
        self.reasons: dict[str, str] = {}
        self.others: Counter[str] = Counter()
        self._read_before: dict[str, tuple[list[str], list[str]]] = {}

    def skipped(self) -> str:
        return f" Skipped: {first_few(f'{path}: {why}' for path, why in self.reasons.items())}." if self.reasons else ""

    def folders(self, folder: str) -> list[str]:
        return self._read(folder)[0]

    def images(self, folder: str) -> list[str]:
        return self._read(folder)[1]

    def holds_only_folders(self, folder: str) -> bool:
        return bool(self.folders(folder)) and not self.images(folder)

    def skip_images(self, folder: str) -> None:
        self.reasons |= {_join(folder, name): "lies outside the class folders" for name in self.images(folder)}

    def images_below(self, folder: str) -> list[str]:
        """Return the paths of all images below a folder, each real folder read once."""
        found: list[str] = []
        parts = folder.split("/") if folder else []
        seen = {self._real("/".join(parts[:count])) for count in range(len(parts))}
        pending = [folder]
        while pending:
            current = pending.pop()
            if (real := self._real(current)) in seen:
                self.reasons[current] = "a link to a folder that was read already"
                continue
            seen.add(real)
            folders, images = self._read(current)
            found += [_join(current, name) for name in images]
            pending += [_join(current, name) for name in reversed(folders)]
        return sorted(found, key=lambda path: path.rsplit("/", 1))

    def _real(self, path: str) -> str:
        return os.path.realpath(os.path.join(self._root, path))  # noqa: PTH118

    def _read(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and of images in a folder; each is read once, so that files are counted once."""
        if folder not in self._read_before:
            names: dict[str, list[str]] = {"folder": [], "image": [], "": []}
            try:
                with os.scandir(os.path.join(self._root, folder)) as entries:  # noqa: PTH118
                    for entry in entries:
                        if not entry.name.startswith("."):
                            names[self._kind(folder, entry)].append(entry.name)
            except OSError as error:
                self.reasons[folder] = f"cannot be read: {error.strerror}"
            self._read_before[folder] = sorted(names["folder"]), sorted(names["image"])
        return self._read_before[folder]

    def _kind(self, folder: str, entry: os.DirEntry[str]) -> str:
        """Return "folder", "image" or "" for what is neither or may not be used."""
        extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
        is_picture = extension in self._extensions
        path, reason = _join(folder, entry.name), ""
        try:
            kind = "folder" if entry.is_dir() else "image" if is_picture and entry.is_file() else ""
            if not kind and not is_picture and entry.is_file():
                self.others[extension] += 1
            if entry.is_symlink() and (kind or is_picture):
                target = os.path.realpath(entry.path, strict=True)
                if target != self._root and not is_below(target, self._root):
                    reason = "a link that leads out of the folder"
        except OSError as error:
            kind, reason = "", f"a link that cannot be followed: {error.strerror}"
        if kind and not reason and not is_unicode(entry.name):
            path, reason = os.fsencode(path).decode(errors="backslashreplace"), "its name is not valid UTF-8"
        if reason:
            self.reasons[path] = reason
            return ""
        return kind


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name

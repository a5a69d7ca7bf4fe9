"""`folder:PATH`: one folder per class, with or without train, val and test above them.

    photos/cat/1.jpg              photos/train/cat/1.jpg
    photos/dog/a/2.jpg            photos/val/cat/2.jpg
    photos/unlabelled/3.jpg       photos/test/dog/3.jpg

Hidden files and files whose extension is not that of an image are ignored. Folders whose names are nearly those of
splits, or of ``unlabelled``, are refused: they would silently become classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, first_few
from gpt4image.base.outcome import SetAside
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import FileSource, expanded, is_below, is_unicode
from gpt4image.data.image_set import NO_LABEL, SPLIT_OF, ImageSet
from gpt4image.data.labels import note_once

UNLABELLED = ("unlabelled", "unlabeled")
# What a folder name in small letters is meant for.
_MEANT = {name: name for name in (*SPLIT_OF, *UNLABELLED)} | {
    "training": "train", "dev": "val", "testing": "test", "eval": "test", "evaluation": "test"
}  # fmt: skip


def load_folder(argument: str) -> ImageSet:
    """Load the images below a folder; keys are paths relative to it, with forward slashes.

    Skipped by name: links that lead out of the folder, nowhere, or to a folder that was read already; images outside
    the class folders; folders beside train that are no split; folders that cannot be read.

    Raises:
        ConfigError: no path is given.
        DataError: there is no such folder, no class folder, a class folder without images, a class in val or test
            that train lacks, or a folder that is nearly called as a split or as ``unlabelled``.
    """
    spec = f"folder:{argument}"
    if not argument:
        raise ConfigError("--data 'folder:' lacks a path: folder:PATH.")
    root = expanded(argument)
    if not root.is_dir():
        raise DataError(f"{spec}: there is no such folder.")
    tree = _Tree(os.path.realpath(root))
    split_of = _class_folders(tree, spec)
    classes = _class_names(split_of, spec)
    label_of = dict.fromkeys(UNLABELLED, NO_LABEL) | {name: label for label, name in enumerate(classes)}
    images = {folder: tree.images_below(folder) for folder in split_of}
    if empty := [folder for folder, keys in images.items() if not keys and _name(folder) not in UNLABELLED]:
        aside = f" (skipped links and files: {len(tree.reasons)})" if tree.reasons else ""
        raise DataError(
            f"{spec}: no images in class folder {first_few(empty)}{aside}. Remove the folder or fill it; images are "
            f"files named {', '.join('*' + suffix for suffix in sorted(EXTENSIONS))}."
        )
    counts = [len(keys) for keys in images.values()]
    keys = [key for group in images.values() for key in group]
    return ImageSet(
        spec=spec,
        classes=classes,
        keys=tuple(keys),
        labels=np.repeat(np.array([label_of[_name(folder)] for folder in images], dtype=np.int64), counts),
        splits=np.repeat(np.array(list(split_of.values())), counts),
        source=FileSource(root, keys),
        rows=np.arange(len(keys)),
        set_aside=tuple(SetAside(name=name, reason=reason) for name, reason in tree.reasons.items()),
    )


def _class_folders(tree: _Tree, spec: str) -> dict[str, str]:
    """Return the split of each class folder, by its path."""
    top = tree.folders("")
    # "train" at the top may be a class of trains: it is the split if it holds folders, and others are splits too.
    other_classes = set(top) - {*SPLIT_OF, *UNLABELLED}
    is_split = bool("train" in top and tree.folders("train")) and (
        bool(set(top) & (set(SPLIT_OF) - {"train"})) or not (other_classes and tree.images("train"))
    )
    _refuse_misnamed(tree, spec, top, is_split=is_split)
    tree.skip_images("")
    if is_split:
        return _below_splits(tree, top)
    if not top or set(top) <= set(SPLIT_OF):
        found = f"there are {first_few(top)}, but no class folders in train" if top else "there are no class folders"
        place = "train/CLASS, or into train/" if top else "folders named after their class, or into one named "
        raise DataError(f"{spec}: {found}; put images into {place}{UNLABELLED[0]!r} where they have no label.")
    classes = [name for name in top if name not in UNLABELLED]
    below = {tuple(tree.folders(name)) for name in classes}
    inside = next(iter(below), ())
    if len(classes) > 1 and len(inside) > 1 and len(below) == 1 and all(map(tree.holds_only_folders, classes)):
        note_once(
            f"{spec} has the classes {first_few(classes)}, and in each of them are the folders {first_few(inside)}; if "
            "these are the classes, those are splits: call them train, val and test."
        )
    return dict.fromkeys(top, "train")


def _below_splits(tree: _Tree, top: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in top:
        if name in UNLABELLED:
            found[name] = "train"
        elif name in SPLIT_OF:
            tree.skip_images(name)
            found |= {f"{name}/{child}": SPLIT_OF[name] for child in tree.folders(name)}
        elif count := len(tree.images_below(name)):
            tree.reasons[name] = f"is none of train, val, test and {UNLABELLED[0]}; images left out with it: {count:,}"
    return found


def _refuse_misnamed(tree: _Tree, spec: str, top: Sequence[str], *, is_split: bool) -> None:
    """Refuse folders that would be classes, or nothing, and were meant for a split or for images without a label."""
    only_splits = {name.lower() for name in top} <= set(_MEANT)

    def is_misnamed(name: str, *, at_top: bool) -> bool:
        meant = _MEANT.get(name.lower(), name)
        may_be_split = at_top and (is_split or only_splits or tree.holds_only_folders(name))
        return name != meant and name not in SPLIT_OF and (meant in UNLABELLED or may_be_split)

    wrong = [name for name in top if is_misnamed(name, at_top=True)]
    for split in filter(SPLIT_OF.get, top if is_split else ()):
        wrong += [f"{split}/{name}" for name in tree.folders(split) if is_misnamed(name, at_top=False)]
    if wrong:
        renames = (f"{path!r} to {_MEANT[_name(path).lower()]!r}" for path in wrong)
        raise DataError(
            f"{spec}: rename {', '.join(renames)}. Splits are called train, val (or valid, validation) and test, "
            f"images without a label lie in {UNLABELLED[0]}; a class needs another name."
        )
    lonely = [name for name in top if name in SPLIT_OF and not is_split and tree.holds_only_folders(name)]
    if lonely and not only_splits:
        raise DataError(
            f"{spec}: {first_few(lonely)} holds class folders, but train does not; put the class folders of the "
            "training images into train, or give a class that is called so another name."
        )


def _class_names(split_of: dict[str, str], spec: str) -> tuple[str, ...]:
    trained = {_name(folder) for folder, split in split_of.items() if split == "train"}.difference(UNLABELLED)
    if unknown := [folder for folder in split_of if _name(folder) not in trained.union(UNLABELLED)]:
        raise DataError(
            f"{spec}: train lacks the class of {first_few(unknown)}; its classes are {first_few(sorted(trained), 20)}. "
            "Every class of val and test needs a folder of that name in train."
        )
    return tuple(sorted(trained))


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


class _Tree:
    """Files below one root, in order of names; paths are relative to it. Notes what it skips."""

    def __init__(self, real_root: str) -> None:
        self._root = real_root
        self.reasons: dict[str, str] = {}

    def folders(self, folder: str) -> list[str]:
        """Return the names of the visible folders directly in a folder."""
        return self._read(folder)[0]

    def images(self, folder: str) -> list[str]:
        """Return the names of the images directly in a folder."""
        return self._read(folder)[1]

    def holds_only_folders(self, folder: str) -> bool:
        """Return whether there are folders and no images in a folder."""
        return bool(self.folders(folder)) and not self.images(folder)

    def skip_images(self, folder: str) -> None:
        """Skip the images directly in a folder."""
        for name in self.images(folder):
            self.reasons[_join(folder, name)] = "lies outside the class folders"

    def images_below(self, folder: str) -> list[str]:
        """Return the paths of all images below a folder, each real folder read once.

        The order is that of torchvision's ImageFolder, so that lists which others released fit: by the paths of
        folders, compared as text, then by file name.
        """
        found: list[str] = []
        parts = folder.split("/")
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
        """Return the names of folders and of images in a folder."""
        names: dict[str, list[str]] = {"folder": [], "image": [], "": []}
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:  # noqa: PTH118
                for entry in entries:
                    if not entry.name.startswith("."):
                        names[self._kind(_join(folder, entry.name), entry)].append(entry.name)
        except OSError as error:
            self.reasons[folder] = f"cannot be read: {error.strerror}"
        return sorted(names["folder"]), sorted(names["image"])

    def _kind(self, path: str, entry: os.DirEntry[str]) -> str:
        """Return "folder", "image" or "" for what is neither or may not be used."""
        is_picture = os.path.splitext(entry.name)[1].lower() in EXTENSIONS  # noqa: PTH122
        try:
            kind = "folder" if entry.is_dir() else "image" if is_picture and entry.is_file() else ""
            if entry.is_symlink() and (kind or is_picture):
                target = os.path.realpath(entry.path, strict=True)
                if target != self._root and not is_below(target, self._root):
                    self.reasons[path] = "a link that leads out of the folder"
                    return ""
        except OSError as error:
            self.reasons[path] = f"a link that cannot be followed: {error.strerror}"
            return ""
        if kind and not is_unicode(path):
            self.reasons[os.fsencode(path).decode(errors="backslashreplace")] = "its name is not valid UTF-8"
            return ""
        return kind


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name

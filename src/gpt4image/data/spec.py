"""SPEC strings: ``NAME:WHERE,OPTION=VALUE,...``, or a path, of which the layout on disk decides the name."""

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, DataError, nearest
from gpt4image.data.file_source import IMAGES, expanded, table_in
from gpt4image.data.video import VIDEO_EXTENSIONS


class Reader(NamedTuple):
    """A format: module and function, which need heavy or optional packages, what follows the name, and its options."""

    module: str
    function: str
    where: str = ""
    options: tuple[str, ...] = ()


_OF_TABLE = ("images", "path", "label", "labels", "boxes", "split", "key", "classes")
READERS = {
    "folder": Reader("folder", "load_folder", "PATH"),
    "clips": Reader("folder", "load_clips", "PATH", _OF_TABLE),
    "manifest": Reader("manifest", "load_manifest", "FILE.csv, FILE.parquet or a folder with one", _OF_TABLE),
    "coco": Reader("coco", "load_coco", "FILE.json", ("images",)),
    "coco-masks": Reader("coco", "load_coco_masks", "FILE.json", ("images",)),
    "label-studio": Reader("label_studio", "load_label_studio", "FILE.json", ("images",)),
    "yolo": Reader("yolo", "load_yolo", "DIR", ("path", "train", "val", "test")),
    "voc": Reader("voc", "load_voc", "DIR", ("images", "annotations")),
    "masks": Reader("masks", "load_masks", "DIR", ("images", "masks")),
    "hf": Reader("hf", "load_hf", "NAME_OR_PATH", ("image", "label", "objects", "bbox", "category", "mask", "key")),
    "joined": Reader("joined", "load_joined", "FILE.parquet"),
    "python": Reader("given", "load_given"),
    "cifar10": Reader("known_sets", "load_cifar"),
    "cifar100": Reader("known_sets", "load_cifar"),
    "clothes": Reader("known_sets", "load_clothes"),
    "clothes-unlabelled": Reader("known_sets", "load_clothes_unlabelled"),
    "openmoji": Reader("known_sets", "load_openmoji"),
}
PACKAGED = ("clothes", "clothes-unlabelled", "openmoji")
ALONE = ("cifar10", "cifar100", *PACKAGED)  # names that are a whole SPEC; another name alone is a path
ON_DISK = tuple(name for name, reader in READERS.items() if reader.where and name != "hf")
FILES = {".csv": "manifest", ".parquet": "manifest", ".json": "coco", ".yaml": "yolo"}
"""Names by the extension of a file."""
LAYOUTS = (
    ("hf", ("dataset_dict.json", "dataset_info.json", "*.tar")),
    ("yolo", ("data.yaml",)),
    ("masks", ("masks/*",)),
    ("voc", ("Annotations/*.xml",)),
    ("coco", ("train.json", "annotations/instances_train*.json", "train/_annotations.coco.json")),
)
"""Names by what a folder has; a folder without any of these has a table, or folders of classes."""
FILES_LOOKED_AT = 1000  # of a folder, to find out whether it holds videos
_OPTION = re.compile(r",(?=[a-z]+=)")


@dataclass(frozen=True)
class Spec:
    """A SPEC in its parts; as text it is as it was given."""

    text: str
    name: str
    where: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def path(self) -> Path:
        """WHERE as a path, ``~`` expanded."""
        return expanded(self.where)

    def __str__(self) -> str:
        return self.text

    def folder(self, option: str, usual: str) -> Path:
        """Return the folder that an option names, relative to WHERE. Raises DataError that names the option."""
        folder = self.path / expanded(self.options.get(option, usual))
        if not folder.is_dir():
            raise DataError(f"{self}: there is no folder {folder}; give {self.having(option)}.")
        return folder

    def having(self, option: str, value: str = "FOLDER") -> str:
        """Return the text with an option, in the place of what it was given as: an example for messages."""
        options = {**self.options, option: value}
        return ",".join([f"{self.name}:{self.where}", *(f"{name}={own}" for name, own in options.items())])


def parse(text: str) -> Spec:
    """Return the parts of a SPEC with a name. Raises ConfigError: an option that the format lacks."""
    name, _, rest = text.partition(":")
    if name not in READERS:
        return Spec(text, name, rest)
    where, *given = _OPTION.split(rest)
    options = dict(one.split("=", 1) for one in given)
    if wrong := [option for option in options if option not in READERS[name].options]:
        raise ConfigError(f"--data {text}: of the options of {name}, {nearest(wrong[0], READERS[name].options)}")
    return Spec(text, name, where, options)


def full_spec(text: str, aside: Path | None = None) -> str:
    """Return a SPEC with the name of its format; a path gets that of what is there. Raises ConfigError.

    A table ``aside`` counts as if it were not there.
    """
    place, *options = _OPTION.split(text)
    name, colon, _ = place.partition(":")
    there = expanded(place).exists()
    if place in PACKAGED and there:
        raise ConfigError(
            f"--data {place!r} is the name of a packaged dataset and of a file or folder here: give ./{place} for "
            f"that, {place}: for the packaged one."
        )
    if name in READERS and (colon or name in ALONE or not there):
        return text
    if colon and not there and plugins.find("readers", name):
        return text
    if place and (kind := _kind_of(expanded(place), aside)) is not None:
        return ",".join([f"{kind}:{place}", *options])
    known = sorted([*READERS, *plugins.names("readers")])
    one_of = f"NAME is one of {', '.join(known)}." if "/" in name else nearest(name, known)
    what = "there is no such file or folder; " if not (colon or there) else ""
    raise ConfigError(f"--data {place!r}: {what}give a folder or a table of images, or NAME:WHERE; {one_of}")


def _kind_of(place: Path, aside: Path | None) -> str | None:
    """Return the name of the format of what is at a path; None where that is nothing that can be read."""
    if place.is_file():
        is_list = place.suffix == ".json" and place.open("rb").read(100).lstrip()[:1] == b"["
        return "label-studio" if is_list else FILES.get(place.suffix)
    if not place.is_dir():
        return None
    for kind, patterns in LAYOUTS:
        if any(next(place.glob(pattern), None) is not None for pattern in patterns):
            return kind
    table = table_in(place)
    if table is not None and (aside is None or table.resolve() != aside.resolve()):
        return "manifest"
    ignored = "" if aside is None else aside.with_suffix(IMAGES).name
    walked = (name for where, _, names in os.walk(place) if Path(where).name != ignored for name in names)
    kinds = {Path(name).suffix.lower() for name in itertools.islice(walked, FILES_LOOKED_AT)}
    return "clips" if kinds & VIDEO_EXTENSIONS else "folder"


def require_there(text: str, aside: Path | None = None) -> str:
    """Return the ``full_spec`` of a dataset, of which nothing is read; refuse a place where there is nothing."""
    spec = parse(full_spec(text, aside))
    if spec.name in PACKAGED and spec.where:
        raise ConfigError(f"{spec.text!r}: {spec.name} is packaged and takes nothing after its name.")
    if spec.name in READERS and not spec.where and READERS[spec.name].where:
        raise ConfigError(f"--data '{spec.name}:' lacks {READERS[spec.name].where}.")
    if spec.name in ON_DISK and not spec.path.exists():
        raise DataError(f"{spec}: there is no such file or folder.")
    return spec.text


def require_apart(config: Any) -> None:
    """Refuse an --out that the next command would read as --data, or as one of its classes. Raises ConfigError."""
    out, text = getattr(config, "out", None), getattr(config, "data", None) or ""
    if text in PACKAGED and out == Path(text):
        raise ConfigError(f"--out {out} has the name of the packaged dataset: give another, such as --out {out}-out.")
    try:
        spec = parse(full_spec(text))
    except (ConfigError, OSError):  # the reader says it
        return
    folder = spec.path.resolve()
    is_read = spec.name in ("folder", "clips", "manifest") and folder.is_dir()
    if isinstance(out, Path) and is_read and out.resolve().is_relative_to(folder):
        raise ConfigError(
            f"--out {out} lies inside of {spec.where}, the folder of the images, and would be read as one of its "
            f"classes or images: give a place outside, such as --out {folder.parent / out.name}."
        )

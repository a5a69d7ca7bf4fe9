"""`voc:DIR`: images and XML files of boxes in the layout of Pascal VOC, and layouts near it.

    voc/JPEGImages/1.jpg             set/images/1.png             set/train/1.jpg
    voc/Annotations/1.xml            set/annotations/1.xml        set/train/1.xml
    voc/ImageSets/Main/train.txt                                  set/valid/2.jpg

An XML file belongs to the image of the same name that is nearest to it, else to the one that it names; never to one of
another split, by the names of folders. Lists in ImageSets say which images are of which split, and images with an XML
file that no list has are left out. Without lists, folders named after a split say it. An image without an XML file is
not annotated. ``difficult`` objects have weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError, fromstring

from gpt4image.base.errors import DataError
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset, split_in_folders
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import FileSource, expanded, files_below, lines_of, read_bounded, usable
from gpt4image.data.labels import MAX_LABEL_LETTERS, note_once
from gpt4image.data.records import Faults, Object, Record, number, paired, weight_of, with_boxes

MAX_XML = 8_000_000
MASKS = ("segmentationclass", "segmentationobject", "masks")
"""Folders whose pictures are no images."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(argument: str) -> Dataset:
    """Load images and their boxes; keys are paths of images from the folder.

    Skipped by name: XML files that cannot be read or have no image, objects that cannot be used.
    """
    spec = f"voc:{argument}"
    root = expanded(argument)
    files = files_below(root, root)
    found = [path for path in files if _suffix(path) in EXTENSIONS and not set(_folders(path)) & set(MASKS)]
    pictures, skipped = usable(root, found)
    documents = [path for path in files if _suffix(path) == ".xml"]
    if not pictures or not documents:
        raise DataError(
            f"{spec}: {len(pictures):,} images and {len(documents):,} XML files; a dataset in this layout has "
            "JPEGImages/1.jpg and Annotations/1.xml."
        )
    faults, read, stems = Faults(), dict[str, Element | None](), {PurePosixPath(path).stem for path in pictures}
    stem_of = {path: PurePosixPath(path).stem for path in documents}
    for path in documents:
        try:
            read[path] = document = parse_xml(read_bounded(str(root / path), MAX_XML))
            if document.tag.lower() != "annotation" and document.find("object") is None:
                raise ValueError(f"its root is <{document.tag:.50}>, and an XML file of VOC has <annotation>")
            if stem_of[path] not in stems:
                stem_of[path] = PurePosixPath(_text(document, "filename").replace("\\", "/")).stem
        except (OSError, ValueError) as error:
            read[path] = None
            faults.add(path, f"the file cannot be used: {error}")
    annotated = {picture: read[path] for picture, path in paired(stem_of, pictures, faults).items()}
    split_of = _splits(_lists(root, files), pictures, annotated, skipped, spec)
    records = [
        Record(key=key, split=split, objects=None if (found := annotated.get(key)) is None else _objects(found))
        for key, split in split_of.items()
    ]
    for record in records:
        if record.objects:
            width, height = (number(_text(annotated[record.key], f"size/{side}")) for side in ("width", "height"))
            record.size = width, height
    objects = [one for record in records for one in record.objects or () if not one.fault]
    if not any(min(one.corners[:2]) < 1 for one in objects):  # VOC counts from 1 and names the last pixel of a box
        for one in objects:
            left, top, right, bottom = one.corners
            if (left, top) != (right, bottom):
                one.corners = left - 1, top - 1, right, bottom
    classes = sorted({str(one.label) for one in objects})
    return with_boxes(spec, records, FileSource(root, list(split_of)), classes, faults, "XML files", skipped)


def parse_xml(data: bytes) -> Element:
    """Return the root of an XML document. Raises ValueError: it is no XML, or has a document type and so entities."""
    if b"<!DOCTYPE" in data.replace(b"\0", b""):  # in UTF-16 as well
        raise ValueError("it has a document type, which may define entities")
    try:
        return fromstring(data)
    except (ParseError, LookupError, ValueError) as error:
        raise ValueError(f"it is no XML ({error})") from None


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _folders(path: str) -> list[str]:
    return [part.lower() for part in PurePosixPath(path).parts[:-1]]


def _splits(
    lists: Mapping[str, str],
    pictures: Sequence[str],
    annotated: Mapping[str, Element | None],
    skipped: list[Skipped],
    spec: str,
) -> dict[str, str]:
    """Return the split of each picture that is used, by lists or by folders."""
    stems = {PurePosixPath(path).stem for path in pictures}
    if not stems & set(lists):
        return {path: split_in_folders(path) or "train" for path in pictures}
    skipped += [Skipped(name=name, reason="is in a list, but has no image") for name in sorted(set(lists) - stems)]
    left_out = {path for path in pictures if path in annotated and PurePosixPath(path).stem not in lists}
    if left_out:
        note_once(f"{spec}: {len(left_out):,} annotated images are in no list of ImageSets and left out.")
    return {path: lists.get(PurePosixPath(path).stem, "train") for path in pictures if path not in left_out}


def _lists(root: Path, files: Sequence[str]) -> dict[str, str]:
    tables = [path for path in files if _suffix(path) == ".txt" and "imagesets" in _folders(path)]
    tables = [path for path in tables if PurePosixPath(path).stem in (*SPLIT_OF, "trainval")]
    tables = [path for path in tables if "main" in _folders(path)] or tables
    found: dict[str, str] = {}
    # trainval first: the other lists say more.
    for path in sorted(tables, key=lambda path: ["trainval", *SPLIT_OF].index(PurePosixPath(path).stem)):
        for name in filter(None, lines_of(root / path, f"{root / path} is no list of images")):
            last = PurePosixPath(name).name
            stem = PurePosixPath(last).stem if _suffix(last) in EXTENSIONS else last
            found[stem] = SPLIT_OF.get(PurePosixPath(path).stem, "train")
    return found


def _objects(document: Element) -> list[Object]:
    found: list[Object] = []
    for position, one in enumerate(document.findall("object"), 1):
        name = _text(one, "name")
        left, top, right, bottom = (number(_text(one, f"bndbox/{side}")) for side in CORNERS)
        fault = "it has no bndbox" if one.find("bndbox") is None else ""
        if not name or len(name) > MAX_LABEL_LETTERS:
            fault = "it has no name"
        weight = weight_of(_text(one, "difficult") in ("1", "true"), _text(one, "score"))
        found.append(Object(f"object {position}", name, (left, top, right, bottom), weight, fault))
    return found


def _text(element: Element | None, path: str) -> str:
    return "" if element is None else (element.findtext(path) or "").strip()

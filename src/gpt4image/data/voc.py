"""`voc:DIR`: images and XML files of boxes in the layout of Pascal VOC, and layouts near it.

An XML file belongs to the image of the same name that is nearest to it, else to the one that it names; never to one of
another split, by the names of folders. Lists in ImageSets say which images are of which split, and images with an XML
file that no list has are left out. Without lists, folders named after a split say it. ``difficult`` objects have
weight 0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError, fromstring

from gpt4image.base.errors import DataError
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import MAX_LABEL_LETTERS, SPLIT_OF, Dataset, note_once, split_in_folders
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import FileSource, expanded, files_below, lines_of, read_bounded
from gpt4image.data.records import Faults, Object, Record, number, paired, weight_of, with_boxes

MAX_XML = 8_000_000
MASKS = {"segmentationclass", "segmentationobject", "masks"}  # folders whose pictures are no images
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(argument: str) -> Dataset:
    """Load images and their boxes; keys are paths of images from the folder."""
    spec, root = f"voc:{argument}", expanded(argument)
    files, skipped = files_below(root, root, {*EXTENSIONS, ".xml"})
    documents = [path for path in files if path.lower().endswith(".xml")]
    others = (path for path in files if not path.lower().endswith(".xml"))
    pictures = [path for path in others if not set(path.lower().split("/")[:-1]) & MASKS]
    if not pictures or not documents:
        counts = f"{len(pictures):,} images and {len(documents):,} XML files"
        raise DataError(f"{spec}: {counts}; a dataset in this layout has JPEGImages/1.jpg and Annotations/1.xml.")
    faults, read, stems = Faults(), dict[str, Element | None](), {PurePosixPath(path).stem for path in pictures}
    stem_of = {path: PurePosixPath(path).stem for path in documents}
    for path in documents:
        try:
            read[path] = document = parse_xml(read_bounded(str(root / path), MAX_XML))
            if stem_of[path] not in stems:
                stem_of[path] = PurePosixPath(_text(document, "filename").replace("\\", "/")).stem
        except (OSError, ValueError) as error:
            read[path] = None
            faults.add(path, f"the file cannot be used: {error}")
    annotated = {picture: read[path] for picture, path in paired(stem_of, pictures, faults).items()}
    records = list[Record]()
    for key, split in splits_of(spec, root, "Main", pictures, annotated, skipped).items():
        document = annotated.get(key)
        size = number(_text(document, "size/width")), number(_text(document, "size/height"))
        records.append(Record(key=key, split=split, objects=_objects(document), size=size))
    objects = [one for record in records for one in record.objects or () if not one.fault]
    if not any(min(one.corners[:2]) < 1 for one in objects):  # VOC counts from 1 and names the last pixel of a box
        for one in objects:
            left, top, right, bottom = one.corners
            if (left, top) != (right, bottom):
                one.corners = left - 1, top - 1, right, bottom
    source, classes = FileSource(root, [record.key for record in records]), sorted({str(one.label) for one in objects})
    return with_boxes(spec, records, source, classes, faults, "XML files", skipped)


def parse_xml(data: bytes) -> Element:
    """Return the root of an XML document. Raises ValueError: it is no XML, or has a document type and so entities."""
    if b"<!DOCTYPE" in data.replace(b"\0", b""):  # in UTF-16 as well
        raise ValueError("it has a document type, which may define entities")
    try:
        found = fromstring(data)
    except (ParseError, LookupError, ValueError) as error:
        raise ValueError(f"it is no XML ({error})") from None
    if found.tag.lower() != "annotation" and found.find("object") is None:
        raise ValueError(f"its root is <{found.tag:.50}>, and an XML file of VOC has <annotation>")
    return found


def splits_of(
    spec: str, root: Path, task: str, pictures: Sequence[str], annotated: Collection[str], skipped: list[Skipped]
) -> dict[str, str]:
    """Return the split of each picture to use: of the lists in ImageSets/TASK if they name any, else of its folders.

    An annotated picture in no list is left out; images that only a list names go to ``skipped``.
    """
    lists, stems = _lists(root, task), {key: PurePosixPath(key).stem for key in pictures}
    if lists.keys().isdisjoint(stems.values()):
        return {key: split_in_folders(key) or "train" for key in pictures}
    lacking = sorted(lists.keys() - set(stems.values()))
    skipped += [Skipped(one, "is in a list, but has no image") for one in lacking]
    found = {key: lists.get(stem, "" if key in annotated else "train") for key, stem in stems.items()}
    if left_out := sum(not split for split in found.values()):
        note_once(f"{spec}: {left_out:,} annotated images are in no list of ImageSets and left out.")
    return {key: split for key, split in found.items() if split}


def _lists(root: Path, task: str) -> dict[str, str]:
    """Return the split of each image by its stem; of trainval first, as the others say more."""
    found: dict[str, str] = {}
    places = [*root.glob("ImageSets"), *root.glob("*/ImageSets")]
    folders = [place / task for place in places if (place / task).is_dir()] or places
    for name in ("trainval", *SPLIT_OF):
        for file in (folder / f"{name}.txt" for folder in folders if (folder / f"{name}.txt").is_file()):
            for line in filter(None, lines_of(file, f"{file} is no list of images")):
                last = PurePosixPath(line)
                found[last.stem if last.suffix.lower() in EXTENSIONS else last.name] = SPLIT_OF.get(name, "train")
    return found


def _objects(document: Element | None) -> list[Object] | None:
    if document is None:
        return None
    found: list[Object] = []
    for position, one in enumerate(document.findall("object"), 1):
        name = _text(one, "name")
        left, top, right, bottom = (number(_text(one, f"bndbox/{side}")) for side in CORNERS)
        fault = "" if 0 < len(name) <= MAX_LABEL_LETTERS else "it has no name"
        weight = weight_of(_text(one, "difficult") in ("1", "true"), _text(one, "score"))
        found.append(Object(f"object {position}", name, (left, top, right, bottom), weight, fault))
    return found


def _text(element: Element | None, path: str) -> str:
    return "" if element is None else (element.findtext(path) or "").strip()

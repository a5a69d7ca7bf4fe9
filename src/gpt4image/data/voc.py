"""`voc:DIR`: images and XML files of boxes in the layout of Pascal VOC.

The XML file of ``JPEGImages/1.jpg`` is ``Annotations/1.xml``; ``images=`` and ``annotations=`` name other folders.
Lists in ImageSets/Main say which images are of which split, and annotated images that no list has are left out. Without
lists, folders named after a split say it. ``difficult`` objects have weight 0. Pixels count from 1.
"""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError, fromstring

from gpt4image.base.errors import DataError
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import SPLIT_OF, Dataset, split_in_folders
from gpt4image.data.file_source import FileSource, files_below, lines_of, read_bounded
from gpt4image.data.labels import MAX_LABEL_LETTERS, note_once
from gpt4image.data.records import Faults, Object, Record, number, weight_of, with_boxes
from gpt4image.data.spec import Spec

MAX_XML = 8_000_000
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(spec: Spec) -> Dataset:
    """Load images and their boxes; keys are paths of images from the folder."""
    root, images, annotations = (
        spec.path,
        spec.folder("images", "JPEGImages"),
        spec.folder("annotations", "Annotations"),
    )
    pictures, skipped = files_below(root, images)
    documents, others = files_below(root, annotations, {".xml"})
    if not pictures or not documents:
        counts = f"{len(pictures):,} images in {images} and {len(documents):,} XML files in {annotations}"
        raise DataError(f"{spec}: {counts}; give images=FOLDER and annotations=FOLDER.")
    faults, read = Faults(), dict[str, Element | None]()
    for picture, path in paired(root, (images, pictures), (annotations, documents), faults).items():
        try:
            read[picture] = parse_xml(read_bounded(str(root / path), MAX_XML))
        except (OSError, ValueError) as error:
            faults.add(path, f"the file cannot be used: {error}")
    records = list[Record]()
    for key, split in splits_of(spec, "Main", pictures, read, skipped).items():
        document = read.get(key)
        size = number(_text(document, "size/width")), number(_text(document, "size/height"))
        records.append(Record(key=key, split=split, objects=_objects(document), size=size))
    classes = sorted({str(one.label) for record in records for one in record.objects or () if not one.fault})
    source = FileSource(root, [record.key for record in records])
    return with_boxes(spec.text, records, source, classes, faults, "XML files", [*skipped, *others])


def paired(
    root: Path, pictures: tuple[Path, Sequence[str]], files: tuple[Path, Sequence[str]], faults: Faults
) -> dict[str, str]:
    """Return the file of each picture that has one: of the same path below its folder, but for the ending.

    Pictures and files are each a folder and paths from the root. A file that belongs to no picture goes to ``faults``.
    """

    def below(folder: Path, path: str) -> PurePosixPath:
        return PurePosixPath((root / path).relative_to(folder).as_posix()).with_suffix("")

    picture_of = {below(pictures[0], path): path for path in pictures[1]}
    found: dict[str, str] = {}
    for path in files[1]:
        picture = picture_of.get(below(files[0], path))
        if picture is None or picture in found:
            faults.add(path, "there is no image of its name" if picture is None else "its image has another file")
        else:
            found[picture] = path
    return found


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
    spec: Spec, task: str, pictures: Sequence[str], annotated: Collection[str], skipped: list[Skipped]
) -> dict[str, str]:
    """Return the split of each picture to use: of the lists in ImageSets/TASK if there are any, else of its folders.

    An annotated picture in no list is left out; images that only a list names go to ``skipped``.
    """
    stems = {key: PurePosixPath(key).stem for key in pictures}
    lists: dict[str, str] = {}
    for name in ("trainval", *SPLIT_OF):  # trainval first, as the others say more
        if (file := spec.path / "ImageSets" / task / f"{name}.txt").is_file():
            lists |= dict.fromkeys(
                filter(None, lines_of(file, f"{file} is no list of images")), SPLIT_OF.get(name, "train")
            )
    if not lists:
        return {key: split_in_folders(key) or "train" for key in pictures}
    skipped += [Skipped(one, "is in a list, but has no image") for one in sorted(lists.keys() - set(stems.values()))]
    found = {key: lists.get(stem, "" if key in annotated else "train") for key, stem in stems.items()}
    if left_out := sum(not split for split in found.values()):
        note_once(f"{spec}: {left_out:,} annotated images are in no list of ImageSets and left out.")
    return {key: split for key, split in found.items() if split}


def _objects(document: Element | None) -> list[Object] | None:
    if document is None:
        return None
    found: list[Object] = []
    for position, one in enumerate(document.findall("object"), 1):
        name = _text(one, "name")
        left, top, right, bottom = (number(_text(one, f"bndbox/{side}")) for side in CORNERS)
        fault = "" if 0 < len(name) <= MAX_LABEL_LETTERS else "it has no name"
        weight = weight_of(_text(one, "difficult") in ("1", "true"), _text(one, "score"))
        # VOC counts pixels from 1 and names the last one of a box.
        found.append(Object(f"object {position}", name, (left - 1, top - 1, right, bottom), weight, fault))
    return found


def _text(element: Element | None, path: str) -> str:
    return "" if element is None else (element.findtext(path) or "").strip()

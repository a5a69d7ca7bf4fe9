"""Small datasets that tests draw: photographs, boxes, masks and clips, in memory and on disk, and what they compare."""

import io
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.data import NO_LABEL, Dataset, MemorySource, load_dataset
from gpt4image.data.decode import decode
from gpt4image.data.known_sets import ANSWERS, DESCRIPTIONS, load_clothes, load_openmoji
from gpt4image.data.regions import Boxes, ImageBoxes, Masks
from tables import write_store

# Images in memory

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))


def png(seed: int, side: int = 8) -> bytes:
    """A PNG file that differs from seed to seed."""
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)))


def in_memory(contents: Sequence[bytes], labels: Any = None, **others: Any) -> Dataset:
    """Images of these bytes: keys k0, k1 and so on, all of train; without labels, those of cat and dog in turn."""
    count = len(contents)
    fields: dict[str, Any] = {
        "spec": "memory",
        "classes": ("cat", "dog"),
        "keys": tuple(f"k{number}" for number in range(count)),
        "labels": np.arange(count) % 2 if labels is None else np.asarray(labels),
        "splits": np.full(count, "train"),
        "source": MemorySource(contents),
        "rows": np.arange(count),
    }
    return Dataset(**fields | others)


class MasksInMemory:
    """Masks (height, width) in a list."""

    def __init__(self, masks: Sequence[NDArray[np.uint8]]) -> None:
        self.masks = masks

    def read(self, row: int) -> NDArray[np.uint8]:
        return self.masks[row]

    def content(self, row: int) -> bytes:
        return self.masks[row].tobytes()


def masks_of(values: Sequence[NDArray[np.uint8]], *, classes: int = 4, background: int = 0) -> Masks:
    present = np.array([[(mask == k).any() for k in range(classes)] for mask in values], np.int8)
    rows = np.arange(len(values))
    return Masks(source=MasksInMemory(values), rows=rows, presence_of_classes=present, background=background)


def any_boxes(seed: int, images: int, classes: int) -> Boxes:
    """Up to three boxes of each image; some images are not annotated."""
    rng = np.random.default_rng(seed)

    def one() -> ImageBoxes | None:
        count = int(rng.integers(0, 4))
        corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
        known = rng.random() < 0.7
        return (corners, rng.integers(0, classes, count), rng.random(count, np.float32)) if known else None

    return Boxes.of_images([one() for _ in range(images)])


# What tests compare of loaded datasets


def label_names(images: Dataset) -> dict[str, str | None]:
    return {
        key: None if label == NO_LABEL else images.classes[label]
        for key, label in zip(images.keys, images.labels, strict=True)
    }


def skipped(images: Dataset) -> dict[str, str]:
    return {item.name: item.reason for item in images.skipped}


def skipped_text(images: Dataset) -> str:
    return "\n".join(f"{item.name} {item.reason}" for item in images.skipped)


def boxes(images: Dataset) -> Boxes:
    assert isinstance(images.regions, Boxes)
    assert np.array_equal(images.labels, images.regions.presence(len(images.classes)))
    return images.regions


def masks(images: Dataset) -> Masks:
    assert isinstance(images.regions, Masks)
    assert np.array_equal(images.labels, images.regions.presence(len(images.classes)))
    return images.regions


def rows(images: Dataset) -> dict[str, list[tuple[Any, ...]] | None]:
    """Class name, corners in pixels of SIZE and weight of each box, by key; None where nothing is known."""
    found = boxes(images)

    def one(row: int) -> list[tuple[Any, ...]]:
        corners, labels, weights = found.image(row)
        pixels = (corners * np.tile(SIZE, 2)).round(3).tolist()
        return [
            (images.classes[label], tuple(at), weight)
            for label, at, weight in zip(labels.tolist(), pixels, weights.tolist(), strict=True)
        ]

    return {key: one(row) if found.known[row] else None for row, key in enumerate(images.keys)}


def survives(spec: str) -> Dataset | None:
    """Load a damaged dataset: an error of this package, or a set whose regions can all be read."""
    try:
        images = load_dataset(spec)
    except Gpt4ImageError:
        return None
    assert len(images.digests) == len(images)
    json.dumps([images.classes, images.keys, skipped_text(images)]).encode(errors="surrogatepass")
    if isinstance(images.regions, Boxes):
        corners = images.regions.corners
        assert ((corners >= 0) & (corners <= 1)).all() and (corners[:, 2:] > corners[:, :2]).all()
        assert (images.regions.labels < len(images.classes)).all()
    if isinstance(images.regions, Masks):
        for row in images.regions.rows[images.regions.known].tolist():
            assert images.regions.source.read(row).dtype == np.uint8
    return images


# Files of pictures, boxes and masks

SIZE = (40, 20)
"""Width and height of the pictures."""


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((seed, *path.name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_images(root: Path, *names: str) -> None:
    """Write a different picture to each path below a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(int.from_bytes(name.encode()[-8:], "little")))


def mask_bytes(numbers: Any, mode: str = "L", kind: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(np.asarray(numbers))
    return encoded(image if image.mode == mode else image.convert(mode), kind, **options)


def coco(*annotations: dict[str, Any], images: int = 2, **more: Any) -> dict[str, Any]:
    """A COCO table of pictures 1.png, 2.png and so on with the classes cat (id 7) and dog (id 3)."""
    listed = [{"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in range(1, images + 1)]
    whole = {"images": listed, "annotations": [{"id": n, **one} for n, one in enumerate(annotations, 1)]}
    return whole | {"categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]} | more


def write_coco(root: Path, content: dict[str, Any], name: str = "train.json") -> Path:
    """Write a COCO file, and the pictures that it lists, beside it."""
    for one in content["images"]:
        listed = one.get("file_name") if isinstance(one, dict) else None
        if isinstance(listed, str) and not listed.startswith((".", "/")):
            picture(root / listed)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content), "utf-8")
    return root / name


def write_pairs(root: Path, pictures: str, others: str, contents: Mapping[str, str | bytes | None]) -> Path:
    """Write a picture for each name, and what it has beside it; of ``images/{}.png``, ``train_1`` is images/train/1."""
    for name, content in contents.items():
        place = name.replace("_", "/")
        picture(root / pictures.format(place))
        if content is not None:
            file = root / others.format(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


# Photographs: noisy colours, clothes

COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}


def noisy(colour: tuple[int, int, int], rng: np.random.Generator, side: int = 16) -> Image.Image:
    values = np.array(colour) + rng.normal(0, 30, (side, side, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def write_colours(root: Path, each: int = 16, side: int = 16) -> Path:
    """Write so many pictures of each colour in class folders."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            noisy(colour, rng, side).save(root / name / f"{number:02}.png")
    return root


def write_photos(
    folder: Path, labelled: int, colours: Mapping[str, tuple[int, int, int]] = COLOURS, each: int = 12
) -> list[dict[str, Any]]:
    """Write pictures of which so many per colour have a label, or one folder of them; return an answer about each."""
    rng, answers = np.random.default_rng(0), list[dict[str, Any]]()
    for name, colour in colours.items():
        for number in range(each):
            place = name if number < labelled else "unlabelled" if labelled else ""
            key = f"{place}/{name[0]}{number:02}.png".lstrip("/")
            (folder / place).mkdir(parents=True, exist_ok=True)
            noisy(colour, rng).save(folder / key)
            answer = {"description": f"A {name} square, number {number}.", "class": name, "confidence": 0.9}
            answers.append({"key": key, **answer})
    return answers


def packaged_texts() -> dict[str, str]:
    """Return the packaged descriptions of pictograms by the keys of these."""
    lines = map(json.loads, DESCRIPTIONS.read_text(encoding="utf-8").splitlines())
    return {row["key"]: row["description"] for row in lines}


def some(per_class: int) -> Dataset:
    """Return so many photographs of each class and split."""
    images = load_clothes()
    chosen = [
        np.flatnonzero((images.splits == split) & (images.labels == label))[:per_class]
        for split in ("train", "val", "test")
        for label in range(len(images.classes))
    ]
    return images.select(np.sort(np.concatenate(chosen)))


def write_folders(root: Path, per_class: int) -> None:
    """Write them as class folders, ``labelled`` and ``unlabelled`` in train, and ``answers.jsonl`` about the latter."""
    images, key_of = some(per_class), dict[str, str]()
    for row, key in enumerate(images.keys):
        split, name = str(images.splits[row]), images.classes[images.labels[row]]
        key_of[key] = f"{split}/{'unlabelled' if split == 'train' else name}/{key}.webp"
        for path in (root / "labelled" / split / name / f"{key}.webp", root / "unlabelled" / key_of[key]):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.read(row))
    write_answers(root / "answers.jsonl", key_of)


def write_answers(path: Path, key_of: dict[str, str]) -> None:
    """Write the recorded answers about some photographs, by the keys that these have now."""
    lines = map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())
    kept = [json.dumps(row | {"key": key_of[row["key"]]}) for row in lines if row["key"] in key_of]
    path.write_text("\n".join(kept), encoding="utf-8")


# Boxes: pictograms to find, and squares of which annotators drew some

KINDS = {"apple": "1F34E", "star": "2B50", "frog": "1F438"}
PICTOGRAMS = (128, 96)


def write_boxes(folder: Path, *, train: int = 96, test: int = 32, seed: int = 0) -> Path:
    """Write pictures of one to three pictograms each with train.json and test.json; return the file of train."""
    folder.mkdir(parents=True, exist_ok=True)
    packaged = load_openmoji()
    pictures = [
        Image.open(io.BytesIO(packaged.read(packaged.keys.index(key)))).convert("RGB") for key in KINDS.values()
    ]
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        listed: list[list[tuple[int, tuple[int, int, int, int]]]] = []
        for number in range(count):
            drawing = Image.new("RGB", PICTOGRAMS, "white")
            taken: list[tuple[int, tuple[int, int, int, int]]] = []
            for kind in rng.integers(0, len(KINDS), int(rng.integers(1, 4))).tolist():
                side = int(rng.integers(24, 49))
                left, top = (int(rng.integers(0, whole - side)) for whole in PICTOGRAMS)
                if any(left < r and x < left + side and top < b and y < top + side for _, (x, y, r, b) in taken):
                    continue
                taken.append((kind, (left, top, left + side, top + side)))
                drawing.paste(pictures[kind].resize((side, side)), (left, top))
            drawing.save(folder / f"{split}-{number:03d}.png")
            listed.append(taken)
        names = [f"{split}-{number:03d}.png" for number in range(count)]
        _write_listed(folder / f"{split}.json", names, PICTOGRAMS, listed, tuple(KINDS))
    return folder / "train.json"


def _write_listed(file: Path, names: Sequence[str], size: tuple[int, int], listed: Any, classes: Sequence[str]) -> None:
    """Write a COCO file of images by name, of one size, with the class and the corners of each box."""
    images = [{"id": n, "file_name": name, "width": size[0], "height": size[1]} for n, name in enumerate(names, 1)]
    annotations = [
        {"image_id": n, "category_id": kind + 1, "bbox": [left, top, wide, high], "area": wide * high, "iscrowd": 0}
        for n, found in enumerate(listed, 1)
        for kind, (left, top, right, bottom) in found
        for wide, high in [(right - left, bottom - top)]
    ]
    annotations = [{"id": n, **one} for n, one in enumerate(annotations, 1)]
    categories = [{"id": n, "name": name} for n, name in enumerate(classes, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content), encoding="utf-8")


def detector_options(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    """Return the options of a short run on the pictures in a folder."""
    tiny = {"image_size": 64, "val_fraction": 0.0, "precision": "fp32", "memory_format": "channels_last"}
    return TrainConfig(**{**tiny, "data": f"coco:{folder / 'train.json'}", "out": out, **changes})


def train_detector(folder: Path, out: Path) -> None:
    """Train one that finds the pictograms, and measure it."""
    from gpt4image.evaluating.evaluate import evaluate
    from gpt4image.training.train import train

    train(detector_options(folder, out, epochs=15))
    evaluate(EvaluateConfig(run_dir=out))


NAMES = ("red", "green", "blue")
SQUARE_COLOURS = ((220, 40, 40), (40, 200, 40), (40, 60, 220))
SIDE = 32


def write_squares(folder: Path, train: int = 18, test: int = 6, names: tuple[str, ...] = NAMES) -> str:
    """Write pictures of two squares each, of which annotators drew the one that touches no border; return the SPEC."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            pixels = 128 + rng.integers(0, 20, (SIDE, SIDE, 3)).astype(np.uint8)
            for left, top, right, bottom in squares(number):
                pixels[top:bottom, left:right] = SQUARE_COLOURS[number % 3]
            Image.fromarray(pixels).save(folder / f"images/{split}{number}.png")
        files = [f"images/{split}{number}.png" for number in range(count)]
        listed = [[(number % 3, squares(number)[0])] for number in range(count)]
        _write_listed(folder / f"{split}.json", files, (SIDE, SIDE), listed, names)
    return f"coco:{folder / 'train.json'}"


def squares(number: int) -> list[tuple[int, int, int, int]]:
    """Return the squares of a picture in pixels: one inside, one at the right border."""
    left, top, high = 3 + number % 4, 4 + number % 3, 17 + number % 5
    return [(left, top, left + 10, top + 11), (SIDE - 9, high, SIDE, high + 10)]


def boxes_answered(
    key: str, names: tuple[str, ...] = NAMES, place: str = "box_2d", **more: Any
) -> list[dict[str, Any]]:
    """Return boxes of both squares of a picture as a describer answers them, in thousandths."""
    number = int("".join(filter(str.isdigit, key.rsplit("/")[-1])))
    thousandths = ([round(1000 * side / SIDE) for side in square] for square in squares(number))
    return [{"label": names[number % 3], place: corners, **more} for corners in thousandths]


def answer_squares(spec: str, path: Path, names: tuple[str, ...] = NAMES, **more: Any) -> Path:
    """Write a store in which a describer has boxes of both squares of every picture."""
    images = load_dataset(spec)
    answers = (Answer(boxes=tuple(boxes_answered(key, names, **more))) for key in images.keys)
    return store_boxes(path, list(zip(images.digests, answers, strict=True)))


def store_boxes(path: Path, answers: Sequence[tuple[str, Answer]]) -> Path:
    """Write a store of answers by digest; several about one image are samples."""
    prompt = Prompt(name="boxes", version=1, text="Where is what?", class_conditioned=False, ask=("boxes",))
    seen: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    for digest, answer in answers:
        found.append({"digest": digest, "answer": answer, "sample": seen[digest]})
        seen[digest] += 1
    return write_store(path, found, prompt=prompt)


# Masks: red discs and blue squares on grey, some pictures only with tags

SHAPES = {"disc": (200, 40, 40), "square": (40, 40, 200)}
SMALL = {
    "model": "resnet10t", "model_args": {"channels": [8, 16, 16, 16], "stem_width": 8}, "image_size": 32,
    "batch_size": 8, "threads": 1, "precision": "fp32", "memory_format": "contiguous",
}  # fmt: skip
"""Options of a small training."""


def write_shapes(folder: Path, *, train: int = 24, test: int = 8, tagged: int = 0, seed: int = 0) -> str:
    """Write a dataset of masks, and return its SPEC."""
    rng = np.random.default_rng(seed)
    tags = ["key,tags"]
    for split, count in (("train", train), ("test", test), ("tagged", tagged)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            drawing, mask, there = _shapes(rng)
            drawing.save(folder / "images" / split / f"{number:03}.png")
            if split == "tagged":
                tags.append(f"tagged/{number:03}.png,{'|'.join(there) or 'background'}")
            else:
                mask.save(folder / "masks" / split / f"{number:03}.png")
    (folder / "classes.txt").write_text("\n".join(["background", *SHAPES]))
    (folder / "tags.csv").write_text("\n".join(tags))
    return f"masks:{folder}"


def _shapes(rng: np.random.Generator) -> tuple[Image.Image, Image.Image, list[str]]:
    size = (48, 40)
    drawing, mask, there = Image.new("RGB", size, (120, 120, 120)), Image.new("L", size, 0), []
    for number, (name, colour) in enumerate(SHAPES.items(), 1):
        if rng.random() < 0.6:
            x, y = (int(rng.integers(0, side - 17)) for side in size)
            for image, fill in ((drawing, colour), (mask, number)):
                pen = ImageDraw.Draw(image)
                (pen.ellipse if name == "disc" else pen.rectangle)((x, y, x + 16, y + 16), fill=fill)
            there.append(name)
    return drawing, mask, there


def set_and_run(root: Path) -> None:
    """Write a dataset of masks, some pictures of it only with tags, and train a small run on it."""
    from gpt4image.training.train import train

    data = write_shapes(root / "set", tagged=8)
    train(TrainConfig(**{"data": data, "out": root / "run", "epochs": 14, **SMALL}))


# Clips: a dot that moves, in containers and codecs of one's choice


def video(
    frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    *,
    container: str = "mp4",
    codec: str = "mpeg4",
    rate: int = 8,
    pixels: str = "yuv420p",
    fast_start: bool = False,
    rotation: int = 0,
    first: int = 0,
) -> bytes:
    """Return the bytes of a video of RGB frames (height, width, 3), to be shown turned by ``rotation`` degrees.

    The clock stands at ``first`` frames when it begins.
    """
    import av

    file = tempfile.NamedTemporaryFile(suffix=f".{container}") if fast_start else io.BytesIO()  # noqa: SIM115
    options = {"movflags": "faststart"} if fast_start else {}  # the index comes before the frames
    with av.open(getattr(file, "name", file), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.codec_context.thread_count = 1  # a forked worker that frees an encoder waits for its threads for ever
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixels
        stream.bit_rate = 2_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        for number, frame in enumerate(frames):
            drawn = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            drawn.pts, drawn.time_base = first + number, Fraction(1, rate)
            output.mux(stream.encode(drawn))
        output.mux(stream.encode(None))
    file.seek(0)
    return file.read()


def sound(container: str = "mp4") -> bytes:
    """Return the bytes of a file of a second of silence."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("aac", rate=8000)
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def moving_dot(start: int, step: int, row: int, *, count: int = 8, side: int = SIDE) -> NDArray[np.uint8]:
    """Return (count, side, side, 3) frames of a white dot that moves ``step`` pixels a frame along a row."""
    frames = np.full((count, side, side, 3), 20, np.uint8)
    for number in range(count):
        column = (start + step * number) % side
        frames[number, row : row + 5, np.arange(column, column + 5) % side] = 250
    return frames


def write_dots(root: Path, *, train: int = 24, test: int = 12, seed: int = 0) -> Path:
    """Write clips of two classes that one frame cannot tell apart: the dot moves left, or right."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, step in (("left", -3), ("right", 3)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                frames = moving_dot(int(rng.integers(SIDE)), step, int(rng.integers(SIDE - 5)))
                (folder / f"{number}.mp4").write_bytes(video(frames))
    return root

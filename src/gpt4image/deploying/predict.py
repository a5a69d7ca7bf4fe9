"""The stage predict: classes, boxes or masks of images, by a run or what was exported from it, written as they come.

Neither paths, pixels nor rows are kept, so memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import itertools
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from gpt4image.artifacts.answers import NONE_OF_THESE, apart
from gpt4image.base.errors import ConfigError, DataError, DecodeError
from gpt4image.base.files import atomic_path
from gpt4image.base.outcome import Row, Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import csv_cell, in_one_line
from gpt4image.config import PredictConfig
from gpt4image.config.results import PredictResult
from gpt4image.data import require_there
from gpt4image.data.coco import COCO, Id, Ids, category_ids, coco_ids
from gpt4image.data.decode import EXTENSIONS, decode
from gpt4image.data.file_source import read_bounded
from gpt4image.data.masks import UNSEEN
from gpt4image.data.regions import palette
from gpt4image.data.video import VIDEO_EXTENSIONS
from gpt4image.deploying.preprocessing import Preprocessing, as_images
from gpt4image.pages.cards import coloured, overlaid

if TYPE_CHECKING:
    from gpt4image.deploying.loading import Classifier
    from gpt4image.tasks.base import Predictions, Task

UNSURE = "unsure"
"""What is said of an image whose class is less probable than --min-score."""
BATCH_BYTES = 2**26  # of the pixels of a batch: large inputs go in smaller batches
ROUNDING = 1e-3  # by how much a probability may be outside of 0 to 1


def predict(config: PredictConfig, task: Task | None = None, *, keep: bool = False) -> PredictResult:
    """Predict every image that is named or given, and write one row for each, in order.

    Rows go to ``config.out``, or to standard output as they come. With ``keep`` they are those of the result, and
    nothing is printed; otherwise neither images nor rows are kept in memory. Files that cannot be read or decoded are
    skipped. ``task`` is that of the model, if the registry lacks it.

    Raises:
        DataError: no image is found.
        ConfigError: ``config.out`` is the model or an image; rows of COCO are wanted of images that no COCO file lists.
        ModelError, RunError, ConfigError, MissingExtraError: as ``load_classifier`` does.
    """
    from gpt4image.data.given import as_files

    with as_files(config.images) as (paths, numbers):  # of images in memory, which have no name
        if numbers and config.out is not None:
            raise ConfigError(
                "names images by their files, and these have none; take the rows of the result.", field="out"
            )
        found = _predict(config.model_copy(update={"images": paths}), task, keep=keep)
    if not numbers:
        return found
    rows = [{**row, "image": numbers.get(row["image"], row["image"])} for row in found.rows]
    skipped = tuple(Skipped(numbers.get(item.name, item.name), item.reason) for item in found.skipped)
    return replace(found, read_rows=partial(list[Row], rows), skipped=skipped)


def _predict(config: PredictConfig, task: Task | None, *, keep: bool) -> PredictResult:
    from gpt4image.deploying.loading import load_classifier
    from gpt4image.parallel.devices import cpu_threads

    config, ids = _with_listed(config)
    total, kinds = _count(config, EXTENSIONS | VIDEO_EXTENSIONS, ids)  # mistakes are said before a model is loaded
    count, refused, asked, skipped, kept = 0, 0, 0, list[Skipped](), list[Row]()
    with cpu_threads(config.threads):
        classifier = load_classifier(config.model, device=config.device, threads=config.threads, task=task)
        if not kinds <= classifier.preprocessing.extensions:
            total, _ = _count(config, classifier.preprocessing.extensions, ids)
        output = classifier.task.output
        if config.row_format == "coco" and output != "boxes":
            raise ConfigError(f"--format coco: {config.model} predicts {output}, and no boxes.")
        if config.draw is not None:
            if output not in ("boxes", "mask"):
                raise ConfigError(f"--draw {config.draw}: {config.model} predicts {output}; leave it out.")
            config.draw.mkdir(parents=True, exist_ok=True)
        if config.ask_when_unsure is not None:
            from gpt4image.deploying.escalating import require_askable

            require_askable(config, output, exclusive=classifier.task.exclusive)
        every = len(classifier.classes)  # the largest one of a mask is the background nearly everywhere
        top = min(config.top or (every if output == "mask" else 1), every)
        started = time.monotonic()

        def noted() -> Iterator[Prediction]:
            nonlocal count, refused, asked
            rows: Rows = _predictions(config, classifier, top, total, skipped)
            if config.ask_when_unsure is not None:
                from gpt4image.deploying.escalating import with_answers

                rows = with_answers(config, classifier.classes, [*rows])
            for prediction in rows:
                yield prediction
                count += 1
                refused += prediction.none
                asked += bool(prediction.asked)
                if keep:
                    kept.extend(prediction.fields(classifier.task.value))

        with _stream(config.out, quiet=keep) as stream:
            WRITERS[config.row_format](stream, noted(), classifier, top, ids)
    if config.out is None and not keep:  # standard output holds rows alone
        return PredictResult(skipped=tuple(skipped))
    seconds = time.monotonic() - started
    return PredictResult(
        path=config.out,
        predicted=count,
        asked=None if config.ask_when_unsure is None else asked,
        none_of_these=None if classifier.task.decision.reject is None else refused,
        seconds=round(seconds, 2),
        images_per_second=round(count / seconds, 1),
        skipped=tuple(skipped),
        read_rows=partial(list[Row], kept),
    )


def _with_listed(config: PredictConfig) -> tuple[PredictConfig, dict[str, Ids]]:
    """Return the configuration with the images of each ``coco:FILE`` in its place, and the ids that results take."""
    ids: dict[str, Ids] = {}
    names: list[str] = []
    for name in config.images:
        if name.startswith(COCO) and not os.path.lexists(name):
            require_there(name)
            found = coco_ids(name.removeprefix(COCO))
            names += found
            ids = {**found, **ids}
        else:
            names.append(name)
    return config.model_copy(update={"images": tuple(names)}), ids


def _named(config: PredictConfig, extensions: Collection[str]) -> Iterator[str | Skipped]:
    """Yield the images that are named, without those that were drawn earlier."""
    drawn = None if config.draw is None else config.draw.resolve()
    for item in find_images(config.images, extensions):
        if isinstance(item, Skipped) or drawn is None or not Path(item).parent.resolve().is_relative_to(drawn):
            yield item


def _count(config: PredictConfig, extensions: Collection[str], ids: Mapping[str, Ids]) -> tuple[int, set[str]]:
    """Return how many items the names lead to, and their extensions."""
    taken = _place(config.out) if config.out is not None else None
    parts = config.model.iterdir() if config.model.is_dir() else [config.model]
    if taken is not None and any(_place(part) == taken for part in parts):
        raise ConfigError(f"--out {config.out} is the model, or a file of it; give another file for the predictions.")
    images, reasons, kinds = 0, list[str](), set[str]()
    for item in _named(config, extensions):
        if isinstance(item, Skipped):
            reasons.append(f"{item.name!r}: {item.reason}")
            continue
        if taken is not None and _place(item) == taken:
            raise ConfigError(f"--out {config.out} is an image that is named; give another file for the predictions.")
        if config.row_format == "coco" and os.path.realpath(item) not in ids:
            raise ConfigError(f"--format coco: no COCO file lists {item}; name images by coco:FILE.json.")
        images += 1
        kinds.add(os.path.splitext(item)[1].lower())  # noqa: PTH122
    if not images:
        raise DataError(
            f"No image is found: {'; '.join(reasons[:5])}. Give image files, folders that hold some, or patterns in "
            "quotes such as 'photos/**/*.jpg'."
        )
    return images + len(reasons), kinds


def _place(path: Path | str) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever it is called; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path per image costs more than the call)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _predictions(
    config: PredictConfig, classifier: Classifier, top: int, total: int, skipped: list[Skipped]
) -> Iterator[Prediction]:
    """Yield predictions in order; what cannot be used is added to ``skipped``."""
    from gpt4image.data.pixels import available_cores

    batches = decode_ahead(
        _named(config, classifier.preprocessing.extensions),
        classifier.preprocessing,
        batch_size=min(config.batch_size, max(1, BATCH_BYTES // math.prod(classifier.preprocessing.shape))),
        threads=config.threads or available_cores(),
        sized=classifier.task.output == "boxes",
    )
    drawings, reject = itertools.count(1), classifier.task.decision.reject
    rows_are_watched = config.out is None and sys.stdout.isatty()
    with progress_bar(quiet=rows_are_watched) as bar, contextlib.closing(batches):
        task = bar.add_task("Predicting", total=total, note="")
        for batch in batches:
            skipped.extend(batch.skipped)
            if batch.paths:
                outputs, *known = classifier.read(as_images(batch.pixels))
                about = {"known": known[0].tolist()} if known else {}
                faults = [_fault(output, classifier) for output in outputs]
                skipped += [Skipped(name=name, reason=f) for name, f in zip(batch.paths, faults, strict=True) if f]
                good = [place for place, fault in enumerate(faults) if not fault]
                rows = classifier.task.rows(outputs[good], classifier.classes, top)
                for place, row in zip(good, rows, strict=True):
                    image = batch.paths[place]
                    row |= {name: values[place] for name, values in about.items()}
                    row["none"] = reject is not None and row.get("known", 1.0) < reject.share
                    row["unsure"] = classifier.task.exclusive and row["probabilities"][0] < (config.min_score or 0.0)
                    prediction = Prediction(image, **row).in_pixels(batch.sizes[place], config)
                    if config.draw is not None:
                        stem = Path(image).stem.encode(errors="replace")[:LONGEST_STEM].decode(errors="ignore")
                        name = config.draw / f"{next(drawings):06d}-{stem}"
                        try:
                            picture = decode(read_bounded(image))
                        except (DecodeError, OSError) as error:  # it was predicted a moment ago
                            skipped.append(Skipped(name=image, reason=f"predicted, but not drawn: {error}"))
                        else:
                            prediction = _drawn(picture, prediction, outputs[place], name, classifier.classes)
                    yield prediction
            bar.advance(task, len(batch.paths) + len(batch.skipped))


def _fault(output: Predictions, classifier: Classifier) -> str:
    """Return why what a model says of an image cannot be used; an empty text where it can."""
    shares, numbers = output, np.zeros(0)
    if classifier.task.output == "boxes":
        shares, numbers = output[:, 4], output[:, 5]
    elif classifier.task.output == "mask":
        shares, numbers = numbers, output
    if not np.isfinite(output).all():
        return "the model gives numbers for it that are not finite"
    if not ((shares >= -ROUNDING) & (shares <= 1 + ROUNDING)).all():
        return "the model gives numbers for it that are no probabilities, which are from 0 to 1"
    if not ((numbers >= 0) & (numbers < len(classifier.classes))).all():
        return "the model gives numbers for it that no class has"
    return ""


@contextlib.contextmanager
def _stream(out: Path | None, *, quiet: bool) -> Generator[TextIO]:
    if out is not None:
        with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
    elif quiet:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            yield nowhere
    else:
        yield sys.stdout  # this very stream: a progress bar puts another one in its place
        sys.stdout.flush()


class Decoded(NamedTuple):
    """Images or clips in their order: n paths, (n, ...) pixels, those that were skipped, and width and height of the n
    upright pictures, zeros unless they are asked for."""

    paths: list[str]
    pixels: NDArray[np.uint8]
    skipped: list[Skipped]
    sizes: list[tuple[int, int]]


def find_images(names: Iterable[str], extensions: Collection[str] = EXTENSIONS) -> Iterator[str | Skipped]:
    """Yield the path of every image that is named, in order; none is kept, so that folders may be of any size.

    A file is taken whatever its extension. Of a folder, the files below it that have one of ``extensions`` are, in
    order of their names; hidden ones are left out, and links to folders are not followed. Other names are patterns,
    with ``*``, ``?``, ``[...]`` and ``**``. What leads to no image is yielded as skipped.
    """
    for name in names:
        matches = [name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        folders = {Path(match) for match in matches if os.path.isdir(match)}  # noqa: PTH112
        empty = True
        for match in matches:
            if not folders.isdisjoint(Path(match).parents):
                continue  # it is found in the folder above, which ``**`` matches too
            for found in _below(match, extensions) if os.path.isdir(match) else (match,):  # noqa: PTH112
                empty = False
                yield found
        if empty:
            yield Skipped(name=name, reason="holds no image" if matches else "there is no such file, folder or pattern")


def _below(folder: str, extensions: Collection[str]) -> Iterator[str | Skipped]:
    unreadable: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in extensions:  # noqa: PTH122
                yield os.path.join(parent, file)  # noqa: PTH118
    for error in unreadable:
        yield Skipped(name=str(error.filename), reason=f"cannot be read: {error.strerror}")


def decode_ahead(
    found: Iterable[str | Skipped], preprocessing: Preprocessing, *, batch_size: int, threads: int, sized: bool = False
) -> Generator[Decoded]:
    """Yield images in batches, in order, while threads decode the next ones: two batches per thread are held."""
    remaining = iter(found)
    batches = iter(lambda: list(itertools.islice(remaining, batch_size)), [])
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(_decode, batch, preprocessing, sized))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(found: Sequence[str | Skipped], preprocessing: Preprocessing, sized: bool) -> Decoded:
    pixels = np.empty((len(found), *preprocessing.shape), np.uint8)
    paths: list[str] = []
    skipped: list[Skipped] = []
    sizes: list[tuple[int, int]] = []
    for item in found:
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        try:
            if not os.path.isfile(item):  # noqa: PTH113  (a pipe would never end)
                raise DecodeError("a link to nothing" if os.path.islink(item) else "no file")  # noqa: PTH114
            data = read_bounded(item)
            pixels[len(paths)] = preprocessing.pixels(data)
            sizes.append(preprocessing.sides(data) if sized else (0, 0))
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(name=item, reason=getattr(error, "strerror", None) or str(error)))
        else:
            paths.append(item)
    return Decoded(paths, pixels[: len(paths)], skipped, sizes)


COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075", "#c2185b")
LARGEST_FONT = 200  # pixels
LONGEST_SIDE = 65_500  # pixels of a side that JPEG files are written with
LONGEST_STEM = 100  # bytes of an image's name in the names of its drawings: with a suffix, a file system takes 255


def _drawn(
    picture: Image.Image, prediction: Prediction, found: Predictions, place: Path, classes: Sequence[str]
) -> Prediction:
    """Draw a prediction over its picture, to a JPEG file; return it, with the PNG file of its mask if it has one."""
    size = picture.size
    if prediction.boxes is not None:
        _draw_boxes(picture, prediction, classes)
    else:
        unseen = [number for number, name in enumerate(classes) if name.lower() in UNSEEN]
        background = unseen[0] if unseen else -1
        picture = overlaid(picture, found, background)
        name_classes(picture, found, classes, background)
        mask = place.with_name(f"{place.name}.png")
        with atomic_path(mask) as temporary:
            coloured(found, size).save(temporary, "PNG")
        prediction = prediction._replace(mask=str(mask))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    with atomic_path(place.with_name(f"{place.name}.jpg")) as temporary:
        picture.save(temporary, "JPEG", quality=90)
    return prediction


def _draw_boxes(picture: Image.Image, row: Prediction, classes: Sequence[str]) -> None:
    """Draw boxes with their classes and scores over a picture, the best one last."""
    pen, font = ImageDraw.Draw(picture), _font(picture)
    width = max(1, round(max(picture.size) / 300))
    for name, score, box in reversed(list(zip(row.classes, row.probabilities, row.boxes or (), strict=True))):
        colour, corner = COLOURS[classes.index(name) % len(COLOURS)], (box[0] + width, box[1] + width)
        words = in_one_line(f"{name} {score:.2f}")
        pen.rectangle(list(box), outline=colour, width=width)
        _write(pen, corner, words, colour, font)


def _font(picture: Image.Image) -> Any:
    """Return the font of words on a picture, which grows with it: matplotlib's, as Pillow's has only ASCII."""
    import matplotlib as mpl

    size = min(max(10, round(max(picture.size) / 40)), LARGEST_FONT)
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _write(pen: ImageDraw.ImageDraw, corner: tuple[float, float], words: str, colour: Any, font: Any) -> float:
    """Write words on a ground of a colour; return where they end below."""
    left, top, right, bottom = pen.textbbox(corner, words, font)
    pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill=colour)
    light = sum(ImageColor.getrgb(colour) if isinstance(colour, str) else colour) > 3 * 160
    pen.text(corner, words, "black" if light else "white", font)
    return bottom


def name_classes(picture: Image.Image, mask: NDArray[np.uint8], classes: Sequence[str], background: int) -> None:
    """Write the names of the classes that a mask shows in their colours, the largest one first."""
    pen, font, colours = ImageDraw.Draw(picture), _font(picture), palette()
    areas = np.bincount(mask.ravel(), minlength=len(classes))
    order: list[int] = np.argsort(-areas, kind="stable").tolist()
    below = 2.0
    for number in order:
        if areas[number] and number != background:
            colour = tuple(colours[number].tolist())
            below = _write(pen, (3, below), in_one_line(classes[number]), colour, font) + 3


SIDES = ("left", "top", "right", "bottom")
CLASS_WIDTH = 30  # longest class name that the table makes room for


class Prediction(NamedTuple):
    """The prediction of one image: its most probable classes, best first, with what ``Task.value`` names.

    ``present`` has the classes that count as present, if an image may have several; ``boxes`` left, top, right and
    bottom of each object in pixels of the upright picture; ``mask`` is the file of its mask, if it is drawn. ``known``
    is the share of good training images that are at least as strange, ``none`` whether the image is none of the classes
    by it, and ``unsure`` whether the first class is less probable than --min-score; ``asked`` whether a describer named
    the class, None where none is asked.
    """

    image: str
    classes: Sequence[str]
    probabilities: Sequence[float]
    present: Sequence[str] | None = None
    boxes: Sequence[Sequence[float]] | None = None
    mask: str | None = None
    known: float | None = None
    none: bool = False
    unsure: bool = False
    asked: bool | None = None

    @property
    def names(self) -> Sequence[str]:
        """The classes for people and tables: the first is "none of these" or "unsure" where the image is that."""
        instead = NONE_OF_THESE if self.none else UNSURE if self.unsure else ""
        return [instead, *self.classes[1:]] if instead else self.classes

    def in_pixels(self, size: tuple[int, int], config: PredictConfig) -> Prediction:
        """Return the prediction with boxes in pixels of a picture of that width and height: none below the least score,
        and none that overlaps a better one too much, which would be the same object by another name."""
        if self.boxes is None:
            return self
        good = [row for row, score in enumerate(self.probabilities) if score >= config.least_box]
        sides = np.array(self.boxes, np.float64).reshape(-1, 4)
        kept = [good[place] for place in apart(sides[good], config.overlap)]
        return self._replace(
            classes=[self.classes[row] for row in kept],
            probabilities=[self.probabilities[row] for row in kept],
            boxes=np.round(sides[kept] * (*size, *size), 2).tolist(),
        )

    def fields(self, value: str) -> list[dict[str, Any]]:
        """Return the rows of the image as tables have them; ``value`` is that of the task.

        One row has image, class, value, class_2 and so on, and ``known``; of boxes each has one, with its sides.
        """
        best = list(zip(self.names, self.probabilities, strict=True))
        if self.boxes is not None:
            sides = (dict(zip(SIDES, box, strict=True)) for box in self.boxes)
            each = zip(best, sides, strict=True)
            return [{"image": self.image, "class": name, value: score, **box} for (name, score), box in each]
        row: dict[str, Any] = {"image": self.image}
        row |= {} if self.present is None else {"present": list(self.present)}
        for rank, (name, number) in enumerate(best, 1):
            row |= {_ranked("class", rank): name, _ranked(value, rank): number}
        more = {"mask": self.mask, "known": self.known, "asked": self.asked}
        return [row | {name: value for name, value in more.items() if value is not None}]


Rows = Iterable[Prediction]


def _ranked(name: str, rank: int) -> str:
    """Return the name of a column of the class of a rank: class, class_2, ..."""
    return name if rank == 1 else f"{name}_{rank}"


def _table(stream: TextIO, rows: Rows, classifier: Classifier, *_: Any) -> None:
    """Write one line per image, or per box: probabilities before names, the path last."""
    none = () if classifier.task.decision.reject is None else (NONE_OF_THESE,)
    width = min(CLASS_WIDTH, max(len(in_one_line(name)) for name in (*classifier.classes, *none)))
    for row in rows:
        best = zip(row.names, row.probabilities, strict=True)
        columns = [f"{value:.3f} {in_one_line(name):{width}}" for name, value in best]
        if row.boxes is None:
            stream.write("  ".join([*columns, in_one_line(row.image)]) + "\n")
        for column, box in zip(columns, row.boxes or (), strict=False):
            place = " ".join(f"{number:7.1f}" for number in box)
            stream.write(f"{column}  {place}  {in_one_line(row.image)}\n")


def _csv_rows(stream: TextIO, rows: Rows, classifier: Classifier, top: int, _: Any) -> None:
    """Write a header and a row per image: image, present (of several classes), class, probability, class_2, ..., known;
    boxes have a row each, with left, top, right, bottom."""
    value = classifier.task.value
    columns = ["image", "class", value, *SIDES]
    if classifier.task.output != "boxes":
        ranks = (_ranked(name, rank) for rank in range(1, top + 1) for name in ("class", value))
        known = [] if classifier.task.decision.reject is None else ["known"]
        first = next(rows := iter(rows), None)
        rows = itertools.chain([] if first is None else [first], rows)
        asked = [] if first is None or first.asked is None else ["asked"]
        columns = ["image", *([] if classifier.task.exclusive else ["present"]), *ranks, *known, *asked]
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()

    def cell(name: str, content: Any) -> Any:
        if isinstance(content, float):
            return content if name in SIDES else f"{content:.6f}"
        names: list[str] = content if isinstance(content, list) else [str(content)]
        return csv_cell("|".join(map(in_one_line, names)))

    for row in rows:
        for fields in row.fields(value):
            writer.writerow({name: cell(name, content) for name, content in fields.items()})


def _json_lines(stream: TextIO, rows: Rows, classifier: Classifier, *_: Any) -> None:
    """Write one object per image; in ASCII, so that every name is exact and harmless, even one that is not UTF-8."""
    for row in rows:
        best = zip(row.classes, row.probabilities, strict=True)
        found: list[dict[str, Any]] = [{"class": name, classifier.task.value: round(value, 6)} for name, value in best]
        for entry, box in zip(found, row.boxes or (), strict=False):
            entry["box"] = box
        more: dict[str, Any] = {"present": row.present, "mask": row.mask, "asked": row.asked}
        more |= {} if row.known is None else {"known": round(row.known, 6), "none_of_these": row.none}
        more |= {"unsure": True} if row.unsure and not row.none else {}
        more = {name: value for name, value in more.items() if value is not None}
        stream.write(json.dumps({"image": row.image, **more, "predictions": found}) + "\n")


def _coco_results(stream: TextIO, rows: Rows, classifier: Classifier, _: int, ids: Mapping[str, Ids]) -> None:
    """Write a JSON array of COCO's results."""
    of_file: dict[int, Mapping[str, Id]] = {}
    before = "["
    for row in rows:
        listed = ids[os.path.realpath(row.image)]
        number = of_file.setdefault(id(listed.categories), category_ids(classifier.classes, listed.categories))
        for name, score, corners in zip(row.classes, row.probabilities, row.boxes or (), strict=True):
            left, top, right, bottom = corners
            box = [round(side, 2) for side in (left, top, right - left, bottom - top)]
            about = {"image_id": listed.image, "category_id": number[name], "bbox": box, "score": round(score, 6)}
            stream.write(f"{before}\n{json.dumps(about)}")
            before = ","
    stream.write("[]\n" if before == "[" else "\n]\n")


WRITERS = {"table": _table, "csv": _csv_rows, "jsonl": _json_lines, "coco": _coco_results}

"""The stage predict: classes, boxes or masks of images, by a run or by what was exported from it, written as they come.

Neither paths, pixels nor rows are kept, so memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.files import atomic_path
from gpt4image.base.outcome import Outcome, SetAside
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import csv_cell, in_one_line
from gpt4image.config import PredictConfig
from gpt4image.deploying.boxes import CocoResults, Prediction

if TYPE_CHECKING:
    from gpt4image.deploying.drawing import Drawing
    from gpt4image.deploying.loading import Classifier
    from gpt4image.tasks.base import Task

CLASS_WIDTH = 30  # longest class name that the table makes room for


Write = Callable[[Prediction], None]


def predict(config: PredictConfig, task: Task | None = None) -> Outcome:
    """Predict every image that is named, and write one row for each, in order.

    Rows go to ``config.out``, or to standard output as they come. Neither images nor rows are kept in memory. Files
    that cannot be read or decoded are skipped. ``task`` is that of the model, if the registry lacks it.

    Raises:
        DataError: no image is found.
        ConfigError: ``config.out`` is the model or an image.
        ModelError, RunError, ConfigError, MissingExtraError: as ``load_classifier`` does.
    """
    from gpt4image.deploying.drawing import Drawing
    from gpt4image.deploying.loading import load_classifier
    from gpt4image.parallel.devices import cpu_threads

    total = _count(config)
    count, skipped = 0, []
    with cpu_threads(config.threads):
        classifier = load_classifier(config.model, device=config.device, threads=config.threads, task=task)
        _require_boxes(config, classifier)
        drawing = None if config.draw is None else Drawing.of(config.draw, classifier)
        started = time.monotonic()
        with _stream(config.out) as stream:
            coco = CocoResults(stream, classifier.classes)
            writer = {"table": _table, "csv": _csv, "jsonl": _json_lines, "coco": lambda *_: coco.write}  # pyright: ignore[reportUnknownLambdaType]
            write = writer[config.row_format](stream, classifier, min(config.top, len(classifier.classes)))
            for prediction in _predictions(config, classifier, drawing, total, skipped):
                write(prediction)
                count += 1
            if config.row_format == "coco":
                coco.end()
    if config.out is None:  # standard output holds rows alone
        return Outcome(set_aside=tuple(skipped))
    seconds = time.monotonic() - started
    return Outcome(
        path=config.out,
        summary={
            "predicted": count,
            "seconds": round(seconds, 2),
            "images_per_second": round(count / seconds, 1),
        },
        set_aside=tuple(skipped),
    )


def _require_boxes(config: PredictConfig, classifier: Classifier) -> None:
    """Refuse what only boxes can be given as. Raises ConfigError."""
    if config.row_format == "coco" and classifier.task.output != "boxes":
        raise ConfigError(f"--format coco: {config.model} predicts {classifier.task.output}, and no boxes.")


def _count(config: PredictConfig) -> int:
    """Return how many items the names lead to, for the progress bar. Raises ConfigError, DataError as ``predict``."""
    from gpt4image.deploying.image_files import find_images

    taken = _place(config.out) if config.out is not None else None
    parts = config.model.iterdir() if config.model.is_dir() else [config.model]
    if taken is not None and any(_place(part) == taken for part in parts):
        raise ConfigError(f"--out {config.out} is the model, or a file of it; give another file for the predictions.")
    images, reasons = 0, []
    for item in find_images(config.images):
        if isinstance(item, SetAside):
            reasons.append(f"{item.name!r} {item.reason}")
            continue
        if taken is not None and _place(item) == taken:
            raise ConfigError(f"--out {config.out} is an image that is named; give another file for the predictions.")
        images += 1
    if not images:
        raise DataError(
            f"No image is found: {'; '.join(reasons[:5])}. Give image files, folders that hold some, or patterns in "
            "quotes such as 'photos/**/*.jpg'."
        )
    return images + len(reasons)


def _place(path: Path | str) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever it is called; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path per image costs more than the call)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _predictions(
    config: PredictConfig, classifier: Classifier, drawing: Drawing | None, total: int, skipped: list[SetAside]
) -> Iterator[Prediction]:
    """Yield predictions in order; what cannot be used is added to ``skipped``."""
    from gpt4image.data.pixels import available_cores
    from gpt4image.deploying.image_files import decode_ahead, find_images
    from gpt4image.deploying.preprocessing import as_images

    batches = decode_ahead(
        find_images(config.images),
        classifier.preprocessing,
        batch_size=config.batch_size,
        threads=config.threads or available_cores(),
    )
    rows_are_watched = config.out is None and sys.stdout.isatty()
    with progress_bar(quiet=rows_are_watched) as bar, contextlib.closing(batches):
        task = bar.add_task("Predicting", total=total, note="")
        for batch in batches:
            skipped.extend(batch.skipped)
            if batch.paths:
                probabilities = classifier.probabilities(as_images(batch.pixels))
                rows = classifier.task.rows(probabilities, classifier.classes, config.top)
                for image, size, found, row in zip(batch.paths, batch.sizes, probabilities, rows, strict=True):
                    prediction = Prediction(image, **row).in_pixels(size, config.min_score)
                    yield prediction if drawing is None else drawing.drawn(prediction, found)
            bar.advance(task, len(batch.paths) + len(batch.skipped))


@contextlib.contextmanager
def _stream(out: Path | None) -> Generator[TextIO]:
    if out is None:
        yield sys.stdout  # this very stream: a progress bar puts another one in its place
        sys.stdout.flush()
        return
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def _table(stream: TextIO, classifier: Classifier, _top: int) -> Write:
    width = min(CLASS_WIDTH, max(len(in_one_line(name)) for name in classifier.classes))

    def write(row: Prediction) -> None:
        best = zip(row.classes, row.probabilities, strict=True)
        if row.boxes is not None:
            for (name, probability), box in zip(best, row.boxes, strict=True):
                place = " ".join(f"{number:7.1f}" for number in box)
                stream.write(f"{probability:.3f} {in_one_line(name):{width}}  {place}  {in_one_line(row.image)}\n")
            return
        columns = [f"{probability:.3f} {in_one_line(name):{width}}" for name, probability in best]
        stream.write("  ".join([*columns, in_one_line(row.image)]) + "\n")

    return write


def _csv(stream: TextIO, classifier: Classifier, top: int) -> Write:
    """Write a header and one row per image: image, class, probability (as ``Task.value`` says), class_2, ...

    Where an image may have several classes, ``present`` comes first: those present, separated by "|". Boxes have a row
    each: image, class, probability, left, top, right, bottom.
    """
    writer = csv.writer(stream, lineterminator="\n")
    if classifier.task.output == "boxes":
        writer.writerow(["image", "class", "probability", "left", "top", "right", "bottom"])

        def write_boxes(row: Prediction) -> None:
            image = csv_cell(in_one_line(row.image))
            for name, score, box in zip(row.classes, row.probabilities, row.boxes or (), strict=True):
                writer.writerow([image, csv_cell(in_one_line(name)), f"{score:.6f}", *box])

        return write_boxes
    each = ("class", classifier.task.value)
    names = [f"{name}{'' if rank == 1 else f'_{rank}'}" for rank in range(1, top + 1) for name in each]
    several = [] if classifier.task.exclusive else ["present"]
    writer.writerow(["image", *several, *names])

    def write(row: Prediction) -> None:
        names = (csv_cell(in_one_line(name)) for name in row.classes)
        best = zip(names, (f"{value:.6f}" for value in row.probabilities), strict=True)
        present = [] if row.present is None else [csv_cell("|".join(map(in_one_line, row.present)))]
        writer.writerow([csv_cell(in_one_line(row.image)), *present, *(cell for pair in best for cell in pair)])

    return write


def _json_lines(stream: TextIO, classifier: Classifier, _top: int) -> Write:
    """Write one object per image; in ASCII, so that every name is exact and harmless, even one that is not UTF-8."""

    def write(row: Prediction) -> None:
        best = zip(row.classes, row.probabilities, strict=True)
        found: list[dict[str, Any]] = [{"class": name, classifier.task.value: round(value, 6)} for name, value in best]
        for entry, box in zip(found, row.boxes or (), strict=False):
            entry["box"] = box
        present = {} if row.present is None else {"present": list(row.present)}
        mask = {} if row.mask is None else {"mask": row.mask}
        stream.write(json.dumps({"image": row.image, **present, **mask, "predictions": found}) + "\n")

    return write

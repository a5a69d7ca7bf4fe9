"""The stage predict: classes, boxes or masks of images, by a run or what was exported from it, written as they come.

Neither paths, pixels nor rows are kept, so memory does not grow with the number of images; but --format coco keeps the
names, of which no two may be equal.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, DecodeError
from gpt4image.base.files import atomic_path
from gpt4image.base.outcome import Outcome, Row, Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.config import PredictConfig
from gpt4image.config.results import PredictResult
from gpt4image.data.coco import COCO, Id, Ids, coco_ids
from gpt4image.deploying.rows import CocoResults, Prediction, csv_rows, ids_of_run, image_id, json_lines, table

ROUNDING = 1e-3
"""By how much a probability may be outside of 0 to 1."""

if TYPE_CHECKING:
    from gpt4image.deploying.drawing import Drawing
    from gpt4image.deploying.loading import Classifier
    from gpt4image.tasks.base import Predictions, Task


def predict(config: PredictConfig, task: Task | None = None, *, keep: bool = False) -> Outcome:
    """Predict every image that is named, and write one row for each, in order.

    Rows go to ``config.out``, or to standard output as they come. With ``keep`` they are those of the result, and
    nothing is printed; otherwise neither images nor rows are kept in memory. Files that cannot be read or decoded are
    skipped. ``task`` is that of the model, if the registry lacks it.

    Raises:
        DataError: no image is found.
        ConfigError: ``config.out`` is the model or an image; images of one name are to be written in COCO's format.
        ModelError, RunError, ConfigError, MissingExtraError: as ``load_classifier`` does.
    """
    from gpt4image.data.decode import EXTENSIONS
    from gpt4image.data.video import VIDEO_EXTENSIONS
    from gpt4image.deploying.drawing import Drawing
    from gpt4image.deploying.loading import load_classifier
    from gpt4image.parallel.devices import cpu_threads

    config, ids = _with_listed(config)
    total, kinds = _count(config, EXTENSIONS | VIDEO_EXTENSIONS, ids)  # mistakes are said before a model is loaded
    count, skipped, kept = 0, [], list[Row]()
    with cpu_threads(config.threads):
        classifier = load_classifier(config.model, device=config.device, threads=config.threads, task=task)
        if not kinds <= classifier.preprocessing.extensions:
            total, _ = _count(config, classifier.preprocessing.extensions, ids)
        if config.row_format == "coco" and classifier.task.output != "boxes":
            raise ConfigError(f"--format coco: {config.model} predicts {classifier.task.output}, and no boxes.")
        drawing = None if config.draw is None else Drawing.of(config.draw, classifier)
        started = time.monotonic()
        with _stream(config.out, quiet=keep) as stream:
            coco = CocoResults(stream, classifier, ids) if config.row_format == "coco" else None
            writers = {"table": table, "csv": csv_rows, "jsonl": json_lines}
            every = len(classifier.classes)  # the largest one of a mask is the background nearly everywhere
            top = min(config.top or (every if classifier.task.output == "mask" else 1), every)
            write = coco.write if coco else writers[config.row_format](stream, classifier, top)
            for prediction in _predictions(config, classifier, top, drawing, total, skipped):
                write(prediction)
                count += 1
                if keep:
                    kept += prediction.fields(classifier.task.value)
            if coco:
                coco.end()
    if config.out is None and not keep:  # standard output holds rows alone
        return Outcome(skipped=tuple(skipped))
    seconds = time.monotonic() - started
    return PredictResult(
        path=config.out,
        predicted=count,
        seconds=round(seconds, 2),
        images_per_second=round(count / seconds, 1),
        skipped=tuple(skipped),
        read_rows=partial(list[Row], kept),
    )


def _with_listed(config: PredictConfig) -> tuple[PredictConfig, dict[str, Ids]]:
    """Return the configuration with the images of each ``coco:FILE`` in its place, and the ids that results take.

    These are those of the files that are named, else of the run's own dataset, by the real path of each image. Raises
    ConfigError, DataError: a file that is named cannot be read.
    """
    ids: dict[str, Ids] = {}
    names: list[str] = []
    for name in config.images:
        if not name.startswith(COCO) or os.path.lexists(name):
            names.append(name)
            continue
        found = coco_ids(name.removeprefix(COCO))
        names += found
        ids = {**found, **ids}
    if not ids and config.row_format == "coco" and (config.model / runs.CONFIG).is_file():
        ids = ids_of_run(config.model)
    return config.model_copy(update={"images": tuple(names)}), ids


def _count(config: PredictConfig, extensions: Collection[str], ids: Mapping[str, Ids]) -> tuple[int, set[str]]:
    """Return how many items the names lead to, and their extensions. Raises ConfigError, DataError as ``predict``."""
    from gpt4image.data.video import VIDEO_EXTENSIONS
    from gpt4image.deploying.image_files import find_images

    taken = _place(config.out) if config.out is not None else None
    parts = config.model.iterdir() if config.model.is_dir() else [config.model]
    if taken is not None and any(_place(part) == taken for part in parts):
        raise ConfigError(f"--out {config.out} is the model, or a file of it; give another file for the predictions.")
    images, reasons, kinds = 0, [], set[str]()
    image_of: dict[Id, str] = {}
    for item in find_images(config.images, extensions):
        if isinstance(item, Skipped):
            reasons.append(f"{item.name!r}: {item.reason}")
            continue
        if taken is not None and _place(item) == taken:
            raise ConfigError(f"--out {config.out} is an image that is named; give another file for the predictions.")
        if config.draw is not None and _is_below(item, config.draw):
            continue  # drawn earlier
        images += 1
        kinds.add(kind := os.path.splitext(item)[1].lower())  # noqa: PTH122
        if config.row_format == "coco" and kind not in VIDEO_EXTENSIONS:
            listed = ids.get(os.path.realpath(item))
            number = image_id(item) if listed is None else listed.image
            if (other := image_of.setdefault(number, item)) != item:
                raise ConfigError(
                    f"--format coco: {other} and {item} would have the same image_id {number}. Predict their folders "
                    "or COCO files one by one, or give --format jsonl."
                )
    if not images:
        raise DataError(
            f"No image is found: {'; '.join(reasons[:5])}. Give image files, folders that hold some, or patterns in "
            "quotes such as 'photos/**/*.jpg'."
        )
    return images + len(reasons), kinds


def _is_below(image: str, folder: Path) -> bool:
    return Path(image).parent.resolve().is_relative_to(folder.resolve())


def _place(path: Path | str) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever it is called; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path per image costs more than the call)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _predictions(
    config: PredictConfig,
    classifier: Classifier,
    top: int,
    drawing: Drawing | None,
    total: int,
    skipped: list[Skipped],
) -> Iterator[Prediction]:
    """Yield predictions in order; what cannot be used is added to ``skipped``."""
    from gpt4image.data.pixels import available_cores
    from gpt4image.deploying.image_files import decode_ahead, find_images
    from gpt4image.deploying.preprocessing import as_images

    found: Iterable[str | Skipped] = find_images(config.images, classifier.preprocessing.extensions)
    if (draw := config.draw) is not None:  # its folder is there only now, and fills
        found = (item for item in found if isinstance(item, Skipped) or not _is_below(item, draw))
    batches = decode_ahead(
        found,
        classifier.preprocessing,
        batch_size=config.batch_size,
        threads=config.threads or available_cores(),
        sized=classifier.task.output == "boxes",
    )
    rows_are_watched = config.out is None and sys.stdout.isatty()
    with progress_bar(quiet=rows_are_watched) as bar, contextlib.closing(batches):
        task = bar.add_task("Predicting", total=total, note="")
        for batch in batches:
            skipped.extend(batch.skipped)
            if batch.paths:
                outputs = classifier.probabilities(as_images(batch.pixels))
                faults = [_fault(output, classifier) for output in outputs]
                skipped += [Skipped(name=name, reason=f) for name, f in zip(batch.paths, faults, strict=True) if f]
                good = [place for place, fault in enumerate(faults) if not fault]
                probabilities = outputs[good]
                rows = classifier.task.rows(probabilities, classifier.classes, top)
                for place, output, row in zip(good, probabilities, rows, strict=True):
                    image, size = batch.paths[place], batch.sizes[place]
                    prediction = Prediction(image, **row).in_pixels(size, config.min_score)
                    if drawing is not None:
                        try:
                            prediction = drawing.drawn(prediction, output)
                        except DecodeError as error:
                            skipped.append(Skipped(name=image, reason=f"predicted, but not drawn: {error}"))
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
    if out is None and quiet:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            yield nowhere
        return
    if out is None:
        yield sys.stdout  # this very stream: a progress bar puts another one in its place
        sys.stdout.flush()
        return
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file

"""The stage benchmark: what runs and exported files predict, how fast and how large, in one table.

All read the same images. The first is the reference: ``same`` is the part of the images on which another one says the
same. Milliseconds are processor time of one thread, the best of several rounds in which the models take turns, so that
other work of the machine matters little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.probabilities import take
from gpt4image.base.errors import ConfigError, DecodeError
from gpt4image.base.progress import say
from gpt4image.config import BenchmarkConfig
from gpt4image.config.results import BenchmarkResult
from gpt4image.data import Dataset, annotation
from gpt4image.deploying.loading import MODELS, Classifier, load_classifier
from gpt4image.deploying.preprocessing import Preprocessing, as_images
from gpt4image.parallel.devices import cpu_threads
from gpt4image.tasks.base import Task

MOST_IMAGES = 1000  # of a split, spread evenly over it
ROUNDS, SECONDS = 20, 2.0  # of timing: at most so many rounds, and so long per model and size of batch
BATCHES = (1, 32)
PLANES = 64 * 224 * 224  # of pixels at a time
CLOCK = time.process_time if time.get_clock_info("process_time").resolution < 1e-4 else time.perf_counter


def decoded(how: Preprocessing, images: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the pixels (n, ...) of the images that can be decoded, and which these are (N,)."""
    found, usable = list[NDArray[np.uint8]](), np.ones(len(images), np.bool_)
    for index in range(len(images)):
        try:
            found.append(how.pixels(images.read(index)))
        except (DecodeError, OSError):
            usable[index] = False
    if not found:
        raise ConfigError(f"{images.spec}: none of {len(images)} images can be decoded; give others.", field="data")
    return np.stack(found), usable


def predicted(classifier: Classifier, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """Return the outputs of a model for pixels (n, ...): predictions, and ``known`` if it has it."""
    at_once = max(1, min(64, PLANES // int(np.prod(pixels.shape[1:]) // 3)))
    batches = (as_images(pixels[start : start + at_once]) for start in range(0, len(pixels), at_once))
    return tuple(np.concatenate(parts) for parts in zip(*map(classifier.read, batches), strict=True))


def milliseconds(models: Sequence[Callable[[], Any]]) -> list[float]:
    """Return how long a call of each takes at best, in milliseconds; they take turns."""
    best = [float("inf")] * len(models)
    for each in models:
        each()
    started = time.monotonic()
    for number in range(ROUNDS):
        if number >= 3 and time.monotonic() - started > SECONDS * len(models):
            break
        for place, each in enumerate(models):
            begun = CLOCK()
            each()
            best[place] = min(best[place], 1000 * (CLOCK() - begun))
    return best


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of the table, the file that holds it, and its predictions (n, ...) of the images (N,) it can decode."""

    name: str
    classifier: Classifier
    file: Path
    outputs: tuple[NDArray[Any], ...]
    usable: NDArray[np.bool_]
    pixels: NDArray[np.uint8]

    @classmethod
    def of(cls, name: str, classifier: Classifier, file: Path, images: Dataset) -> Entry:
        """Return a model with its predictions of images."""
        pixels, usable = decoded(classifier.preprocessing, images)
        outputs = predicted(classifier, pixels)
        return cls(name=name, classifier=classifier, file=file, outputs=outputs, usable=usable, pixels=pixels)

    def batch(self, count: int) -> NDArray[np.float32]:
        """Return as many inputs, images again and again if there are fewer."""
        return as_images(self.pixels[np.arange(count) % len(self.pixels)])


def table(entries: Sequence[Entry], images: Dataset) -> list[dict[str, Any]]:
    """Return a row per model: what it is, size, milliseconds per image, the score with its interval, and so on."""
    times = [
        [value / count for value in milliseconds([partial(e.classifier.read, e.batch(count)) for e in entries])]
        for count in BATCHES
    ]
    first = entries[0]
    rows = list[dict[str, Any]]()
    for number, entry in enumerate(entries):
        both = entry.usable & first.usable
        pair = (take(each.outputs[0], both[each.usable]) for each in (first, entry))
        comparable = first.classifier.classes == entry.classifier.classes
        alike = comparable and first.classifier.task.shape(1, 32) == entry.classifier.task.shape(1, 32)
        if entry.classifier.task.output == "mask" and first.pixels.shape != entry.pixels.shape:
            alike = False
        row: dict[str, Any] = {"model": entry.name, "mb": round(entry.file.stat().st_size / 1e6, 2)}
        row |= {f"ms_{count}": round(each[number], 2) for count, each in zip(BATCHES, times, strict=True)}
        row |= scores(entry, images)
        row["same"] = round(float(first.classifier.task.agreement(*pair).mean()), 4) if alike else None
        rows.append(row)
    return rows


def scores(entry: Entry, images: Dataset) -> dict[str, Any]:
    """Return the primary metric, its interval, the calibration error and the number of labels; None without labels."""
    some, task = images.select(np.flatnonzero(entry.usable)), entry.classifier.task
    labels = labels_of(task, some, entry.classifier.classes)
    found: dict[str, Any] = dict.fromkeys(("metric", "score", "ci95", "ece"))
    if labels is None or not annotation.known(labels).any():
        return found | {"labelled": 0}
    from gpt4image.evaluating.evaluate import intervals_of

    facts: dict[str, Any] = task.measure(entry.outputs[0], labels, entry.classifier.classes) | {"metrics": {}}
    ci95 = intervals_of(task, facts, entry.outputs[0], labels, some.digests).get(task.primary.name)
    return {
        "metric": task.primary.title,
        "score": round(facts[task.primary.name], 4),
        "ci95": ci95 and [round(end, 4) for end in ci95],
        "ece": round(facts["ece"], 4) if "ece" in facts else None,
        "labelled": facts["labelled"],
    }


def labels_of(task: Task, images: Dataset, classes: Sequence[str]) -> Any:
    """Return the annotations of images in the numbers of a model's classes; None where these are others."""
    known = set(classes) >= set(images.classes)
    return task.annotations(images.with_classes(tuple(classes))) if known else None


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for a terminal."""
    metric = next((row["metric"] for row in rows if row["metric"]), "accuracy")
    head = ("model", "MB", *(f"ms at {count}" for count in BATCHES), metric, "95 % interval", "ECE", "same as first")
    cells = [head, *(tuple(as_cells(row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:{'<' if k == 0 else '>'}{widths[k]}}" for k, cell in enumerate(line)) for line in cells]
    return "\n".join(lines)


def as_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row as texts."""
    ci95 = row["ci95"]
    share = {name: "-" if row[name] is None else f"{100 * row[name]:.1f} %" for name in ("score", "same")}
    interval = "-" if ci95 is None else f"{100 * ci95[0]:.1f} to {100 * ci95[1]:.1f}"
    ece = "-" if row["ece"] is None else f"{row['ece']:.3f}"
    numbers = [f"{row['mb']:.1f}", *(f"{row[f'ms_{count}']:.2f}" for count in BATCHES)]
    return [row["model"], *numbers, share["score"], interval, ece, share["same"]]


def some_of(images: Dataset, split: str) -> Dataset:
    """Return up to MOST_IMAGES of a split, spread evenly. Raises ConfigError: it has none."""
    found = np.arange(len(images)) if split == "all" else images.indices(split)
    if not len(found):
        raise ConfigError(f"= {split}: {images.spec} has no such images; give another --split.", field="split")
    return images.select(found[np.linspace(0, len(found) - 1, min(len(found), MOST_IMAGES)).astype(int)])


def benchmark(config: BenchmarkConfig, task: Task | None = None) -> BenchmarkResult:
    """Measure models side by side. ``task`` is theirs, if the registry lacks it.

    Raises ConfigError: no dataset is known, or the split is empty; what ``load_classifier`` raises.
    """
    from gpt4image.data import load_with_splits

    first, how = config.models[0], {"val_fraction": 0.1, "test_fraction": 0.2}
    if runs.is_finished(first):
        own = runs.read_config(first)
        how = {name: own[name] for name in how}
        spec = config.data or own["data"]
    elif config.data is None:
        raise ConfigError(f"is needed: {first} is no run folder, whose dataset is known.", field="data")
    else:
        spec = config.data
    with cpu_threads(1):
        models = [load_classifier(path, device="cpu", threads=1, task=task) for path in config.models]
        images = some_of(load_with_splits(spec, **how), config.split)
        entries = list[Entry]()
        for path, model in zip(config.models, models, strict=True):
            say(f"Predicting {len(images):,} images by {path}")
            entries.append(Entry.of(str(path), model, file_of(path), images))
        rows = table(entries, images)
    return BenchmarkResult(
        data=images.spec, split=config.split, images=len(images), read_rows=partial(list, rows), text=as_text(rows)
    )


def file_of(path: Path) -> Path:
    """Return the file that holds the weights of a model."""
    return next((path / name for name in MODELS if (path / name).is_file()), path)

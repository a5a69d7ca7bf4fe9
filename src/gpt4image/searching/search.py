"""The stage search: images of a dataset by what they show, in words or by another image, in the text space of a run."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.table import digests_to_bytes, find_digests
from gpt4image.base.checksums import file_digest
from gpt4image.base.errors import ConfigError, DataError, RunError
from gpt4image.base.files import fingerprint
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.config import SearchConfig, TrainConfig
from gpt4image.config.results import SearchResult
from gpt4image.data import ImageSet, load_image_set
from gpt4image.data.pixels import WorkerPixels, available_cores
from gpt4image.searching.index import Index, most_similar, up_to_date
from gpt4image.searching.queries import place_queries
from gpt4image.searching.results import Hit, in_words, write_page
from gpt4image.training.auto import stored_as
from gpt4image.training.prepare import load_image_set as load_with_splits
from gpt4image.training.run_model import RunModel, load_run_model, options_of, read_text_space

FOLDER = "search"
WORTH_WORKERS = 1024  # images; fewer are decoded before worker processes have started


def search(config: SearchConfig) -> SearchResult:
    """Rank the images of a dataset by their similarity to each query.

    The dataset is indexed once; later queries read only the images that they show, and new images where it has changed.

    Raises:
        ConfigError: nothing is asked.
        RunError: no finished run, or one whose images do not lie among texts.
        ModelError: its text encoder is not there any more, or is another one.
        DataError: the dataset cannot be read, or nothing that was asked.
        TableError: the folder of the index holds another index, or cannot be written.
    """
    texts = tuple(text.strip() for text in config.texts)
    if not all(texts) or not (texts or config.image):
        raise ConfigError('Nothing is asked: give a text, as in gpt4image search RUN_DIR "a red car", or --image FILE.')
    record = runs.read_run(config.run_dir)
    if not (config.run_dir / runs.HEAD).is_file():
        raise RunError(
            f"{config.run_dir} learned no alignment, so its images do not lie among texts; train with --embeddings "
            "(and an --align-weight above 0), and search the run that comes of it."
        )
    options = options_of(record)
    space = read_text_space(config.run_dir)
    images = _images(config, options)
    model = load_run_model(config.run_dir, None, record["run"]["classes"])
    queries = place_queries(texts, config.image, model, space)
    digests, first, counts = _distinct(images)
    started = time.monotonic()
    folder, index, added, unreadable = _index(config, model, images, digests, first, queries.vectors.shape[1])
    indexed = time.monotonic()
    rows, cosines = most_similar(index, queries.vectors, config.top)
    facts: dict[str, Any] = {
        "run": config.run_dir,
        "data": images.spec,
        "split": config.split,
        "images": len(index.digests),
        "encoder": space.encoder,
        "index": folder,
        "indexed_now": added,
        "index_seconds": round(indexed - started, 2),
        "query_seconds": round(time.monotonic() - indexed, 4),
    }
    numbers: Any = find_digests(digests, index.digests[rows.reshape(-1)]).reshape(rows.shape).tolist()
    found = [
        [
            Hit.of(images, int(first[number]), rank, cosine, equal=int(counts[number]) - 1)
            for rank, (number, cosine) in enumerate(zip(*both, strict=True), start=1)
        ]
        for both in zip(numbers, cosines.tolist(), strict=True)
    ]
    unshown = [] if config.html is None else write_page(config.html, images, queries, found, facts)
    answers: list[dict[str, Any]] = [
        {"query": name, "results": [hit.as_json() for hit in hits]}
        for name, hits in zip(queries.names, found, strict=True)
    ]
    return SearchResult(
        path=config.html or folder,
        **facts,
        queries=answers,
        read_rows=partial(_rows, answers),
        text=in_words(queries.names, found),
        skipped=tuple(dict.fromkeys((*queries.skipped, *images.skipped, *unreadable, *unshown))),
    )


def _rows(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each image that was found."""
    return [{"query": each["query"], **hit} for each in answers for hit in each["results"]]


def _images(config: SearchConfig, options: TrainConfig) -> ImageSet:
    """Return the images to search; splits are cut as the run cut them."""
    spec = config.data or options.data
    if config.split == "all":
        return load_image_set(spec)
    table = options.embeddings if options.only_described else None  # alone says which images val takes
    images, _ = load_with_splits(options.model_copy(update={"data": spec, "embeddings": table}))
    chosen = images.indices(config.split)
    if not len(chosen):
        raise DataError(f"{spec} has no images in its {config.split} split; give another --split, or none.")
    return images.select(chosen)


def _distinct(images: ImageSet) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct digests, (n, 32) sorted, the first image of each, and how many images share it."""
    every = digests_to_bytes(images.digests).view("S32").reshape(-1)
    distinct, first, counts = np.unique(every, return_index=True, return_counts=True)
    return distinct.view(np.uint8).reshape(-1, 32), first, counts


def _index(
    config: SearchConfig,
    model: RunModel,
    images: ImageSet,
    digests: NDArray[np.uint8],
    first: NDArray[np.int64],
    width: int,
) -> tuple[Path, Index, int, tuple[Skipped, ...]]:
    """Update the index; return its folder, the index, how many images were added, and those that cannot be decoded."""
    identity = {
        "run": fingerprint([file_digest(config.run_dir / name) for name in (runs.MODEL, runs.HEAD)])[:16],
        "image_size": model.config.image_size,
        "data": images.spec,
        "split": config.split,
    }
    folder = config.index or config.run_dir / FOLDER / fingerprint(identity)[:16]
    workers = model.config.workers or available_cores()
    workers = workers if len(first) > WORTH_WORKERS else 0
    pixels = WorkerPixels(images, workers=workers, **stored_as(model.config, model.task))
    with progress_bar() as bar:
        task = bar.add_task("index", total=None, note="")

        def embed(numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            places = first[numbers]
            vectors = model.embed(model.read(pixels, places).features)
            bar.advance(task, len(places))
            return vectors, ~pixels.broken(places)

        index, added = up_to_date(folder, identity, digests, np.argsort(first), width, embed)
    return folder, index, added, pixels.skipped

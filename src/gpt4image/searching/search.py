"""The stage search: images of a set by what they show, in words or by another image, in the text space of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, RunError
from gpt4image.base.files import fingerprint
from gpt4image.base.outcome import Outcome, SetAside
from gpt4image.base.progress import progress_bar
from gpt4image.config import SearchConfig, TrainConfig
from gpt4image.data import ImageSet, load_image_set, load_with_splits

if TYPE_CHECKING:
    from gpt4image.evaluating.run_model import RunModel
    from gpt4image.searching.index import Digests, Index
    from gpt4image.searching.results import Hit

FOLDER = "search"
WORTH_WORKERS = 1024  # images; fewer are decoded before worker processes have started


def search(config: SearchConfig) -> Outcome:
    """Rank the images of a set by how near they lie to each query.

    The set is indexed once; later queries read no image but those of the page, and a set that has changed costs only
    its new images.

    Raises:
        ConfigError: nothing is asked.
        RunError: no finished run, or one whose images do not lie among texts.
        ModelError: its text encoder is not there any more, or is another one.
        DataError: the set cannot be read, or nothing that was asked.
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
    from gpt4image.evaluating.run_model import load_run_model, options_of
    from gpt4image.searching.index import most_similar
    from gpt4image.searching.queries import place_queries
    from gpt4image.searching.results import in_words, write_page
    from gpt4image.training.text_space import read_text_space

    options = options_of(record)
    space = read_text_space(config.run_dir, options)
    images = _images(config, options)
    model = load_run_model(config.run_dir, None, record["run"]["classes"])
    queries = place_queries(texts, config.image, model, space)
    indexed = _index(config, model, images, queries.vectors.shape[1])
    started = time.monotonic()
    rows, cosines = most_similar(indexed.index, queries.vectors, config.top)
    query_seconds = time.monotonic() - started
    found = [indexed.hits(*both) for both in zip(rows, cosines, strict=True)]
    facts = {
        "run": str(config.run_dir),
        "data": images.spec,
        "split": config.split,
        "images": len(indexed.index.digests),
        "encoder": space.encoder,
        "index": str(indexed.folder),
        "indexed_now": indexed.added,
        "index_seconds": round(indexed.seconds, 2),
        "query_seconds": round(query_seconds, 4),
    }
    unshown: list[SetAside] = []
    if config.html is not None:
        unshown = write_page(config.html, images, queries, found, facts)
    return Outcome(
        path=config.html or indexed.folder,
        summary=facts,
        record={
            "queries": [
                {"query": name, "results": [hit.as_json() for hit in hits]}
                for name, hits in zip(queries.names, found, strict=True)
            ]
        },
        text=in_words(queries.names, found),
        set_aside=tuple(dict.fromkeys((*queries.set_aside, *images.set_aside, *indexed.unreadable, *unshown))),
    )


def _images(config: SearchConfig, options: TrainConfig) -> ImageSet:
    """Return the images to search; splits are cut as the run cut them."""
    spec = config.data or options.data
    if config.split == "all":
        return load_image_set(spec)
    images = load_with_splits(spec, val_fraction=options.val_fraction, test_fraction=options.test_fraction)
    chosen = images.indices(config.split)
    if not len(chosen):
        raise DataError(f"{spec} has no images in its {config.split} split; give another --split, or none.")
    return images.select(chosen)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Indexed:
    """A set with its index.

    Attributes:
        images: the set.
        folder: of the index.
        index: of its distinct images.
        digests: (n, 32) sorted, of all distinct images, those that cannot be decoded too.
        first: (n,) positions of the first image of each digest.
        counts: (n,) images that share it.
        added: images that were read for the index now.
        seconds: that it took.
        unreadable: images that cannot be decoded.
    """

    images: ImageSet
    folder: Path
    index: Index
    digests: Digests
    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    added: int
    seconds: float
    unreadable: tuple[SetAside, ...]

    def hits(self, rows: NDArray[np.int64], cosines: NDArray[np.float32]) -> list[Hit]:
        """Return the images at (k,) rows of the index, best first."""
        from gpt4image.artifacts.table import find_digests
        from gpt4image.searching.results import Hit

        found = find_digests(self.digests, self.index.digests[rows])
        hits: list[Hit] = []
        for rank, (number, cosine) in enumerate(zip(found.tolist(), cosines.tolist(), strict=True), start=1):
            place = int(self.first[number])
            hits.append(
                Hit(
                    place=place,
                    rank=rank,
                    similarity=cosine,
                    key=self.images.keys[place],
                    label=", ".join(self.images.label_names(place)) or None,
                    equal=int(self.counts[number]) - 1,
                )
            )
        return hits


def _index(config: SearchConfig, model: RunModel, images: ImageSet, width: int) -> _Indexed:
    """Bring the index of a set up to date."""
    from gpt4image.artifacts.table import digests_to_bytes
    from gpt4image.base.checksums import file_digest
    from gpt4image.data.pixels import WorkerPixels, available_cores
    from gpt4image.searching.index import up_to_date
    from gpt4image.training.auto import stored_size

    started = time.monotonic()
    identity = {
        "run": fingerprint([file_digest(config.run_dir / name) for name in (runs.MODEL, runs.HEAD)])[:16],
        "image_size": model.config.image_size,
        "data": images.spec,
        "split": config.split,
    }
    folder = config.index or config.run_dir / FOLDER / fingerprint(identity)[:16]
    every = digests_to_bytes(images.digests).view("S32").reshape(-1)
    distinct, first, counts = np.unique(every, return_index=True, return_counts=True)
    digests = distinct.view(np.uint8).reshape(-1, 32)
    workers = model.config.workers or available_cores()
    pixels = WorkerPixels(images, stored_size(model.config), workers=workers if len(first) > WORTH_WORKERS else 0)
    with progress_bar() as bar:
        task = bar.add_task("index", total=None, note="")

        def embed(numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            places = first[numbers]
            vectors = model.embed(model.read(pixels, places).features)
            bar.advance(task, len(places))
            return vectors, ~pixels.broken(places)

        index, added = up_to_date(folder, identity, digests, np.argsort(first), width, embed)
    return _Indexed(
        images=images,
        folder=folder,
        index=index,
        digests=digests,
        first=first,
        counts=counts,
        added=added,
        seconds=time.monotonic() - started,
        unreadable=pixels.set_aside,
    )

"""The stage search: images of a dataset by what they show, in words or by another image, in the text space of a run."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.image_index import Index, most_similar, up_to_date
from gpt4image.artifacts.table import digests_to_bytes, find_digests
from gpt4image.base.errors import ConfigError, DataError, DecodeError, RunError
from gpt4image.base.files import file_digest, fingerprint, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.config import SearchConfig, TrainConfig
from gpt4image.config.results import SearchResult
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.file_source import read_bounded
from gpt4image.data.pixels import MemoryPixels, decoded
from gpt4image.pages.cards import Thumbnails, thumbnail
from gpt4image.pages.numbers import text_table
from gpt4image.pages.page import render
from gpt4image.training.auto import stored_as
from gpt4image.training.prepare import load_dataset as load_with_splits
from gpt4image.training.run_model import RunModel, TextSpace, load_run_model, options_of, read_text_space

FOLDER = "search"


def search(config: SearchConfig) -> SearchResult:
    """Rank the images of a dataset by similarity to each query; the dataset is indexed once. Raises Gpt4ImageError."""
    texts = tuple(text.strip() for text in config.texts)
    if not all(texts) or not (texts or config.image):
        raise ConfigError('Nothing is asked: give a text, as in gpt4image search RUN_DIR "a red car", or --image FILE.')
    record = runs.read_run(config.run_dir)
    if not (config.run_dir / runs.HEAD).is_file():
        raise RunError(
            f"{config.run_dir} learned no alignment, so its images do not lie among texts; train with --embeddings "
            "(and an --align-weight above 0), and search the run that comes of it."
        )
    space = read_text_space(config.run_dir)
    images = _images(config, options_of(record))
    model = load_run_model(config.run_dir, None, record["run"]["classes"])
    vectors, asked, unread = _queries(texts, config.image, model, space)
    every = digests_to_bytes(images.digests).view("S32").reshape(-1)
    distinct, first, counts = np.unique(every, return_index=True, return_counts=True)
    digests = distinct.view(np.uint8).reshape(-1, 32)
    started = time.monotonic()
    folder, index, added, unreadable = _index(config, model, images, digests, first, vectors.shape[1])
    indexed = time.monotonic()
    rows, cosines = most_similar(index, vectors, config.top)
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
    ranked = zip((*texts, *asked), numbers, cosines.tolist(), strict=True)
    answers: list[dict[str, Any]] = [{"query": name, "results": _hits(images, first, *both)} for name, *both in ranked]
    unshown: Sequence[Skipped] = ()
    if config.html is not None:
        pictures = Thumbnails(images)
        shown = [[{"picture": pictures.of(int(first[k])), "equal": int(counts[k]) - 1} for k in own] for own in numbers]
        sections = [
            {
                "name": (name := each["query"]),
                "picture": thumbnail(asked[name], clips=images.clips) if name in asked else None,
                "cards": [one | more for one, more in zip(each["results"], own, strict=True)],
            }
            for each, own in zip(answers, shown, strict=True)
        ]
        write_text(config.html, render("search.html", sections=sections, facts=facts))
        unshown = pictures.skipped
    return SearchResult(
        path=config.html or folder,
        **facts,
        queries=answers,
        read_rows=partial(list, [{"query": each["query"], **one} for each in answers for one in each["results"]]),
        text="\n\n".join(_table(**each) for each in answers),
        skipped=tuple(dict.fromkeys((*unread, *images.skipped, *unreadable, *unshown))),
    )


def _hits(images: Dataset, first: Any, numbers: Sequence[int], cosines: Sequence[float]) -> list[dict[str, Any]]:
    """Return what is said of the images found for a query; ``first`` has the place of each distinct image."""
    return [
        {
            "rank": rank,
            "similarity": round(cosine, 4),
            "key": images.keys[int(first[number])],
            "label": ", ".join(images.label_names(int(first[number]))) or None,
        }
        for rank, (number, cosine) in enumerate(zip(numbers, cosines, strict=True), start=1)
    ]


def _table(query: str, results: Sequence[dict[str, Any]]) -> str:
    rows = [(str(one["rank"]), f"{one['similarity']:.3f}", one["key"], one["label"] or "") for one in results]
    return text_table(query, [("rank", "similarity", "image", "label"), *rows])


def _images(config: SearchConfig, options: TrainConfig) -> Dataset:
    """Return the images to search; splits are cut as the run cut them."""
    spec = config.data or options.data
    if config.split == "all":
        return load_dataset(spec)
    table = options.embeddings if options.only_described else None  # alone says which images val takes
    images, _ = load_with_splits(options.model_copy(update={"data": spec, "embeddings": table}))
    chosen = images.indices(config.split)
    if not len(chosen):
        raise DataError(f"{spec} has no images in its {config.split} split; give another --split, or none.")
    return images.select(chosen)


def _queries(
    texts: Sequence[str], images: Sequence[Path], model: RunModel, space: TextSpace
) -> tuple[NDArray[np.float32], dict[str, bytes], list[Skipped]]:
    """Return the (Q, D) unit vectors of texts, then image files; the bytes of these by name, and what cannot be read.

    Raises ModelError or DataError: nothing that was asked can be read.
    """
    vectors = [space.load_encoder(model.config.device).encode(texts)] if texts else []
    pixels: list[NDArray[np.uint8]] = []
    pictures: dict[str, bytes] = {}
    skipped: list[Skipped] = []
    for path in dict.fromkeys(images):
        try:
            data = read_bounded(str(path))
            pixels.append(decoded(data, **stored_as(model.config, model.task)))
            pictures[str(path)] = data
        except (DecodeError, OSError) as error:
            skipped.append(Skipped(name=str(path), reason=getattr(error, "strerror", None) or str(error)))
    if pixels:
        held = MemoryPixels(torch.from_numpy(np.stack(pixels)))
        vectors.append(model.embed(model.read(held, np.arange(len(pixels))).features))
    if not vectors:
        raise DataError(f"--image {skipped[0].name}: {skipped[0].reason}. There is nothing else to look for.")
    return np.concatenate(vectors), pictures, skipped


def _index(
    config: SearchConfig,
    model: RunModel,
    images: Dataset,
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
    pixels = model.pixels(images)
    with progress_bar() as bar:
        task = bar.add_task("index", total=None, note="")

        def embed(numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            places = first[numbers]
            vectors = model.embed(model.read(pixels, places).features)
            bar.advance(task, len(places))
            return vectors, ~pixels.broken(places)

        index, added = up_to_date(folder, identity, digests, np.argsort(first), width, embed)
    return folder, index, added, pixels.skipped

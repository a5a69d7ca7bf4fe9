"""The stage discover: classes that descriptions suggest, for images without a class list; a person names and merges.

Each cluster is a picture of some of its images, and its class name is the label of this picture: so the page, the file
of labels and everything that they promise are those of `review`. Clusters with one name are one class.

OUT/clusters.parquet   targets of the clusters, under their proposed names; not written again
OUT/clusters/          a picture of each cluster
OUT/names.csv          the name that a person gave to each cluster
OUT/classes.txt        the class list
OUT/targets.parquet    targets of the classes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gpt4image.artifacts.folder import writing
from gpt4image.artifacts.table import EmbeddingTable, texts_behind
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.base.errors import ConfigError, DecodeError, TableError
from gpt4image.base.files import atomic_path, make_folder, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.config import DiscoverConfig
from gpt4image.config.results import DiscoverResult
from gpt4image.data import NO_LABEL, Dataset, load_dataset
from gpt4image.data.splits import representatives
from gpt4image.data.video import picture_of
from gpt4image.labelling.discovery import FEWEST, TELLING, find_clusters, propose_names, telling_words
from gpt4image.labelling.text_vectors import MAX_REFERENCES, Texts, open_table
from gpt4image.pages.numbers import text_table
from gpt4image.reviewing.labels_file import LabelsFile
from gpt4image.reviewing.queue import Opinion, Shown
from gpt4image.reviewing.review import after, require_server, serve
from gpt4image.reviewing.session import Session

CLUSTERS, NAMES, CLASSES, TARGETS = "clusters", "names.csv", "classes.txt", "targets.parquet"
COLUMNS, SIDE = 4, 256  # of the picture of a cluster: pictures in a row, pixels of each
NEAREST = 3  # clusters that are offered for a merger


def discover(config: DiscoverConfig) -> DiscoverResult:
    """Cluster the described images, let a person name the clusters, and write a class list and targets.

    The same command goes on. Labels of the dataset are never read. Raises KeyboardInterrupt: Ctrl-C while the page is
    open, with the outcome; every name is on disk.
    """
    if config.page:
        require_server()
    table = open_table(config.embeddings)
    images = load_dataset(config.data)
    images = images.select(np.unique(representatives(images.digests, np.zeros(len(images), np.int64))))
    table.require_own(images)
    with writing(config.out):
        clusters, words, silhouette = _clusters(config, images, table)
        skipped = _write_pictures(config.out / CLUSTERS, images, clusters)
        file = LabelsFile(config.out / NAMES, load_dataset(f"folder:{config.out / CLUSTERS}"))
        try:
            result = partial(_result, config, images, clusters, file, words, silhouette, skipped)
            found = result()
            if not config.page:
                return found
            session = Session(file, _Proposals(clusters, words), clusters.classes, is_open=True)
            session.tell = lambda: (
                f"{len(session.classes)} classes of {len(words)} clusters: clusters with the same name are one class."
            )
            try:
                return after(lambda: serve({"label": session}, config.port), result)
            finally:
                session.end()
        finally:
            file.close()


def _clusters(
    config: DiscoverConfig, images: Dataset, table: EmbeddingTable
) -> tuple[Targets, list[list[str]], float | None]:
    """Return the clusters, the telling words of each, and their silhouette where they were found now."""
    path, silhouette = config.out / f"{CLUSTERS}.parquet", None
    vectors = table.of_images(images.digests)
    rows = np.flatnonzero(vectors.described)
    store = str(config.store or table.manifest.store)
    texts = texts_behind([replace(table.manifest, store=store)], [images.digests[row] for row in rows])
    if not texts:
        raise TableError(f"{store} has no description of {config.embeddings}; name the store with --store.")
    if path.exists():
        clusters = Targets.load(path)
        if set(clusters.digests) != {images.digests[row] for row in rows}:
            raise ConfigError(f"{config.out} holds clusters of other descriptions; give another --out.")
        if config.classes not in (None, len(clusters.classes)):
            raise ConfigError(f"{config.out} holds {len(clusters.classes)} clusters; give another --out for others.")
        found = clusters.probabilities[:]
        cluster = found.argmax(axis=1)
    else:
        say(f"Looking for classes in {len(rows):,} descriptions")
        train = images.indices("train")
        found, silhouette = find_clusters(Texts(vectors, vectors.described), train, config.classes, config.seed)
        found = found[rows]
        by_size = np.argsort(-np.bincount(found.argmax(axis=1), minlength=found.shape[1]), kind="stable")
        found = found[:, by_size]
        cluster, clusters = found.argmax(axis=1), None
    some = np.sort(np.random.default_rng(config.seed).permutation(len(rows))[:MAX_REFERENCES])
    said = [" ".join(texts.get(images.digests[rows[place]], ())) for place in some]
    words = telling_words(said, cluster[some], found.shape[1])
    if clusters is None:
        clusters = Targets(
            keys=tuple(images.keys[row] for row in rows),
            digests=tuple(images.digests[row] for row in rows),
            splits=images.splits[rows],
            labels=np.full(len(rows), NO_LABEL),
            probabilities=found,
            out_of_fold=np.zeros(len(rows), bool),
            facts=Facts(
                classes=tuple(propose_names(words)),
                noise=0.0,
                agreement=None,
                c=None,
                folds=FEWEST,
                seed=config.seed,
                encoders=(table.manifest.encoder,),
                embeddings=(str(config.embeddings.absolute()),),
                task="video" if images.clips else "classification",
            ),
        )
        clusters.save(path)
    return clusters, words, silhouette


def _write_pictures(folder: Path, images: Dataset, clusters: Targets) -> list[Skipped]:
    """Write a picture of each cluster that has none: some of its images, at random."""
    make_folder(folder)
    row_of, cluster = {digest: row for row, digest in enumerate(images.digests)}, clusters.probabilities.argmax(axis=1)
    skipped = list[Skipped]()
    for number in range(len(clusters.classes)):
        file = folder / f"cluster-{number + 1:03}.webp"
        if file.exists():
            continue
        own = np.random.default_rng(number).permutation(np.flatnonzero(cluster == number))
        sheet, places = Image.new("RGB", (COLUMNS * SIDE, COLUMNS * SIDE), "white"), iter(range(COLUMNS**2))
        for row in (row_of[clusters.digests[place]] for place in own[: COLUMNS**2]):
            try:
                picture = picture_of(images.read(row), clips=images.clips, draft_side=SIDE)
            except (DecodeError, OSError) as error:
                skipped.append(Skipped(name=images.keys[row], reason=str(error)))
                continue
            place = next(places)
            fitted = ImageOps.contain(picture.convert("RGB"), (SIDE - 4, SIDE - 4))
            sheet.paste(fitted, (place % COLUMNS * SIDE + 2, place // COLUMNS * SIDE + 2))
        with atomic_path(file) as temporary:
            sheet.save(temporary, "WEBP", quality=85, xmp=file.name.encode())  # so that no two have the same bytes
    return skipped


class _Proposals:
    """Proposes the names of clusters; and for a merger the names of those that are nearest to each."""

    learns = False

    def __init__(self, clusters: Targets, words: Sequence[Sequence[str]]) -> None:
        cluster = clusters.probabilities.argmax(axis=1)
        sizes = np.bincount(cluster, minlength=len(words))
        shared = np.zeros((len(words), len(words)))
        np.add.at(shared, cluster, clusters.probabilities[:])
        np.fill_diagonal(shared, -1)
        self._near = np.argsort(-shared / np.maximum(sizes, 1)[:, None], axis=1, kind="stable")[:, :NEAREST].tolist()
        self._names = clusters.classes
        self._told = [f"{size:,} images: {', '.join(own)}" for size, own in zip(sizes, words, strict=True)]

    def opinion(self, cells: Sequence[str], classes: Sequence[str], *, learn: bool = True) -> Opinion:
        """Return the proposals; a merger takes the name that a person has given."""
        names = [cell or name for cell, name in zip(cells, self._names, strict=True)]

        def shown(row: int) -> Shown:
            near = [names[other] for other in self._near[row]]
            return Shown(self._names[row], 0.0, self._told[row], list(dict.fromkeys([self._names[row], *near])))

        order = sorted(range(len(cells)), key=lambda row: bool(cells[row]))
        return Opinion(
            order=order, labelled=(), suspects=0, wrong=None, shown=shown, classes=list(dict.fromkeys(names))
        )


def _result(
    config: DiscoverConfig,
    images: Dataset,
    clusters: Targets,
    file: LabelsFile,
    words: Sequence[Sequence[str]],
    silhouette: float | None,
    skipped: Sequence[Skipped],
) -> DiscoverResult:
    """Write class list and targets under the names of now: those given, else those proposed, without unsure ones."""
    marks = [file[row] for row in np.argsort(file.images.keys)]
    names = [mark.label or name * (mark.note != "unsure") for name, mark in zip(clusters.classes, marks, strict=True)]
    if not (classes := list(dict.fromkeys(filter(None, names)))):
        raise ConfigError(f"{config.out / NAMES}: every cluster is unsure, so there is no class; name one.")
    merged = np.array([[name == one for one in classes] for name in names], np.float32)
    found = clusters.probabilities[:]
    kept = np.flatnonzero(merged.sum(axis=1)[found.argmax(axis=1)])
    found = found[kept] @ merged
    targets = replace(
        clusters.take(kept),
        probabilities=found / found.sum(axis=1, keepdims=True),
        facts=replace(clusters.facts, classes=tuple(classes)),
    )
    targets.save(config.out / TARGETS)
    write_text(config.out / CLASSES, "".join(f"{name}\n" for name in classes))
    cluster, rows = found.argmax(axis=1), list[dict[str, Any]]()
    for k, name in enumerate(classes):
        told = [word for own, other in zip(words, names, strict=True) if other == name for word in own]
        rows.append({"class": name, "images": int((cluster == k).sum()), "words": ", ".join(told[:TELLING])})
    return DiscoverResult(
        path=config.out,
        images=len(clusters.keys),
        clusters=len(clusters.classes),
        classes=len(classes),
        named=sum(bool(mark.label) for mark in marks),
        unsure=sum(mark.note == "unsure" for mark in marks),
        silhouette=None if silhouette is None else round(silhouette, 3),
        text=text_table("", [[*rows[0]], *([row["class"], f"{row['images']:,}", row["words"]] for row in rows)]),
        read_rows=lambda: rows,
        skipped=(*file.skipped, *skipped),
        wrote=tuple(config.out / name for name in (CLASSES, TARGETS, NAMES)),
    )

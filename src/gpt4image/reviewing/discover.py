"""The stage discover: classes that descriptions suggest, for images without a class list; a person names and merges.

Each cluster is a picture of some of its images, and its class name is the label of this picture: so the page, the file
of labels and everything that they promise are those of `review`. Clusters with one name are one class.

Clusters are of the embeddings of descriptions, named by the words that tell them apart. Legend: N images, K clusters.

OUT/clusters.parquet   targets of the clusters, under their proposed names; not written again
OUT/clusters/          a picture of each cluster
OUT/names.csv          the name that a person gave to each cluster
OUT/classes.txt        the class list
OUT/targets.parquet    targets of the classes
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gpt4image.artifacts.probabilities import blocks
from gpt4image.artifacts.table import EmbeddingTable, texts_behind, writing
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
from gpt4image.labelling.texts import MAX_REFERENCES, Texts, open_table, smooth, unit
from gpt4image.pages.numbers import text_table
from gpt4image.reviewing.labels_file import LabelsFile
from gpt4image.reviewing.queue import Proposal, Ranking
from gpt4image.reviewing.review import after, require_server, serve
from gpt4image.reviewing.session import Session

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FEWEST = 5  # images per cluster, on average
MOST_CHOSEN = 50  # clusters, where their number is not given
WIDTH = 100  # principal components that are clustered
STARTS = 10  # random starts of k-means, where the mixture begins
TIE = 0.98  # of the largest silhouette: clusters can be merged, not split
SAMPLE = 3000  # images by which the number of clusters is chosen
TELLING = 5  # words of a cluster
_WORD = r"(?u)\b[^\W\d_][\w'-]+\b"
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
            session.headline = lambda: (
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
    digests = tuple(images.digests[row] for row in rows)
    store = str(config.store or table.manifest.store)
    texts = texts_behind([replace(table.manifest, store=store)], digests)
    if not texts:
        raise TableError(f"{store} has no description of {config.embeddings}; name the store with --store.")
    some = np.sort(np.random.default_rng(config.seed).permutation(len(rows))[:MAX_REFERENCES])

    def words_of(found: Floats) -> list[list[str]]:
        texts_of_some = [" ".join(texts.get(digests[place], ())) for place in some]
        return telling_words(texts_of_some, found.argmax(axis=1)[some], found.shape[1])

    if not path.exists():
        say(f"Looking for classes in {len(rows):,} descriptions")
        train = images.indices("train")
        found, silhouette = find_clusters(Texts(vectors, vectors.described), train, config.classes, config.seed)
        found = found[rows]
        found = found[:, np.argsort(-np.bincount(found.argmax(axis=1), minlength=found.shape[1]), kind="stable")]
        Targets(
            keys=tuple(images.keys[row] for row in rows),
            digests=digests,
            splits=images.splits[rows],
            labels=np.full(len(rows), NO_LABEL),
            probabilities=found,
            out_of_fold=np.zeros(len(rows), bool),
            facts=Facts(
                classes=tuple(propose_names(words_of(found))),
                folds=FEWEST,
                seed=config.seed,
                encoders=(table.manifest.encoder,),
                embeddings=(str(config.embeddings.absolute()),),
                task="video" if images.clips else "classification",
            ),
        ).save(path)
    clusters = Targets.load(path)
    if {*clusters.digests} != {*digests}:
        raise ConfigError(f"{config.out} holds clusters of other descriptions; give another --out.")
    if config.classes not in (None, len(clusters.classes)):
        raise ConfigError(f"{config.out} holds {len(clusters.classes)} clusters; give another --out for others.")
    return clusters, words_of(clusters.probabilities), silhouette


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
        self._reasons = [f"{size:,} images: {', '.join(own)}" for size, own in zip(sizes, words, strict=True)]

    def ranking(self, cells: Sequence[str], classes: Sequence[str], *, learn: bool = True) -> Ranking:
        """Return the proposals; a merger takes the name that a person has given."""
        names = [cell or name for cell, name in zip(cells, self._names, strict=True)]

        def proposal_of(row: int) -> Proposal:
            near = [names[other] for other in self._near[row]]
            return Proposal(self._names[row], 0.0, self._reasons[row], list(dict.fromkeys([self._names[row], *near])))

        order = sorted(range(len(cells)), key=lambda row: bool(cells[row]))
        return Ranking(order=order, proposal_of=proposal_of, classes=list(dict.fromkeys(names)))


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
        telling = [word for own, other in zip(words, names, strict=True) if other == name for word in own]
        rows.append({"class": name, "images": int((cluster == k).sum()), "words": ", ".join(telling[:TELLING])})
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


class Clusters(NamedTuple):
    """Clusters of N images: (N, K) probabilities, out of fold for the images that shaped them, rows of zeros without a
    description; and their mean silhouette, -1 to 1: how far they are apart."""

    probabilities: Floats
    silhouette: float


def find_clusters(texts: Texts, reference: Ints, count: int | None, seed: int) -> Clusters:
    """Cluster descriptions: a Gaussian mixture with one covariance for all clusters, on smoothed embeddings.

    The shared covariance discounts what varies within every cluster, such as colours. The probability of a cluster is
    that of a logistic regression that has not seen the image's own cluster, so it is low at borders. ``reference`` are
    the images that shape clusters; without a ``count``, their number is that with the largest silhouette.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_score
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    among = np.sort(reference[texts.described[reference]])
    if len(among) < 2 * FEWEST:
        raise TableError(f"{len(among)} images have a description; clusters need at least {2 * FEWEST}.")
    if count is not None and count * FEWEST > len(among):
        raise ConfigError(f"--classes {count}: {len(among):,} descriptions are too few; give at least {FEWEST} each.")
    rng = np.random.default_rng(seed)
    centred = texts.centred(among)
    smoothed, shaping = smooth(centred, among, seed), among
    if len(among) > MAX_REFERENCES:
        shaping = np.sort(rng.choice(among, MAX_REFERENCES, replace=False))
    own = smoothed[shaping]
    points = unit(PCA(min(WIDTH, *own.shape, len(own) - 1), random_state=seed).fit_transform(own))
    some = rng.permutation(len(points))[:SAMPLE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of starts that did not converge, and of equal texts
        count = _best_count(points[some], seed) if count is None else count
        options: Any = {"n_init": STARTS, "random_state": seed}
        start: Any = KMeans(count, **options).fit(points)
        mixture: Any = GaussianMixture(
            count, covariance_type="tied", reg_covar=1e-4, means_init=start.cluster_centers_, random_state=seed
        )
        cluster: Ints = mixture.fit_predict(points)
        if len(np.unique(cluster)) < count:  # one has become empty
            cluster = start.labels_
        silhouette = float(silhouette_score(points[some], cluster[some])) if len(set(cluster[some])) > 1 else 0.0
        model: Any = LogisticRegression(max_iter=500)
        folds = StratifiedKFold(FEWEST, shuffle=True, random_state=seed)
        x = centred[shaping]
        probabilities = np.zeros((len(texts.described), cluster.max() + 1), np.float32)
        out_of_fold: Any = cross_val_predict(model, x, cluster, cv=folds, method="predict_proba")
        probabilities[shaping] = out_of_fold
        model.fit(x, cluster)
    others = np.setdiff1d(np.flatnonzero(texts.described), shaping)
    for part in blocks(len(others), own.shape[1]):
        probabilities[others[part]] = model.predict_proba(centred[others[part]])
    return Clusters(probabilities, silhouette)


def _best_count(points: Floats, seed: int) -> int:
    """Return the number of clusters with the largest silhouette (Rousseeuw 1987), of k-means; of near ties the most."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    most = min(MOST_CHOSEN, len(points) // FEWEST)
    counts = sorted({*range(2, min(most, 12) + 1), *np.geomspace(12, max(most, 12), 16).astype(int).tolist()})
    scores = dict[int, float]()
    for count in filter(lambda count: count <= most, counts):
        options: Any = {"n_init": 3, "random_state": seed}
        cluster = KMeans(count, **options).fit_predict(points)
        scores[count] = float(silhouette_score(points, cluster)) if len(set(cluster)) > 1 else -1.0
    return max(count for count, score in scores.items() if score >= TIE * max(scores.values()))


def telling_words(texts: Sequence[str], cluster: Ints, count: int) -> list[list[str]]:
    """Return the words and pairs of words that tell each of ``count`` clusters from the others, the best first.

    They are ranked by class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): the part of a cluster's texts that have
    the word, times log(1 + mean size of a cluster / texts with the word). No two of a cluster share a word.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    counter: Any = CountVectorizer(stop_words="english", ngram_range=(1, 2), binary=True, token_pattern=_WORD)
    try:
        has = counter.fit_transform(texts)
    except ValueError:  # no text has a word
        return [[] for _ in range(count)]
    words, rows = counter.get_feature_names_out(), np.arange(len(texts))
    counts = (csr_matrix((np.ones(len(texts)), (cluster, rows)), shape=(count, len(texts))) @ has).toarray()
    sizes = np.maximum(np.bincount(cluster, minlength=count), 1)
    scores = counts / sizes[:, None] * np.log1p(sizes.mean() / counts.sum(axis=0))
    telling = list[list[str]]()
    for row in scores:
        seen, own = set[str](), list[str]()
        for place in np.argsort(-row, kind="stable")[: 20 * TELLING]:
            parts = set(words[place].split())
            if row[place] > 0 and not parts & seen and len(own) < TELLING:
                own.append(str(words[place]))
                seen |= parts
        telling.append(own)
    return telling


def propose_names(words: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each cluster: its first telling word that no cluster before it took."""
    names = dict[str, None]()
    for number, own in enumerate(words, 1):
        names[next((word for word in own if word not in names), f"class {number}")] = None
    return list(names)

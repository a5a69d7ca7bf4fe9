"""Classes that descriptions suggest: clusters of their embeddings, named by the words that tell them apart.

No label is read. Legend: N images, K clusters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.top_k_probs import blocks
from gpt4image.base.errors import ConfigError, TableError
from gpt4image.labelling.text_vectors import MAX_REFERENCES, Texts, smooth, unit

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
    told = list[list[str]]()
    for row in scores:
        seen, own = set[str](), list[str]()
        for place in np.argsort(-row, kind="stable")[: 20 * TELLING]:
            parts = set(words[place].split())
            if row[place] > 0 and not parts & seen and len(own) < TELLING:
                own.append(str(words[place]))
                seen |= parts
        told.append(own)
    return told


def propose_names(words: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each cluster: its first telling word that no cluster before it took."""
    names = dict[str, None]()
    for number, own in enumerate(words, 1):
        names[next((word for word in own if word not in names), f"class {number}")] = None
    return list(names)

"""Text labels: class probabilities of described images, the noise of the given labels, and soft targets from both.

The given labels are taken at their word unless the text says otherwise where it is surest. If it does, labels are
modelled as right with probability 1 - noise and else as any other class alike, and the target of an image is the
posterior of its class given its text and its label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from gpt4image.data.image_set import NO_LABEL
from gpt4image.errors import TableError
from gpt4image.files import atomic_path

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FORMAT = "gpt4image-text-labels-1"
COLUMNS = ("key", "digest", "split", "given_label", "text_label", "doubt", "out_of_fold", "probabilities")
ANCHORS = 0.1  # share of the labelled images, those where the text is surest, that noise is read off
MIN_ANCHORS = 50
MIN_NOISE, MAX_NOISE = 0.05, 0.75
MIN_STEADINESS = 0.6
CONFIDENCE = 0.99  # that at least MIN_NOISE of the labels are wrong


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What the texts of N images say.

    Attributes:
        probabilities: (N, K) float32 of the clean class; zeros where there is no description.
        out_of_fold: (N,) bool, the image has a label that its own prediction has not seen.
        noise: estimated part of the given labels that is wrong; 0 where they are taken at their word.
        agreement: part of the out-of-fold predictions that agree with the given label; None where there are none.
        c: inverse strength of the classifier's penalty.
        folds: folds of its cross-validation; 0 where there was none.
    """

    probabilities: NDArray[np.float32]
    out_of_fold: Bools
    noise: float
    agreement: float | None
    c: float
    folds: int


def read_labels(
    vectors: Floats, described: Bools, labels: Ints, n_classes: int, seed: int, *, reference: Bools | None = None
) -> Reading:
    """Read class probabilities off text embeddings.

    Args:
        vectors: (N, D) text embeddings; rows without a description are not looked at.
        described: (N,) which images have a description.
        labels: (N,) class indices to learn from, negative where there is none.
        n_classes: K.
        seed: seed of the folds.
        reference: (N,) images whose texts, not labels, may shape those of others (train, say); all without it.

    Raises:
        TableError: fewer than two classes have a described image with a label.
    """
    from gpt4image.text_classifier import classify, smooth

    rows = np.flatnonzero(described)
    given = labels[rows]
    classes = np.unique(given[given >= 0])
    if len(classes) < 2:
        raise TableError(
            f"Text labels need described images with labels of at least 2 classes; {len(rows)} of {len(labels)} images "
            f"are described and have labels of {len(classes)} class(es). Describe labelled images or label more."
        )
    neighbours = np.arange(len(rows)) if reference is None else np.flatnonzero(reference[rows])
    result = classify(smooth(vectors[rows], neighbours, seed), given, n_classes, seed=seed)
    read, held_out = result.probabilities, result.out_of_fold
    noise, agreement = 0.0, None
    if held_out.any():
        agreement = float((read[held_out].argmax(axis=1) == given[held_out]).mean())
        noise = estimate_noise(read[held_out], given[held_out])
    if noise > 0.0:
        read = clean_probabilities(read, given, held_out, noise)
    probabilities = np.zeros((len(labels), n_classes), dtype=np.float32)
    probabilities[rows] = read
    out_of_fold = np.zeros(len(labels), dtype=bool)
    out_of_fold[rows] = held_out
    return Reading(
        probabilities=probabilities,
        out_of_fold=out_of_fold,
        noise=noise,
        agreement=agreement,
        c=result.c,
        folds=result.folds,
    )


def estimate_noise(probabilities: Floats, labels: Ints) -> float:
    """Estimate the part of labels that is wrong, from out-of-fold predictions.

    Where the text is surest it is nearly always right, so disagreement there is noise (anchors: Patrini et al. 2017,
    arXiv 1609.03683). Texts that say little about the classes disagree too; but then agreement falls off from the
    surest images to all, whereas noise is the same for all. What cannot be told apart from that counts as no noise:
    clean labels are not to be harmed.

    Args:
        probabilities: (n, K) predictions that have not seen the image's label.
        labels: (n,) given labels.

    Returns:
        0, or a value in [MIN_NOISE, MAX_NOISE]; always 0 for fewer than 2 * MIN_ANCHORS labels.
    """
    if len(labels) < 2 * MIN_ANCHORS:
        return 0.0  # the surest of so few are not sure
    right = probabilities.argmax(axis=1) == labels
    count = max(MIN_ANCHORS, round(ANCHORS * len(labels)))
    anchors = np.argsort(-probabilities.max(axis=1), kind="stable")[:count]
    noise = float(1.0 - right[anchors].mean())
    wrong = count - int(right[anchors].sum())
    # Clopper-Pearson bound: a few disagreements among few anchors may be the text's own mistakes.
    surely = float(beta.ppf(1.0 - CONFIDENCE, wrong, count - wrong + 1)) if wrong else 0.0
    if surely < MIN_NOISE or noise > MAX_NOISE:
        return 0.0
    chance = float(np.bincount(labels).max() / len(labels))
    steadiness = (right.mean() - chance) / max(1.0 - noise - chance, 1e-6)
    return noise if steadiness >= MIN_STEADINESS and right.mean() > chance else 0.0


def clean_probabilities(probabilities: NDArray[np.float32], labels: Ints, fitted: Bools, noise: float) -> Floats:
    """Turn probabilities of the noisy label into those of the clean class.

    Log-probabilities are scaled by the factor under which the noise model explains the given labels best (forward
    correction, Patrini et al. 2017): a classifier fitted to wrong labels is right more often than it is sure.

    Args:
        probabilities: (N, K).
        labels: (N,) given labels.
        fitted: (N,) rows to fit the factor on: labelled, and predicted out-of-fold.
        noise: part of the labels that is wrong.
    """
    n_classes = probabilities.shape[1]
    other = noise / (n_classes - 1)
    own = labels[fitted]

    def loss(log_scale: float) -> float:
        clean = _power(probabilities[fitted], np.exp(log_scale))
        return float(-np.log(other + (1.0 - noise - other) * clean[np.arange(len(own)), own]).mean())

    result: Any = minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
    return _power(probabilities, np.exp(result.x))


def blend(probabilities: Floats, labels: Ints, noise: float, trust: float | None = None) -> NDArray[np.float32]:
    """Return the soft target of each image.

    Args:
        probabilities: (n, K) clean-class probabilities from text; a row of zeros where there is no description.
        labels: (n,) given labels, negative where there is none.
        noise: part of the given labels that is wrong.
        trust: share of a given label in the target, the rest being text; without it, the posterior of the class.

    Returns:
        (n, K): text alone without a label, the label alone without text, zeros without both.
    """
    targets = np.array(probabilities, dtype=np.float64)
    labelled = np.flatnonzero(labels >= 0)
    own = labels[labelled]
    given = np.zeros((len(labelled), targets.shape[1]))
    given[np.arange(len(labelled)), own] = 1.0
    text = targets[labelled]
    has_text = text.any(axis=1, keepdims=True)
    if trust is not None:
        both = trust * given + (1.0 - trust) * text
    elif noise == 0.0:
        both = given
    else:
        likelihood = np.where(given > 0, 1.0 - noise, noise / (targets.shape[1] - 1))
        both = likelihood * np.maximum(text, 1e-6)
        both /= both.sum(axis=1, keepdims=True)
    targets[labelled] = np.where(has_text, both, given)
    return targets.astype(np.float32)


def find_doubtful(probabilities: Floats, labels: Ints) -> Bools:
    """Say which labels are probably wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    An image counts as a class where its probability reaches the mean of that class among the images labelled so; it is
    doubtful where the most probable such class is not its label.

    Args:
        probabilities: (n, K) predictions that have not seen the image's label.
        labels: (n,) given labels.
    """
    sums = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=probabilities.shape[1])
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    return (confident.max(axis=1) >= 0.0) & (confident.argmax(axis=1) != labels)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a file of text labels.

    Attributes:
        classes: class names.
        noise: estimated part of the given labels that is wrong.
        agreement: part of the out-of-fold predictions that agree with the given label.
        c: inverse strength of the classifier's penalty.
        folds: folds of its cross-validation.
        seed: seed of the folds.
        encoders: SPEC of the encoder of each embedding table.
    """

    classes: tuple[str, ...]
    noise: float
    agreement: float | None
    c: float
    folds: int
    seed: int
    encoders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextLabels:
    """Text labels of N described images, one row per digest.

    Attributes:
        keys: key of each image.
        digests: sha256 hex digest of each image.
        splits: (N,) split of each image.
        labels: (N,) given labels that were learned from, NO_LABEL elsewhere.
        probabilities: (N, K) float32 of the clean class, read off the text.
        out_of_fold: (N,) bool, the image has a label that its own prediction has not seen.
        facts: classes, noise and how they were found.
    """

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    splits: NDArray[np.str_]
    labels: Ints
    probabilities: NDArray[np.float32]
    out_of_fold: Bools
    facts: Facts

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.facts.classes

    @cached_property
    def doubt(self) -> NDArray[np.float32]:
        """(N,) probability that the given label is wrong, by the text alone; NaN where it is not out-of-fold."""
        doubt = np.full(len(self.labels), np.nan, dtype=np.float32)
        rows = np.flatnonzero(self.out_of_fold)
        doubt[rows] = 1.0 - self.probabilities[rows, self.labels[rows]]
        return doubt

    @cached_property
    def doubtful(self) -> Ints:
        """Positions of the images whose label is probably wrong, the most doubtful first."""
        rows = np.flatnonzero(self.out_of_fold)
        rows = rows[find_doubtful(self.probabilities[rows], self.labels[rows])]
        return rows[np.argsort(-self.doubt[rows], kind="stable")]

    def targets_for(
        self, digests: Sequence[str], labels: Ints, trust: float | None = None
    ) -> tuple[NDArray[np.float32], Bools]:
        """Return soft targets (n, K) and which images have one (n,); see ``blend``.

        Args:
            digests: n digests; one that is not in the file has no text.
            labels: (n,) given labels, NO_LABEL where there is none.
            trust: share of a given label in the target; without it, the posterior under the estimated noise.
        """
        place = {digest: row for row, digest in enumerate(self.digests)}
        rows = np.array([place.get(digest, -1) for digest in digests], dtype=np.int64)
        probabilities = np.where((rows >= 0)[:, None], self.probabilities[rows], np.float32(0))
        targets = blend(probabilities, labels, self.facts.noise, trust)
        return targets, np.asarray(targets.any(axis=1))

    def save(self, path: Path) -> None:
        """Write one Parquet file, atomically."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        given = [self.classes[label] if label >= 0 else None for label in self.labels.tolist()]
        text = [self.classes[label] for label in self.probabilities.argmax(axis=1).tolist()]
        flat = pa.array(self.probabilities.reshape(-1))
        columns = (
            pa.array(self.keys, pa.string()),
            pa.array(self.digests, pa.string()),
            pa.array(self.splits.tolist(), pa.string()),
            pa.array(given, pa.string()),
            pa.array(text, pa.string()),
            pa.array(self.doubt, from_pandas=True),
            pa.array(self.out_of_fold),
            pa.FixedSizeListArray.from_arrays(flat, len(self.classes)),
        )
        metadata = {FORMAT: json.dumps(asdict(self.facts), ensure_ascii=False)}
        table = pa.Table.from_arrays(list(columns), names=list(COLUMNS)).replace_schema_metadata(metadata)
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary)

    @staticmethod
    def load(path: Path) -> TextLabels:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, damaged or something else."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.is_file():
            raise TableError(f"{path}: there are no text labels here; make them with `gpt4image label --out {path}`.")
        try:
            table = pq.read_table(path)
            values = json.loads((table.schema.metadata or {})[FORMAT.encode()])
            facts = Facts(**{**values, "classes": tuple(values["classes"]), "encoders": tuple(values["encoders"])})
            columns = {name: table.column(name).combine_chunks() for name in COLUMNS}
            place = {name: index for index, name in enumerate(facts.classes)}
            given = [NO_LABEL if name is None else place[name] for name in columns["given_label"].to_pylist()]
            flat = columns["probabilities"].flatten().to_numpy(zero_copy_only=False).astype(np.float32)
            return TextLabels(
                keys=tuple(columns["key"].to_pylist()),
                digests=tuple(columns["digest"].to_pylist()),
                splits=np.array(columns["split"].to_pylist(), dtype=np.str_),
                labels=np.array(given, dtype=np.int64),
                probabilities=flat.reshape(len(given), len(facts.classes)),
                out_of_fold=np.array(columns["out_of_fold"].to_pylist(), dtype=bool),
                facts=facts,
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise TableError(
                f"{path} is not a file of text labels, or is damaged ({error!r}); write it again with "
                "`gpt4image label`."
            ) from None


def _power(probabilities: Floats, scale: float) -> Floats:
    """Raise probabilities to a power and normalise each row: what scaling the logits does."""
    raised = np.where(probabilities > 0, np.maximum(probabilities, 1e-12) ** scale, 0.0)
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)

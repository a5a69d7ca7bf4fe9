"""Which of the given labels are wrong, by predictions that have not seen them, and how: alike, or class by class.

Legend: ``probabilities`` are (n, K) predictions that have not seen the label of the image, ``labels`` (n,) given ones.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import entr, softmax
from scipy.stats import beta

from gpt4image.artifacts.probabilities import Probabilities, map_blocks
from gpt4image.labelling.combine import counted, smoothed
from gpt4image.training.targets import Noise, single_labels

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]

MIN_NOISE, MAX_NOISE = 0.05, 0.75
SURE = 2.5  # nats of likelihood that more noise must bring: p = 0.013 by the likelihood-ratio test
ANCHORS = 0.1  # share of the labelled images, those where the text is surest, that noise is estimated by
MIN_ANCHORS = 50
MAX_ANCHOR_NOISE = 0.6  # above, uninformative texts look alike
MIN_STEADINESS, MIN_STEADINESS_OF_FEW = 0.6, 0.85  # of few: where ANCHORS of the labels would be too few
CONFIDENCE = 0.99  # that at least MIN_NOISE of the labels are wrong
PSEUDO_LABELS = 5.0  # labels of each class that the uniform model counts for
MAX_CLASSES = 100  # of a full transition matrix
UNLIKELY = 0.2  # of 5 % wrong labels of photographs names .66 with precision .53; confident learning .57 with .41
TRUST = 0.5  # standard deviation of the logarithm of the power by which evidence that read no label is miscalibrated
REFUTED = 0.75  # part of the least log loss of labels with such noise; texts that predict them better refute it
MAX_LABELS = 20_000  # labels that noise is estimated by where evidence read none
MAX_CELLS = 10_000_000  # the same, times the number of classes
_FOLDS = 5
_STEPS = 30


def find_noise(probabilities: Probabilities, labels: Ints) -> tuple[Noise, float]:
    """Say whether labels are wrong, and how many, from out-of-fold predictions of the given labels.

    Two signs count. Either wrong labels explain what is given better than unsure texts do: a classifier that lowers its
    confidence everywhere to allow for noise is too unsure where the texts are clear. Or the labels of the images of
    whose text it is surest disagree (``anchor_rate``), which shows noise that the classifier itself has learned: labels
    of one class taken for another. Clean labels are not to be harmed, and some texts mislead: noise counts only where
    it is surely more than MIN_NOISE.

    Returns:
        The noise, wrong labels being any other class alike; and the power to which the probabilities are to be raised
        to be those of the clean class (forward correction, Patrini et al. 2017, arXiv 1609.03683).
    """
    probabilities, labels = _sample(probabilities, labels, len(labels), 0)
    rate, power, gain = _explain(probabilities, labels)
    by_anchors = anchor_rate(probabilities, labels)
    if by_anchors > 0.0:
        return Noise(rate=by_anchors), _explain(probabilities, labels, rate=by_anchors)[1]
    return (Noise(rate=rate), power) if rate > MIN_NOISE and gain > SURE else (Noise(), 1.0)


def noise_by_evidence(free: Probabilities, labels: Ints, learned_loss: float | None, seed: int) -> tuple[Noise, Noise]:
    """Say how labels (n,) are wrong, by evidence (n, K) that has read none of them: answers and class names.

    What a classifier has learned from wrong labels cannot hide them here, so noise of classes taken for one another
    shows too. The evidence may be what is wrong. It is trusted to be calibrated up to TRUST; and noise is refuted where
    texts or pictures predict the given labels, out of fold, with a lower log loss, ``learned_loss``, than labels with
    such noise can have.

    Returns the noise, where it is sure; and the noise that is probable, which is what weights are to be learned under.
    """
    free, labels = _sample(free, labels, MAX_LABELS, seed)
    rate, _, gain = _explain(free, labels, trust=TRUST)
    by_anchors = anchor_rate(free, labels)
    sure = by_anchors > 0.0 or (rate > MIN_NOISE and gain > SURE)
    probable = find_transition(free, labels, Noise(rate=by_anchors or rate), seed)
    # Whoever knows the true class and the noise has the least log loss: the entropy of the labels.
    entropy = entr(probable.matrix(free.shape[1]).astype(np.float64)).sum(axis=1)
    if learned_loss is not None and learned_loss < REFUTED * float(free.mean(axis=0) @ entropy):
        return Noise(), Noise()
    return probable if sure else Noise(), probable


def _sample(probabilities: Probabilities, labels: Ints, most: int, seed: int) -> tuple[Floats, Ints]:
    """Return the probabilities of at most so many labels as an array, and these labels."""
    most = min(most, max(MAX_CELLS // probabilities.shape[1], 2 * MIN_ANCHORS))
    if len(labels) <= most:
        return probabilities[:], labels
    some = np.random.default_rng(seed).choice(len(labels), most, replace=False)
    return probabilities[some], labels[some]


def _explain(
    probabilities: Floats, labels: Ints, rate: float | None = None, trust: float | None = None
) -> tuple[float, float, float]:
    """Return the rate and the power that explain the labels best, and the nats that it brings over MIN_NOISE; ``trust``
    is the standard deviation of the logarithm of the power."""
    n_classes, rows = probabilities.shape[1], np.arange(len(labels))
    logits = np.log(np.maximum(probabilities, 1e-12)).astype(np.float64)  # in float32, differences are no gradients

    def loss(parameters: NDArray[np.float64]) -> float:
        wrong, log_power = parameters
        other = wrong / (n_classes - 1)
        own = softmax(np.exp(log_power) * logits, axis=1)[rows, labels]
        prior = 0.0 if trust is None else 0.5 * float(log_power / trust) ** 2 / len(labels)
        return prior - float(np.log(np.maximum(other + (1.0 - wrong - other) * own, 1e-12)).mean())

    def fit(lowest: float, highest: float, *starts: float) -> Any:
        bounds = [(lowest, highest), (-2.0, 3.0)]
        fits: list[Any] = [minimize(loss, (s, power), bounds=bounds) for s in starts for power in (0.0, 1.0)]
        return min(fits, key=lambda result: result.fun)

    if rate is not None:
        found = without = fit(rate, rate, rate)
    else:
        without, found = fit(MIN_NOISE, MIN_NOISE, MIN_NOISE), fit(0.0, MAX_NOISE, 0.05, 0.4)
    return float(found.x[0]), float(np.exp(found.x[1])), len(labels) * float(without.fun - found.fun)


def anchor_rate(probabilities: Floats, labels: Ints) -> float:
    """Estimate the part of labels that is wrong by the images of whose text the classifier is surest (anchors: Patrini
    et al. 2017).

    Uninformative texts disagree too; but then agreement falls off from the surest images to all, whereas noise is the
    same for all. What cannot be told apart from that counts as no noise.

    Returns:
        0, or a value in [MIN_NOISE, MAX_ANCHOR_NOISE]; always 0 for fewer than 2 * MIN_ANCHORS labels.
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
    if surely < MIN_NOISE or noise > MAX_ANCHOR_NOISE:
        return 0.0
    chance = float(np.bincount(labels).max() / len(labels))
    steadiness = (right.mean() - chance) / max(1.0 - noise - chance, 1e-6)
    enough = MIN_STEADINESS_OF_FEW if count == MIN_ANCHORS else MIN_STEADINESS
    return noise if steadiness >= enough and right.mean() > chance else 0.0


def find_transition(found: Probabilities, labels: Ints, uniform: Noise, seed: int) -> Noise:
    """Return the noise with a transition matrix of its own for each class, where the given labels tell of one.

    The matrix is fitted by expectation maximisation, with PSEUDO_LABELS labels per class that follow the uniform model.
    It counts only if, fitted to a part of the images, it explains the labels of the others better than that model.
    ``found`` are (n, K) probabilities of the clean class, which have not seen the label of the image.
    """
    n_classes = found.shape[1]
    if n_classes > MAX_CLASSES:
        return uniform
    clean: Floats = found[:]
    prior = uniform.matrix(n_classes).astype(np.float64)

    def fitted(clean: Floats, labels: Ints) -> NDArray[np.float64]:
        matrix = prior
        for _ in range(_STEPS):
            posterior = clean * matrix.T[labels]
            posterior /= np.maximum(posterior.sum(axis=1, keepdims=True), 1e-12)
            matrix = smoothed(counted(labels, posterior, n_classes), prior, PSEUDO_LABELS)
        return matrix

    parts = np.random.default_rng(seed).permutation(len(labels)) % _FOLDS
    gain = 0.0
    for part in range(_FOLDS):
        test = parts == part
        for matrix, sign in ((fitted(clean[~test], labels[~test]), 1.0), (prior, -1.0)):
            explained = (clean[test] * matrix.T[labels[test]]).sum(axis=1)
            gain += sign * float(np.log(np.maximum(explained, 1e-12)).sum())
    if gain <= SURE:
        return uniform
    matrix = fitted(clean, labels)
    kept = clean.sum(axis=0) @ matrix.diagonal() / clean.sum()
    return Noise(rate=float(1.0 - kept), transition=matrix.astype(np.float32))


def suspected(probabilities: Probabilities, labels: Ints) -> Bools:
    """Say which labels are probably wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    An image counts as a class where its probability reaches the mean of that class among the images labelled so; it is
    suspected where the most probable such class is not its label.
    """
    sums = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=probabilities.shape[1])
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)

    def named(predicted: Floats, rows: slice) -> Bools:
        confident = np.where(predicted >= thresholds, predicted, -1.0)
        return (confident.max(axis=1) >= 0.0) & (confident.argmax(axis=1) != labels[rows])

    return map_blocks(probabilities, named)


def contradicted(labels: Ints, said: Mapping[str, Ints]) -> Bools:
    """Return (N,) which labels, one per image, both the answer and the texts that have read only answers contradict,
    with the same other class; ``said`` are those of ``Predictions``."""
    if labels.ndim == 2 or not {"answers", "taught"} <= said.keys():
        return np.zeros(len(labels), bool)
    answer = said["answers"]
    return (labels >= 0) & (answer >= 0) & (answer != labels) & (answer == said["taught"])


def suspected_errors(
    probabilities: Probabilities, labels: Ints, held_out: Bools, certain: Bools | None = None
) -> NDArray[np.int64]:
    """Return (m, 2) image and class of the labels that are probably wrong, the least probable label first.

    Where images have several labels, those are suspected that are less probable than UNLIKELY. Labels of ``certain``
    (N,) images are suspected before all others, unless they are predicted.
    """
    first = np.zeros(len(labels), bool) if certain is None else certain
    pairs: list[tuple[bool, float, int, int]] = []
    for k, (rows, predicted, given) in enumerate(single_labels(probabilities, labels, held_out)):
        own = predicted[np.arange(len(given)), given]
        unlike = predicted.argmax(axis=1) != given  # a label that is predicted as well is named by nobody
        named = (suspected(predicted, given) | first[rows]) & unlike if labels.ndim == 1 else own < UNLIKELY
        classes = given if labels.ndim == 1 else np.full(len(given), k)
        columns = (~first[rows[named]], own[named], rows[named], classes[named])
        pairs += zip(*(column.tolist() for column in columns), strict=True)
    return np.array([pair[2:] for pair in sorted(pairs)], np.int64).reshape(-1, 2)


def judge(probabilities: Probabilities, labels: Ints, true: Ints) -> dict[str, Any]:
    """Say how well wrong labels are named, where the ``true`` ones are known, (n,): how many are ``flipped`` and
    ``named``, ``precision``, ``recall``, and ``average_precision`` of ranking labels by how improbable they are. None
    without any."""
    from sklearn.metrics import average_precision_score

    named, wrong = suspected(probabilities, labels), labels != true
    hits, doubt = int((named & wrong).sum()), 1.0 - probabilities[np.arange(len(labels)), labels]
    return {
        "flipped": int(wrong.sum()),
        "named": int(named.sum()),
        "precision": hits / int(named.sum()) if named.any() else None,
        "recall": hits / int(wrong.sum()) if wrong.any() else None,
        "average_precision": float(average_precision_score(wrong, doubt)) if wrong.any() else None,
    }


def raise_to(probabilities: Floats, scale: float) -> NDArray[np.float32]:
    """Return probabilities raised to a power, each row normalised: what scaling the logits does."""
    wide = probabilities.astype(np.float64)  # float32 keeps too little of powers of many unsure classes
    raised = np.where(wide > 0, np.maximum(wide, 1e-12) ** scale, 0.0)
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)

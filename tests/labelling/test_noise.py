import csv
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.base.errors import TableError
from gpt4image.base.files import read_json_lines
from gpt4image.data.splits import flip_labels
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.noise import find_noise, find_transition, judge, raise_to
from gpt4image.labelling.sources import predict_labels
from gpt4image.labelling.texts import Classification, Texts, classify
from gpt4image.training.targets import Noise, blend, explained

CLASSES = 5


def texts(rng: np.random.Generator, count: int, sharpness: float) -> tuple[NDArray, NDArray]:
    """Calibrated probabilities (count, CLASSES) and the true classes drawn from them."""
    logits = sharpness * rng.standard_normal((count, CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, np.array([rng.choice(CLASSES, p=row) for row in probabilities])


def flipped(rng: np.random.Generator, true: NDArray, noise: float) -> NDArray:
    return np.where(rng.random(len(true)) < noise, (true + rng.integers(1, CLASSES, len(true))) % CLASSES, true)


@pytest.mark.parametrize("noise", [0.2, 0.4, 0.6])
def test_noise_is_seen_with_few_labels_and_at_high_rates(noise: float):
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        clean, true = texts(rng, 250, 6.0)
        labels = flipped(rng, true, noise)
        # A calibrated classifier lowers its confidence everywhere to allow for wrong labels.
        lowered = [raise_to(clean, power) for power in (0.1, 0.15, 0.2, 0.3, 0.5)]
        said = min(lowered, key=lambda each: -np.log(each[np.arange(250), labels]).sum())
        found.append(find_noise(said, labels)[0].rate)
    assert np.median(found) == pytest.approx(noise, abs=0.08)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("count", [50, 200])
def test_clean_labels_are_taken_at_their_word_however_unsure_the_texts(sharpness: float, count: int):
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found.append(find_noise(*texts(rng, count, sharpness))[0].rate)
    assert sum(rate > 0 for rate in found) <= 1


def test_classes_that_are_taken_for_another_are_found_and_uniform_noise_stays_uniform():
    rng = np.random.default_rng(0)
    clean, true = texts(rng, 600, 6.0)
    uniform = Noise(rate=0.3)
    taken = np.where(rng.random(600) < 0.3, (true + 1) % CLASSES, true)
    noise = find_transition(clean, taken, uniform, 0)
    expected = 0.7 * np.eye(CLASSES) + 0.3 * np.roll(np.eye(CLASSES), 1, axis=1)
    assert noise.transition is not None
    assert noise.matrix(CLASSES) == pytest.approx(expected, abs=0.12)
    assert noise.rate == pytest.approx(0.3, abs=0.05)
    assert find_transition(clean, flipped(rng, true, 0.3), uniform, 0).transition is None


def test_what_texts_explain_is_nothing_for_the_frequencies_and_all_for_the_labels():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, p=[0.6, 0.3, 0.1], size=500)
    frequencies, every = np.bincount(labels) / len(labels), np.ones(500, bool)
    assert explained(np.tile(frequencies, (500, 1)), labels, every) == pytest.approx(0.0, abs=1e-6)
    assert explained(np.eye(3)[labels], labels, every) == 1.0
    shares = [explained(*texts(rng, 3000, sharpness), np.ones(3000, bool)) or 0.0 for sharpness in (0.5, 2.0, 8.0)]
    assert 0.0 < shares[0] < 0.3 < shares[1] < 0.7 < shares[2] < 1.0
    assert explained(np.eye(3)[[1, 1]], np.array([1, 1]), every[:2]) is None
    assert explained(np.eye(3)[labels], labels, ~every) is None


def test_naming_wrong_labels_is_judged():
    said = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    found = judge(said, np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0]))
    assert (found["flipped"], found["named"], found["precision"], found["recall"]) == (1, 2, 0.5, 1.0)
    assert found["average_precision"] == 1.0
    clean = judge(said[:1], np.array([0]), np.array([0]))
    assert clean == {"flipped": 0, "named": 0, "precision": None, "recall": None, "average_precision": None}


Corpus = tuple[NDArray[np.float32], NDArray[np.int64], int]


@pytest.fixture(scope="session")
def pictograms(shared_data) -> Corpus:
    """MiniLM embeddings of the plain descriptions of 517 pictograms, their labels, and the number of classes."""
    rows = read_json_lines(shared_data / "openmoji" / "descriptions-plain.jsonl")[::3]
    with (shared_data / "openmoji" / "labels.csv").open(encoding="utf-8") as file:
        label_of = {row["key"]: row["label"] for row in csv.DictReader(file)}
    names = [label_of[row["key"]] for row in rows]
    encoder, texts = load_text_encoder("minilm", "cpu"), [row["description"] for row in rows]
    order = np.argsort([len(text) for text in texts])  # texts of one length need no padding
    parts = [encoder.encode([texts[i] for i in part]) for part in np.array_split(order, len(rows) // 50)]
    vectors = np.concatenate(parts)[np.argsort(order)]
    classes, labels = np.unique(names, return_inverse=True)
    return vectors.astype(np.float32), labels.astype(np.int64), len(classes)


def accuracy(targets: NDArray, labels: NDArray) -> float:
    return float((targets.argmax(axis=1) == labels).mean())


def log_loss(targets: NDArray, labels: NDArray) -> float:
    return float(-np.log(np.maximum(targets[np.arange(len(labels)), labels], 1e-7)).mean())


@pytest.mark.slow
def test_wrong_labels_are_measured_and_mended(pictograms: Corpus):
    (vectors, labels, n_classes), noise = pictograms, 0.4
    given = flip_labels(labels, np.arange(len(labels)), noise, n_classes, 0)
    found = predict_labels(Texts(vectors, np.ones(len(labels), bool)), given, n_classes, 0)
    targets = blend(found.probabilities, given, found.noise)
    assert found.noise.rate == pytest.approx(noise, abs=0.07)
    assert accuracy(targets, labels) >= accuracy(found.probabilities, labels) - 0.01
    assert accuracy(targets, labels) > accuracy(np.eye(n_classes)[given], labels) + 0.08
    fixed = blend(found.probabilities, given, found.noise, trust=1.0 - found.noise.rate)
    assert log_loss(targets, labels) < log_loss(fixed, labels)


def test_the_facts_are_those_of_the_classifier_that_was_fitted_last(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(4), 80)
    vectors = (np.eye(8)[true] + rng.normal(0, 0.2, (320, 8))).astype(np.float32)
    given = flip_labels(true, np.arange(320), 0.2, 4, 0, class_dependent=True)
    fits: list[Classification] = []

    def remembered(*args: Any, **options: Any) -> Classification:
        fits.append(classify(*args, **options))
        return fits[-1]

    monkeypatch.setattr("gpt4image.labelling.sources.classify", remembered)
    found = predict_labels(Texts(vectors, np.ones(320, bool), np.eye(4, 8, dtype=np.float32)), given, 4, 0)
    assert found.noise.transition is not None
    assert len({(fit.c, fit.names) for fit in fits}) > 1
    assert (found.c, found.names) == (fits[-1].c, fits[-1].names)
    assert np.array_equal(found.probabilities, fits[-1].probabilities)


def test_two_classes_with_labels_are_needed_and_undescribed_images_have_no_probabilities():
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    described = np.arange(20) % 4 != 0
    found = predict_labels(Texts(vectors, described), np.arange(20) % 2, 2, 0)
    assert (found.probabilities.any(axis=1) == described).all()
    assert not found.out_of_fold[~described].any()
    one_class = np.where(described, 1, 0)
    with pytest.raises(TableError, match=r"labels of 1 class\(es\)"):
        predict_labels(Texts(vectors, described), one_class, 2, 0)
    said = Answers(np.arange(20) % 2, np.full(20, -1), np.full(20, np.nan, np.float32))
    by_texts = {"answers": said, "evidence": "texts"}
    for labels in (one_class, np.repeat(one_class[:, None], 2, axis=1)):
        with pytest.raises(TableError, match="Targets need described images with labels"):
            predict_labels(Texts(vectors, described), labels, 2, 0, **by_texts)
    answered = predict_labels(Texts(vectors, described), np.arange(20) % 2, 2, 0, **by_texts)
    assert np.array_equal(answered.probabilities, found.probabilities), "answers without a text are no texts"
    taught = predict_labels(Texts(vectors, described), np.full(20, -1), 2, 0, **by_texts)
    assert (taught.probabilities.any(axis=1) == described).all()

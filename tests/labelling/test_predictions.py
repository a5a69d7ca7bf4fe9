from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.base.errors import TableError
from gpt4image.base.files import read_json_lines
from gpt4image.data.splits import flip_labels
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.text_classifier import Classification, classify
from gpt4image.labelling.text_vectors import Texts
from gpt4image.training.targets import blend

Corpus = tuple[NDArray[np.float32], NDArray[np.int64], int]


@pytest.fixture(scope="session")
def photographs(shared_data) -> Corpus:
    """MiniLM embeddings of the plain descriptions of 500 photographs, their labels, and the number of classes."""
    rows = read_json_lines(shared_data / "cifar10" / "descriptions-plain.jsonl")[::4]
    return _encoded(rows, [row["key"].split("/")[0] for row in rows])


@pytest.fixture(scope="session")
def pictograms(shared_data) -> Corpus:
    """The same of 775 pictograms."""
    rows = read_json_lines(shared_data / "openmoji" / "descriptions-plain.jsonl")[::2]
    with (shared_data / "openmoji" / "labels.csv").open(encoding="utf-8") as file:
        label_of = {row["key"]: row["label"] for row in csv.DictReader(file)}
    return _encoded(rows, [label_of[row["key"]] for row in rows])


def _encoded(rows: list[dict[str, str]], names: list[str]) -> Corpus:
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
@pytest.mark.parametrize(("name", "kept", "floor"), [("photographs", 5, 0.87)])
def test_few_labels_name_the_rest(request, name: str, kept: int, floor: float):
    vectors, labels, n_classes = request.getfixturevalue(name)
    accuracies = []
    for seed in range(1):
        order = np.random.default_rng(seed).permutation(len(labels))
        given = np.full_like(labels, -1)
        for label in range(n_classes):
            chosen = order[labels[order] == label][:kept]
            given[chosen] = label
        found = predict_labels(Texts(vectors, np.ones(len(labels), bool)), given, n_classes, seed)
        accuracies.append(accuracy(found.probabilities[given < 0], labels[given < 0]))
    assert np.mean(accuracies) > floor


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictograms"])
@pytest.mark.parametrize("noise", [0.4])
def test_wrong_labels_are_measured_and_mended(request, name: str, noise: float):
    vectors, labels, n_classes = request.getfixturevalue(name)
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

    monkeypatch.setattr("gpt4image.labelling.predictions.classify", remembered)
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

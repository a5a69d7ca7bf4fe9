"""Multi-label classification: its loss against a naive loop, its metrics against torchmetrics and scikit-learn."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, label_ranking_average_precision_score
from torch import Tensor

from gpt4image.tasks.decision import Decision
from gpt4image.tasks.multilabel import NOT_KNOWN, PRIOR, MultiLabel, binary_loss

CLASSES = ("cat", "dog", "sofa", "tree", "sun")


def loop_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """The docstring of ``binary_loss``, one number at a time."""
    total, mass = torch.zeros((), dtype=torch.float64), 0.0
    for i in range(len(logits)):
        for k in range(logits.shape[1]):
            count, present = targets[i, 0, k], targets[i, 1, k]
            present = (1 - smoothing) * present + smoothing * count / 2
            p = 1 / (1 + torch.exp(-logits[i, k]))
            total = total - present * torch.log(p) - (count - present) * torch.log(1 - p)
            mass += float(count)
    return total / mass


def soft_targets(rng: np.random.Generator, mixed: bool) -> Tensor:
    task = MultiLabel()
    soft = rng.random((6, 5)).astype(np.float32)
    soft[rng.random((6, 5)) < 0.3] = np.nan  # the teacher does not know
    soft[4] = np.nan
    targets = task.targets(np.zeros((6, 5), np.int8), soft, 5, None).double()
    matrix = torch.from_numpy(rng.dirichlet(np.ones(6), 6)) if mixed else torch.eye(6, dtype=torch.float64)
    return torch.einsum("ij,j...->i...", matrix, targets)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_and_its_gradient_are_those_of_a_naive_loop(mixed: bool, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (6, 5))).requires_grad_()
    targets = soft_targets(rng, mixed)
    ours, naive = (of(logits, targets, smoothing) for of in (binary_loss, loop_loss))
    assert torch.allclose(ours, naive, rtol=1e-12)
    (mine,), (expected,) = torch.autograd.grad(ours, logits), torch.autograd.grad(naive, logits)
    assert torch.allclose(mine, expected, rtol=1e-10)
    assert torch.equal(MultiLabel().loss(logits, targets, smoothing), ours)


def test_what_is_not_known_or_taken_out_has_no_gradient_and_extreme_logits_are_finite() -> None:
    labels = np.array([[1, 0, NOT_KNOWN], [NOT_KNOWN] * 3, [0, 1, 1]], np.int8)
    task = MultiLabel()
    logits = torch.tensor([[1e4, -1e4, 3.0]] * 3, requires_grad=True)
    targets = task.without_target(task.targets(labels, None, 3, None), torch.tensor([False, False, True]))
    assert task.has_target(labels, None).tolist() == [True, False, True]
    loss = task.loss(logits, targets, 0.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0.0 and gradient.isfinite().all() and not gradient[1:].any() and not gradient[:, 2].any()
    assert task.loss(logits, torch.zeros(3, 2, 3), 0.1).item() == 0.0


def test_a_label_is_trusted_as_asked_and_stands_alone_where_the_teacher_knows_nothing() -> None:
    soft = np.array([[0.2, np.nan, 0.6]], np.float32)
    found = MultiLabel().with_labels(soft, np.array([[1, 0, NOT_KNOWN]], np.int8), 0.75)
    assert found[0] == pytest.approx([0.8, 0.0, 0.6])


@pytest.fixture
def predicted() -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities with ties, and labels of which a quarter is unknown; no image has the last class."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (60, 5)).astype(np.int8)
    labels[:, 4] = 0
    labels[rng.random((60, 5)) < 0.25] = NOT_KNOWN
    labels[0], labels[1] = NOT_KNOWN, [0, 0, 0, 0, 0]
    return rng.integers(1, 20, (60, 5)).astype(np.float32) / 20, labels


@pytest.mark.filterwarnings("ignore")  # torchmetrics and scikit-learn warn of the class without an image
def test_metrics_equal_those_of_scikit_learn(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = predicted
    facts = MultiLabel().measure(scores, labels, CLASSES)
    seen = [labels[:, k] != NOT_KNOWN for k in range(5)]
    precision = [average_precision_score(labels[seen[k], k], scores[seen[k], k]) for k in range(4)]
    f1 = [f1_score(labels[seen[k], k], scores[seen[k], k] >= 0.5, zero_division=0) for k in range(5)]
    known = labels != NOT_KNOWN
    p, truth = scores[known].astype(float), labels[known]
    assert (facts["images"], facts["labelled"], facts["support"][4]) == (60, 59, 0)
    assert facts["per_class"][:4] == pytest.approx(precision, abs=1e-6) and facts["per_class"][4] is None
    assert facts["mAP"] == pytest.approx(np.mean(precision), abs=1e-6)
    assert facts["f1_macro"] == pytest.approx(np.mean(f1), abs=1e-6)
    assert facts["f1_micro"] == pytest.approx(f1_score(truth, p >= 0.5), abs=1e-6)
    assert facts["loss"] == pytest.approx(-np.where(truth == 1, np.log(p), np.log(1 - p)).mean(), rel=1e-5)
    assert facts["ranking_precision"] == pytest.approx(MultiLabel().scores(scores, labels).mean())


def test_metrics_of_resampled_images_are_those_of_images_that_come_as_often() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (9, 4)).astype(np.float32) / 5  # with equal ones
    labels = rng.integers(-1, 2, (9, 4)).astype(np.int8)
    labels[:, 3] = rng.permutation([1, 0, 0, 0, 0, 0, 0, 0, NOT_KNOWN])
    times = np.concatenate([rng.multinomial(9, np.full(9, 1 / 9), size=60), np.eye(9, dtype=np.int64)])
    task, names = MultiLabel(), list("abcd")
    columns = {"probabilities": scores.tolist()}
    found = task.resampled(columns, labels, 4, times)
    rows = [np.repeat(np.arange(9), own) for own in times]
    expected = [task.measure(scores[own], labels[own], names)["mAP"] for own in rows]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert any((labels[own] == 1).any(axis=0).sum() < 4 for own in rows) and min(expected) == 0.0


def test_scores_per_image_equal_the_ranking_precision_of_scikit_learn(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = predicted
    found = MultiLabel().scores(scores, labels)
    assert len(found) == 59, "the image of which nothing is known has no score"
    for value, row, own in zip(found, scores[1:], labels[1:], strict=True):
        known = own != NOT_KNOWN
        assert value == pytest.approx(label_ranking_average_precision_score(own[None, known], row[None, known]))


def test_each_class_is_present_from_its_own_threshold_on(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = predicted
    limits = (0.12, 0.33, 0.5, 0.72, 0.93)
    task = MultiLabel().with_decision(Decision(thresholds=limits))
    facts, (row, *_) = task.measure(scores, labels, CLASSES), task.rows(scores, CLASSES, 1)
    known = labels != NOT_KNOWN
    decided = scores >= np.array(limits)
    f1 = [f1_score(labels[known[:, k], k], decided[known[:, k], k], zero_division=0) for k in range(5)]
    assert facts["thresholds"] == limits and facts["mAP"] == MultiLabel().measure(scores, labels, CLASSES)["mAP"]
    assert facts["f1_macro"] == pytest.approx(np.mean(f1), abs=1e-6)
    assert facts["f1_micro"] == pytest.approx(f1_score(labels[known], decided[known]), abs=1e-6)
    order = np.argsort(-scores[0], kind="stable")
    assert row["classes"] == [CLASSES[order[0]]] and row["probabilities"] == pytest.approx([scores[0].max()])
    assert row["present"] == [CLASSES[k] for k in order if scores[0, k] >= limits[k]]
    assert task.columns(scores, None)["prediction"] == [np.flatnonzero(each).tolist() for each in decided]


IMAGES = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([-1, 0, 1])), min_size=1, max_size=12)
"""Probabilities in eighths, so that many are equal, each with a label."""


def blended_f1(images: list[tuple[int, int]], threshold: float) -> Fraction:
    """F1 of the rule, exactly, one image at a time."""
    positives = sum(label == 1 for _, label in images)
    weight = Fraction(positives) / (positives + Fraction(PRIOR))
    right = wanted = predicted = Fraction(0)
    for eighths, label in images:
        present = weight * (label == 1) + (1 - weight) * Fraction(eighths, 8)
        wanted += present
        if eighths / 8 >= threshold:
            right += present
            predicted += weight * (label >= 0) + (1 - weight)
    return 2 * right / (wanted + predicted) if wanted + predicted else Fraction(0)


@given(IMAGES)
def test_no_other_threshold_has_a_larger_f1(images: list[tuple[int, int]]) -> None:
    scores = np.array([[eighths / 8] for eighths, _ in images], np.float32)
    (found,) = MultiLabel().decide(scores, np.array([[label] for _, label in images], np.int8)).thresholds or ()
    best = max(blended_f1(images, cut / 16) for cut in range(18))
    assert 0.0 <= found <= 1.0
    assert float(blended_f1(images, found)) == pytest.approx(float(best), abs=1e-12)

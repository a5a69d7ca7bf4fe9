"""Probabilities of which only the classes with mass are kept: what is kept, what files hold, what follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax

from gpt4image.artifacts import top_k_probs
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.artifacts.top_k_probs import MOST, TopKProbs, built, chosen, mapped, scattered, two_best, zeros
from gpt4image.base.errors import TableError
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.label_noise import suspected_errors
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.text_classifier import Texts, unit
from gpt4image.tasks.classification import Classification
from gpt4image.training.targets import class_targets, explained

N, K = 300, 60


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything counts as large, and is computed in small blocks."""
    monkeypatch.setattr(top_k_probs, "DENSE_CELLS", 0)
    monkeypatch.setattr(top_k_probs, "BLOCK_CELLS", 7 * K)


def softmaxes(seed: int, sharpness: float) -> np.ndarray:
    """Rows of probabilities, some of them of zeros."""
    found = softmax(sharpness * np.random.default_rng(seed).normal(size=(N, K)), axis=1).astype(np.float32)
    found[::11] = 0.0
    return found


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 40.0])
def test_the_classes_with_mass_are_kept_and_the_others_share_the_rest(few: None, sharpness: float) -> None:
    dense = softmaxes(0, sharpness)
    shares = built(N, K, lambda rows: dense[rows])
    assert isinstance(shares, TopKProbs) and shares.shape == dense.shape and len(shares) == N
    np.testing.assert_allclose(shares[:].sum(axis=1), dense.sum(axis=1), atol=1e-6)
    assert np.array_equal(shares.max(axis=1), dense.max(axis=1)) and np.array_equal(shares.any(), dense.any(axis=1))
    assert np.array_equal(shares.argmax(axis=1), dense.argmax(axis=1))
    rank = np.argsort(np.argsort(-dense, axis=1, kind="stable"), axis=1)
    kept = shares[:] == dense
    assert kept[rank < 1].all() and (sharpness > 1 or kept[(rank < MOST) & dense.any(axis=1, keepdims=True)].all())
    lost = np.abs(shares[:] - dense).max(axis=1)
    assert (lost <= np.sort(dense, axis=1)[:, -MOST - 1] + top_k_probs.LEFT).all()
    rows, classes = np.arange(N), np.random.default_rng(1).integers(K, size=N)
    assert np.array_equal(shares[rows, classes], shares[:][rows, classes])
    assert np.array_equal(shares[5], shares[:][5]) and np.array_equal(shares[3:9], shares[:][3:9])
    np.testing.assert_array_equal(mapped(shares, lambda found, _: found.sum(axis=1)), shares[:].sum(axis=1))
    np.testing.assert_array_equal(two_best(shares)[1], two_best(shares[:])[1])
    again = scattered(chosen(shares, rows[5:]), rows[5:], N)
    assert not again.any()[:5].any() and np.array_equal(again[5:], shares[5:])
    with pytest.raises(TypeError, match="blocks of rows"):
        np.asarray(shares)


def test_small_tables_and_few_classes_stay_plain_arrays() -> None:
    assert isinstance(zeros(10, 1000), np.ndarray) and isinstance(zeros(1_000_000, 10), np.ndarray)
    large = zeros(20_000, 2_000)
    assert isinstance(large, TopKProbs) and large.values.nbytes + large.classes.nbytes < 3e6


def saved_targets(probabilities: np.ndarray | TopKProbs) -> Targets:
    names = tuple(f"class {k}" for k in range(K))
    facts = Facts(classes=names, noise=0.0, agreement=None, c=None, folds=0, seed=0, encoders=("minilm",))
    return Targets(
        keys=tuple(map(str, range(N))),
        digests=tuple(f"{row:064x}" for row in range(N)),
        splits=np.full(N, "train"),
        labels=np.where(np.arange(N) % 3, -1, np.arange(N) % K),
        probabilities=probabilities,
        out_of_fold=np.arange(N) % 3 == 0,
        facts=facts,
    )


@pytest.mark.parametrize("sharpness", [0.5, 40.0])
def test_a_file_of_text_labels_holds_the_few_classes(few: None, tmp_path: Path, sharpness: float) -> None:
    dense = softmaxes(2, sharpness)
    written = saved_targets(built(N, K, lambda rows: dense[rows]))
    written.save(tmp_path / "few.parquet")
    saved_targets(dense).save(tmp_path / "all.parquet")
    read = Targets.load(tmp_path / "few.parquet")
    assert np.array_equal(read.probabilities[:], written.probabilities[:])
    assert np.array_equal(read.doubt, written.doubt, equal_nan=True)
    best, _ = two_best(read.probabilities)
    assert (best[:, 0] != best[:, 1]).all()
    assert np.array_equal(Targets.load(tmp_path / "all.parquet").probabilities, dense)
    some = read.of(["f" * 64, f"{7:064x}"])
    assert not some[0].any() and np.array_equal(some[1], read.probabilities[7])
    table = pq.read_table(tmp_path / "few.parquet")
    at = table.column_names.index("rest")
    pq.write_table(table.set_column(at, "rest", [[0.5] * N]), tmp_path / "few.parquet")
    with pytest.raises(TableError, match="does not match its checksum"):
        Targets.load(tmp_path / "few.parquet")


def test_a_teacher_of_many_classes_says_what_it_says_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    true, total = rng.integers(K, size=180), 180
    centres = rng.normal(size=(K, 24))
    vectors = unit((centres[true] + 0.6 * rng.normal(size=(total, 24))).astype(np.float32))
    labels = np.where(rng.random(total) < 0.3, true, -1)
    first = np.where(rng.random(total) < 0.8, true, (true + 1) % K)
    answers = Answers(first, np.full(total, -1), np.full(total, 0.8, np.float32))
    texts, task = Texts(vectors, np.ones(total, bool), unit(centres.astype(np.float32))), Classification()

    def everything() -> tuple[np.ndarray, np.ndarray, dict[str, float], set[int]]:
        found = predict_labels(texts, labels, K, 0, answers=answers)
        explains = explained(found.probabilities, labels, found.out_of_fold)
        targets = class_targets(task, found.probabilities, labels, found.noise, explains)
        measured = task.measure(found.probabilities, true, [str(k) for k in range(K)])
        wrong = suspected_errors(found.probabilities, labels, found.out_of_fold)
        assert task.has_target(labels, targets).all() and isinstance(found.probabilities, type(targets))
        numbers = {name: measured[name] for name in ("top1", "top5", "ece")}
        return found.probabilities[:], targets[:], numbers, set(wrong[:, 0].tolist())

    dense = everything()
    monkeypatch.setattr(top_k_probs, "DENSE_CELLS", 0)
    monkeypatch.setattr(top_k_probs, "BLOCK_CELLS", 100 * K)
    few = everything()
    for found, expected in zip(few[:2], dense[:2], strict=True):
        moved = np.abs(found - expected).sum(axis=1) / 2  # part of an image's probability that lies elsewhere
        assert moved.mean() < 0.01 and (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
    assert few[2] == pytest.approx(dense[2], abs=0.01) and len(few[3] ^ dense[3]) <= 2

"""Probabilities: arrays in memory or mapped from a file, what files keep of them, and what follows from blocks."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax

from gpt4image.artifacts import probabilities
from gpt4image.artifacts.probabilities import KEPT, allocate, concat, from_blocks, map_blocks, scatter, take, two_best
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.noise import suspected_errors
from gpt4image.labelling.sources import predict_labels
from gpt4image.labelling.texts import Texts, unit
from gpt4image.tasks.classification import Classification
from gpt4image.training.targets import class_targets, explained

N, K = 300, 60


def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything counts as large from now on: it is mapped from files, and computed in small blocks."""
    monkeypatch.setattr(probabilities, "IN_MEMORY", 0)
    monkeypatch.setattr(probabilities, "AT_ONCE", 0)
    monkeypatch.setattr(probabilities, "BLOCK_CELLS", 7 * K)


def softmaxes(seed: int, sharpness: float) -> np.ndarray:
    """Rows of probabilities, some of them of zeros."""
    found = softmax(sharpness * np.random.default_rng(seed).normal(size=(N, K)), axis=1).astype(np.float32)
    found[::11] = 0.0
    return found


def test_what_lies_in_a_file_is_read_as_what_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, rows = softmaxes(0, 3.0), np.arange(0, N, 3)
    plain = [take(dense, rows), scatter(dense[rows], rows, N, np.nan), concat([dense[:9], dense[9:]]), *two_best(dense)]
    large(monkeypatch)
    found = from_blocks(N, K, lambda some: dense[some])
    assert isinstance(found.base, np.memmap) and np.array_equal(found, dense) and not allocate(4, 3).any()
    mapped = [
        take(found, rows),
        scatter(found[rows], rows, N, np.nan),
        concat([found[:9], found[9:]]),
        *two_best(found),
    ]
    for ours, theirs in zip(mapped, plain, strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)
    assert np.array_equal(take(found, np.arange(N) % 7 == 3), dense[3::7])
    np.testing.assert_array_equal(map_blocks(found, lambda some, _: some.sum(axis=1)), dense.sum(axis=1))


def test_a_full_disk_is_told_when_the_file_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "IN_MEMORY", 0)
    with pytest.raises(OSError, match=r"No space left|File too large|Invalid argument"):
        allocate(2**40, 2**10)


def saved_targets(found: np.ndarray) -> Targets:
    names = tuple(f"class {k}" for k in range(found.shape[1]))
    facts = Facts(classes=names, noise=0.0, agreement=None, c=None, folds=0, seed=0, encoders=("minilm",))
    return Targets(
        keys=tuple(map(str, range(N))),
        digests=tuple(f"{row:064x}" for row in range(N)),
        splits=np.full(N, "train"),
        labels=np.where(np.arange(N) % 3, -1, np.arange(N) % found.shape[1]),
        probabilities=found,
        out_of_fold=np.arange(N) % 3 == 0,
        facts=facts,
    )


@pytest.mark.parametrize("sharpness", [0.5, 40.0])
def test_a_file_holds_the_best_classes_and_the_others_share_the_rest(tmp_path: Path, sharpness: float) -> None:
    dense = softmaxes(2, sharpness)
    saved_targets(dense).save(tmp_path / "few.parquet")
    assert {"classes", "probabilities"} <= set(pq.read_schema(tmp_path / "few.parquet").names)
    found = Targets.load(tmp_path / "few.parquet").probabilities
    kept = np.argsort(np.argsort(-dense, axis=1, kind="stable"), axis=1) < KEPT
    assert np.array_equal(found[kept], dense[kept])
    np.testing.assert_allclose(found.sum(axis=1), dense.sum(axis=1), atol=1e-6)
    assert (found.argmax(axis=1) == dense.argmax(axis=1)).all() and not found[::11].any()
    few = np.ascontiguousarray(dense[:, :KEPT])
    saved_targets(few).save(tmp_path / "all.parquet")
    assert np.array_equal(Targets.load(tmp_path / "all.parquet").probabilities, few)


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
    large(monkeypatch)
    few = everything()
    for found, expected in zip(few[:2], dense[:2], strict=True):
        moved = np.abs(found - expected).sum(axis=1) / 2  # part of an image's probability that lies elsewhere
        assert moved.mean() < 0.01 and (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
    assert few[2] == pytest.approx(dense[2], abs=0.01) and len(few[3] ^ dense[3]) <= 2

"""Several labels per image: predicted class by class, kept in the file, shown, and made into targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gpt4image.artifacts.targets import Targets
from gpt4image.base.outcome import Outcome
from gpt4image.comparing.arms import Situation, training_data
from gpt4image.config import LabelConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.data import load_dataset
from gpt4image.labelling.label import label
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.teaching import predict_training, targets_of
from gpt4image.labelling.text_vectors import Texts, unit
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.prepare import prepare
from tables import make_table

CLASSES = ("hat", "<b>bag</b>", "belt")


def corpus(n: int, seed: int = 0, noise: float = 0.2) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Presence of three classes (n, 3), and texts that mention what is present: (n, 16)."""
    rng = np.random.default_rng(seed)
    present = (rng.random((n, 3)) < 0.4).astype(np.int8)
    return present, unit(present @ np.eye(3, 16) + noise * rng.standard_normal((n, 16)) + np.eye(16)[15])


def texts(vectors: NDArray[np.float32], described: NDArray[np.bool_] | None = None) -> Texts:
    return Texts(vectors, np.ones(len(vectors), bool) if described is None else described)


def hidden(labels: NDArray[np.int8], kept: int) -> NDArray[np.int8]:
    return np.where(np.arange(len(labels))[:, None] < kept, labels, np.int8(-1))


def test_few_labels_tell_the_classes_of_the_rest_and_names_help() -> None:
    true, vectors = corpus(300, noise=0.5)
    given = hidden(true, 12)
    names = np.eye(3, 16, dtype=np.float32)
    plain = predict_labels(texts(vectors), given, 3, 0)
    named = predict_labels(Texts(vectors, np.ones(300, bool), names), given, 3, 0)

    def score(probabilities: NDArray[np.float32]) -> float:
        return MultiLabel().measure(probabilities[12:], true[12:], CLASSES)["mAP"]

    assert score(named.probabilities) > score(plain.probabilities) + 0.02 > 0.6, "chance is 0.4"
    assert named.names > 0.5 and plain.names == 0 and plain.noise.rate == 0
    assert plain.out_of_fold.shape == given.shape and not plain.out_of_fold[12:].any()
    assert plain.agreement is not None and plain.agreement > 0.6


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """60 pictures of a manifest, a table that tells their classes, and one wrong label: 05.png has no hat."""
    true, vectors = corpus(60, seed=3, noise=0.1)
    true[5] = [0, 1, 0]
    vectors[5] = unit((np.eye(16)[1] + np.eye(16)[15])[None])[0]
    rows = ["path,labels,split"]
    for i, present in enumerate(true):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{i:02}.png")
        names = "|".join(name for name, there in zip(CLASSES, present, strict=True) if there) + "|"
        given = "" if 30 <= i < 40 else f"hat|{names}" if i == 5 else names
        rows.append(f"{i:02}.png,{given},{'train' if i < 40 else 'val' if i < 50 else 'test'}")
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    spec = f"manifest:{tmp_path / 'set.csv'}"
    images = load_dataset(spec)
    number = [int(Path(key).stem) for key in images.keys]
    make_table(tmp_path / "table", {d: [vectors[i]] for i, d in zip(number, images.digests, strict=True)})
    return spec


def run(spec: str, folder: Path, **options: object) -> Outcome:
    given = {"data": spec, "embeddings": folder / "table", "out": folder / "labels.parquet", **options}
    return label(LabelConfig.model_validate(given))


def test_label_writes_shows_and_measures_them(spec: str, tmp_path: Path) -> None:
    outcome = run(spec, tmp_path)
    found = Targets.load(tmp_path / "labels.parquet")
    assert (found.facts.task, found.labels.shape, found.labels.dtype) == ("multilabel", (60, 3), np.int8)
    assert found.classes == tuple(sorted(CLASSES)) and found.out_of_fold.sum() == 90
    assert (found.labels[found.splits != "train"] == -1).all()
    assert outcome.summary["labelled"] == 30 and outcome.summary["classes_without_label"] == 0
    assert outcome.summary["val_mAP"] > 0.9 and outcome.summary["cross_validated_mAP"] > 0.8
    assert 0.3 < outcome.summary["labels_explained"] < 1 and outcome.summary["calibration_error"] < 0.3
    row = found.keys.index(next(key for key in found.keys if key.endswith("05.png")))
    assert found.doubt[row, found.classes.index("hat")] == np.nanmax(found.doubt) > 0.5
    assert outcome.summary["suspected"] >= 1
    assert "hat: present" in outcome.text and "hat: absent" in outcome.text
    page = (tmp_path / "labels.html").read_text(encoding="utf-8")
    assert "hat: present" in page and "<dt>predicted</dt><dd><bdi>hat: absent</bdi>" in page and "<b>bag" not in page


def test_the_arms_of_a_comparison_are_taught_by_texts_and_by_the_baseline(spec: str, tmp_path: Path) -> None:
    config = TrainConfig(data=spec, out=tmp_path, image_size=16, batch_size=4, embeddings=tmp_path / "table")
    data = prepare(config).data
    train = data.indices("train")
    found = predict_training(data, 0, None)
    assert found.probabilities.shape == found.out_of_fold.shape == (len(train), 3)
    given = Situation(
        data=data,
        true_labels=data.labels,
        class_names=None,
        targets=lambda: targets_of(found, data, None),
        teacher=lambda indices: np.full((len(indices), 3), 0.3, np.float32),
        seed=0,
    )
    for arm, expected in (("text-labels", found.probabilities), ("self-training", np.full((len(train), 3), 0.3))):
        soft = training_data(ARMS[arm], given).soft
        assert soft is not None and np.isnan(np.delete(soft, train, axis=0)).all()
        has = data.image_set.labelled[train]
        assert soft[train][~has] == pytest.approx(expected[~has], abs=1e-6)
        assert soft[train][has] == pytest.approx((expected[has] + data.labels[train][has]) / 2, abs=1e-6)

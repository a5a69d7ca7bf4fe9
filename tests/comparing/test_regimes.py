"""Regimes: what they take away is drawn per seed, lies in train alone, and is named by the folder of the runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.errors import DataError
from gpt4image.comparing.regimes import Regime
from gpt4image.config import CompareConfig, TrainConfig
from gpt4image.data import NO_LABEL
from gpt4image.training.prepare import prepare
from gpt4image.training.training_data import TrainingData
from tables import make_table


@pytest.fixture
def data(colour_folder: Path, tmp_path: Path) -> TrainingData:
    config = TrainConfig(data=f"folder:{colour_folder}", out=tmp_path, image_size=16, batch_size=4)
    digests = prepare(config).data.image_set.digests
    make_table(tmp_path / "table", {digest: [np.eye(4, dtype=np.float32)[0]] for digest in digests[:-3]})
    return prepare(config.model_copy(update={"embeddings": tmp_path / "table"})).data


def test_labels_left_touch_train_alone_and_depend_on_the_seed(data: TrainingData) -> None:
    train = data.indices("train")
    kept = Regime(labels_per_class=2).apply(data, seed=0).labels
    assert np.bincount(kept[train][kept[train] != NO_LABEL]).tolist() == [2, 2, 2]
    wrong = Regime(label_noise=0.25).apply(data, seed=0).labels
    assert (wrong[train] != data.labels[train]).sum() == round(0.25 * len(train))
    for labels in (kept, wrong):
        others = np.setdiff1d(np.arange(len(data.labels)), train)
        assert np.array_equal(labels[others], data.labels[others])
    assert not np.array_equal(Regime(labels_per_class=2).apply(data, seed=1).labels, kept)
    both = Regime(labels_per_class=4, label_noise=0.5).apply(data, seed=0).labels[train]
    assert (both != NO_LABEL).sum() == 12
    assert (both != data.labels[train])[both != NO_LABEL].sum() == 6


def test_class_dependent_noise_takes_each_class_for_one_other(data: TrainingData) -> None:
    train = data.indices("train")
    labels = Regime(label_noise=0.5, noise_kind="class-dependent").apply(data, seed=0).labels[train]
    wrong = labels != data.labels[train]
    assert wrong.sum() == round(0.5 * len(train))
    pairs = set(zip(data.labels[train][wrong].tolist(), labels[wrong].tolist(), strict=True))
    assert len(pairs) == len({true for true, _ in pairs}) == len({taken for _, taken in pairs}) == 3


def test_labels_are_drawn_from_described_images(data: TrainingData) -> None:
    assert data.text is not None
    train = data.indices("train")
    few = np.concatenate([train[data.labels[train] == label][:4] for label in range(3)])
    sparse = replace(data, text=data.text.of_others(few, few))
    kept = Regime(labels_per_class=3).apply(sparse, seed=0).labels
    assert np.isin(train[kept[train] != NO_LABEL], few).all()


def test_noise_that_flips_no_label_is_refused(data: TrainingData) -> None:
    with pytest.raises(
        DataError, match=r"--label-noise 0\.01 of 36 labels in train is not one wrong .* at least 0\.028"
    ):
        Regime(label_noise=0.01).apply(data, seed=0)
    with pytest.raises(DataError, match=r"of 6 labels in train .* at least 0\.17, or leave it out"):
        Regime(labels_per_class=2, label_noise=0.05).apply(data, seed=0)
    left = Regime(labels_per_class=2, label_noise=0.17).apply(data, seed=0)
    train = left.indices("train")
    assert (left.labels[train] != data.labels[train])[left.labels[train] != NO_LABEL].sum() == 1


def test_names_tell_regimes_apart(tmp_path: Path) -> None:
    config = CompareConfig(
        data="folder:x", out=tmp_path, labels_per_class=5, label_noise=0.4, noise_kind="class-dependent",
    )  # fmt: skip
    regime = Regime.of(config)
    assert regime.name == "5-labels-0.4-wrong-by-class" and regime.scarce
    assert regime.asked == "--labels-per-class 5 --label-noise 0.4 --noise-kind class-dependent"
    assert Regime(label_noise=0.1234567).name != Regime(label_noise=0.1234568).name, "no two numbers share runs"
    assert Regime().asked == "" and Regime().name == "all-labels" and not Regime().scarce

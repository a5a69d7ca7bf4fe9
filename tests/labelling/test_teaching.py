"""Text labels of what a run reads: of training images alone, as the options say."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.artifacts.targets import Targets, load_targets
from gpt4image.base.errors import ConfigError, TableError
from gpt4image.base.files import read_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.planning import Regime
from gpt4image.config import CompareConfig, LabelConfig, TrainConfig
from gpt4image.data import load_dataset
from gpt4image.labelling.evidence import AnsweredBoxes
from gpt4image.labelling.label import label
from gpt4image.labelling.teaching import answers_about, predict_training, targets_of, taught_boxes
from gpt4image.training.prepare import prepare
from gpt4image.training.targets import check_fitting, with_file
from gpt4image.training.train import train
from gpt4image.training.training_data import TrainingData
from tables import made_of, make_table
from worlds import COLOURS, NAMES, answer_squares, write_squares


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Two tables that give the class away: one of all images, one of those at even places."""
    images = load_dataset(f"folder:{colour_folder}")
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[images.labels] + rng.normal(0, 0.2, (len(images), 8))
    narrow = np.eye(3)[images.labels] + rng.normal(0, 0.2, (len(images), 3))
    digests = list(enumerate(images.digests))
    make_table(tmp_path / "all", {digest: [vectors[i]] for i, digest in digests})
    make_table(tmp_path / "half", {digest: [narrow[i]] for i, digest in digests[::2]})
    return {"all": tmp_path / "all", "half": tmp_path / "half"}


def options(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": f"folder:{folder}", "out": out, "image_size": 16, "batch_size": 4, **changes})


def text_targets(data: TrainingData, seed: int) -> NDArray[np.float32]:
    return targets_of(predict_training(data, seed, None), data, None)


def test_text_targets_read_nothing_outside_train(colour_folder: Path, described: dict[str, Path], tmp_path: Path):
    config = options(colour_folder, tmp_path, embeddings=described["all"])
    data = prepare(config).data
    train = data.indices("train")
    left = Regime(labels_per_class=2).apply(data, seed=0)
    targets = text_targets(left, seed=0)
    assert not np.delete(targets, train, axis=0).any()
    assert (targets[train].argmax(1) == data.labels[train]).mean() > 0.9
    changed = left.labels.copy()
    changed[np.setdiff1d(np.arange(len(changed)), train)] = 0
    assert np.array_equal(text_targets(replace(left, labels=changed), seed=0), targets)


def file_of(data: TrainingData, path: Path, learned: Sequence[int] = (), classes: Iterable[str] = COLOURS) -> Path:
    """Text labels of all images, of which the first is unsure; the labels of those ``learned`` were read."""
    labels = data.image_set.labels
    probabilities = (0.8 * np.eye(3)[labels] + 0.2 / 3).astype(np.float32)
    probabilities[0] = 1 / 3
    found = made_of(data.image_set, tuple(classes), probabilities)
    read = np.where(np.isin(np.arange(len(labels)), learned), labels, -1)
    replace(found, labels=read, out_of_fold=np.zeros(len(labels), bool)).save(path)
    return path


def test_a_file_is_used_as_the_run_says(colour_folder: Path, tmp_path: Path):
    config = options(colour_folder, tmp_path)
    data = prepare(config).data
    path = file_of(data, tmp_path / "labels.parquet")

    def soft(**changes: Any) -> NDArray[np.float32]:
        asked = config.model_copy(update={"targets": path, **changes})
        labels = Targets.load(asked.targets or path)
        check_fitting(labels, asked, data.image_set, data.task)
        found = with_file(data, asked, labels).soft
        assert found is not None
        return found

    own = np.eye(3)[data.image_set.labels]
    assert soft() == pytest.approx(own), "how much the texts explain is not known"
    assert soft(label_trust=0.5)[1:] == pytest.approx(0.9 * own[1:] + 0.1 / 3, abs=1e-6)
    with pytest.raises(TableError, match=r"lacks the classes .blue., .green., .red. of the dataset"):
        soft(targets=file_of(data, tmp_path / "other.parquet", classes=("a", "b", "c")))


def test_a_file_that_learned_from_labels_that_a_run_holds_out_is_refused(
    colour_folder: Path, described: dict[str, Path], tmp_path: Path
):
    asked = {"data": f"folder:{colour_folder}", "val_fraction": 0.2, "test_fraction": 0.2}
    for table in described:
        label(LabelConfig(**asked, embeddings=described[table], out=tmp_path / f"{table}.parquet"))

    def prepared(labels: str, **changes: Any) -> TrainingData:
        config = options(colour_folder, tmp_path, targets=tmp_path / f"{labels}.parquet", **asked)
        return prepare(TrainConfig.model_validate({**config.model_dump(), **changes}), ("train", "val")).data

    assert prepared("all").soft is not None
    assert prepared("all", test_fraction=0.1).soft is not None  # nothing more is held out
    with pytest.raises(
        TableError, match=r"holds out: .*\d+ of its test split.*same --val-fraction and --test-fraction"
    ):
        prepared("all", test_fraction=0.6)
    with pytest.raises(TableError, match=r"holds out: \d+ of its val split\."):
        prepared("all", val_fraction=0.5)
    assert prepared("half", embeddings=described["half"], only_described=True).soft is not None
    with pytest.raises(TableError, match=r"on .*half.* alone \(--only-described\)"):
        prepared("all", embeddings=described["half"], only_described=True)


def test_a_copy_in_train_of_a_picture_that_is_held_out_is_no_leak(colour_folder: Path, tmp_path: Path):
    (colour_folder / "blue" / "copy.png").write_bytes((colour_folder / "blue" / "00.png").read_bytes())
    data = prepare(options(colour_folder, tmp_path)).data
    copies = [row for row, key in enumerate(data.image_set.keys) if key in ("blue/00.png", "blue/copy.png")]
    asked = options(colour_folder, tmp_path)
    labels = Targets.load(file_of(data, tmp_path / "labels.parquet", learned=copies[:1]))
    splits = np.full_like(data.image_set.splits, "train")
    splits[copies] = "test"
    with pytest.raises(TableError, match="1 of its test split"):
        check_fitting(labels, asked, data.image_set.revised(splits=splits), data.task)
    splits[copies[1]] = "train"
    check_fitting(labels, asked, data.image_set.revised(splits=splits), data.task)


PLAIN: dict[str, Any] = {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
PLAIN |= {"image_size": 32, "batch_size": 4, "epochs": 1, "precision": "fp32", "device": "cpu"}


def box_options(spec: str, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": spec, "out": out, **PLAIN, "val_fraction": 0.3, **changes})


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, Path]:
    spec = write_squares(tmp_path / "set")
    return spec, answer_squares(spec, tmp_path / "a.db")


def test_the_teacher_of_an_arm_sees_the_boxes_that_are_left(given: tuple[str, Path], tmp_path: Path) -> None:
    spec, store = given
    data = prepare(box_options(spec, tmp_path)).data
    left = Regime(labels_per_class=2).apply(data, seed=0)
    answers = answers_about(left, store)
    assert isinstance(answers, AnsweredBoxes)
    boxes = taught_boxes(left, 0, None, answers, "fused")
    train, others = data.indices("train"), np.flatnonzero(data.image_set.splits != "train")
    assert boxes.known[train].all() and left.labels.known[train].sum() == 6
    assert boxes[others].content() == left.labels[others].content()
    for image in train:
        corners, labels, weights = boxes.image(image)
        true = data.labels.image(image)
        assert np.array_equal(labels[weights > 0], true[1]) and np.allclose(corners[weights > 0], true[0], atol=0.001)
        assert len(labels) == (1 if left.labels.known[image] else 2)
    raw = taught_boxes(left, 0, None, answers, "answers")
    assert (raw.weights[raw.places(train)] == 1).all() and len(raw.labels) > len(boxes.only(boxes.weights > 0).labels)


@pytest.mark.slow
def test_arms_of_boxes_are_compared(given: tuple[str, Path], tmp_path: Path, runs_here: None) -> None:
    spec, store = given
    arms = "baseline,asked,fused,oracle"
    common = {"data": spec, "answers": store, "arms": arms, "labels_per_class": 2, "seeds": 1, "jobs": 1, **PLAIN}
    outcome = compare(CompareConfig(**common, out=tmp_path / "cmp", val_fraction=0.3))
    record = read_json(tmp_path / "cmp" / "comparison.json")
    assert record["metric"] == "mAP" and set(record["arms"]) == set(arms.split(","))
    assert all("AP50" in arm["metrics"] for arm in record["arms"].values())
    assert record["arms"]["fused"]["description"] == "answered boxes as the annotators would draw them"
    assert outcome.skipped == ()
    with pytest.raises(ConfigError, match="zero-shot needs a task of classes"):
        compare(CompareConfig(**{**common, "arms": "zero-shot"}, out=tmp_path / "other", val_fraction=0.3))


def test_a_file_of_boxes_is_enough_where_nobody_drew_any(given: tuple[str, Path], tmp_path: Path) -> None:
    _, store = given
    data = f"folder:{tmp_path / 'set' / 'images'}"
    file = tmp_path / "boxes.parquet"
    label(LabelConfig(data=data, task="detection", classes=",".join(NAMES), answers=store, out=file))
    found = prepare(box_options(data, tmp_path / "run", targets=file))
    train_rows = found.data.indices("train")
    assert found.config.task == "detection" and found.data.labels.known[train_rows].all()
    assert not np.delete(found.data.labels.known, train_rows).any(), "others are held out"
    made = load_targets(file)
    fewer = replace(made, boxes=made.boxes.only(made.boxes.image_of > 0))
    fewer.save(tmp_path / "fewer.parquet")
    assert prepare(box_options(data, tmp_path, targets=tmp_path / "fewer.parquet")).fingerprint != found.fingerprint
    summary = train(box_options(data, tmp_path / "run", targets=file)).facts
    assert summary["labelled"] == 0 and summary["described"] == summary["train_images"]

"""What a run reads, joined by content, and what its model says of images, in batches of any size."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file

from gpt4image.artifacts import runs
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import DataError, ModelError, RunError, TableError
from gpt4image.base.files import read_json
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.data import load_dataset
from gpt4image.data.pixels import KeptFeatures, MemoryPixels
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.models.weights import load_tensors
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training import linear_start, trainer
from gpt4image.training import run_model as predictions
from gpt4image.training.prepare import prepare, with_table
from gpt4image.training.run_model import TextSpace, load_run_model, options_of, read_text_space
from gpt4image.training.targets import Noise, class_targets, says_nothing
from gpt4image.training.train import train
from gpt4image.training.trainer import idle_options
from gpt4image.training.training_data import TextTargets
from models.small_models import small_resnet
from small_training import SMALL, resumed, same
from tables import made_of, make_table
from training.cases import WIDTH


def table_for(folder: Path, out: Path, *, every: int = 1, width: int = 4) -> Path:
    images = load_dataset(f"folder:{folder}")
    rng = np.random.default_rng(0)
    make_table(out, {digest: rng.normal(size=(1, width)) for digest in images.digests[::every]})
    return out


def options(folder: Path, **changes: object) -> TrainConfig:
    return TrainConfig(data=f"folder:{folder}", out=folder / "run", image_size=16, batch_size=4, **changes)  # type: ignore[arg-type]


def test_only_described_drops_the_others_from_train_and_takes_validation_from_them(
    colour_folder: Path, tmp_path: Path
) -> None:
    table = table_for(colour_folder, tmp_path / "table", every=3)
    data = prepare(options(colour_folder, embeddings=table, only_described=True)).data
    train, val = data.indices("train"), data.indices("val")
    assert data.text is not None
    assert data.text.described[train].all() and len(val) > 0
    assert not data.text.described[val].any(), "there were enough undescribed images"


def test_a_table_of_other_images_is_refused(colour_folder: Path, tmp_path: Path) -> None:
    make_table(tmp_path / "table", {"0" * 64: np.ones((1, 4))})
    message = "None of the 36 training images of folder:.* the table is of other images"
    with pytest.raises(TableError, match=message):
        prepare(options(colour_folder, embeddings=tmp_path / "table"))
    with pytest.raises(TableError, match=message):
        with_table(prepare(options(colour_folder)), tmp_path / "table")


def test_a_finished_run_may_be_asked_about_any_images(colour_folder: Path, tmp_path: Path) -> None:
    rows = [f"{path.parent.name}/{path.name},{path.parent.name},test" for path in sorted(colour_folder.rglob("*.png"))]
    (colour_folder / "all.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    asked = options(colour_folder).model_copy(
        update={"data": f"manifest:{colour_folder / 'all.csv'}", "select": "best"}
    )
    with pytest.raises(DataError, match=r"no image is in train \(train 0, val 0, test 48\); there is nothing to"):
        prepare(asked)
    assert len(prepare(asked, ("test",), to_train=False).data.indices("test")) == 48


COUNTS = hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, 3))


def some_targets(counts: np.ndarray, seed: int = 0) -> TextTargets:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return TextTargets(
        matrix=rng.normal(size=(10, 3)).astype(np.float16), offsets=offsets, rows=rng.integers(0, 10, offsets[-1])
    )


@given(counts=COUNTS, seed=st.integers(0, 5))
def test_targets_are_the_mean_of_an_images_own_texts(counts: np.ndarray, seed: int) -> None:
    targets = some_targets(counts, seed)
    batch = np.random.default_rng(seed).integers(0, len(counts), 12)
    vectors, described, identity = targets.take(batch)
    for position, image in enumerate(batch):
        first, end = targets.offsets[image : image + 2]
        own = targets.matrix[targets.rows[first:end]].astype(np.float32)
        assert bool(described[position]) == (len(own) > 0)
        assert np.allclose(vectors[position], own.mean(0) if len(own) else np.zeros(3), atol=1e-6)
        assert int(identity[position]) == (targets.rows[first:end].min() if len(own) else -1)


CLASSES = Classification()


def test_the_share_of_a_label_in_its_target_follows_from_what_texts_explain():
    text = np.array([[0.7, 0.2, 0.1]] * 2 + [[0, 0, 0], [1, 0, 0]], np.float32)
    labels = np.array([-1, 1, 2, 1])
    half, alone = class_targets(CLASSES, text, labels, Noise(), 0.8), class_targets(CLASSES, text, labels, Noise(), 0.3)
    assert half[:3] == pytest.approx(np.array([[0.7, 0.2, 0.1], [0.35, 0.6, 0.05], [0, 0, 1]]))
    assert class_targets(CLASSES, text, labels, Noise(), 0.8, trust=1.0)[1].tolist() == [0, 1, 0]
    doubted = class_targets(CLASSES, text, labels, Noise(rate=0.4), 0.1)
    assert doubted[1] == pytest.approx(np.array([0.7 * 0.2, 0.2 * 0.6, 0.1 * 0.2]) / 0.28)
    assert alone[:2] == pytest.approx(np.array([[0.7, 0.2, 0.1], [0, 1, 0]])), "they say little"
    assert class_targets(CLASSES, text, labels, Noise(), None) == pytest.approx(alone), "not known is not enough"
    assert class_targets(CLASSES, text, labels, Noise(), 0.3, trust=0.5)[1] == pytest.approx([0.35, 0.6, 0.05])
    nothing = class_targets(CLASSES, text, labels, Noise(), 0.01, silent=True)
    assert nothing[:2].tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("sure", "agree", "more", "expected"),
    [
        (0.34, 10, {}, True),
        (0.7, 22, {}, False),  # they explain labels
        (0.95, 17, {}, False),  # they agree by more than chance, and are too sure to explain anything
        (0.34, 10, {"trust": 1.0}, False),
        (0.34, 10, {"rate": 0.3}, False),
        (0.34, 10, {"held_out": 0}, False),
    ],
)
def test_texts_say_nothing_that_explain_no_label_and_agree_as_by_chance(
    sure: float, agree: int, more: dict[str, Any], expected: bool
):
    """Of 30 held-out labels of 3 classes, texts name ``agree``, all with probability ``sure``."""
    labels, held_out = np.arange(40) % 3, np.arange(40) < more.get("held_out", 30)
    named = np.where(np.arange(40) < agree, labels, (labels + 1 + np.arange(40) // 3 % 2) % 3)
    probabilities = np.full((40, 3), (1 - sure) / 2, np.float32)
    probabilities[np.arange(40), named] = sure
    noise = Noise(rate=more.get("rate", 0.0))
    assert says_nothing(CLASSES, probabilities, labels, held_out, noise, more.get("trust")) is expected
    several = np.array([[0, 1], [1, 0]] * 4)
    assert not says_nothing(MultiLabel(), np.full((8, 2), 0.5), several, several >= 0, Noise(), None)


def test_a_run_reads_no_text_labels_that_say_nothing_unless_it_is_told_to(colour_folder: Path, tmp_path: Path):
    images = load_dataset(f"folder:{colour_folder}")
    count = len(images)
    read = (images.splits == "train") & (np.arange(count) % 2 == 0)
    file = made_of(images, images.classes, np.full((count, 3), 1 / 3, np.float32))
    file = replace(file, labels=np.where(read, images.labels, -1), out_of_fold=read)
    file.save(tmp_path / "labels.parquet")
    shared = {"data": images.spec, "out": tmp_path / "run", "targets": tmp_path / "labels.parquet", **SMALL}
    shared |= {"val_fraction": 0.0, "test_fraction": 0.0}
    ready = prepare(TrainConfig(**shared))
    assert ready.data.soft is None and ready.data.from_text is None
    (note,) = idle_options(ready.config, ready.data)
    assert note == "--targets: no effect, since its texts say next to nothing of these classes."
    told = prepare(TrainConfig(**shared, label_trust=1.0))
    assert told.data.from_text is not None and told.data.from_text.all()


def test_another_number_of_classes_is_refused(small_run: Path) -> None:
    with pytest.raises(RunError, match="do not fit a set of 2 classes"):
        load_run_model(small_run, None, ["a", "b"])


def test_a_device_that_is_not_here_becomes_auto_and_options_of_other_versions_are_left_out(small_run: Path) -> None:
    record = runs.read_run(small_run)
    config = {**record["config"], "device": "cuda:7", "an_option_of_another_version": 1}
    assert options_of({**record, "config": config}) == options_of(record).model_copy(update={"device": "auto"})


def test_the_text_space_of_a_run_is_kept_and_a_changed_encoder_refused(described: dict[str, Any]) -> None:
    train(TrainConfig(**described | {"epochs": 1}))
    out = described["out"]
    assert load_run_model(out, None, "abc").text_space is not None
    space = read_text_space(out)
    assert (space.encoder, space.revision, space.width) == ("given", "0", WIDTH)
    with pytest.raises(ModelError, match="bring back the files of the encoder"):
        TextSpace(encoder="bag-of-words:16", revision="0" * 64).load_encoder("cpu")


def test_descriptions_of_test_pictures_have_no_part_in_training(described: dict[str, Any], tmp_path: Path) -> None:
    table = EmbeddingTable.open(described["embeddings"])
    images = prepare(TrainConfig(**described)).data.image_set
    train_only = [images.digests[i] for i in images.indices("train")]
    offsets, rows = table.rows_of(train_only)
    texts = np.split(table.embeddings[rows], offsets[1:-1])
    make_table(tmp_path / "train", {digest: own for digest, own in zip(train_only, texts, strict=True) if len(own)})
    for name, embeddings in (("all", described["embeddings"]), ("train-only", tmp_path / "train")):
        train(TrainConfig(**described | {"out": tmp_path / name, "embeddings": embeddings, "epochs": 1}))
    ours, theirs = (read_json(tmp_path / name / runs.RUN)["data"]["described"] for name in ("all", "train-only"))
    assert ours == theirs and len(images) > ours
    first, second = (load_tensors(tmp_path / name / runs.MODEL)[0] for name in ("all", "train-only"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def options_of_predictions(colour_folder: Path, tmp_path: Path) -> dict[str, Any]:
    save_file(small_resnet(seed=1).state_dict(), tmp_path / "given.safetensors")
    own = {"model": "test_resnet", "stem": "small", "image_size": 32, "epochs": 2, "batch_size": 8, "seed": 0}
    exact = {"precision": "fp32", "memory_format": "contiguous", "device": "cpu"}
    return {
        "data": f"folder:{colour_folder}",
        "init": str(tmp_path / "given.safetensors"),
        "freeze": "all",
        **own,
        **exact,
    }


def test_features_computed_once_make_the_same_model_as_features_of_each_step(
    options_of_predictions: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    stream = MemoryPixels.stream

    def counted(*given: Any) -> Iterator[torch.Tensor]:
        for images in stream(*given):
            taken.append(len(images) if images.ndim == 4 else 0)
            yield images

    monkeypatch.setattr(MemoryPixels, "stream", counted)
    train(TrainConfig(**options_of_predictions, out=tmp_path / "kept"))
    once = sum(taken)
    monkeypatch.setattr(predictions, "with_features", lambda ready: ready)
    train(TrainConfig(**options_of_predictions, out=tmp_path / "anew"))
    assert once < sum(taken) - once, "each image went through the body once"
    kept, anew = (load_tensors(tmp_path / name / runs.MODEL)[0] for name in ("kept", "anew"))
    assert kept.keys() == anew.keys()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, anew[name], rtol=1e-4, atol=1e-5)
    scores = [runs.read_run(tmp_path / name)["metrics"][-1]["val"] for name in ("kept", "anew")]
    assert scores[0]["top1"] == scores[1]["top1"] and np.isclose(scores[0]["loss"], scores[1]["loss"], rtol=1e-4)
    assert "top1" in evaluate(EvaluateConfig(run_dir=tmp_path / "kept")).scores
    config = runs.read_config(tmp_path / "kept")
    assert (config["flip"], config["shift"]) == (False, 0.0) and {"flip", "shift"} <= config["chosen"].keys()


STAGES = {"freeze": "2", "min_scale": 0.6, "lr": 1e-3, "optimizer": "adamw"}


def test_the_last_stages_learn_from_kept_views_of_the_first(
    options_of_predictions: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = options_of_predictions | STAGES
    ready = predictions.with_features(prepare(TrainConfig(**own, out=tmp_path / "run")))
    kept = ready.data.pixels
    assert isinstance(kept, KeptFeatures) and len(kept) == len(ready.data.usable)
    train_rows, val_rows = (kept.rows[ready.data.indices(split)] for split in ("train", "val"))
    assert (np.diff(train_rows, axis=1) == 1).all() and (val_rows == val_rows[:, :1]).all()
    views = kept.images[torch.from_numpy(train_rows[0])].flatten(1)
    assert torch.pdist(views.float()).min() > 0, "each view is another one"
    batches = [ready.data.indices("train")[:8]] * 2
    one, two = kept.drawn(batches, 0, 0)
    again = [*kept.drawn(batches[:1], 0, 1)]
    assert not torch.equal(one, two) and torch.equal(again[0], two)
    config = TrainConfig(**own, out=tmp_path / "run")
    train(config)
    resumed(config, tmp_path / "resumed", 5)
    assert same(tmp_path / "run", tmp_path / "resumed")
    given = load_tensors(tmp_path / "given.safetensors")[0]
    found = load_tensors(tmp_path / "run" / runs.MODEL)[0]
    changed = {name.split(".")[0] for name, each in found.items() if not torch.equal(each, given.get(name, each))}
    assert {"fc", "layer4"} <= changed <= {"layer2", "layer3", "layer4", "fc"}
    measured = evaluate(EvaluateConfig(run_dir=tmp_path / "run", split="val")).accuracy
    assert measured == pytest.approx(runs.read_run(tmp_path / "run")["metrics"][-1]["val"]["top1"], abs=1e-4)
    train(TrainConfig(**own, memory_limit_gb=1e-6, workers=0, out=tmp_path / "anew"))
    assert runs.is_finished(tmp_path / "anew"), "activations that do not fit are computed anew"


@pytest.mark.parametrize("judged_by", ["labels", "targets"])
def test_a_run_is_not_worse_than_the_classifier_that_it_begins_with(
    judged_by: str, options_of_predictions: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "FEWEST_JUDGES", 1)
    monkeypatch.setattr(linear_start, "FEWEST", 8)
    own = options_of_predictions | STAGES | {"lr": 30.0, "val_fraction": 0.4 if judged_by == "labels" else 0.0}
    done = train(TrainConfig(**own, out=tmp_path / "run"))
    record = runs.read_run(tmp_path / "run")
    first, *_, last = record["metrics"]
    assert first["epoch"] == record["run"]["kept_epoch"] == 0 and "linear classifier" in (done.notes or "")
    assert (first["loss_by_targets"] is None) == (judged_by == "labels")
    found = record["run"]["limits"]
    assert found["targets"] == 1.0 and max(found["half"], found["linear"]) <= 1.0
    if judged_by == "labels":
        assert first["val"]["top1"] > last["val"]["top1"]
        measured = evaluate(EvaluateConfig(run_dir=tmp_path / "run", split="val")).accuracy
        assert measured == pytest.approx(first["val"]["top1"], abs=1e-4)


@pytest.mark.parametrize("more", [{"colour": 0.2}, {"flip": True}, {"mixup": 0.2}, {"auto_augment": "rand-m5"}])
def test_what_changes_pixels_runs_the_body_in_each_step(
    more: dict[str, Any], options_of_predictions: dict[str, Any], tmp_path: Path
) -> None:
    ready = prepare(TrainConfig(**options_of_predictions | more, out=tmp_path / "run"))
    assert predictions.with_features(ready) is ready

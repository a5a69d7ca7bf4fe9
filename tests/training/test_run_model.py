"""The model of a finished run: what it predicts follows from its features, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.weights import load_tensors
from gpt4image.base.errors import DamagedError, ModelError, RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import TrainConfig
from gpt4image.data.pixels import MemoryPixels
from gpt4image.training.auto import stored_size
from gpt4image.training.prepare import prepare
from gpt4image.training.run_model import TextSpace, load_run_model, options_of, read_text_space
from gpt4image.training.train import train
from tables import make_table
from training_cases import WIDTH


def test_predictions_are_those_of_the_classifier_on_the_features(small_run: Path) -> None:
    model = load_run_model(small_run, None, runs.class_names(small_run))
    side = stored_size(model.config)
    images = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = model.read(MemoryPixels(images), np.arange(5))
    classifier = model.backbone.get_submodule("fc")
    logits = classifier(torch.from_numpy(found.features))
    assert np.allclose(logits.softmax(1).detach().numpy(), found.predictions, atol=1e-5)
    some = found.only(np.array([True, False, True, False, False]))
    assert np.array_equal(some.features, found.features[[0, 2]]) and len(some.predictions) == 2


def test_a_run_without_an_alignment_has_no_place_for_texts(small_run: Path) -> None:
    model = load_run_model(small_run, None, runs.class_names(small_run))
    with pytest.raises(RunError, match="it has no projection head"):
        model.embed(np.zeros((1, 8), np.float32))


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
    write_json(out / runs.TEXT_SPACE, {"encoder": "given", "revision": "0", "centre": [0.0] * WIDTH})
    with pytest.raises(DamagedError):
        read_text_space(out)
    with pytest.raises(ModelError, match="bring back the files of the encoder"):
        TextSpace(encoder="bag-of-words:16", revision="0" * 64).load_encoder("cpu")


def test_descriptions_of_test_pictures_have_no_part_in_training(described: dict[str, Any], tmp_path: Path) -> None:
    table = EmbeddingTable.open(described["embeddings"])
    images = prepare(TrainConfig(**described)).data.image_set
    train_only = {images.digests[i]: table.vectors([images.digests[i]])[0] for i in images.indices("train")}
    train_only = {digest: vector for digest, vector in train_only.items() if vector.any()}
    make_table(tmp_path / "train", train_only)
    for name, embeddings in (("all", described["embeddings"]), ("train-only", tmp_path / "train")):
        train(TrainConfig(**described | {"out": tmp_path / name, "embeddings": embeddings, "epochs": 1}))
    ours, theirs = (read_json(tmp_path / name / runs.RUN)["data"]["described"] for name in ("all", "train-only"))
    assert ours == theirs and len(images) > ours
    first, second = (load_tensors(tmp_path / name / runs.MODEL)[0] for name in ("all", "train-only"))
    assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first), "but for float16"

"""The model of a finished run: what it predicts follows from its features, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.base.errors import RunError
from gpt4image.data.pixels import MemoryPixels
from gpt4image.training.auto import stored_size
from gpt4image.training.run_model import load_run_model, options_of


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

"""Whether an export is the model of its run."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gpt4image.base.errors import ExportError
from gpt4image.deploying import agreement
from gpt4image.deploying.loading import Classifier
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.segmentation import Segmentation
from loaded_sets import in_memory


def test_predictions_agree_up_to_rounding() -> None:
    ours = np.array([[0.6, 0.4], [0.50001, 0.49999], [0.1, 0.9]], np.float32)
    near = ours + np.array([[1e-6, -1e-6], [-2e-5, 2e-5], [0, 0]], np.float32)
    assert agreement.agreement(Classification(), ours, near).images == 3
    for other in (ours[:, ::-1], ours + np.float32(0.01), np.full_like(ours, np.nan)):
        with pytest.raises(ExportError, match="not the model of the run"):
            agreement.agreement(Classification(), ours, other)


@pytest.mark.parametrize(("task", "sizes"), [(Classification(), [64, 6]), (Segmentation(), [32, 32, 6])])
def test_masks_of_many_classes_are_compared_in_smaller_batches(task: Task, sizes: list[int]) -> None:
    seen: list[int] = []

    def probabilities(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(len(inputs))
        return inputs[:, 0, 0, :8]

    preprocessing = Preprocessing(size=32, resize=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    classes, file = tuple("abcdefgh"), io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    model = Classifier(
        kind="onnx", task=task, classes=classes, preprocessing=preprocessing, probabilities=probabilities
    )
    found = agreement.exported_probabilities(model, in_memory([file.getvalue()] * 70), np.arange(70))
    assert seen == sizes and found.shape == (70, 8)

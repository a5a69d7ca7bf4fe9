"""Whether an export is the model of its run."""

from __future__ import annotations

import numpy as np
import pytest

from gpt4image.base.errors import ExportError
from gpt4image.deploying import agreement
from gpt4image.tasks.classification import Classification


def test_predictions_agree_up_to_rounding() -> None:
    ours = np.array([[0.6, 0.4], [0.50001, 0.49999], [0.1, 0.9]], np.float32)
    near = ours + np.array([[1e-6, -1e-6], [-2e-5, 2e-5], [0, 0]], np.float32)
    assert agreement.agreement(Classification(), ours, near).images == 3
    for other in (ours[:, ::-1], ours + np.float32(0.01), np.full_like(ours, np.nan)):
        with pytest.raises(ExportError, match="not the model of the run"):
            agreement.agreement(Classification(), ours, other)

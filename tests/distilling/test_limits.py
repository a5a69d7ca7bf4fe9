"""What limits a model, and the next larger student that distill names."""

import re
from typing import Any

import pytest

from gpt4image.distilling.limits import limit_of

SHARES = {"targets": 0.95, "linear": 0.84, "half": 0.828}


@pytest.mark.parametrize(
    ("model", "side", "right", "accuracy", "expected"),
    [
        ("tf_efficientnet_lite0", 160, 0.956, 0.85, "right for 85.0%, its targets for 95.6%.*side: --image-size 224"),
        ("tf_efficientnet_lite0.in1k", 160, None, 0.85, "side: --image-size 224"),
        ("tf_efficientnet_lite0.in1k", 224, None, 0.85, "its targets for 95.0%.*--model tf_efficientnet_lite1"),
        (
            "tf_efficientnet_lite2",
            260,
            None,
            None,
            "cross-validated, is right for 84.0%.*model or side. Twice .* 1.2 p",
        ),
        ("a_model_of_ones_own", 224, None, 0.85, "a larger model or side. Twice"),
        ("tf_efficientnet_lite0", 160, 0.88, 0.85, None),
        ("tf_efficientnet_lite0", 160, None, 0.93, None),
    ],
)
def test_features_that_limit_a_model_name_the_next_larger_student(
    model: str, side: int, right: float | None, accuracy: float | None, expected: str | None
) -> None:
    config: dict[str, Any] = {"model": model, "image_size": side}
    told = limit_of(config, SHARES, right, accuracy)
    if expected is None:
        assert told == ""
    else:
        assert re.search(expected, told), told

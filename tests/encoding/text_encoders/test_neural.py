"""The encoder around any tower: unit length, precision by a probe, one load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt4image.encoding.text_encoders import neural
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower


class Lengths(Tower):
    """Places a text by its number of characters; ``tilt`` is what a coarser arithmetic would get wrong."""

    def __init__(self, tilt: float = 0.0) -> None:
        super().__init__()
        self.max_tokens, self.tilt = 7, tilt

    def token_lengths(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) for text in texts])

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"lengths": torch.tensor([float(len(text)) for text in texts]), "kind": "plain"}

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        coarse = torch.is_autocast_enabled("cpu")
        return torch.stack([tokens["lengths"], torch.ones_like(tokens["lengths"]) + self.tilt * 100 * coarse], dim=1)


def test_vectors_have_unit_length_and_the_model_is_loaded_once_at_the_first_use() -> None:
    loads: list[int] = []
    encoder = NeuralEncoder("lengths", "r1", lambda: loads.append(1) or Lengths(), "cpu")
    assert (encoder.spec, encoder.revision, loads) == ("lengths", "r1", [])
    found = encoder.encode(["abc", ""])
    assert np.allclose(found, [[3 / 10**0.5, 1 / 10**0.5], [0.0, 1.0]], atol=1e-6)
    assert encoder.width == 2 and encoder.max_tokens == 7 and encoder.token_lengths(["ab"]).tolist() == [2]
    assert loads == [1]


@pytest.mark.parametrize(
    ("native", "tilt", "precision"), [(True, 0.0, "bf16"), (True, 1.0, "fp32"), (False, 0.0, "fp32")]
)
def test_bf16_is_taken_where_it_is_native_and_keeps_directions(
    native: bool, tilt: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neural, "computes_bf16", lambda _: native)
    assert NeuralEncoder("lengths", "r1", lambda: Lengths(tilt), "cpu").precision == precision

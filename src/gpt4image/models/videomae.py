"""VideoMAE (Tong et al. 2022, arXiv 2203.12602) of transformers, a model of clips; see ``models.of_transformers``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class VideoMae(nn.Module):
    """Clips (B, 3 T, S, S) or (B, T, 3, S, S) to logits (B, K); the classifier reads the mean of all tokens."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.frames: int = network.config.num_frames

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits."""
        return self.network(clips.reshape(-1, self.frames, 3, *clips.shape[-2:])).logits

    def get_classifier(self) -> nn.Linear:
        """Return the layer that gives the logits."""
        return self.network.classifier

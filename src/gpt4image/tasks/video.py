"""Video: one class per clip, as `Classification` is of images; the model reads several frames of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from gpt4image.base.errors import DataError
from gpt4image.data.image_set import ImageSet
from gpt4image.data.video import USUAL_FRAMES, FrameOrder, Frames
from gpt4image.models.hugging_face import OfTransformers
from gpt4image.models.temporal import temporal
from gpt4image.tasks.base import Labels
from gpt4image.tasks.classification import Classification


@dataclass(frozen=True)
class Video(Classification):
    """One class out of K per clip; see ``tasks.classification.Classification``.

    Attributes:
        count: frames of a clip that are read.
        order: in which order; see ``data.video.Frames``.
        differences: whether the model reads differences of frames; see ``models.temporal``.
    """

    name: ClassVar[str] = "video"
    in_timm: ClassVar[bool] = False
    hub_task: ClassVar[str] = "video-classification"
    count: int = USUAL_FRAMES
    order: FrameOrder = "kept"
    differences: bool = False

    @property
    def frames(self) -> Frames:
        """Which frames of a clip are read."""
        return Frames(self.count, self.order)

    def annotations(self, image_set: ImageSet) -> Labels:
        """Return the labels of clips. Raises DataError: these are images."""
        if not image_set.clips:
            raise DataError(f"{image_set.spec} holds images, and --task video reads clips: give --data clips:PATH.")
        return image_set.labels

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        """Refuse several labels per clip, and a single class. Raises DataError."""
        if labels.ndim != 1:
            raise DataError(f"{spec} has several labels per clip; --task video takes one, in a column 'label'.")
        super().require(labels, classes, spec)

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
        """Return the model of images with temporal shift and attention over frames; one of transformers reads clips."""
        return (
            backbone if isinstance(backbone, OfTransformers) else temporal(backbone, size, differences=self.differences)
        )

"""What an ImageNet model says of other classes by its own 1,000 names, of which a list says what each class is.

A rival without a label, an LLM or any training: all that it costs is the list.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo
from timm.data.transforms_factory import create_transform

from gpt4image.base.intervals import wilson
from gpt4image.data import Dataset
from gpt4image.models.backbones import create_backbone

SIZE, IMAGENET_CLASSES = 224, 1000
WHOLE: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0}
"""EfficientNet-Lite's own preparation, but for the crop: on validation the whole height is better than 7/8 of it."""


def mapped_accuracy(
    model: str, images: Dataset, names: Mapping[str, Sequence[str]], split: str = "test"
) -> dict[str, float]:
    """Return accuracy, ``low`` and ``high`` (95 %, Wilson) and ``n`` on a split of images.

    ``names`` has the ImageNet classes of each class; the most probable sum of them is the prediction.
    """
    module = create_backbone(model, classes=IMAGENET_CLASSES, image_size=SIZE, init="pretrained").module.eval()
    info = ImageNetInfo()
    number = {info.index_to_description(k): k for k in range(IMAGENET_CLASSES)}
    of_class = torch.zeros(IMAGENET_CLASSES, len(images.classes))
    for column, name in enumerate(images.classes):
        of_class[[number[each] for each in names[name]], column] = 1
    prepared: Any = create_transform((3, SIZE, SIZE), **WHOLE)
    rows, right = images.indices(split).tolist(), 0
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        pictures = [prepared(Image.open(io.BytesIO(images.read(row))).convert("RGB")) for row in part]
        with torch.inference_mode():
            found = (module(torch.stack(pictures)).softmax(1) @ of_class).argmax(1)
        right += int(np.sum(found.numpy() == images.labels[part]))
    low, high = wilson(right / len(rows), len(rows))
    return {"accuracy": right / len(rows), "low": low, "high": high, "n": len(rows)}

"""How fast detection trains: a step against torchvision's own FCOS with the same backbone and batch, and its metric.

    python benchmarks/detecting.py [--model resnet18] [--size 224] [--batch 8] [--steps 6] [--threads 1]

Both detectors have pyramids of the same strides and width and heads of the same depth, and see the same pictures and
boxes, in float32 with SGD. torchvision resizes and normalises inside the model; both are left out by giving it pictures
of the final size. Times are CPU seconds, the median over steps, in turns, so that other work on the machine counts for
little. The last line compares whole steps on pictures of noise with steps on one batch that was made before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.transforms import v2

from gpt4image.config import TrainConfig
from gpt4image.data.box_files import write_coco
from gpt4image.data.regions import Boxes
from gpt4image.models.detector import FIRST, Detector, detection_loss
from gpt4image.models.pyramid import PyramidModel
from gpt4image.tasks.average_precision import coco_metrics
from gpt4image.training.augment import Augmentation, BatchRng, random_geometry
from gpt4image.training.prepare import prepare
from gpt4image.training.trainer import build
from measure import Row, seconds_in_turn
from training import over_one_batch

CLASSES, BOXES = 80, 8


class Maps(nn.Module):
    """The same backbone and pyramid in the form that torchvision's FCOS takes."""

    def __init__(self, pyramid: PyramidModel) -> None:
        super().__init__()
        self.pyramid, self.out_channels = pyramid, pyramid.width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps by name."""
        return {str(number): found for number, found in enumerate(self.pyramid.forward_features(images)[0])}


def torchvision_fcos(model: str, size: int) -> tuple[FCOS, PyramidModel]:
    """Return torchvision's FCOS on the pyramid that our detector has."""
    backbone = timm.create_model(model, num_classes=CLASSES)
    pyramid = PyramidModel(backbone, size, coarsest=min(128, (size - 1) // int(FIRST)))
    anchors = AnchorGenerator(tuple((size // side,) for side in pyramid.sides), ((1.0,),) * len(pyramid.sides))
    return FCOS(Maps(pyramid), CLASSES, anchor_generator=anchors, min_size=size, max_size=size), pyramid


def step_seconds(model: str, size: int, batch: int, steps: int) -> dict[str, float]:
    """Return the median CPU seconds of a step of both."""
    torch.manual_seed(0)
    ours = Detector(timm.create_model(model, num_classes=CLASSES), size, CLASSES)
    theirs, _ = torchvision_fcos(model, size)
    images = torch.rand(batch, 3, size, size)
    corner = torch.rand(batch, BOXES, 2) * 0.6
    boxes = torch.cat([corner, corner + 0.05 + 0.3 * torch.rand(batch, BOXES, 2)], dim=-1)
    labels = torch.randint(0, CLASSES, (batch, BOXES))
    targets = torch.cat([boxes, labels[..., None].float(), torch.ones(batch, BOXES, 1)], dim=-1)
    listed: Any = [{"boxes": own * size, "labels": kinds} for own, kinds in zip(boxes, labels, strict=True)]
    losses = {
        "gpt4image": lambda: detection_loss(ours(images), targets),
        "torchvision": lambda: sum(theirs(list(images), listed).values()),
    }
    optimizers = {
        name: torch.optim.SGD(found.parameters(), 1e-4) for name, found in zip(losses, (ours, theirs), strict=True)
    }
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for number in range(steps + 1):
        for name, loss in losses.items():
            began = time.process_time()
            loss().backward()  # pyright: ignore
            optimizers[name].step()
            optimizers[name].zero_grad()
            if number:  # the first step allocates
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def metric_seconds(images: int = 500, predicted: int = 20) -> float:
    """Return the CPU seconds of all of COCO's numbers of so many images."""
    rng = np.random.default_rng(0)
    found = np.zeros((images, 100, 6), np.float32)
    corner = rng.random((images, predicted, 2)) * 0.6
    found[:, :predicted, :2], found[:, :predicted, 2:4] = corner, corner + 0.3
    found[:, :predicted, 4] = np.sort(rng.random((images, predicted)), axis=1)[:, ::-1]
    found[:, :predicted, 5] = rng.integers(0, 25, (images, predicted))
    truth = Boxes.of_images(
        [(rows[:3, :4], rows[:3, 5].astype(np.int64), np.ones(3, np.float32)) for rows in found + np.float32(0.01)]
    )
    began = time.process_time()
    coco_metrics(found, truth, 26)
    return time.process_time() - began


def pipeline(model: str, size: int, batch: int, steps: int, threads: int) -> Row:
    """Compare whole steps of a run, crops and boxes among them, with steps on one batch."""
    with tempfile.TemporaryDirectory() as name:
        options: Any = {"model": model, "image_size": size, "batch_size": batch, "threads": threads}
        data = write_noise(Path(name) / "train.json", images=300, side=96)
        ready = prepare(TrainConfig(data=data, out=Path(name) / "run", **options))
        return over_one_batch(ready, build(ready.config.resolved, ready.data), steps)


def write_noise(file: Path, images: int, side: int) -> str:
    """Write pictures of noise with boxes of six classes; return the SPEC."""
    rng, names, found = np.random.default_rng(0), [f"{image}.png" for image in range(images)], list[Any]()
    for name in names:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file.parent / name)
        corner = rng.random((3, 2), np.float32) * 0.5
        boxes = np.concatenate([corner, corner + 0.4], axis=1)
        found.append((boxes, rng.integers(0, 6, 3), np.ones(3, np.float32)))
    write_coco(file, names, [(side, side)] * images, Boxes.of_images(found), list("abcdef"))
    return f"coco:{file}"


def cropping(size: int, batch: int, steps: int) -> tuple[float, float]:
    """Return the seconds that crops of a batch with boxes take, resized and mirrored: as in a run, by torchvision."""
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    corner = torch.rand(batch, BOXES, 2) * 0.6
    boxes = torch.cat([corner, corner + 0.05 + 0.3 * torch.rand(batch, BOXES, 2)], dim=-1)
    drawn = {"flip": True, "shift": 0.0, "min_scale": 0.4, "colour": 0.0, "erase": 0.0}
    how = Augmentation(size=size, mean=(0.5,) * 3, std=(0.5,) * 3, **drawn)
    rng = BatchRng.whole(batch, torch.Generator().manual_seed(0))
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(size, (0.4, 1.0), (3 / 4, 4 / 3), antialias=False),
            v2.RandomHorizontalFlip(),
            v2.ClampBoundingBoxes(),
            v2.ToDtype(torch.float32),
        ]
    )

    def ours() -> None:
        geometry = random_geometry(size, how, rng)
        geometry.pixels(images)
        geometry.boxes(boxes)

    def by_torchvision() -> None:
        for image, own in zip(images, boxes * size, strict=True):
            shown = tv_tensors.BoundingBoxes(own, format="XYXY", canvas_size=(size, size))  # pyright: ignore
            theirs(tv_tensors.Image(image), shown)

    return seconds_in_turn(ours, by_torchvision, steps)


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    for name, default in (("size", 224), ("batch", 8), ("steps", 6), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seconds = step_seconds(given.model, given.size, given.batch, given.steps)
    ratio = seconds["gpt4image"] / seconds["torchvision"]
    print(f"step: {', '.join(f'{name} {value:.3f} s' for name, value in seconds.items())}, ratio {ratio:.3f}")
    row = pipeline(given.model, given.size, given.batch, given.steps, given.threads)
    print(f"pipeline over one batch: {row.ours / row.limit:.3f}")
    first, second = cropping(given.size, given.batch, given.steps)
    print(f"crops: gpt4image {1000 * first:.1f} ms, torchvision {1000 * second:.1f} ms, ratio {first / second:.3f}")
    print(f"metric of 500 images with 20 boxes each: {metric_seconds():.3f} s")


if __name__ == "__main__":
    main()

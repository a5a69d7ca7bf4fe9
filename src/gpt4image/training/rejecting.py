"""What a run keeps of its training images so that its model can say "none of these"; see ``models.neighbours``."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.data import annotation
from gpt4image.data.splits import representatives
from gpt4image.models.aligner import Headed
from gpt4image.models.neighbours import NEAREST, Neighbours
from gpt4image.tasks.decision import Reject
from gpt4image.training.run_model import images_at_once, outputs
from gpt4image.training.trainer import Trainer
from gpt4image.training.training_data import TrainingData

KEPT, READ = 1000, 4000
"""Features that are kept, and images that are read to measure how strange good images are."""


def rejecting(trainer: Trainer) -> tuple[Reject, Neighbours] | None:
    """Return what tells images that are none of the classes, by training images with a target and by those that answers
    call none of the classes. None where it is not asked for, the task says it in another way, or the images are too few
    to keep the share that is asked for."""
    data, share = trainer.data.without_met(), trainer.config.reject_share
    if not share or not data.task.exclusive or trainer.config.pretraining:
        return None
    train, val = data.indices("train"), data.indices("val")
    unseen = trainer.judges if len(trainer.judges) else val[annotation.known(data.all_labels[val])]
    none = train[:0] if data.none_of_these is None else train[data.none_of_these[train]]
    good = np.setdiff1d(train[data.has_target(train)], unseen)
    parts = [
        _some(data, images, most, trainer.config.seed)
        for images, most in ((good, READ), (none, KEPT), (unseen[data.usable[unseen]], READ))
    ]
    if len(parts[0]) < max(1 / share, NEAREST + 1):
        return None
    sizes = list(map(len, parts))
    features = _features(trainer, np.concatenate(parts)).split(sizes)
    found = Neighbours.of(features[0], features[1], KEPT, features[2])
    count, width = found.kept.shape
    return Reject(share=share, neighbours=NEAREST, kept=count, width=width, strangers=len(found.strangers)), found


def _some(data: TrainingData, images: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Return at most so many images in random order, each picture once: a copy is no neighbour."""
    digests = [data.image_set.digests[i] for i in images]
    images = images[np.unique(representatives(digests, np.zeros(len(images), np.int64)))]
    return np.random.default_rng(seed).permutation(images)[:most]


def _features(trainer: Trainer, images: NDArray[np.int64]) -> Tensor:
    data, config, model = trainer.data, trainer.config, cast("Headed", trainer.kept)
    model.eval()
    at_once = images_at_once(data.task, len(data.classes), config.image_size)

    def read(inputs: Tensor) -> tuple[Tensor]:
        return (inputs if inputs.ndim == 2 else model.read(inputs)[1],)

    (found,) = outputs(read, data.pixels, images, trainer.augmentation, config, at_once)
    return torch.from_numpy(found)

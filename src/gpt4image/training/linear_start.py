"""The best linear classifier on frozen features: where training begins, what it is compared to, and what it tells.

A classifier that starts from random weights would first spoil the features that it reads (Kumar et al. 2022, arXiv
2202.10054). This classifier is also the model that is kept where training on brings nothing. Cross-validated, it says
whether wrong targets, too few images or the features themselves limit a model.
"""

import copy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.models.aligner import Headed
from gpt4image.parallel.devices import choose_device
from gpt4image.training.run_model import images_at_once, outputs
from gpt4image.training.trainer import Trainer

DECAY = 3e-3
"""Weight of the squared weights beside the mean loss; the best of 3e-4 to 0.1, cross-validated on clothes."""
STEPS, STEPS_OF_FOLDS = 200, 60
FOLDS = 4
FEWEST, MOST_NUMBERS = 100, 5e9
"""Images of a cross-validation at least; and numbers (images x width x classes) at most, which take a minute."""


def features_of(trainer: Trainer) -> Tensor:
    """Return (n, C) pooled features of the training images that have a target, by the model as it is."""
    return _read(trainer, _learned(trainer), features=True)


def _learned(trainer: Trainer) -> NDArray[np.int64]:
    images = trainer.batches.targeted.images
    return images[trainer.data.has_target(images)]


def fit_classifier(trainer: Trainer, features: Tensor) -> float:
    """Fit the classifier of a run to features of its training images; return the mean loss."""
    classifier: nn.Module = trainer.backbone.get_classifier()  # pyright: ignore[reportCallIssue]
    targets = trainer.data.targets(_learned(trainer)).to(features.device)
    return _fitted(trainer, classifier, features, targets, STEPS)


def _fitted(trainer: Trainer, classifier: nn.Module, features: Tensor, targets: Tensor, steps: int) -> float:
    weights = list(classifier.parameters())
    for each in weights:
        nn.init.zeros_(each)
    optimizer = torch.optim.LBFGS(weights, max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = trainer.data.task.loss(classifier(features), targets, trainer.config.label_smoothing)
        (found + DECAY * sum(each.square().sum() for each in weights if each.ndim > 1)).backward()
        return found

    optimizer.step(loss)
    optimizer.zero_grad(set_to_none=True)
    return float(loss().detach())


def loss_by_targets(trainer: Trainer) -> float | None:
    """Return the mean loss against the targets of ``trainer.judges``, which no step learns from; None without any."""
    if not len(trainer.judges):
        return None
    logits = _read(trainer, trainer.judges, features=False)
    return float(trainer.data.task.loss(logits, trainer.data.targets(trainer.judges).to(logits.device), 0.0))


def _read(trainer: Trainer, images: NDArray[np.int64], *, features: bool) -> Tensor:
    config, data, model = trainer.config, trainer.data, cast("Headed", trainer.evaluated)
    model.eval()

    def read(inputs: Tensor) -> tuple[Tensor]:
        return (model.read(inputs)[1] if features else model.classify(inputs).float(),)

    at_once = images_at_once(data.task, len(data.classes), config.image_size)
    found = outputs(read, data.pixels, images, trainer.augmentation, config, at_once)[0]
    return torch.from_numpy(found).to(choose_device(config.device))


def limits(trainer: Trainer, features: Tensor) -> dict[str, float] | None:
    """Return which shares of the training images are right by their targets, as far as these are calibrated: of the
    ``targets`` themselves, and of a cross-validated ``linear`` classifier that learns from all other images, or from
    ``half`` of them. None for several classes per image, a few images, or so many that it would take long.
    """
    data, images = trainer.data, _learned(trainer)
    most = int(MOST_NUMBERS / (features.shape[1] * len(data.classes)))
    if not data.task.exclusive or not min(len(images), most) >= FEWEST:
        return None
    order = np.random.default_rng(0).permutation(len(images))[:most]
    targets = data.targets(images[order]).to(features.device)
    features, fold = features[torch.from_numpy(order)], torch.arange(len(order)) % (2 * FOLDS)
    classifier: nn.Module = copy.deepcopy(trainer.backbone.get_classifier())  # pyright: ignore[reportCallIssue]
    right = {"linear": 0.0, "half": 0.0}
    for number in range(FOLDS):
        held_out = fold % FOLDS == number
        for name, learned in (("linear", ~held_out), ("half", ~held_out & (fold < FOLDS))):
            _fitted(trainer, classifier, features[learned], targets[learned], STEPS_OF_FOLDS)
            with torch.no_grad():
                best = classifier(features[held_out]).argmax(1, keepdim=True)
            right[name] += float(targets[held_out].gather(1, best).sum())
    share = {name: round(count / len(order), 4) for name, count in right.items()}
    return {"targets": round(float(targets.amax(1).mean()), 4), **share}

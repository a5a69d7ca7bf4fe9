"""Where the last stages of pretrained weights begin to learn: at the best linear classifier on their features.

A classifier that starts from random weights would first spoil the features that it reads (Kumar et al. 2022, arXiv
2202.10054). This classifier is also the model that is kept where training on brings nothing.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gpt4image.models.aligner import Headed
from gpt4image.parallel.devices import choose_device
from gpt4image.training.run_model import images_at_once, outputs
from gpt4image.training.trainer import Trainer

DECAY = 1e-3
"""Weight of the squared weights beside the mean loss; the features have a mean square of about 1."""
STEPS = 200


def fit_classifier(trainer: Trainer) -> float:
    """Fit the classifier of a run to the pooled features of its training images; return the mean loss."""
    config, data, model = trainer.config, trainer.data, cast("Headed", trainer.model)
    targeted = data.pools()[0]
    at_once = images_at_once(data.task, len(data.classes), config.image_size)
    model.eval()

    def read(inputs: Tensor) -> tuple[Tensor]:
        return (model.read(inputs)[1],)

    found = outputs(read, data.pixels, targeted, trainer.augmentation, config, at_once)[0]
    features = torch.from_numpy(found).to(choose_device(config.device))
    targets = data.targets(targeted).to(features.device)
    classifier: nn.Module = model.backbone.get_classifier()  # pyright: ignore[reportCallIssue]
    weights = list(classifier.parameters())
    for each in weights:
        nn.init.zeros_(each)
    optimizer = torch.optim.LBFGS(weights, max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = data.task.loss(classifier(features), targets, config.label_smoothing)
        (found + DECAY * sum(each.square().sum() for each in weights if each.ndim > 1)).backward()
        return found

    optimizer.step(loss)
    optimizer.zero_grad(set_to_none=True)
    return float(loss().detach())

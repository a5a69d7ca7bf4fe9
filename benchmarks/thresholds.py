"""What thresholds per class are worth to F1, by the number of validation images that they are chosen on.

    python benchmarks/thresholds.py lite0.safetensors    # the file of benchmarks/pretrained_weights.py

A logistic classifier per class is fitted on frozen features of street photographs with 15 groups of clothes. Its
thresholds are chosen on V photographs that it did not see, by the rule of ``gpt4image.tasks.thresholds`` with several
values of PRIOR: 1e-9 trusts only the labels, 1e9 only the model's own probabilities. Macro F1 on 150 photographs, the
mean over draws of the V photographs and of those it is fitted on, with the 95 % interval of the difference to one half
by draw. Data: clothing in $GPT4IMAGE_SHARED_DATA.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from scipy import stats

from frozen import Array, apply, fit
from frozen_tags import photographs
from gpt4image.tasks import multilabel as thresholds
from gpt4image.tasks.multilabel import MultiLabel, binary_loss
from text_labels import print_table

FITTED, STRENGTH, DRAWS = (100, 500), 1e-3, 10
VALIDATION = (10, 20, 50, 100)
PRIORS = (1e-9, 1.0, 2.0, 5.0, 10.0, 20.0, 1e9)


def main(weights: str) -> None:
    _, classes, labels, train, truth, test, _ = photographs(weights)

    def macro_f1(probabilities: Array, limits: tuple[float, ...] | None) -> float:
        return MultiLabel(thresholds=limits).measure(probabilities, truth, classes)["f1_macro"]

    shown = []
    for fitted in FITTED:
        found = np.zeros((len(VALIDATION), DRAWS, len(PRIORS)))
        usual = np.zeros((DRAWS, 1))
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(labels))
            targets = MultiLabel().targets(labels[order[:fitted]], None, len(classes), None)
            model = fit(torch.from_numpy(train[order[:fitted]]), targets, STRENGTH, binary_loss)
            seen, measured = (apply(model, torch.from_numpy(inputs)).sigmoid().numpy() for inputs in (train, test))
            usual[seed] = macro_f1(measured, None)
            for number, size in enumerate(VALIDATION):
                held_out = order[fitted : fitted + size]
                for column, thresholds.PRIOR in enumerate(PRIORS):
                    limits = thresholds.best_thresholds(seen[held_out], labels[held_out])
                    found[number, seed, column] = macro_f1(measured, limits)
        for size, values in zip(VALIDATION, found, strict=True):
            gains = values - usual
            half = stats.t.ppf(0.975, DRAWS - 1) * gains.std(axis=0, ddof=1) / np.sqrt(DRAWS)
            cells = [f"{gain:+.3f} ± {width:.3f}" for gain, width in zip(gains.mean(axis=0), half, strict=True)]
            shown.append((f"{fitted} fitted, {size} validation", [f"{usual.mean():.3f}", *cells]))
    print_table(
        f"Macro F1, {len(test)} test photographs, {DRAWS} draws",
        ["at one half", *(f"PRIOR {prior:g}" for prior in PRIORS)],
        shown,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

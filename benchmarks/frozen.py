"""What text labels are worth to a classifier on frozen features of an ImageNet model, the quickest use of one.

    python benchmarks/frozen.py lite0.safetensors        # the file of benchmarks/pretrained_weights.py

A softmax classifier is fitted on features that never change: on the labels that are left, on text labels, and on all
labels. Its L2 strength is chosen on a fifth of what it is fitted on. Accuracy on the test split, mean over
draws of labels; in brackets, the 95 % interval of the gain of text labels over labels only (paired, Student's t).
Data as for benchmarks/text_labels.py, and the photographs of CIFAR-10 in $GPT4IMAGE_SHARED_DATA.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gpt4image.comparing.statistics import paired
from gpt4image.data import load_with_splits
from gpt4image.data.image_set import ImageSet
from gpt4image.data.splits import flip_labels
from gpt4image.labelling.text_vectors import Texts
from gpt4image.models.backbones import create_backbone
from gpt4image.pages.numbers import points, points_interval
from pretrained_weights import MODEL
from text_labels import DATA, DRAWS, SETS, corpus, kept_labels, names_of, print_table, read, table, targets_by

Array = NDArray[np.float32]
Ints = NDArray[np.int64]
SPECS = {"CIFAR-10": f"hf:{DATA / 'cifar10' / 'images'}", "OpenMoji": "openmoji"}
SIZE = 96
STRENGTHS = tuple(10.0**power for power in range(-4, 2))
SITUATIONS = {"4 a class": (4, 0.0), "10 a class": (10, 0.0), "25 a class": (25, 0.0), "40 % wrong": (None, 0.4)}


def features(image_set: ImageSet, rows: Sequence[int], weights: str) -> Array:
    """Return (n, C) features of the body of MODEL at SIZE pixels."""
    body = create_backbone(MODEL, classes=2, image_size=SIZE, init=weights).module.eval()
    see = timm.data.create_transform((3, SIZE, SIZE), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    found = []
    for start in range(0, len(rows), 64):
        pictures = [Image.open(io.BytesIO(image_set.read(row))).convert("RGB") for row in rows[start : start + 64]]
        with torch.no_grad():
            found.append(body.forward_head(body.forward_features(torch.stack(list(map(see, pictures)))), True))
    return torch.cat(found).numpy()


def fit(inputs: Tensor, targets: Tensor, strength: float) -> Tensor:
    """Return (C + 1, K) weights of least cross-entropy to soft targets, with an L2 penalty on all but the bias."""
    weights = torch.zeros(inputs.shape[1] + 1, targets.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = torch.nn.functional.cross_entropy(apply(weights, inputs), targets)
        value = value + strength * weights[1:].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()


def apply(weights: Tensor, inputs: Tensor) -> Tensor:
    """Return (n, K) logits."""
    return inputs @ weights[1:] + weights[0]


def accuracy(train: Array, targets: Array, test: Array, test_labels: Ints) -> float:
    """Fit on the images that have a target, with the L2 strength of least loss on a fifth of them; score on test."""
    has = np.random.default_rng(0).permutation(np.flatnonzero(targets.any(axis=1)))
    inputs, aims = torch.from_numpy(train[has]), torch.from_numpy(targets[has])
    fifth = len(has) // 5

    def loss(strength: float) -> float:
        logits = apply(fit(inputs[fifth:], aims[fifth:], strength), inputs[:fifth])
        return float(torch.nn.functional.cross_entropy(logits, aims[:fifth]))

    said = apply(fit(inputs, aims, min(STRENGTHS, key=loss)), torch.from_numpy(test))
    return float((said.argmax(dim=1).numpy() == test_labels).mean())


def one_hot(labels: Ints, classes: int) -> Array:
    """Return (n, K) targets; a row of zeros where there is no label."""
    return (labels[:, None] == np.arange(classes)).astype(np.float32)


def compare(name: str, weights: str) -> None:
    image_set = load_with_splits(SPECS[name], val_fraction=0.0, test_fraction=0.2)
    place = {key: row for row, key in enumerate(image_set.keys)}
    described = [place[key] for key in corpus(name).keys]
    chosen = np.flatnonzero(image_set.splits[described] == "train")
    test = image_set.indices("test")
    train = features(image_set, [described[row] for row in chosen], weights)
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    train, others = (train - mean) / deviation, (features(image_set, list(map(int, test)), weights) - mean) / deviation
    truth, classes = corpus(name).labels[chosen], corpus(name).classes
    test_labels = np.array([classes.index(image_set.classes[label]) for label in image_set.labels[test]])
    texts = Texts(table(name)[chosen], np.ones(len(chosen), bool), names_of(name))

    def score(targets: Array) -> float:
        return accuracy(train, targets, others, test_labels)

    everything = score(one_hot(truth, len(classes)))
    rows = []
    for situation, (kept, wrong) in SITUATIONS.items():
        found = []
        for seed in range(DRAWS):
            given = kept_labels(truth, kept, seed)
            given = flip_labels(given, np.arange(len(given)), wrong, len(classes), seed, class_dependent=False)
            predictions = read(name, texts, given, seed)
            aims = targets_by(predictions, given)
            found.append((score(one_hot(given, len(classes))), score(aims)))
        alone, text = np.array(found).T
        gain = paired(text, alone)
        means = [f"{value:.3f}" for value in (alone.mean(), text.mean(), everything)]
        rows.append((situation, [*means, f"{points(gain.difference)} ({points_interval(gain.ci95)})"]))
    print_table(
        f"{name}, frozen features, {len(train)} training and {len(test)} test images",
        ["labels only", "text labels", "all labels", "points gained"],
        rows,
    )


if __name__ == "__main__":
    for corpus_name in SETS:
        compare(corpus_name, *sys.argv[1:])

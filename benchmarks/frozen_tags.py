"""What descriptions and tags are worth where images have several classes, to classifiers on frozen features.

    python benchmarks/frozen_tags.py lite0.safetensors    # the file of benchmarks/pretrained_weights.py

A logistic classifier per class is fitted on features that never change, of 704 street photographs: on the labels that
are left, on what the teacher makes of tags, descriptions or both, and on all labels. Its L2 strength is chosen on a
fifth of what it is fitted on, and the threshold of each class for F1 there too, beside the usual one half. Measured on
150 photographs; means over draws of labels, with the 95 % interval of the share of the gap to all labels that is closed
(Fieller). Data: clothing in $GPT4IMAGE_SHARED_DATA.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from frozen import STRENGTHS, apply, features, fit
from gpt4image.config.training import Evidence
from gpt4image.data.labels import rarest_classes
from gpt4image.labelling.answers import USUAL_CONFIDENCE, Answers
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.text_vectors import Texts
from gpt4image.tasks.multilabel import MultiLabel, best_thresholds, binary_loss
from text_labels import DATA, clothes, kept_labels, print_table

Array = NDArray[np.float32]
SIZE = 192
DRAWS = 5
WAYS: tuple[Evidence, ...] = ("answers", "texts", "fused")
FOLDER = DATA / "clothing"


def score(train: Array, soft: Array, test: Array, truth: NDArray[np.int8], classes: list[str]) -> tuple[float, ...]:
    """Return mAP, macro F1 at one half, and macro F1 at thresholds of the held-out fifth, on the test images."""
    task = MultiLabel()
    has = np.random.default_rng(0).permutation(np.flatnonzero(task.has_target(soft, soft)))
    inputs, aims = torch.from_numpy(train[has]), task.targets(soft[has], soft[has], len(classes), None)
    fifth = max(1, len(has) // 5)
    losses = [
        float(binary_loss(apply(fit(inputs[fifth:], aims[fifth:], each, binary_loss), inputs[:fifth]), aims[:fifth]))
        for each in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmin(losses))]
    held_out = apply(fit(inputs[fifth:], aims[fifth:], strength, binary_loss), inputs[:fifth]).sigmoid().numpy()
    limits = best_thresholds(held_out, (soft[has[:fifth]] >= 0.5).astype(np.int8))
    said = apply(fit(inputs, aims, strength, binary_loss), torch.from_numpy(test)).sigmoid().numpy()
    record, moved = (each.measure(said, truth, classes) for each in (task, MultiLabel(thresholds=limits)))
    return record["mAP"], record["f1_macro"], moved["f1_macro"]


def photographs(weights: str) -> tuple[list[Any], list[str], NDArray[np.int8], Array, NDArray[np.int8], Array, Texts]:
    """Return rows, classes, labels and standardised features of the training photographs, labels and features of the
    test photographs, and the texts of the former."""
    rows, classes, labels, vectors, names = clothes()

    def seen(files: list[Path]) -> Array:  # stretched to a square, so that nothing is cut off
        return features([file.read_bytes() for file in files], weights, SIZE, "squash")

    train = seen([FOLDER / row["key"] for row in rows])
    files = sorted((FOLDER / "images" / "test").iterdir())
    masks = [np.asarray(Image.open(FOLDER / "masks" / "test" / f"{file.stem}.png")) for file in files]
    truth = np.stack([np.bincount(mask.ravel(), minlength=len(classes) + 1)[1:] >= 20 for mask in masks])
    test = seen(files)
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    return rows, classes, labels, train, truth.astype(np.int8), test, Texts(vectors, np.ones(len(rows), bool), names)


def main(weights: str) -> None:
    rows, classes, labels, train, truth, test, texts = photographs(weights)
    seen = np.array([[name in row["tags"] for name in classes] for row in rows], np.int64)
    answers = Answers(seen, np.full_like(seen, -1), np.full(seen.shape, USUAL_CONFIDENCE, np.float32))

    def scored(soft: Array) -> tuple[float, ...]:
        return score(train, soft, test, truth, classes)

    everything = np.array(scored(labels.astype(np.float32)))
    shown = []
    for kept in (0, 5, 20, None):
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(DRAWS if kept else 1):
            left = kept_labels(rarest_classes(labels), kept, seed) >= 0 if kept != 0 else np.zeros(len(labels), bool)
            given = np.where(left[:, None], labels, np.int8(-1))
            if kept != 0:
                found.setdefault("labels only", []).append(scored(given.astype(np.float32)))
            for way in WAYS:
                if kept == 0 and way == "texts":
                    continue
                own = None if way == "texts" else answers
                said = predict_labels(texts, given, len(classes), seed, answers=own, evidence=way).probabilities
                soft = MultiLabel().with_labels(said, given, 0.5 if kept is None else 1.0)
                found.setdefault(way, []).append(scored(soft))
        for way, values in found.items():
            means = np.mean(values, axis=0)
            alone = np.mean(found["labels only"], axis=0) if "labels only" in found else None
            closed = (
                "" if alone is None or kept is None else f"{(means[0] - alone[0]) / (everything[0] - alone[0]):.0%}"
            )
            spread = np.std(values, axis=0, ddof=1)[0] if len(values) > 1 else 0.0
            amount = "all" if kept is None else kept
            shown.append(
                (f"{amount} per class, {way}", [*(f"{value:.3f}" for value in means), f"{spread:.3f}", closed])
            )
    print_table(
        f"Clothes, frozen features, {len(train)} training and {len(test)} test photographs, {DRAWS} draws; all labels "
        + " / ".join(f"{value:.3f}" for value in everything),
        ["mAP", "F1 at .5", "F1 at own thresholds", "mAP, std over draws", "of the gap closed"],
        shown,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A map of images among texts before and after alignment, for people to look at.

Texts are placed in the plane by t-SNE (van der Maaten and Hinton 2008), once: they are the same before and after. An
image stands in the middle of the texts that are most similar to it, so what moves between the two sides is what the
images find. "After" is the projection head of the aligned run. A model that saw no texts has no place among them; the
best that a linear map could make of its features stands for it: ridge regression on the training pairs, its strength by
generalised cross-validation, both sides centred on the mean of the training texts, without which all images would
lie near the same few texts.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.base.files import write_json
from gpt4image.config import TrainConfig
from gpt4image.data.image_set import NO_LABEL
from gpt4image.evaluating.measures import held_out_described
from gpt4image.evaluating.retrieval import recalls
from gpt4image.evaluating.run_model import RunModel
from gpt4image.labelling.text_vectors import unit
from gpt4image.training.trainer import augmentation_of, make_backbone
from gpt4image.training.training_data import TrainingData

SHOWN = 240
"""Most images on a map."""
FITTED_ON = 2000
"""Most training images that the linear map is fitted on."""
BETWEEN = 3
"""Most similar texts in whose middle an image stands."""
AMONG = 10
PENALTIES = tuple(10.0**power for power in range(-1, 6))
PERPLEXITY = 20.0

Array = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Before:
    """The model that stands for the time before alignment: its name, and what its features are read with."""

    name: str
    model: RunModel


def write_map(
    path: Path,
    data: TrainingData,
    split: str,
    *,
    after: RunModel,
    name: str,
    before: Before | None,
    comparison: str = "",
) -> dict[str, Any] | None:
    """Write the map of a sample of held-out described images, as `extras.SpaceMap` holds it; return it.

    Nothing is written where the texts have no place among the embeddings of ``after``, or no held-out image has a text.

    Args:
        path: file to write.
        data: image set with its texts.
        split: whose images to show; those of the validation split where none of it is described.
        after: the aligned model.
        name: what it is called.
        before: a model that saw no texts.
        comparison: name of the comparison that both belong to.
    """
    space, text = after.text_space, data.text
    images = _sample(held_out_described(data, split), SHOWN)
    if space is None or after.foreign_texts or text is None or len(images) <= BETWEEN:
        return None
    vectors, _, ids = text.take(images)
    labels = data.image_set.labels[images]
    texts, ids = space.place(vectors.numpy()), ids.numpy()
    plane = _in_the_plane(texts)
    embedded = after.embed(after.read(data.pixels, images).features)
    shown = str(data.image_set.splits[images[0]])
    record: dict[str, Any] = {"split": shown, "among": AMONG, "comparison": comparison}
    record["after"] = {"name": name, **_finds(embedded, texts, ids, labels)}
    places = {"text": plane, "after": _between(embedded, texts, plane)}
    train = data.indices("train")
    train = _sample(train[text.described[train]], FITTED_ON)
    if before is not None and len(train):
        goal = space.place(text.take(train)[0].numpy())
        features = [before.model.read(data.pixels, part).features for part in (train, images)]
        mapped = linear_map(features[0], goal, features[1])
        centred = unit(texts - goal.mean(axis=0))
        record |= {"before": {"name": before.name, **_finds(mapped, centred, ids, labels)}, "fitted_on": len(train)}
        places["before"] = _between(mapped, centred, plane)
    classes = data.classes
    record["points"] = [
        {
            "key": data.image_set.keys[image],
            "label": None if label == NO_LABEL else classes[label],
            **{side: place[row].round(4).tolist() for side, place in places.items()},
        }
        for row, (image, label) in enumerate(zip(images.tolist(), labels.tolist(), strict=True))
    ]
    write_json(path, record)
    return record


def untrained(config: TrainConfig, classes: int) -> RunModel:
    """Return the model that a run from scratch started from."""
    torch.manual_seed(config.seed)
    backbone = make_backbone(config, classes).module.eval()
    return RunModel(config=config, backbone=backbone, head=None, augmentation=augmentation_of(config, backbone))


def linear_map(features: Array, texts: Array, others: Array) -> Array:
    """Return (m, D) directions from the mean text, by ridge regression from features to texts.

    Args:
        features: (n, C) of training images.
        texts: (n, D) of unit length, their texts.
        others: (m, C) features of the images that are mapped.
    """
    from sklearn.linear_model import RidgeCV

    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    ridge = RidgeCV(PENALTIES).fit((features - mean) / deviation, texts)
    return unit(ridge.predict((others - mean) / deviation).astype(np.float32) - texts.mean(axis=0))


def _sample(images: Ints, most: int) -> Ints:
    if len(images) <= most:
        return images
    return np.sort(np.random.default_rng(0).choice(images, most, replace=False))


def _in_the_plane(texts: Array) -> Array:
    """Return (n, 2) places in 0..1 at which texts lie near those that are like them."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(texts) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its PCA divides by a variance that is 0 for equal texts
        places = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(texts)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-6)


def _between(images: Array, texts: Array, plane: Array) -> Array:
    """Return (n, 2) the middle of the places of the texts that are most similar to each image."""
    nearest = np.argpartition(-(images @ texts.T), BETWEEN - 1, axis=1)[:, :BETWEEN]
    return plane[nearest].mean(axis=1)


def _finds(images: Array, texts: Array, ids: Ints, labels: Ints) -> dict[str, float | None]:
    """Return how many images find a text of their class first, and their own among the first AMONG."""
    known = labels != NO_LABEL
    nearest = labels[(images @ texts.T).argmax(axis=1)]
    own_class = float((nearest == labels)[known].mean()) if known.any() else None
    return {"own_class": own_class, "own_text": recalls(images, texts, ids).get(f"image_to_text_recall:{AMONG}")}

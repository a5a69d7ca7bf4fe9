"""Annotations of N images of any kind: labels (N,) or (N, K), where NO_LABEL is not known, or boxes, or masks."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.dataset import NO_LABEL, rarest_classes
from gpt4image.data.regions import Boxes, Masks

Labels = Any  # they are indexed by images like an array


def known(labels: Labels) -> NDArray[np.bool_]:
    """Return (N,) which images have an annotation."""
    if isinstance(labels, Boxes | Masks):
        return labels.known
    return labels != NO_LABEL if labels.ndim == 1 else (labels != NO_LABEL).any(axis=1)


def hidden(labels: Labels, images: NDArray[np.bool_]) -> Labels:
    """Return annotations of which those of some images (N,) are not known."""
    if isinstance(labels, Boxes | Masks):
        return labels.hidden(images)
    kept = labels.copy()
    kept[images] = NO_LABEL
    return kept


def untagged(labels: Labels) -> Labels:
    """Return annotations without the tags of images that have no mask."""
    if not isinstance(labels, Masks):
        return labels
    return replace(labels, presence_of_classes=shown(labels, labels.presence_of_classes.shape[1]))


def shown(labels: Labels, classes: int) -> NDArray[np.int8]:
    """Return (N, K) which classes annotated images show: 1 present, 0 absent, -1 not known."""
    found = labels.presence(classes) if isinstance(labels, Boxes | Masks) else labels
    return np.where(labels.known[:, None], found, np.int8(NO_LABEL)) if isinstance(labels, Masks) else found


def of_images(labels: Labels, classes: int) -> NDArray[Any]:
    """Return the labels of whole images: (N,) classes, or (N, K) which are present. Background is never known."""
    if not isinstance(labels, Masks):
        return labels
    found = labels.presence(classes).copy()
    found[:, [labels.background] if labels.background >= 0 else []] = NO_LABEL
    return found


def counts(labels: Labels, classes: int) -> NDArray[np.int64]:
    """Return (K,) how many images have each class."""
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        return np.bincount(labels[labels != NO_LABEL], minlength=classes)
    return (shown(labels, classes) == 1).sum(axis=0)


def groups(labels: Labels) -> NDArray[np.int64]:
    """Return (N,) a class per image, the rarest, or NO_LABEL: by these splits and few labels are drawn."""
    if isinstance(labels, Boxes):
        return rarest_classes(shown(labels, int(labels.labels.max(initial=0)) + 1))
    if isinstance(labels, Masks):
        return rarest_classes(of_images(untagged(labels), labels.presence_of_classes.shape[1]))
    return labels if labels.ndim == 1 else rarest_classes(labels)

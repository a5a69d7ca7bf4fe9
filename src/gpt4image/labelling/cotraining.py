"""What a trained model and the texts say of images, together: two views that correct each other.

Co-training (Blum and Mitchell 1998): the model has learned from what the texts say of all images, so it knows where a
text is unlike the picture; the text knows what the model cannot see yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt4image.errors import RunError, TableError

if TYPE_CHECKING:
    from gpt4image.config import LabelConfig, TrainOptions
    from gpt4image.data import ImageSet
    from gpt4image.outcome import SetAside

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEARNED_WEIGHT = 0.5
"""Weight of the model's say on an image whose text it was trained on: half of what it says there it has by heart."""
FLOOR = 1e-6


def combine(text: Floats, vision: Floats, learned: Bools) -> NDArray[np.float32]:
    """Return class probabilities of images by both views: the normalised product of what they say.

    Args:
        text: (n, K) probabilities by text; a row of zeros where there is none.
        vision: (n, K) probabilities by the model; a row of zeros where it has no say.
        learned: (n,) images whose text the model was trained on.

    Returns:
        (n, K); one view alone where the other says nothing, zeros where both do.
    """
    weight = np.where(learned, LEARNED_WEIGHT, 1.0)[:, None]
    product = np.maximum(text, FLOOR) * np.maximum(vision, FLOOR) ** weight
    product = product / product.sum(axis=1, keepdims=True)
    has_text, has_vision = np.any(text, axis=1, keepdims=True), np.any(vision, axis=1, keepdims=True)
    return np.where(has_text & has_vision, product, np.where(has_text, text, vision)).astype(np.float32)


def second_opinion(
    text: Floats, vision: Floats, labels: Ints, *, learned: Bools, some_labels_wrong: bool
) -> NDArray[np.float32]:
    """Return class probabilities by text, corrected by a model where it knows more than the given label.

    A model has learned the label of a labelled image by heart, so it is not heard there; unless some labels are wrong:
    then it has learned from text and label together, and what it found common to all images corrects both.

    Args:
        text: (n, K), a row of zeros where there is no description.
        vision: (n, K), a row of zeros where the model has no say.
        labels: (n,) given labels, negative where there is none.
        learned: (n,) images that the model was trained on.
        some_labels_wrong: whether given labels are doubted.
    """
    described = text.any(axis=1)
    heard = (labels < 0) | (described & some_labels_wrong)
    return combine(text, vision * heard[:, None], learned & described)


def ask_run(run_dir: Path, config: LabelConfig, images: ImageSet) -> tuple[NDArray[np.float32], tuple[SetAside, ...]]:
    """Return what a finished run says of images, and those that cannot be decoded.

    Args:
        run_dir: folder of the run.
        config: says which image set it is asked about.
        images: N of its images, one of each digest.

    Returns:
        (N, K) class probabilities, rows of zeros for images that cannot be decoded; and those images.

    Raises:
        RunError: there is no finished run, it is one of other classes, or it has learned labels that are held out here.
    """
    from gpt4image import runs
    from gpt4image.comparing.run_model import options_of
    from gpt4image.evaluate import run_probabilities
    from gpt4image.training.training_data import prepare

    own = {"data": config.data, "val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    own |= {"embeddings": None, "text_labels": None, "only_described": False}
    runs.require_classes(run_dir, images.classes)
    options = options_of(runs.read_run(run_dir))
    _require_held_out(run_dir, options, config, images)
    data = prepare(options.model_copy(update=own)).data
    place = {digest: row for row, digest in enumerate(images.digests)}
    usable = np.flatnonzero(data.usable)
    rows = np.array([place[data.image_set.digests[i]] for i in usable], np.int64)
    said = np.zeros((len(images), len(images.classes)), np.float32)
    said[rows] = run_probabilities(run_dir, data, usable)
    said[rows[data.pixels.broken(usable)]] = 0.0  # met just now, as blank pictures
    return said, data.unusable


def _require_held_out(run_dir: Path, options: TrainOptions, config: LabelConfig, images: ImageSet) -> None:
    """Refuse a run that trained on images which are held out here, as other fractions or --only-described make it.

    What it was trained on is cut again from the set and the table as they are now.
    """
    from gpt4image.training.training_data import load_image_set

    own, given = ((each.val_fraction, each.test_fraction) for each in (options, config))
    if own == given and not options.only_described:
        return
    table = options.embeddings if options.only_described else None
    try:
        there, _ = load_image_set(options.model_copy(update={"data": config.data, "embeddings": table}))
    except TableError as error:
        raise RunError(
            f"{run_dir} was trained with --only-described, so that its table says what it held out ({error}). Give a "
            "run that was trained without it."
        ) from None
    trained = {there.digests[i] for i in there.indices("train")}
    held_out = [i for i in np.flatnonzero(images.labels >= 0) if images.splits[i] != "train"]
    if count := sum(images.digests[i] in trained for i in held_out):
        only, advice = "", "the fractions of the run"
        if options.only_described:
            only, advice = " and --only-described", "a run that was trained without --only-described"
        raise RunError(
            f"{run_dir} was trained with --val-fraction {own[0]:g} and --test-fraction {own[1]:g}{only}, and has "
            f"learned {count} of the {len(held_out)} labels that are held out here with {given[0]:g} and {given[1]:g}: "
            f"give {advice}."
        )

"""What a trained model and the texts say of images, together: two views that correct each other.

Co-training (Blum and Mitchell 1998): the model has learned from what the texts say of all images, so it knows where a
text is unlike the picture; the text knows what the model cannot see yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, RunError, TableError
from gpt4image.data.image_set import NO_LABEL

if TYPE_CHECKING:
    from gpt4image.base.outcome import SetAside
    from gpt4image.config import LabelConfig, TrainOptions
    from gpt4image.config.learning import DataOptions
    from gpt4image.data import ImageSet

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEARNED_WEIGHT = 0.5
"""Weight of the model's say on an image that it was trained on: half of what it says there it has by heart."""
FLOOR = 1e-6


def combine(text: Floats, vision: Floats, learned: Bools) -> NDArray[np.float32]:
    """Return class probabilities of images by both views: the normalised product of what they say.

    Args:
        text: (n, K) probabilities by text; a row of zeros where there is none.
        vision: (n, K) probabilities by the model; a row of zeros where it has no say.
        learned: (n,) images that the model was trained on.

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


class Said(NamedTuple):
    """What a run says of N images.

    Attributes:
        probabilities: (N, K) of the classes, rows of zeros for images that cannot be decoded.
        learned: (N,) whether the run was trained on a target of the image.
        set_aside: the images that cannot be decoded.
    """

    probabilities: NDArray[np.float32]
    learned: Bools
    set_aside: tuple[SetAside, ...]


def ask_run(run_dir: Path, config: LabelConfig, images: ImageSet) -> Said:
    """Return what a finished run says of images.

    Args:
        run_dir: folder of the run.
        config: says which image set it is asked about.
        images: N of its images, one of each digest.

    Raises:
        RunError: there is no finished run, it is one of other classes, or it has learned labels that are held out here.
    """
    from gpt4image.artifacts import runs
    from gpt4image.evaluating.evaluate import run_probabilities
    from gpt4image.evaluating.run_model import options_of
    from gpt4image.training.training_data import prepare

    own = {"data": config.data, "val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    own |= {"embeddings": None, "text_labels": None, "only_described": False}
    runs.require_classes(run_dir, images.classes)
    record = runs.read_run(run_dir)
    options = options_of(record)
    learned = _learned(run_dir, options, config, images, labels_alone=_labels_alone(record["config"]["arm"], options))
    _require_held_out(run_dir, options, config, images, learned)
    data = prepare(options.model_copy(update=own), to_train=False).data
    place = {digest: row for row, digest in enumerate(images.digests)}
    usable = np.flatnonzero(data.usable)
    rows = np.array([place[data.image_set.digests[i]] for i in usable], np.int64)
    said = np.zeros((len(images), len(images.classes)), np.float32)
    said[rows] = run_probabilities(run_dir, data, usable)
    said[rows[data.pixels.broken(usable)]] = 0.0  # met just now, as blank pictures
    return Said(said, learned, data.unusable)


def _labels_alone(arm: str, options: TrainOptions) -> bool:
    """Return whether given labels were all that a run had for class targets, by its arm where a comparison made it."""
    from gpt4image.comparing import arms

    return arms.ALL[arm].labels_alone if arm in arms.ALL else options.text_labels is None


def _learned(
    run_dir: Path, options: TrainOptions, config: LabelConfig, images: ImageSet, *, labels_alone: bool
) -> Bools:
    """Return (N,) whether a run was trained on a target of each image: its label, or one that was made for it.

    Of a comparison, which may have taken labels away, all labels count as learned.

    Where the run read another set, other fractions or --only-described, its train split is cut again from its set and
    table as they are now. Raises RunError: they cannot be read any more.
    """
    from gpt4image.training.training_data import load_image_set

    there = images
    if _cut(options) != _cut(config) or options.only_described:
        table = options.embeddings if options.only_described else None
        try:
            there, _ = load_image_set(options.model_copy(update={"embeddings": table}))
        except (TableError, DataError) as error:
            if not _held_out(images).any():
                return images.splits == "train"  # not known, and nothing to be kept from it
            read = f"{options.data} with --only-described" if options.only_described else options.data
            raise RunError(
                f"{run_dir} was trained on {read}, which cannot be read any more ({error}). So it is not known whether "
                "the run has learned labels that are held out here: give a run that was trained on this set."
            ) from None
    train = there.indices("train")
    if labels_alone:
        train = train[there.labels[train] != NO_LABEL]
    trained = {there.digests[i] for i in train}
    return np.array([digest in trained for digest in images.digests], bool)


def _cut(options: DataOptions) -> tuple[str, float, float]:
    """Return what the splits of a set follow from."""
    return options.data, options.val_fraction, options.test_fraction


def _held_out(images: ImageSet) -> Bools:
    """Return (N,) which images have a label that nothing may learn from."""
    return (images.labels != NO_LABEL) & (images.splits != "train")


def _require_held_out(
    run_dir: Path, options: TrainOptions, config: LabelConfig, images: ImageSet, learned: Bools
) -> None:
    """Refuse a run that has learned labels which are held out here: of another set, or cut in another way."""
    held_out = _held_out(images)
    if not (held_out & learned).any():
        return
    only = " and --only-described" if options.only_described else ""
    advice = "give the fractions of the run"
    if options.data != config.data:
        advice = f"give a run that was trained on {config.data}"
    elif options.only_described:
        advice = "give a run that was trained without --only-described"
    raise RunError(
        f"{run_dir} was trained on {options.data} with --val-fraction {options.val_fraction:g} and --test-fraction "
        f"{options.test_fraction:g}{only}, and has learned {(held_out & learned).sum()} of the {held_out.sum()} labels "
        f"that are held out here with {config.val_fraction:g} and {config.test_fraction:g}: {advice}."
    )

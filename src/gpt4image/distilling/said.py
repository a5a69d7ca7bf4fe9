"""What there is to say of each stage of distill, in one line."""

from __future__ import annotations

from collections.abc import Mapping

from gpt4image.base.outcome import Outcome
from gpt4image.config.results import (
    CompareResult,
    DescribeResult,
    EncodeResult,
    EvaluateResult,
    LabelResult,
    TrainResult,
)
from gpt4image.describing.prices import bill


def score(measured: EvaluateResult | None) -> dict[str, float | None]:
    """Return how good the model is by human labels; ``accuracy`` is None where there are none."""
    if measured is None:
        return {"accuracy": None}
    return {"accuracy" if measured.metric == "top1" else measured.metric: measured.score}


def measured_on(measured: EvaluateResult) -> str:
    """Return which images a model was measured on."""
    return f"{measured.labelled:,} {measured.split} images"


def of_answers(done: DescribeResult) -> str:
    """Return how many answers there are."""
    new, before = done.described, done.already_described
    parts = [f"{new + before:,} answers{f', {new:,} of them new' if before else ''}"]
    parts += [f"{count:,} {name}" for name, count in (("failed", done.failed), ("rejected", done.rejected)) if count]
    parts += [] if done.cost_usd is None else [bill(done.cost_usd, done.cost_usd_earlier or 0.0)]
    return ", ".join([*parts, *([f"stopped by {done.stopped_by}"] if done.stopped_by else [])])


def of_texts(done: EncodeResult) -> str:
    """Return how many texts have an embedding."""
    new = f", {done.texts_encoded:,} of them new" if done.texts_kept else ""
    return f"{done.texts:,} texts by {done.encoder}{new}"


def of_labels(done: LabelResult) -> str:
    """Return what the teacher knows, and how right it is."""
    right = _first(done.quality, "cross_validated_" if done.teacher_boxes is None else "precision_of_teacher")
    said = "" if right is None else f", {right[1]:.1%} right on {_images(done, right[0])}labels held out"
    return f"targets for {done.coverage:.1%} of the training images{said}; suspected label errors: {done.doubtful:,}"


def of_run(done: TrainResult) -> str:
    """Return what was trained on, and the score on the validation split."""
    val = _first(done.val)
    measured = "" if val is None else f", {val[1]:.4f} on {_images(done, f'val_{val[0]}')}validation labels"
    return f"{done.train_images:,} images{measured}"


def _first(facts: Mapping[str, float | None], prefix: str = "") -> tuple[str, float] | None:
    """Return the first fraction that is known of the facts with a prefix, after its name."""
    known = ((name, value) for name, value in facts.items() if name.startswith(prefix) and value is not None)
    return next(known, None)


def _images(done: Outcome, name: str) -> str:
    """Return on how many images a fact was measured, with a space after it; nothing where that is not known."""
    return f"{done.counts[name]:,} " if name in done.counts else ""


def of_score(done: EvaluateResult) -> str:
    """Return how good the model is."""
    [(name, value)] = score(done).items()
    return f"{name} {value:.4f} on {measured_on(done)} with a human label"


def of_comparison(done: CompareResult) -> str:
    """Return where the report of the comparison is."""
    return str(done.report)


def where(done: Outcome) -> str:
    """Return what was written."""
    return str(done.path)

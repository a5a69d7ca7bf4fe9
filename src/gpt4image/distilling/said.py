"""What there is to say of each stage of distill, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt4image.base.outcome import Outcome


def score(measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how good the model is by human labels; ``accuracy`` is None where there are none."""
    if measured is None:
        return {"accuracy": None}
    name = "accuracy" if measured["metric"] == "top1" else measured["metric"]
    return {name: measured[measured["metric"]], "measured_on": f"{measured['labelled']:,} {measured['split']} images"}


def of_answers(done: Outcome) -> str:
    """Return how many answers there are."""
    facts = done.summary
    new, before = facts["described"], facts["already_described"]
    parts = [f"{new + before:,} answers{f', {new:,} of them new' if before else ''}"]
    parts += [f"{facts[name]:,} {name}" for name in ("failed", "rejected") if facts[name]]
    parts += [f"${facts['cost_usd']:.4f}"] if "cost_usd" in facts else []
    return ", ".join([*parts, *([f"stopped by {facts['stopped_by']}"] if "stopped_by" in facts else [])])


def of_texts(done: Outcome) -> str:
    """Return how many texts have an embedding."""
    facts = done.summary
    new = f", {facts['texts_encoded']:,} of them new" if facts["texts_kept"] else ""
    return f"{facts['texts']:,} texts by {facts['encoder']}{new}"


def of_labels(done: Outcome) -> str:
    """Return what the teacher knows, and how right it is."""
    facts = done.summary
    right = _first(facts, "precision_of_teacher" if "teacher_boxes" in facts else "cross_validated_")
    said = f", {right:.1%} right on labels held out" if right is not None else ""
    return f"targets for {facts['coverage']:.1%} of the images{said}; suspected label errors: {facts['doubtful']:,}"


def of_run(done: Outcome) -> str:
    """Return what was trained on, and the score on the validation split."""
    val = _first(done.summary, "val_")
    return f"{done.summary['train_images']:,} images" + ("" if val is None else f", {val:.4f} on validation labels")


def _first(facts: Mapping[str, Any], prefix: str) -> float | None:
    """Return the first fraction that is known of the facts with a prefix."""
    named = (value for name, value in facts.items() if name.startswith(prefix) and name != "val_images")
    return next((value for value in named if value is not None), None)


def of_score(done: Outcome) -> str:
    """Return how good the model is."""
    (name, value), (_, measured_on) = score(done.summary).items()
    return f"{name} {value:.4f} on {measured_on} with a human label"


def of_comparison(done: Outcome) -> str:
    """Return where the report of the comparison is."""
    return str(done.summary["report"])


def where(done: Outcome) -> str:
    """Return what was written."""
    return str(done.path)

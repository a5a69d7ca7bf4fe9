"""Where the missing points go: wrong targets, too few images, or features that are too weak."""

from collections.abc import Mapping
from typing import Any

from gpt4image.config.base import flag_of
from gpt4image.models.students import next_larger, timm_name

GAP = 0.05
"""By which a model falls behind its targets if these are not taken for what limits it: a rule of thumb, untested."""


def limit_of(
    config: Mapping[str, Any], shares: Mapping[str, float], right: float | None, accuracy: float | None
) -> str:
    """Return a sentence on what limits a model, if that is its features; "" otherwise.

    ``config`` and ``shares`` are of the record of a run, the latter as ``training.linear_start.limits`` gives them.
    ``right`` is the share of its targets that is right, and ``accuracy`` that of its predictions, where people measured
    them.
    """
    said, reached = right or shares["targets"], accuracy or shares["linear"]
    if reached > said - GAP:
        return ""
    larger = next_larger(config["model"], config["image_size"])
    options = {"model": larger.model, "image_size": larger.side} if larger else {}
    current = {"model": timm_name(config["model"]), "image_size": config["image_size"]}
    changed = {name: value for name, value in options.items() if value != current[name]}
    named = " ".join(f"{flag_of(name)} {value}" for name, value in changed.items())
    model = "The model" if accuracy else "A linear classifier on its features, cross-validated,"
    more = 100 * max(shares["linear"] - shares["half"], 0.0)
    return (
        f"{model} is right for {reached:.1%}, its targets for {said:.1%}: features seem the limit, right labels "
        f"would bring little more. Take a larger model or side{f': {named}' if named else ''}. Twice as many images "
        f"would bring about {more:.1f} points."
    )

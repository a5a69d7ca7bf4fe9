"""Which options of the alignment loss go together: for the command line, which is to know it without torch, and for
``models.alignment``.
"""

from __future__ import annotations

from typing import Literal, get_args

from gpt4image.base.errors import ConfigError, nearest

LossName = Literal["infonce", "infonce-one-way", "siglip", "cosine"]
WITH_NEGATIVES = ("infonce", "infonce-one-way", "siglip")
"""Losses in which other texts are negatives."""
PAPER_LOSSES = ("infonce", "infonce-one-way", "cosine")
TEMPERATURES = (0.01, 1.0)
"""Bounds of a learned temperature, as in CLIP."""


def check_alignment(
    loss: str, temperature: float, *, learn_temperature: bool, normalise: bool, paper_compat: bool
) -> None:
    """Refuse options that exclude each other, and names that are not known. Raises ConfigError."""
    if loss not in get_args(LossName):
        raise ConfigError(f"loss {nearest(loss, get_args(LossName))}")
    if learn_temperature and loss not in WITH_NEGATIVES:
        raise ConfigError(f"{loss} has no temperature to learn; these have: {', '.join(WITH_NEGATIVES)}.")
    if learn_temperature and not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
        raise ConfigError(
            f"temperature {temperature:g}: a learned one starts and stays between {TEMPERATURES[0]:g} and "
            f"{TEMPERATURES[1]:g}; give one of these, or do not learn it."
        )
    if paper_compat and (loss not in PAPER_LOSSES or learn_temperature or not normalise):
        raise ConfigError(
            f"paper_compat is the official code of the paper: it has the losses {', '.join(PAPER_LOSSES)} with a "
            "fixed temperature and cosines; leave it out to use others."
        )

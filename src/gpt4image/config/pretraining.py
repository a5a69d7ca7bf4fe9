"""Options of the task without labels, and which of the others it has no use for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import field_validator

from gpt4image.base.errors import ConfigError
from gpt4image.config.base import StageConfig, flag_of, known_list

PRETRAIN = "pretrain"
"""The task without labels."""
SIMCLR = "simclr"
"""The objective that compares two views of each image."""
CAPTIONS = "captions"
"""The objective that reads descriptions."""
VIEW_DEFAULTS = {"min_scale": 0.2, "colour": 0.4}
"""Defaults of the task: views of an image that are too alike teach nothing (SimCLR, arXiv 2002.05709, section 3)."""
WITHOUT_USE = ("freeze", "consistency", "mixup", "cutmix", "targets", "paper_compat")
"""Options of training that it refuses."""


class PretrainingOptions(StageConfig):
    """Learning without labels."""

    pretrain: str = SIMCLR
    """Objectives of --task pretrain, separated by commas: simclr (two views of each image), captions (aligned to the
    descriptions of --embeddings)."""

    @field_validator("pretrain")
    @classmethod
    def _known_objectives(cls, value: str) -> str:
        if not (known := known_list(value, (SIMCLR, CAPTIONS))):
            raise ValueError(f"name at least one of {SIMCLR}, {CAPTIONS}")
        return known


def check_pretraining(
    objectives: Sequence[str], table: Literal["absent", "given", "needed"], idle: Sequence[str]
) -> None:
    """Refuse options that do not fit the task without labels. Raises ConfigError.

    Args:
        objectives: of the run.
        table: whether an embedding table is given, and needed to choose images by.
        idle: names of the options of ``WITHOUT_USE`` that are given.
    """
    asked = f"--task {PRETRAIN} --pretrain {','.join(objectives)}"
    reads = CAPTIONS in objectives
    if reads and table == "absent":
        raise ConfigError(f"{asked} learns from descriptions: give their --embeddings.")
    if table == "given" and not reads:
        raise ConfigError(f"{asked} reads no description: add captions, or leave --embeddings out.")
    if idle:
        raise ConfigError(f"{asked} has no use for {', '.join(map(flag_of, idle))}: leave that out.")

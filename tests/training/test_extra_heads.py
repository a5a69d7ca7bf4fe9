"""A model has the heads that its objectives need, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4image.models.aligner import Aligner
from gpt4image.models.feature_heads import Headed
from gpt4image.training.optimizers import Plain
from training_cases import trainer_of

PRETRAIN = {"task": "pretrain"}


@pytest.mark.parametrize(
    ("changes", "kind", "heads"),
    [
        ({}, Aligner, set()),
        ({"align_weight": 0.0}, Plain, None),
        (PRETRAIN | {"pretrain": "simclr", "embeddings": None}, Headed, {"views"}),
        (PRETRAIN | {"pretrain": "vicreg,captions,words"}, Aligner, {"views", "words"}),
        (PRETRAIN | {"pretrain": "captions"}, Aligner, set()),
        (PRETRAIN | {"pretrain": "words"}, Headed, {"words"}),
    ],
)
def test_heads_are_those_of_the_objectives(
    changes: dict[str, Any], kind: type, heads: set[str] | None, worded: dict[str, Any]
) -> None:
    trainer = trainer_of(worded, **changes)
    assert type(trainer.model) is kind
    assert (set(trainer.model.heads) if heads is not None else None) == heads  # pyright: ignore
    assert trainer.has_heads is bool(heads)
    named = {objective.name for objective in trainer.objectives}
    aligned = {"align"} if kind is Aligner else set()
    views = set(changes.get("pretrain", "").split(",")) & {"simclr", "vicreg"}
    assert named == aligned | views | ((heads or set()) & {"words"})

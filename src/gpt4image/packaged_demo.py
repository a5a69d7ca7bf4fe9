"""The whole pipeline on packaged pictures, offline: what do answers and descriptions buy where labels are few?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpt4image.artifacts.run_records import COMPARISON
from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import say
from gpt4image.config import CompareConfig, DemoConfig, DistillConfig
from gpt4image.config.distilling import ANSWERS, EMBEDDINGS

DATA = "openmoji"
LABELS_PER_CLASS = 5
TRAINING: dict[str, Any] = {"image_size": 48, "epochs": 30}
FEW, ALL = "few labels", "all labels"


def demo(config: DemoConfig) -> Outcome:
    """Distill the packaged pictures, answers and descriptions, then compare; finished parts are not made again.

    Raises:
        MissingExtraError: the packaged pictures are not installed.
    """
    from gpt4image.comparing.compare import compare
    from gpt4image.data.openmoji import packaged_descriptions
    from gpt4image.distilling.distill import distill

    texts = {"describer": f"replay:{packaged_descriptions()}", "ask": "description,class"}
    made = distill(DistillConfig.model_validate({"data": DATA, "out": config.out, **texts, **TRAINING}))
    say(f"compare: {config.seeds} seeds per arm, {LABELS_PER_CLASS} labels per category and all labels")
    shared: dict[str, Any] = {
        "data": DATA,
        "embeddings": config.out / EMBEDDINGS,
        "out": config.out,
        "seeds": config.seeds,
        "jobs": config.jobs,
        **TRAINING,
    }
    few = CompareConfig(
        arms="baseline,text-labels,fused,oracle",
        labels_per_class=LABELS_PER_CLASS,
        answers=config.out / ANSWERS,
        **shared,
    )
    everything = CompareConfig(arms="baseline,aligned", **shared)
    found = compare(few, everything, names=(FEW, ALL))
    return replace(found, wrote=(config.out / COMPARISON, *made.wrote))

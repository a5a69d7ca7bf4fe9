"""Every option of the stages is one of distill, and reaches its stage."""

from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.config import (
    CompareConfig,
    DescribeConfig,
    DistillConfig,
    EncodeConfig,
    ExportConfig,
    LabelConfig,
    StageConfig,
    TrainConfig,
)
from gpt4image.config.arms import ARMS

MADE_HERE = {
    "as_json",
    "data",
    "out",
    "store",
    "embeddings",
    "answers",
    "targets",
    "run_dir",
    "resume",
    "dry_run",
    "on_epoch",
}
GIVEN = {"data": "photos", "describer": "replay:answers.jsonl"}
LEFT_OUT = {
    DescribeConfig: {"second_targets", "billed"},  # targets come after the answers; bills are settled with --dry-run
    EncodeConfig: {"prompt"},  # one prompt is asked
    TrainConfig: {"only_described", "pretrain"},
    ExportConfig: {"push_to_hub"},  # nothing leaves the machine but for the describer
}


def distilling(**options: Any) -> DistillConfig:
    return DistillConfig.model_validate(GIVEN | options)


@pytest.mark.parametrize("stage", [DescribeConfig, EncodeConfig, LabelConfig, TrainConfig, ExportConfig])
def test_every_option_of_a_stage_is_there_with_its_help_and_default(stage: type[StageConfig]) -> None:
    here = DistillConfig.model_fields
    names = stage.model_fields.keys() - MADE_HERE - LEFT_OUT.get(stage, set())
    assert names - here.keys() == set()
    told_anew = {"ask", "classes", "format", "describer", "seed", "task", "val_fraction", "test_fraction"}
    of_training = TrainConfig.model_fields.keys() if stage in (DescribeConfig, EncodeConfig) else set()
    differ = [
        name
        for name in names - told_anew - of_training
        if (here[name].description, here[name].default)
        != (stage.model_fields[name].description, stage.model_fields[name].default)
    ]
    assert differ == []


def test_an_option_reaches_its_stage_and_no_other() -> None:
    config = distilling(temperature=0.5, align=True, device="cpu", seed=3)
    assert config.describe("description").temperature is None and config.train().temperature == 0.5
    assert config.encode().device == config.train().device == config.describe("description").device == "cpu"
    assert config.train().seed == config.label(["class"]).seed == 3
    spread = distilling(engine="ray", workers=2)
    assert spread.describe("class").engine == "ray" and spread.encode().engine == "local"
    assert config.train().embeddings == Path("distilled/embeddings") and config.train().resume


def test_stages_read_what_was_asked_for() -> None:
    config = distilling(classes=["cat", "dog: a hound, say"], compare=2)
    assert (
        config.describe("class").classes == "cat\ndog: a hound, say\n"
        and config.describe("description").classes is None
    )
    assert config.label(["class"]).embeddings is None and config.label(["description"]).answers is None
    asked = (("description", "class"), ("class",), ("description",))
    compared = [config.comparison(parts, boxes=False) for parts in asked]
    assert [each.arms for each in compared] == ["baseline,fused", "baseline,asked", "baseline,text-labels"]
    assert all(each.seeds == 2 and isinstance(each, CompareConfig) for each in compared)


@pytest.mark.parametrize(
    ("align", "kinds", "arm"),
    [(True, ["boxes"], "fused-aligned"), (False, ["boxes"], "fused"), (True, ["mask", "probabilities"], "fused")],
)
def test_a_comparison_has_arms_that_suit_the_task(align: bool, kinds: list[Any], arm: str) -> None:
    config = distilling(ask="description,boxes", align=align, compare=1)
    found = config.comparison(("description", "boxes"), boxes=kinds == ["boxes"]).arms.split(",")
    assert found == ["baseline", arm] and all(ARMS[name].suits(kind) for name in found for kind in kinds)


def test_mistakes_of_stages_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="consistency would change every arm"):
        distilling(consistency=1.0, compare=1)
    with pytest.raises(ConfigError, match="answers is not given, and --evidence answers reads it"):
        distilling(evidence="answers", ask="description")
    with pytest.raises(ConfigError, match=r"Unknown option: .*epohcs"):
        distilling(epohcs=3)


def test_what_nobody_gave_stays_open_so_that_training_chooses_it_by_the_task() -> None:
    assert not {"flip", "shift", "min_scale"} & distilling().train().model_fields_set
    assert {"flip", "format"} & distilling(flip=True).train().model_fields_set == {"flip"}
    assert distilling(shift=0.125).train().model_fields_set >= {"shift"}, "given, though it is the default"
    assert distilling().export().format == "timm", "a default that differs from that of the stage"

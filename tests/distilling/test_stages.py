"""What distill says of each stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilling_cases import made
from gpt4image.base.outcome import Outcome
from gpt4image.config.results import DescribeResult, EncodeResult, EvaluateResult, LabelResult, TrainResult
from gpt4image.distilling import distill


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (made(DescribeResult, described=3, already_described=5, failed=2, cost_usd=0.01, stopped_by="limit 10"),
         "8 answers, 3 of them new, 2 failed, $0.0100, stopped by limit 10"),
        (made(DescribeResult, described=3), "3 answers"),
        (made(EncodeResult, texts=36, texts_encoded=6, texts_kept=30, encoder="minilm"),
         "36 texts by minilm, 6 of them new"),
        (made(LabelResult, coverage=0.5, quality={"cross_validated_accuracy": None}),
         "targets for 50.0% of the training images; suspected label errors: 0"),
        (made(LabelResult, coverage=0.5, quality={"cross_validated_accuracy": 0.9}),
         "targets for 50.0% of the training images, 90.0% right on labels held out; suspected label errors: 0"),
        (made(TrainResult, train_images=1000, val={"top1": None}), "1,000 images"),
        (made(TrainResult, train_images=10, val={"top1": 0.5}, counts={"val_top1": 12}),
         "10 images, 0.5000 on 12 validation labels"),
        (made(EvaluateResult, metric="top1", scores={"top1": 0.75}, labelled=12, split="test"),
         "accuracy 0.7500 on 12 test images with a human label"),
        (Outcome(path=Path("out") / "model"), str(Path("out") / "model")),
    ],
)  # fmt: skip
def test_what_came_of_a_stage_is_told_in_one_line_without_what_nobody_could_measure(done: Outcome, line: str) -> None:
    assert distill.said(done) == line


def test_a_model_that_was_not_measured_has_no_accuracy() -> None:
    assert distill.score(None) == {"accuracy": None}
    assert distill.score(made(EvaluateResult, metric="mAP", scores={"mAP": 0.4})) == {"mAP": 0.4}

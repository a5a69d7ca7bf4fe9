"""What distill says of each stage: the numbers of that stage, in one line."""

from __future__ import annotations

from pathlib import Path

from distilling_cases import made
from gpt4image.base.outcome import Outcome
from gpt4image.config.results import DescribeResult, EncodeResult, EvaluateResult, LabelResult, TrainResult
from gpt4image.distilling import said


def test_a_model_that_was_not_measured_has_no_accuracy() -> None:
    assert said.score(None) == {"accuracy": None}
    measured = made(EvaluateResult, metric="mAP", scores={"mAP": 0.4}, labelled=1200, split="val")
    assert (said.score(measured), said.measured_on(measured)) == ({"mAP": 0.4}, "1,200 val images")
    top1 = made(EvaluateResult, metric="top1", scores={"top1": 0.75}, labelled=12, split="test")
    assert said.of_score(top1) == "accuracy 0.7500 on 12 test images with a human label"


def test_answers_of_earlier_runs_failures_and_costs_are_told_apart() -> None:
    facts = {"described": 3, "already_described": 5, "failed": 2, "cost_usd": 0.01, "stopped_by": "limit 10"}
    told = said.of_answers(made(DescribeResult, **facts))
    assert told == "8 answers, 3 of them new, 2 failed, $0.0100, stopped by limit 10"
    assert said.of_answers(made(DescribeResult, described=3)) == "3 answers"


def test_scores_that_nobody_could_measure_are_left_out() -> None:
    labels = made(LabelResult, coverage=0.5, quality={"cross_validated_accuracy": None})
    assert said.of_labels(labels) == "targets for 50.0% of the training images; suspected label errors: 0"
    labels = made(LabelResult, coverage=0.5, quality={"cross_validated_accuracy": 0.9})
    assert "90.0% right on labels held out" in said.of_labels(labels)
    assert said.of_run(made(TrainResult, train_images=1000, val={"top1": None})) == "1,000 images"
    trained = made(TrainResult, train_images=10, val={"top1": 0.5})
    assert said.of_run(trained) == "10 images, 0.5000 on validation labels"
    texts = made(EncodeResult, texts=36, texts_encoded=6, texts_kept=30, encoder="minilm")
    assert said.of_texts(texts) == "36 texts by minilm, 6 of them new"
    assert said.where(Outcome(path=Path("out") / "model")) == str(Path("out") / "model")

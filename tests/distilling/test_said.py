"""What distill says of each stage: the numbers of that stage, in one line."""

from __future__ import annotations

from pathlib import Path

from gpt4image.base.outcome import Outcome
from gpt4image.distilling import said


def test_a_model_that_was_not_measured_has_no_accuracy() -> None:
    assert said.score(None) == {"accuracy": None}
    measured = {"metric": "mAP", "mAP": 0.4, "labelled": 1200, "split": "val"}
    assert said.score(measured) == {"mAP": 0.4, "measured_on": "1,200 val images"}
    top1 = {"metric": "top1", "top1": 0.75, "labelled": 12, "split": "test"}
    assert said.of_score(Outcome(summary=top1)) == "accuracy 0.7500 on 12 test images with a human label"


def test_answers_of_earlier_runs_failures_and_costs_are_told_apart() -> None:
    facts = {
        "described": 3,
        "already_described": 5,
        "failed": 2,
        "rejected": 0,
        "cost_usd": 0.01,
        "stopped_by": "limit 10",
    }
    told = said.of_answers(Outcome(summary=facts))
    assert told == "8 answers, 3 of them new, 2 failed, $0.0100, stopped by limit 10"
    fresh = {"described": 3, "already_described": 0, "failed": 0, "rejected": 0}
    assert said.of_answers(Outcome(summary=fresh)) == "3 answers"


def test_scores_that_nobody_could_measure_are_left_out() -> None:
    facts = {"coverage": 0.5, "doubtful": 0, "cross_validated_accuracy": None}
    assert said.of_labels(Outcome(summary=facts)) == "targets for 50.0% of the images; suspected label errors: 0"
    facts["cross_validated_accuracy"] = 0.9
    assert "90.0% right on labels held out" in said.of_labels(Outcome(summary=facts))
    assert said.of_run(Outcome(summary={"train_images": 1000, "val_images": 8, "val_top1": None})) == "1,000 images"
    trained = Outcome(summary={"train_images": 10, "val_images": 8, "val_top1": 0.5})
    assert said.of_run(trained) == "10 images, 0.5000 on validation labels"
    texts = {"texts": 36, "texts_encoded": 6, "texts_kept": 30, "encoder": "minilm"}
    assert said.of_texts(Outcome(summary=texts)) == "36 texts by minilm, 6 of them new"
    assert said.where(Outcome(path=Path("out") / "model")) == str(Path("out") / "model")

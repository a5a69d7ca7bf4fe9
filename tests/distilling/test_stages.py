"""Stages in turn: finished ones stay, changed ones are made again, and what distill did not make is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilling_cases import made
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.base.errors import RunError
from gpt4image.base.outcome import Outcome
from gpt4image.config import results
from gpt4image.config.results import DescribeResult, EncodeResult, EvaluateResult, LabelResult, TrainResult
from gpt4image.distilling import stages
from gpt4image.distilling.stages import Stages


def make(out: Path, name: str, key: str) -> int:
    """Carry out one stage that writes a folder of its name; return how often it was made."""
    times = 0

    def write() -> Outcome:
        nonlocal times
        times += 1
        (out / name).mkdir(exist_ok=True)
        (out / name / "content").write_text(key, encoding="utf-8")
        return made(getattr(results, f"{name.capitalize()}Result"), path=out / name)

    run = Stages(out, StageRecords(out))
    run.do(name, write, lambda _: "said", key=key, goes_on=key, made=[out / name], needs=[out / name])
    assert run.outcomes[name].path == out / name
    return times


def test_a_stage_is_made_once_for_the_same_key_and_again_where_its_file_is_gone(tmp_path: Path) -> None:
    assert [make(tmp_path, "label", "a"), make(tmp_path, "label", "a")] == [1, 0]
    (tmp_path / "label" / "content").unlink()
    (tmp_path / "label").rmdir()
    assert make(tmp_path, "label", "a") == 1


def test_a_trained_model_makes_room_and_is_kept_while_what_is_derived_is_removed(tmp_path: Path) -> None:
    for name in ("train", "label"):
        make(tmp_path, name, "a")
        assert make(tmp_path, name, "b") == 1
        assert (tmp_path / name / "content").read_text("utf-8") == "b"
    assert (tmp_path / "earlier-1" / "train" / "content").read_text("utf-8") == "a"
    assert not (tmp_path / "earlier-1" / "label").exists()


def test_what_lies_there_already_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(RunError, match="distill did not make it"):
        make(tmp_path, "train", "a")
    assert not list((tmp_path / "train").iterdir())


def test_a_stage_with_nothing_to_do_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Stages(tmp_path, StageRecords(tmp_path)).leave_out("evaluate", "no human label")
    assert "5/7 evaluate  left out: no human label" in "".join(capsys.readouterr())


def test_a_model_that_was_not_measured_has_no_accuracy() -> None:
    assert stages.score(None) == {"accuracy": None}
    measured = made(EvaluateResult, metric="mAP", scores={"mAP": 0.4}, labelled=1200, split="val")
    assert (stages.score(measured), stages.measured_on(measured)) == ({"mAP": 0.4}, "1,200 val images")
    top1 = made(EvaluateResult, metric="top1", scores={"top1": 0.75}, labelled=12, split="test")
    assert stages.of_score(top1) == "accuracy 0.7500 on 12 test images with a human label"


def test_answers_of_earlier_runs_failures_and_costs_are_told_apart() -> None:
    facts = {"described": 3, "already_described": 5, "failed": 2, "cost_usd": 0.01, "stopped_by": "limit 10"}
    told = stages.of_answers(made(DescribeResult, **facts))
    assert told == "8 answers, 3 of them new, 2 failed, $0.0100, stopped by limit 10"
    assert stages.of_answers(made(DescribeResult, described=3)) == "3 answers"


def test_scores_that_nobody_could_measure_are_left_out() -> None:
    labels = made(LabelResult, coverage=0.5, quality={"cross_validated_accuracy": None})
    assert stages.of_labels(labels) == "targets for 50.0% of the training images; suspected label errors: 0"
    labels = made(LabelResult, coverage=0.5, quality={"cross_validated_accuracy": 0.9})
    assert "90.0% right on labels held out" in stages.of_labels(labels)
    assert stages.of_run(made(TrainResult, train_images=1000, val={"top1": None})) == "1,000 images"
    trained = made(TrainResult, train_images=10, val={"top1": 0.5})
    assert stages.of_run(trained) == "10 images, 0.5000 on validation labels"
    texts = made(EncodeResult, texts=36, texts_encoded=6, texts_kept=30, encoder="minilm")
    assert stages.of_texts(texts) == "36 texts by minilm, 6 of them new"
    assert stages.where(Outcome(path=Path("out") / "model")) == str(Path("out") / "model")

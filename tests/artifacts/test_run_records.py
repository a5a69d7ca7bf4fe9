"""Typed records: what is malformed is named, what is missing costs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.run_records import Comparison, load_arm_runs, load_comparisons, load_run
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from synthetic_records import comparison_record, write_comparison, write_run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": {}}, "arms"),
        ({"arms": {"baseline": {"seeds": [0, 1], "test": [0.5], "mean": 0.5}}}, "2 seeds but 1 test"),
        ({"arms": {"baseline": {"seeds": [0], "test": [float("nan")], "mean": 0.5}}}, "finite"),
        ({"pairs": [{"arm": "alined", "against": "baseline", "difference": 0.1, "n": 1}]}, "Did you mean 'aligned'"),
        ({"pairs": 3}, "pairs"),
        ({"comparisons": [1]}, "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_malformed_comparison_is_refused_by_name(tmp_path: Path, change: dict[str, Any] | str, words: str) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(change if isinstance(change, str) else json.dumps({**comparison_record(), **change}))
    with pytest.raises(RunError, match=words) as error:
        load_comparisons(tmp_path)
    assert str(path) in str(error.value)


def test_a_run_is_read_whole_by_the_test_split_or_else_by_validation(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "aligned", top1=0.44)
    run = load_run(folder)
    assert run.evaluation is not None and (run.evaluation.metric, run.evaluation.score) == ("top1", 0.44)
    assert set(run.evaluation.scores) == {"top1", "top5", "ece", "mean_class_accuracy"}, "the loss is no metric"
    assert len(run.metrics) == 24 and run.metrics[0].losses.keys() == {"task", "align"}
    evaluation = read_json(folder / "evaluation-test.json")
    (folder / "evaluation-test.json").unlink()
    assert load_run(folder).evaluation is None
    write_json(folder / "evaluation-val.json", evaluation | {"split": "val", "metric": "ece", "titles": {"ece": "x"}})
    found = load_run(folder).evaluation
    assert found is not None and (found.split, found.metric, found.scores) == ("val", "ece", {"ece": 0.041})


@pytest.mark.parametrize(
    ("change", "words"), [({"support": [1]}, "other sizes"), ({"confused": [[0, 99, 1]]}, "none of the 10")]
)
def test_a_malformed_evaluation_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = write_run(tmp_path / "run")
    write_json(folder / "evaluation-test.json", read_json(folder / "evaluation-test.json") | change)
    with pytest.raises(RunError, match=words):
        load_run(folder)


def test_runs_that_are_missing_unfinished_or_outside_are_skipped(tmp_path: Path) -> None:
    write_run(tmp_path / "outside")
    record = comparison_record(means={"baseline": 0.4, "aligned": 0.5})
    folder = write_comparison(tmp_path / "cmp", record)
    record["arms"]["baseline"]["runs"][:2] = ["../outside", "runs/missing"]
    (folder / "runs/aligned-seed2/run.json").unlink()
    runs, skipped = load_arm_runs(folder, Comparison.model_validate(record))
    assert [len(runs["baseline"]), len(runs["aligned"])] == [1, 2]
    reasons = {item.name: item.reason for item in skipped}
    assert list(reasons) == ["../outside", "runs/missing", "runs/aligned-seed2"]
    for reason, words in zip(
        reasons.values(), ("outside the comparison", "does not exist", "no finished run"), strict=True
    ):
        assert words in reason
